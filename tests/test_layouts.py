"""Every layout that Stable Diffusion v1 circulates in, loaded to the same tensors bit for bit."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch
import v1_files
from safetensors.torch import load_file, save_file
from torch import Tensor
from v1_files import NAMES, POSITION_IDS, SMALL, TEXT, UNET, VAE, assert_same

from minisd.checkpoints import layouts
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.load import load
from minisd.config import V1, Config
from minisd.pipeline import StableDiffusion


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    """In float16's numbers, so that half-precision files hold the same."""
    return v1_files.small().half().float()


@pytest.fixture(scope="module")
def tensors(sd) -> dict[str, Tensor]:
    """The same under CompVis's names. Not to be changed."""
    return v1_files.compvis(sd)


# The tables

@pytest.fixture(scope="module")
def v1() -> StableDiffusion:
    with torch.device("meta"):
        return StableDiffusion(V1)


def test_compvis_names_map_one_to_one(v1) -> None:
    ours = {k: tuple(v.shape) for k, v in v1.state_dict().items()}
    mapped = {layouts.rename(name, "compvis"): tuple(shape) for name, shape in NAMES.items()}
    assert len(NAMES) == len(mapped) == 1130 and mapped.keys() == ours.keys()
    assert all(shape in (ours[name], (*ours[name], 1, 1)) for name, shape in mapped.items())


@pytest.mark.parametrize("old", [False, True], ids=["new VAE names", "old VAE names"])
def test_diffusers_names_map_one_to_one(v1, old) -> None:
    theirs = [f"{part}.{name}" for part, tensors in
              v1_files.diffusers_tensors(v1, old=old).items() for name in tensors
              if not name.endswith("position_ids")]
    assert len(theirs) == len(set(theirs)) == 1130
    assert {layouts.rename(name, "diffusers") for name in theirs} == v1.state_dict().keys()


def test_renaming_our_own_names_changes_nothing(v1) -> None:
    """Our names mean one thing; a rule that matched one of them would hide a wrong file."""
    assert all(layouts.rename(name, "compvis") == name for name in v1.state_dict())


def test_the_tables_are_short() -> None:
    assert len(layouts.COMPVIS_RULES) <= 45 and len(layouts.DIFFUSERS_RULES) <= 32


# The same tensors from every layout

def without_text_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(TEXT, TEXT.removesuffix("text_model.")): value
            for name, value in tensors.items()}


def old_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's attention as matrices, not as 1x1 convolutions."""
    return {name: value[:, :, 0, 0].contiguous() if name.startswith(VAE) and "attn" in name
            and value.ndim == 4 else value for name, value in tensors.items()}


def halves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value
            for name, value in tensors.items()}


def mixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A float32 VAE in a float16 file, as merging tools leave it, a float64 bias among it."""
    return halves(tensors) | {
        name: value.double() if name.endswith("conv_out.bias") else value
        for name, value in tensors.items() if name.startswith(VAE)}


def corrupt_ids(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {POSITION_IDS: torch.full((1, 77), float("nan"))}


def learned_beside(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What trainings leave in their checkpoints."""
    return tensors | {name: torch.ones(3) for name in (
        "embedding_manager.embedder.x", "first_stage_model.loss.logvar", "logvar", "scale_factor",
        "first_stage_model.model_ema.decay", "denoiser.sigmas")}


VARIANTS = {
    "ema-only": dict, "full ema": v1_files.full_ema, "fp16": halves, "mixed": mixed,
    "no text_model": without_text_model, "flat VAE attention": old_vae_names,
    "corrupt position_ids": corrupt_ids, "learned beside": learned_beside,
    "no extras": lambda tensors: {name: tensors[name] for name in NAMES}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_compvis_safetensors(sd, tensors, tmp_path, variant) -> None:
    path = tmp_path / "model.safetensors"
    save_file(VARIANTS[variant](tensors), path)
    source = checkpoint.open_model(path)
    assert (source.layout, source.parts) == ("compvis", checkpoint.PARTS)
    assert "CompVis checkpoint" in str(source)
    assert source.ema == ("the averaged one" in str(source)) == (variant == "full ema")
    assert checkpoint.config_of(source) == checkpoint.read_config(path) == SMALL
    assert_same(load(path, dtype="float32"), sd)


@pytest.mark.parametrize("wrapped", [0, 1, 2])
def test_compvis_ckpt(sd, tensors, tmp_path, wrapped) -> None:
    state = tensors
    for _ in range(wrapped):
        state = {"state_dict": state, "epoch": 3}
    torch.save(state, tmp_path / "model.ckpt")
    assert_same(load(tmp_path / "model.ckpt", dtype="float32"), sd)


def test_a_safetensors_file_under_another_name(sd, tensors, tmp_path) -> None:
    save_file(tensors, tmp_path / "model.ckpt")
    assert_same(load(tmp_path / "model.ckpt", dtype="float32"), sd)


def test_an_old_lightning_pickle(sd, tensors, tmp_path, monkeypatch) -> None:
    """Published .ckpt files carry a Lightning callback; neither is needed to open them."""
    modules = ["pytorch_lightning", "pytorch_lightning.callbacks",
               "pytorch_lightning.callbacks.model_checkpoint"]
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    callback = type("ModelCheckpoint", (), {"__module__": modules[-1]})
    sys.modules[modules[-1]].ModelCheckpoint = callback
    torch.save({"state_dict": tensors, "callbacks": {callback: {"best": 1.0}},
                "hook": callback()}, tmp_path / "old.ckpt")
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    assert_same(load(tmp_path / "old.ckpt", dtype="float32"), sd)


@pytest.mark.parametrize("old", [False, True], ids=["new VAE names", "old VAE names"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_diffusers_folder(sd, tmp_path, old, half) -> None:
    folder = v1_files.diffusers_folder(sd, tmp_path / "model", old=old, half=half)
    source = checkpoint.open_model(folder)
    assert (source.layout, source.parts) == ("diffusers", checkpoint.PARTS)
    assert checkpoint.config_of(source) == SMALL
    assert_same(load(folder, dtype="float32"), sd)


def test_float32_is_taken_before_float16(sd, tmp_path) -> None:
    folder = v1_files.diffusers_folder(sd, tmp_path / "model")
    for path in list(folder.glob("*/*.safetensors")):
        save_file({"wrong": torch.zeros(1)}, path.with_suffix(".fp16.safetensors"))
    assert_same(load(folder, dtype="float32"), sd)


def test_diffusers_pickles(sd, tmp_path) -> None:
    """The names that came before safetensors."""
    folder = v1_files.diffusers_folder(sd, tmp_path / "model")
    for path in list(folder.glob("*/*.safetensors")):
        old = {"model": "pytorch_model"}.get(path.stem, path.stem)
        torch.save(load_file(path), path.with_name(f"{old}.bin"))
        path.unlink()
    assert_same(load(folder, dtype="float32"), sd)


def test_our_own_folder(sd, tmp_path) -> None:
    checkpoint.write_config(tmp_path, SMALL)
    for part in checkpoint.PARTS:
        checkpoint.save(sd.get_submodule(part), tmp_path / f"{part}.safetensors")
    assert checkpoint.open_model(tmp_path).layout == "minisd"
    assert_same(load(tmp_path, dtype="float32"), sd)


def test_one_network_of_any_file(sd, tensors, tmp_path) -> None:
    whole, vae = tmp_path / "model.safetensors", tmp_path / "vae.ckpt"
    save_file(tensors, whole)
    # As the improved decoders of 2022 were published: alone, its training's leftovers beside it.
    alone = {name.removeprefix(VAE): value for name, value in tensors.items()
             if name.startswith(VAE)} | {"loss.logvar": torch.zeros(()),
                                         "model_ema.decay": torch.zeros(())}
    torch.save({"state_dict": alone}, vae)
    folder = v1_files.diffusers_folder(sd, tmp_path / "folder", old=True)
    for path in (whole, vae, folder, folder / "vae" / "diffusion_pytorch_model.safetensors"):
        other = v1_files.small(1)
        checkpoint.load_into(other.vae, path)
        assert all(map(torch.equal, other.vae.parameters(), sd.vae.parameters())), path
        assert not torch.equal(other.unet.conv_in.weight, sd.unet.conv_in.weight)


# Sizes

def test_sizes_are_read_off_the_tensors(v1) -> None:
    shapes = {k: tuple(v.shape) for k, v in v1.state_dict().items()}
    layouts.refuse_other_unets(shapes)
    read = Config("v1", layouts.read_text_config(shapes), layouts.read_vae_config(shapes),
                  layouts.read_unet_config(shapes), image_size=512)
    assert read == V1


def test_a_missing_layer_is_no_smaller_model(tensors, tmp_path) -> None:
    """How deep the networks are is v1's: a file cut in its names must not pass as another size."""
    for layer, named in ((f"{TEXT}encoder.layers.11.", "16 missing: text_encoder.layers.11."),
                         (f"{UNET}input_blocks.11.", "10 missing: unet.down.3.layers.1."),
                         (f"{VAE}encoder.down.3.", "vae.encoder.levels.3.resnets.0.conv1"),
                         (f"{UNET}output_blocks.11.1.", "26 missing: unet.up.3.layers.2.att")):
        kept = {name: value for name, value in tensors.items() if not name.startswith(layer)}
        assert len(kept) < len(tensors)
        save_file(kept, tmp_path / "cut.safetensors")
        with pytest.raises(ValueError, match=re.escape(named)):
            load(tmp_path / "cut.safetensors")


def saved_pipeline(folder: Path, **scheduler: object) -> None:
    """A model of neither v1's depth nor its heads, as diffusers and transformers save it."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    UNet2DConditionModel(
        sample_size=12, block_out_channels=(20, 30), layers_per_block=1, norm_num_groups=5,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=24,
        attention_head_dim=5).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4,
                  down_block_types=("DownEncoderBlock2D",) * 2, scaling_factor=0.3,
                  up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(
        vocab_size=59, hidden_size=24, intermediate_size=96, num_hidden_layers=3, eos_token_id=58,
        num_attention_heads=3, bos_token_id=57, max_position_embeddings=33)).save_pretrained(
        folder / "text_encoder")
    DDIMScheduler(**{"beta_start": 0.001, "beta_end": 0.01, "beta_schedule": "scaled_linear",
                     "num_train_timesteps": 900} | scheduler).save_pretrained(folder / "scheduler")


@pytest.mark.filterwarnings("ignore:.*is left aside")
def test_sizes_that_diffusers_wrote_down(tmp_path) -> None:
    """What no shape shows: heads, groups, the scale of the latents, the schedule."""
    saved_pipeline(tmp_path)
    config = checkpoint.read_config(tmp_path)
    assert (config.text.heads, config.text.layers, config.text.max_length) == (3, 3, 33)
    assert (config.unet.heads, config.unet.groups, config.unet.attention) == (5, 5, (False, True))
    assert (config.vae.scale_factor, config.vae.groups, config.vae.downscale) == (0.3, 4, 2)
    assert (config.schedule.beta_end, config.schedule.timesteps) == (0.01, 900)
    assert config.image_size == 24
    loaded = load(tmp_path, dtype="float32")
    theirs = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(loaded.unet.conv_in.weight, theirs["conv_in.weight"])


@pytest.mark.parametrize(("file", "key", "value", "message"), [
    ("unet/config.json", "use_linear_projection", True, "its use_linear_projection is True, exp"),
    ("unet/config.json", "attention_head_dim", [5, 10], "its levels differ in heads or layers"),
    ("unet/config.json", "down_block_types", ["A", "B"], r"its blocks are \['A', 'B'\] and"),
    ("unet/config.json", "block_out_channels", [20, 33], "sizes that make no network"),
    ("unet/config.json", "block_out_channels", None, "does not describe this network"),
    ("unet/config.json", "block_out_channels", [20, 40], "does not fit StableDiffusion"),
    ("unet/config.json", "sample_size", [12, 12], r"its sample_size is \[12, 12\], expected"),
    ("text_encoder/config.json", "hidden_act", "gelu", "its hidden_act is 'gelu', expected 'quic"),
    ("vae/config.json", "shift_factor", 0.1, "its shift_factor is 0.1, expected None"),
    ("scheduler/scheduler_config.json", "prediction_type", "v_prediction", "as in Stable Diff"),
])
def test_settings_of_other_networks_are_refused(tmp_path, file, key, value, message) -> None:
    saved_pipeline(tmp_path)
    settings = json.loads((tmp_path / file).read_text()) | {key: value}
    (tmp_path / file).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, dtype="float32")
    assert str(tmp_path) in str(error.value)


def test_another_samplers_schedule_is_replaced_aloud(tmp_path) -> None:
    saved_pipeline(tmp_path, beta_schedule="linear")
    with pytest.warns(UserWarning, match="v1's noise schedule is used in place .* 'linear'") as w:
        assert checkpoint.read_config(tmp_path).schedule == V1.schedule
    assert w[0].filename == __file__
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"unet/config\.json"):
        checkpoint.read_config(tmp_path)


# At full size

@pytest.mark.slow
def test_every_layout_at_full_size(tmp_path) -> None:
    """The 1,066,235,307 numbers of v1 in float16, from three layouts; 2.1 GB of disk for each."""
    with torch.device("meta"):
        expected = StableDiffusion(V1).half()
    expected.to_empty(device="cpu").requires_grad_(False)
    for tensor in expected.state_dict().values():       # random bits, below float16's NaN
        tensor.view(torch.int16).random_(0, 0x7BFF)
    path = tmp_path / "v1.safetensors"
    save_file(v1_files.compvis(expected), path)
    assert_same(load(path, dtype="float16", device="cpu"), expected)
    torch.save({"state_dict": load_file(path)}, tmp_path / "v1.ckpt")
    path.unlink()
    assert_same(load(tmp_path / "v1.ckpt", dtype="float16", device="cpu"), expected)
    (tmp_path / "v1.ckpt").unlink()
    folder = v1_files.diffusers_folder(expected, tmp_path / "v1", old=True)
    assert_same(load(folder, dtype="float16", device="cpu"), expected)
