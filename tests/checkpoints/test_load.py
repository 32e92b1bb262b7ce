"""Loading: parts alone, dtypes, kernels; and what is wrong with a model, on every way in."""

import re
from pathlib import Path

import pytest
import torch
from parity import relative_error
from PIL import Image
from safetensors.torch import save_file
from v1_files import SMALL

import minisd
from minisd.checkpoints import formats, sources
from minisd.checkpoints import load as loading
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.places import SHIPPED
from minisd.pipeline import StableDiffusion
from minisd.speed import kernels

LOADABLE = ("text_encoder", "unet", "encoder", "decoder")
NAME = "first_stage_model.decoder.conv_out.bias"        # of one tensor, and ours of the same
OURS = "vae.decoder.conv_out.bias"


@pytest.fixture(scope="module")
def path(tensors, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "v1.safetensors"
    save_file(tensors, path)
    return path


# All of it

def test_the_public_functions_stay_callable_whatever_is_imported() -> None:
    """Importing a file of a package makes it an attribute, in place of a function of its name."""
    files = {file.stem for file in Path(minisd.__file__).parent.iterdir()}
    assert not {"load", "models"} & files
    assert minisd.load is loading.load


def test_what_loading_leaves(path, monkeypatch) -> None:
    """The file is opened once; the weights have a name; the kernels of speed/ unless told not."""
    opened, open_weights = [], sources.open_weights
    monkeypatch.setattr(sources, "open_weights",
                        lambda file: opened.append(file) or open_weights(file))
    for fast in (True, False):
        sd = minisd.load(path, device="cpu", dtype="float32", fast=fast)
        assert any(isinstance(module, kernels.FeedForward) for module in sd.modules()) == fast
        assert not any(p.requires_grad or sd.training for p in sd.parameters())
    assert opened == [path, path] and sd.weights == "v1.safetensors"
    monkeypatch.chdir(SHIPPED)
    for name in ("toyworld", "."):
        assert minisd.load(name, parts=["encoder"]).weights == "toyworld"


# Parts alone

@pytest.mark.parametrize("parts", [["unet"], ("decoder", "encoder"), {"text_encoder"}, LOADABLE])
def test_only_the_parts_asked_for_take_memory(v1sd, path, parts) -> None:
    sd = minisd.load(path, parts=parts, device="cpu", dtype="float32")
    prefixes = {"text_encoder": "text_encoder.", "unet": "unet.",
                "encoder": ("vae.encoder.", "vae.quant_conv."),
                "decoder": ("vae.decoder.", "vae.post_quant_conv.")}
    expected = {name: tensor for name, tensor in v1sd.state_dict().items()
                if any(name.startswith(prefixes[part]) for part in parts)}
    assert sd.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in sd.state_dict().items())
    assert (sd.device, sd.dtype) == (torch.device("cpu"), torch.float32)
    assert (checkpoint.fingerprint(sd) == checkpoint.fingerprint(v1sd)) == (parts == LOADABLE)


def test_a_part_works_alone_and_says_how_to_load_the_others(v1sd, path) -> None:
    pixels, z = torch.rand(1, 3, 40, 24) * 2 - 1, torch.randn(1, 4, 5, 3)
    coder = minisd.load(path, parts=["encoder"], device="cpu", dtype="float32", fast=False)
    assert torch.equal(coder.vae.encode(pixels).mean, v1sd.vae.encode(pixels).mean)
    rest = minisd.load(path, parts=["decoder"], device="cpu", dtype="float32", fast=False)
    assert torch.equal(rest.vae.decode(z), v1sd.vae.decode(z))
    with pytest.raises(ValueError, match=re.escape(
            "the encoder was not loaded, only decoder: load the model with parts=['decoder', "
            "'encoder'], or without parts for all of it")):
        rest.encode_image(pixels)


@pytest.mark.parametrize(("parts", "missing", "runs"), [
    (["text_encoder", "unet"], "decoder", ["text_to_image"]),
    (["text_encoder", "unet", "decoder"], "encoder", ["image_to_image", "inpaint", "steps"]),
    (["unet", "decoder"], "text_encoder", ["text_to_image"]),
    (["text_encoder", "decoder"], "unet", ["text_to_image", "steps"])])
def test_a_run_that_lacks_a_part_fails_before_its_first_step(parts, missing, runs) -> None:
    sd = minisd.load("toyworld", parts=parts, device="cpu", dtype="float32")
    seen, picture = [], Image.new("RGB", (64, 64))
    inputs = {"image_to_image": {"image": picture, "on_step": seen.append},
              "inpaint": {"image": picture, "mask": picture, "on_step": seen.append},
              "steps": {"image": picture} if missing == "encoder" else {}}
    for run in runs:
        with pytest.raises(ValueError, match=f"the {missing} was not loaded, only "):
            list(getattr(sd, run)("a red car", **inputs.get(run, {"on_step": seen.append})))
    assert not seen


def test_what_a_run_does_without_need_not_be_loaded() -> None:
    sd = minisd.load("toyworld", parts=["text_encoder", "unet"], device="cpu", dtype="float32")
    asked = {"steps": 5, "height": 64, "width": 64, "seed": 0}
    assert len(list(sd.steps("a red car", **asked))) == 5
    assert len(sd.trace("a red car", pictures="none", **asked)) == 5
    assert sd.to("cpu", torch.bfloat16) is sd and sd.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["", "vae.safetensors"])
def test_a_part_needs_no_file_but_its_own(v1sd, tmp_path, name) -> None:
    checkpoint.write_config(tmp_path, SMALL)
    checkpoint.save(v1sd.vae, tmp_path / "vae.safetensors", dtype=torch.float32)
    model = tmp_path / name
    sd = minisd.load(model, parts=["decoder"], device="cpu", dtype="float32")
    assert torch.equal(sd.vae.decoder.conv_in.weight, v1sd.vae.decoder.conv_in.weight)
    with pytest.raises(ValueError, match="holds only the VAE, and no UNet"):
        minisd.load(model, parts=["unet"])
    with pytest.raises(ValueError, match="holds only the VAE, and no text encoder or UNet"):
        minisd.load(model)


@pytest.mark.parametrize("parts", ["unet", [], ["vae"], ["unet", "clip"]])
def test_parts_that_are_none_are_refused(path, parts) -> None:
    expected = "parts must be a list of some of 'text_encoder', 'unet', 'encoder', 'decoder', got "
    with pytest.raises(ValueError, match=re.escape(expected + repr(parts))) as error:
        minisd.load(path, parts=parts)
    assert ("'vae' is 'encoder' and 'decoder'" in str(error.value)) == (parts == ["vae"])


# Precision

@pytest.mark.parametrize(("device", "features", "expected"), [
    ("cpu", {"avx512_bf16": True}, torch.bfloat16), ("cpu", {"amx_bf16": True}, torch.bfloat16),
    ("cpu", {"avx2": True, "avx512_bf16": False}, torch.float32), ("cpu", {}, torch.float32),
    ("cuda", {}, torch.float16), ("mps", {"avx512_bf16": True}, torch.float16)])
def test_auto_is_the_fastest_dtype_in_hardware(monkeypatch, device, features, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert loading.choose_dtype("auto", torch.device(device)) == expected


def test_devices_and_dtypes_that_are_none(path) -> None:
    with pytest.raises(ValueError, match="device 'toaster' is not at hand .*: try 'cpu'"):
        minisd.load(path, device="toaster")
    for dtype in ("float8", torch.int8):
        with pytest.raises(ValueError, match="dtype must be .*float32, bfloat16, float16, got "):
            minisd.load(path, dtype=dtype)


def test_bfloat16_stays_close_to_float32() -> None:
    """One prediction of the UNet. Its steps of 2^-8 make 0.3 to 0.4 % of the norm, on any CPU."""
    exact, rough = (minisd.load("toyworld", device="cpu", dtype=name)
                    for name in ("float32", "bfloat16"))
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    eps = []
    for sd in (exact, rough):
        with torch.no_grad():
            context = sd.encode_prompt("a red car below a yellow balloon")
            eps.append(sd.unet(latents.to(sd.dtype), torch.tensor([500.0]), context).float())
    assert relative_error(eps[1], eps[0]) < 2e-2


# What is wrong with a model; what files, names and sizes are refused for stands beside them

def test_a_number_that_is_none_or_too_large_is_refused(tensors, tmp_path) -> None:
    """One among 9.3 million, which only float16 cannot hold, or no dtype."""
    path, spoilt = tmp_path / "model.safetensors", tensors[NAME].clone()
    spoilt[-1] = 7e4
    save_file(tensors | {NAME: spoilt}, path)
    for dtype in ("float32", "bfloat16"):
        assert minisd.load(path, device="cpu", dtype=dtype).vae.decoder.conv_out.bias[-1] > 6e4
    with pytest.raises(ValueError, match=r"reaches 7e\+04, too much for torch.float16: load in fl"):
        minisd.load(path, device="cpu", dtype="float16")
    spoilt[-1] = float("-inf")
    save_file(tensors | {NAME: spoilt}, path)
    with pytest.raises(ValueError, match=f"model.safetensors: {OURS} contains NaN or infinity"):
        minisd.load(path)


def test_memory_is_taken_when_all_names_and_shapes_fit(tensors, tmp_path, monkeypatch) -> None:
    """A file that claims large sizes costs no memory."""
    path = tmp_path / "model.safetensors"
    save_file({name: value for name, value in tensors.items() if name != NAME}, path)
    monkeypatch.setattr(StableDiffusion, "to_empty", lambda *_, **__: pytest.fail("took memory"))
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *_, **__: pytest.fail("took memory"))
    monkeypatch.setattr(formats.Weights, "get", lambda *_: pytest.fail("read a tensor"))
    with pytest.raises(ValueError, match="nothing was loaded"):
        minisd.load(path)


@pytest.mark.parametrize(("default", "dtype"), [(torch.float64, "bfloat16"),
                                                (torch.bfloat16, "float32")])
def test_torchs_default_dtype_changes_no_picture(default, dtype) -> None:
    """One seed is one picture, whatever the user's program has set before loading."""
    painted = []
    for kind in (torch.float32, default):
        torch.set_default_dtype(kind)
        try:
            sd = minisd.load("toyworld", device="cpu", dtype=dtype)
            trace = sd.trace("a red car", seed=3, steps=5, sampler="ddpm", height=64, width=64)
            painted.append([picture.tobytes() for snapshot in trace.snapshots(0.125)
                            for picture in (snapshot.x_t_picture, snapshot.x0_picture)])
        finally:
            torch.set_default_dtype(torch.float32)
    assert painted[0] == painted[1]
