"""A model on disk, whatever its layout: what it holds, what it lacks, how large it is."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import v1_files
from safetensors.torch import save_file
from v1_files import SMALL

from minisd.checkpoints.formats import open_weights
from minisd.checkpoints.sources import PARTS, Source, config_of, open_model, require
from minisd.checkpoints.untrusted import Refused
from minisd.config import V1
from minisd.pipeline import StableDiffusion


@pytest.mark.parametrize("kind", [".bf16", ".fp16", ""])
def test_a_diffusers_folder_and_what_is_taken_first(v1sd, tmp_path, kind) -> None:
    """float32 before float16; bfloat16 and float16 where nothing else is there."""
    folder = v1_files.diffusers_folder(v1sd, tmp_path / "x")
    for path in list(folder.glob("*/*.safetensors")):
        path.rename(path.with_suffix(f"{kind}.safetensors"))
        if not kind:
            save_file({"wrong": torch.zeros(1)}, path.with_suffix(".fp16.safetensors"))
    source = open_model(folder)
    assert (source.layout, source.parts, config_of(source)) == ("diffusers", PARTS, SMALL)
    assert all(torch.equal(source.get(name), tensor) for name, tensor in v1sd.state_dict().items())


# What is missing, or named otherwise

@pytest.mark.parametrize("names", [
    ["diffusion_pytorch_model-00001-of-00002.safetensors",
     "diffusion_pytorch_model-00002-of-00002.safetensors",
     "diffusion_pytorch_model.safetensors.index.json"],
    ["diffusion_pytorch_model.non_ema.safetensors"], ["diffusion_flax_model.msgpack"]])
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


# Sizes

def shapes_of(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Source:
    """A checkpoint of v1's names and these shapes, at full size in no more than a header."""
    path = folder / "x.safetensors"
    save_file({"first_stage_model.loss": torch.zeros(1)}, path)
    weights = replace(open_weights(path), shapes=shapes)
    return Source(path, "compvis", PARTS, False, {name: (weights, name) for name in shapes})


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
