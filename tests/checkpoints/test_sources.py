"""A model on disk, whatever its layout: what it holds, what it lacks, how large it is."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import v1_files
from safetensors.torch import load_file, save_file
from torch import Tensor
from v1_files import NAMES, POSITION_IDS, SMALL, TEXT, UNET, VAE

from minisd.checkpoints.sources import PARTS, Source, config_of, open_model, read_config, require
from minisd.checkpoints.untrusted import Refused
from minisd.checkpoints.weights import save, write_config
from minisd.config import V1
from minisd.pipeline import StableDiffusion


def assert_same(source: Source, sd: StableDiffusion) -> None:
    """Every tensor of the model, bit for bit."""
    expected = sd.state_dict()
    assert source.tensors.keys() == expected.keys()
    assert all(torch.equal(source.get(name).float().reshape(tensor.shape), tensor)
               for name, tensor in expected.items())


# Every layout

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
    return tensors | {POSITION_IDS: torch.full((3, 5), float("nan"))}


VARIANTS = {
    "ema-only": dict, "full ema": v1_files.full_ema, "fp16": halves, "mixed": mixed,
    "no text_model": without_text_model, "flat VAE attention": old_vae_names,
    "corrupt position_ids": corrupt_ids,
    "no extras": lambda tensors: {name: tensors[name] for name in NAMES},
    "wrapped": lambda tensors: {f"module.{name}": value for name, value in tensors.items()}}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_compvis_files(v1sd, tensors, tmp_path, variant, ending) -> None:
    path, held = tmp_path / f"model.{ending}", VARIANTS[variant](tensors)
    save_file(held, path) if ending == "safetensors" else torch.save({"state_dict": held}, path)
    source = open_model(path)
    assert (source.layout, source.parts) == ("compvis", PARTS)
    assert str(source).startswith("CompVis checkpoint with text_encoder, unet, vae")
    assert source.averaged == ("the averaged one" in str(source)) == (variant == "full ema")
    assert config_of(source) == read_config(path) == SMALL
    assert_same(source, v1sd)


@pytest.mark.parametrize("old", [False, True], ids=["new VAE names", "old VAE names"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_a_diffusers_folder(v1sd, tmp_path, old, half) -> None:
    source = open_model(v1_files.diffusers_folder(v1sd, tmp_path / "x", old=old, half=half))
    assert (source.layout, source.parts) == ("diffusers", PARTS)
    assert config_of(source) == SMALL
    assert_same(source, v1sd)


def test_bfloat16_files_and_the_pickles_of_old(v1sd, tmp_path) -> None:
    folder = v1_files.diffusers_folder(v1sd, tmp_path / "x")
    for path in list(folder.glob("*/*.safetensors")):
        if path.parent.name == "unet":
            path.rename(path.with_suffix(".bf16.safetensors"))
        else:
            old = {"model": "pytorch_model"}.get(path.stem, path.stem)
            torch.save(load_file(path), path.with_name(f"{old}.bin"))
            path.unlink()
    assert_same(open_model(folder), v1sd)


def test_float32_is_taken_before_float16(v1sd, tmp_path) -> None:
    folder = v1_files.diffusers_folder(v1sd, tmp_path / "x")
    for path in list(folder.glob("*/*.safetensors")):
        save_file({"wrong": torch.zeros(1)}, path.with_suffix(".fp16.safetensors"))
    assert_same(open_model(folder), v1sd)


def test_our_own_folder(v1sd, tmp_path) -> None:
    write_config(tmp_path, SMALL)
    for part in PARTS:
        save(v1sd.get_submodule(part), tmp_path / f"{part}.safetensors")
    source = open_model(tmp_path)
    assert (source.layout, config_of(source)) == ("minisd", SMALL)
    assert_same(source, v1sd)


# What is missing, or named otherwise

@pytest.mark.parametrize("names", [
    ["diffusion_pytorch_model-00001-of-00002.safetensors",
     "diffusion_pytorch_model-00002-of-00002.safetensors",
     "diffusion_pytorch_model.safetensors.index.json"],
    ["diffusion_pytorch_model.non_ema.safetensors"],
    ["diffusion_pytorch_model.safetensors.0123456789ab.part"], ["diffusion_flax_model.msgpack"]])
def test_what_lies_in_place_of_a_network_is_named(v1sd, tmp_path, names) -> None:
    folder = v1_files.diffusers_folder(v1sd, tmp_path / "x")
    next((folder / "unet").iterdir()).unlink()
    for name in [*names, "._diffusion_pytorch_model.safetensors", "config.json"]:
        (folder / "unet" / name).write_text("{}")
    seen = ", ".join(f"unet/{name}" for name in names if not name.endswith("json"))
    with pytest.raises(Refused, match=re.escape(
            "it holds only the text encoder and the VAE, and no UNet: expected "
            "unet/diffusion_pytorch_model.safetensors there; fetch what is missing (what lies "
            f"there is not read: {seen})")):
        require(open_model(folder), PARTS)


@pytest.mark.parametrize("files", [
    (), ("config.json", "photos/1.jpg"), ("config.json", "diffusion_pytorch_model.safetensors")])
def test_a_folder_without_a_model(tmp_path, files) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(Refused, match=re.escape(
            f"{tmp_path}: this is no model: expected a folder of this project (config.json and "
            f"text_encoder.safetensors, unet.safetensors, vae.safetensors) or of diffusers")):
        open_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no model at .*nothing"):
        open_model(tmp_path / "nothing")


@pytest.mark.parametrize(("kept", "said"), [
    ((VAE,), "holds only the VAE, and no text encoder or UNet: expected a whole checkpoint, or"),
    ((UNET,), "holds only the UNet, and no text encoder or VAE"),
    ((TEXT, UNET), "holds only the text encoder and the UNet, and no VAE")])
def test_a_part_is_no_whole(tensors, tmp_path, kept, said) -> None:
    save_file({name: value for name, value in tensors.items() if name.startswith(kept)},
              tmp_path / "x.safetensors")
    source = open_model(tmp_path / "x.safetensors")
    require(source, source.parts)
    with pytest.raises(Refused, match=said):
        require(source, PARTS)


# Sizes

def shapes_of(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Source:
    """A checkpoint of v1's names and these shapes, at full size in no more than a header."""
    path = folder / "x.safetensors"
    save_file({"first_stage_model.loss": torch.zeros(1)}, path)
    weights = replace(open_model_weights(path), shapes=shapes)
    names = {name: (weights, name) for name in shapes}
    return Source(path, "compvis", PARTS, False, names)


def open_model_weights(path: Path):
    from minisd.checkpoints.formats import open_weights

    return open_weights(path)


@pytest.fixture(scope="module")
def v1_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in
                StableDiffusion(V1).state_dict().items()}


def test_sizes_are_read_off_the_tensors(v1_shapes, tmp_path) -> None:
    assert config_of(shapes_of(tmp_path, v1_shapes)) == V1


@pytest.mark.parametrize(("name", "shape", "said"), [
    ("unet.conv_in.weight", (320, 9, 3, 3), "this is an inpainting model .its UNet takes 9 chann"),
    ("unet.conv_in.weight", (320, 8, 3, 3), "this is an InstructPix2Pix model"),
    ("unet.conv_in.weight", (320,), r"has the shape \(320,\), too few sides for its place"),
    ("unet.conv_in.weight", None, "incomplete, it lacks unet.conv_in.weight: fetch it again"),
    ("unet.conv_in.weight", (320, 10 ** 9, 3, 3), "unet.latent_channels is 1000000000, expected"),
    ("unet.mid.layers.0.attention.proj_in.weight", (1280, 1280), "v2 or SDXL model .its projectio"),
    ("unet.mid.layers.0.attention.block.cross_attn.to_k.weight", (9, 1024), "context is 1024"),
    ("text_encoder.token_embedding.weight", (10 ** 12, 0), "text.vocab_size is 1000000000000, exp"),
    ("vae.encoder.levels.3.resnets.0.conv1.weight", None, "it lacks vae.encoder.levels.3.resnets"),
    ("vae.post_quant_conv.weight", (0, 4, 1, 1), "vae.latent_channels is 0, expected an integer")])
def test_shapes_of_no_v1(v1_shapes, tmp_path, name, shape, said) -> None:
    shapes = v1_shapes | {name: shape} if shape else {
        other: value for other, value in v1_shapes.items() if other != name}
    with pytest.raises(Refused, match=said) as error:
        config_of(shapes_of(tmp_path, shapes))
    assert str(tmp_path) in str(error.value)
