"""What loading must not change: the names, shapes and values that each layout of a model loads to.

    python tests/checkpoints/test_frozen_layouts.py --write     writes frozen_hashes.json anew

Every tensor in a file holds values drawn from its own name there, so a name that led elsewhere,
even to a tensor of the same shape, would change the fingerprint. The hashes were written by the
package as of commit e90601e; write them anew only where one is meant to change.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import v1_files
import v1_shaped
from conftest import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor

import minisd
from minisd.checkpoints import weights
from minisd.checkpoints.sources import open_model
from minisd.config import Config

HASHES = Path(__file__).parents[1] / "data" / "frozen_hashes.json"


# One model in each layout

def halves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value
            for name, value in tensors.items()}


def filled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values that depend on each tensor's own name in this file alone, exact in float16."""
    def values(name: str, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return torch.randn(like.shape, generator=generator).half().float()

    return {name: values(name, tensor) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()}


def own(config: Config, folder: Path) -> Path:
    """In this project's own layout."""
    sd = minisd.StableDiffusion(config).requires_grad_(False)
    sd.load_state_dict(filled(sd.state_dict()))
    weights.write_config(folder, config)
    for part in weights.PARTS:
        weights.save(sd.get_submodule(part), folder / f"{part}.safetensors")
    return folder


def without_text_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    bare = v1_files.TEXT.removesuffix("text_model.")
    return {name.replace(v1_files.TEXT, bare): value for name, value in tensors.items()}


def flat_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's attention as matrices, not as 1x1 convolutions."""
    return {name: value[:, :, 0, 0].contiguous()
            if name.startswith(v1_files.VAE) and "attn" in name and value.ndim == 4 else value
            for name, value in tensors.items()}


def mixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A float64 VAE in a float16 file, spoilt position ids, what a training leaves beside."""
    vae = {name: value.double() for name, value in tensors.items()
           if name.startswith(v1_files.VAE)}
    beside = {"logvar": torch.ones(3), "first_stage_model.loss.logvar": torch.ones(3),
              v1_files.POSITION_IDS: torch.full((1, 77), float("nan"))}
    return halves(tensors) | vae | beside


def layouts(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each layout's name, and where it has just been written; the next takes its place."""
    small = v1_files.small()
    tensors = filled(v1_files.compvis(small))
    variants = {"ema-only": dict, "full ema": v1_files.full_ema, "fp16": halves, "mixed": mixed,
                "no text_model": without_text_model, "flat attention": flat_attention,
                "no extras": lambda tensors: {name: tensors[name] for name in v1_files.NAMES}}
    for name, change in variants.items():
        save_file(change(tensors), folder / "model.safetensors")
        yield f"compvis {name}", folder / "model.safetensors"
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "model.ckpt")
    yield "ckpt", folder / "model.ckpt"
    shutil.copy(folder / "model.safetensors", folder / "model.ckpt")
    yield "safetensors named ckpt", folder / "model.ckpt"
    for old, half in ((False, True), (True, False)):
        place = folder / f"diffusers{old}"
        v1_files.diffusers_folder(small, place, old=old, half=half)
        for file in place.glob("*/*.safetensors"):
            values = filled(load_file(file))
            save_file(halves(values) if half else values, file)
        yield f"diffusers{' old' * old}{' fp16' * half}", place
    for file in list(place.glob("*/*.safetensors")):
        stem = {"model": "pytorch_model"}.get(file.name.split(".")[0], "diffusion_pytorch_model")
        torch.save(load_file(file), file.with_name(f"{stem}.bin"))
        file.unlink()
    yield "diffusers pickles", place
    vae = {name.removeprefix(v1_files.VAE): value for name, value in tensors.items()
           if name.startswith(v1_files.VAE)}
    save_file(vae | {"model_ema.decay": torch.zeros(())}, folder / "vae.safetensors")
    yield "vae alone", folder / "vae.safetensors"
    yield "own v1", own(replace(v1_files.SMALL, name="v1"), folder / "v1")
    yield "own v1-shaped", own(v1_shaped.small_v1(), folder / "shaped")
    yield "own tiny", own(TINY, folder / "tiny")


def hashes(folder: Path) -> dict[str, dict[str, str]]:
    found = {}
    for name, path in layouts(folder):
        # (c, c, 1, 1) counts as (c, c), as the VAE's attention is written in some layouts
        listed = sorted((ours, shape[:2] if shape[2:] == (1, 1) else tuple(shape))
                        for ours, shape in open_model(path).shapes.items())
        parts = ["encoder", "decoder"] if name == "vae alone" else None
        sd = minisd.load(path, parts=parts, device="cpu", dtype="float32")
        loaded = sd.vae if parts else sd
        found[name] = {"names": hashlib.sha256(repr(listed).encode()).hexdigest(),
                       "fingerprint": weights.fingerprint(loaded)}
    return found


def test_every_layout_loads_to_the_same_names_shapes_and_values(tmp_path) -> None:
    assert hashes(tmp_path) == json.loads(HASHES.read_text())


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    with tempfile.TemporaryDirectory() as written:
        HASHES.write_text(json.dumps(hashes(Path(written)), indent=1) + "\n")
