"""Every layout that Stable Diffusion v1 circulates in, loaded to the same tensors bit for bit."""

import json
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minisd import checkpoint, layouts
from minisd.config import V1, Config, TextConfig
from minisd.models import load
from minisd.pipeline import StableDiffusion

NAMES = json.loads((Path(__file__).parent / "data" / "compvis_names.json").read_text())
SMALL = replace(
    V1, text=TextConfig(vocab_size=99, width=64, layers=12, heads=1),
    vae=replace(V1.vae, channels=(32, 64, 96, 96)),
    unet=replace(V1.unet, channels=(32, 64, 96, 96), context_dim=64))


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    """v1's topology, its channels cut down."""
    torch.manual_seed(0)
    return StableDiffusion(SMALL)


def compvis(sd: StableDiffusion) -> dict[str, Tensor]:
    """The model under CompVis's names and shapes, with all that a real file holds beside."""
    ours = sd.state_dict()
    tensors = {name: ours[layouts.rename(name, "compvis")].clone() for name in NAMES}
    for name, shape in NAMES.items():
        if len(shape) == 4 and tensors[name].ndim == 2:
            tensors[name] = tensors[name][:, :, None, None].contiguous()
    extras = {"cond_stage_model.transformer.text_model.embeddings.position_ids":
              torch.full((1, 77), float("nan")), "betas": torch.zeros(1000),
              "model_ema.decay": torch.tensor(0.99)}
    return tensors | extras


def diffusers_folder(sd: StableDiffusion, folder: Path, *, old: bool) -> Path:
    """The model as diffusers and transformers save it; old: their first names of the VAE."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    v, u, t = sd.config.vae, sd.config.unet, sd.config.text
    parts = {
        "unet": UNet2DConditionModel(block_out_channels=u.channels, attention_head_dim=8,
                                     cross_attention_dim=u.context_dim),
        "vae": AutoencoderKL(block_out_channels=v.channels, layers_per_block=2, latent_channels=4,
                             down_block_types=("DownEncoderBlock2D",) * 4,
                             up_block_types=("UpDecoderBlock2D",) * 4),
        "text_encoder": CLIPTextModel(CLIPTextConfig(
            vocab_size=t.vocab_size, hidden_size=t.width, intermediate_size=4 * t.width,
            num_hidden_layers=t.layers, num_attention_heads=t.heads))}
    ours = sd.state_dict()
    newer = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part, model in parts.items():
        tensors = {}
        for name in model.state_dict():
            if name.endswith("position_ids"):
                continue
            if part == "text_encoder" and not name.startswith("text_model."):
                name = f"text_model.{name}"
            tensor = ours[layouts.rename(f"{part}.{name}", "diffusers")].clone()
            if part == "vae" and old and "attentions" in name:
                for new, first in newer.items():
                    name = name.replace(f".{new}.", f".{first}.")
            tensors[name] = tensor
        (folder / part).mkdir(parents=True)
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save_file(tensors, folder / part / f"{stem}.safetensors")
    return folder


def assert_same(loaded: StableDiffusion, sd: StableDiffusion) -> None:
    for name, expected in sd.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], expected), name


def small_again() -> StableDiffusion:
    torch.manual_seed(1)
    return StableDiffusion(SMALL)


# The tables

def test_compvis_names_map_one_to_one() -> None:
    with torch.device("meta"):
        ours = {k: tuple(v.shape) for k, v in StableDiffusion(V1).state_dict().items()}
    mapped = {layouts.rename(name, "compvis"): tuple(shape) for name, shape in NAMES.items()}
    assert len(NAMES) == len(mapped) == 1130 and mapped.keys() == ours.keys()
    assert all(shape in (ours[name], (*ours[name], 1, 1)) for name, shape in mapped.items())


def test_renaming_our_own_names_changes_nothing(sd) -> None:
    """Our names mean one thing; a rule that matched one of them would hide a wrong file."""
    assert all(layouts.rename(name, "compvis") == name for name in sd.state_dict())


def test_the_tables_are_short() -> None:
    assert len(layouts.COMPVIS_RULES) <= 45 and len(layouts.DIFFUSERS_RULES) <= 32


# The same tensors from every layout

def test_compvis_safetensors(sd, tmp_path) -> None:
    save_file(compvis(sd), tmp_path / "model.safetensors")
    source = checkpoint.open_model(tmp_path / "model.safetensors")
    assert (source.layout, source.parts, source.ema) == ("compvis", checkpoint.PARTS, False)
    assert "CompVis checkpoint" in str(source)
    assert checkpoint.read_config(source.path) == SMALL
    loaded = load(tmp_path / "model.safetensors", dtype="float32")
    assert_same(loaded, sd)
    with pytest.raises(ValueError, match="no tokenizer: put vocab.json"):
        loaded.tokenizer = None
        loaded.encode_prompt("a car")


@pytest.mark.parametrize("wrapped", [0, 1, 2])
def test_compvis_ckpt(sd, tmp_path, wrapped) -> None:
    state = compvis(sd)
    for _ in range(wrapped):
        state = {"state_dict": state, "epoch": 3}
    torch.save(state, tmp_path / "model.ckpt")
    assert_same(load(tmp_path / "model.ckpt", dtype="float32"), sd)


def test_an_old_lightning_pickle(sd, tmp_path, monkeypatch) -> None:
    """Published .ckpt files carry a Lightning callback; neither is needed to open them."""
    modules = ["pytorch_lightning", "pytorch_lightning.callbacks",
               "pytorch_lightning.callbacks.model_checkpoint"]
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    callback = type("ModelCheckpoint", (), {"__module__": modules[-1]})
    sys.modules[modules[-1]].ModelCheckpoint = callback
    torch.save({"state_dict": compvis(sd), "callbacks": {callback: {"best": 1.0}},
                "hook": callback()}, tmp_path / "old.ckpt")
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    assert_same(load(tmp_path / "old.ckpt", dtype="float32"), sd)


def test_averaged_weights_are_preferred(sd, tmp_path) -> None:
    tensors, prefix = compvis(sd), "model.diffusion_model."
    for name in [n for n in tensors if n.startswith(prefix)]:
        averaged = "model_ema.diffusion_model" + name.removeprefix(prefix).replace(".", "")
        tensors[averaged] = tensors[name]
        tensors[name] = torch.zeros_like(tensors[name])
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "full.safetensors")
    source = checkpoint.open_model(tmp_path / "full.safetensors")
    assert source.ema and "the averaged one" in str(source)
    assert_same(load(source.path, dtype="float32"), sd)


@pytest.mark.parametrize("old", [False, True], ids=["new VAE names", "old VAE names"])
def test_diffusers_folder(sd, tmp_path, old) -> None:
    folder = diffusers_folder(sd, tmp_path / "model", old=old)
    assert checkpoint.read_config(folder) == SMALL
    assert_same(load(folder, dtype="float32"), sd)


def test_text_names_without_their_prefix(sd, tmp_path) -> None:
    tensors = {name.replace(".transformer.text_model.", ".transformer."): value
               for name, value in compvis(sd).items()}
    save_file(tensors, tmp_path / "community.safetensors")
    assert_same(load(tmp_path / "community.safetensors", dtype="float32"), sd)


def test_one_network_of_a_whole_file(sd, tmp_path) -> None:
    save_file(compvis(sd), tmp_path / "model.safetensors")
    other = small_again()
    checkpoint.load_into(other.vae, tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(other.vae.parameters(), sd.vae.parameters(),
                                                 strict=True))
    assert not torch.equal(other.unet.conv_in.weight, sd.unet.conv_in.weight)


# What is refused, by name, before anything is loaded

STRANGERS = {
    "SDXL": {"conditioner.embedders.0.x": (2,)},
    "v2": {"cond_stage_model.model.x": (2,)},
    "a LoRA": {"lora_unet_down.lora_up.weight": (2,)},
    "a ControlNet": {"control_model.x": (2,)},
    "no tensors": {},
    "not the weights of a Stable Diffusion v1": {"layer.weight": (2,)},
}


@pytest.mark.parametrize("what", STRANGERS)
def test_other_models_are_named(what) -> None:
    with pytest.raises(ValueError, match=what):
        layouts.recognise(STRANGERS[what])


def test_an_inpainting_model_is_named(sd, tmp_path) -> None:
    tensors = compvis(sd)
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, 9, 3, 3)
    save_file(tensors, tmp_path / "inpainting.safetensors")
    with pytest.raises(ValueError, match="inpainting model"):
        load(tmp_path / "inpainting.safetensors")


class Evil:
    """A pickle that would create a file when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (open, (str(self.target), "w"))


def test_a_pickle_that_asks_for_more_is_refused_unexecuted(sd, tmp_path) -> None:
    torch.save({"state_dict": compvis(sd), "x": Evil(tmp_path / "owned")}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"refused: it asks to run \w*io.open"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("raw", [b"PK\x03\x04 and no more", pickle.dumps({"a": 1})],
                         ids=["cut zip", "plain pickle"])
def test_a_broken_checkpoint_is_one_clear_error(tmp_path, raw) -> None:
    (tmp_path / "broken.ckpt").write_bytes(raw)
    with pytest.raises(ValueError, match=r"broken\.ckpt (is damaged|holds no tensors)"):
        load(tmp_path / "broken.ckpt")


@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_strict_in_every_layout(sd, tmp_path, change) -> None:
    tensors, name = compvis(sd), "first_stage_model.decoder.conv_out.bias"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors["first_stage_model.decoder.surplus"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    other = small_again()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"nothing was loaded: 1 {change}: vae.decoder"):
        checkpoint.load_into(other, tmp_path / "model.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_sizes_are_read_off_the_tensors() -> None:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in StableDiffusion(V1).state_dict().items()}
    read = Config("v1", layouts.read_text_config(shapes), layouts.read_vae_config(shapes),
                  layouts.read_unet_config(shapes), image_size=512)
    assert read == V1
