"""A model on disk, in whatever layout: which networks it holds, of which sizes, under our names.

Our own layout is one folder with one file per network:

    config.json                 every size (config_file.py)
    text_encoder.safetensors    CLIPTextTransformer
    unet.safetensors            UNet
    vae.safetensors             VAE
    tokenizer/                  vocab.json, merges.txt, words.txt

The others are a CompVis checkpoint, one file, and a diffusers folder. A `Source` is any of them
with every tensor under this project's name (names.py), each in an open file (formats.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from minisd.checkpoints.config_file import checked, read_diffusers_configs, read_own_config
from minisd.checkpoints.formats import Weights, open_weights
from minisd.checkpoints.names import translate
from minisd.checkpoints.untrusted import Refused, reading, refusal, shown
from minisd.config import V1, Config

Shapes = Mapping[str, tuple[int, ...]]

PARTS = ("text_encoder", "unet", "vae")
SPOKEN = {"text_encoder": "text encoder", "unet": "UNet", "vae": "VAE"}
# The file of each network in a diffusers folder; the first that is there is taken.
DIFFUSERS_FILES = {
    part: [f"{part}/{stem}{kind}{ending}" for stem, ending in ((new, ".safetensors"), (old, ".bin"))
           for kind in ("", ".fp16", ".bf16")]
    for part, new, old in (
        ("text_encoder", "model", "pytorch_model"),
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"))}

LEVELS = range(len(V1.unet.channels))     # of v1's UNet and of its VAE
CLIP_HEAD_WIDTH = 64
CONTEXT_V2 = 1024               # width of v2's text encoder
OTHER_CHANNELS = {              # into the UNet, in place of the 4 of the latents
    9: "an inpainting model", 8: "an InstructPix2Pix model", 7: "an upscaling model",
    5: "a depth-to-image model"}
PROJECTION = "unet.mid.layers.0.attention.proj_in.weight"
CROSS_ATTENTION = "unet.mid.layers.0.attention.block.cross_attn.to_k.weight"


@dataclass(frozen=True)
class Source:
    """A model on disk, whatever its layout."""

    path: Path
    layout: str                                     # "minisd", "compvis" or "diffusers"
    parts: tuple[str, ...]                          # those it holds, of PARTS
    averaged: bool                                  # the UNet's averaged weights are taken
    tensors: dict[str, tuple[Weights, str]]         # our name -> the file and the name in it

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: file.shapes[theirs] for name, (file, theirs) in self.tensors.items()}

    def get(self, name: str) -> Tensor:
        file, theirs = self.tensors[name]
        return file.get(theirs)

    def __str__(self) -> str:
        kind = {"minisd": "minisd model", "compvis": "CompVis checkpoint",
                "diffusers": "diffusers model"}[self.layout]
        averaged = " (of its two sets of UNet weights, the averaged one)" * self.averaged
        return f"{kind} with {', '.join(self.parts)}{averaged}: {shown(self.path)}"


# Recognising it

def network_files(folder: Path) -> dict[str, Path]:
    """The weight file of each network that a folder holds, in our layout or in diffusers'."""
    own = {part: folder / f"{part}.safetensors" for part in PARTS}
    found = {part: path for part, path in own.items() if path.is_file()}
    if found and (folder / "config.json").is_file():
        return found
    places = {part: [folder / name for name in names if (folder / name).is_file()]
              for part, names in DIFFUSERS_FILES.items()}
    return {part: paths[0] for part, paths in places.items() if paths}


def open_model(path: str | Path) -> Source:
    """Recognise a file or a folder. Nothing is read but names and shapes.

    Raises FileNotFoundError, and Refused naming what it is instead of Stable Diffusion v1.
    """
    path = Path(path)
    if path.is_file():
        return open_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no model at {shown(path)}: expected a .safetensors or "
                                f".ckpt file, or a folder")
    with reading(path, "model"):
        files = network_files(path)
        if not files:
            raise Refused(
                f"this is no model: expected a folder of this project (config.json and "
                f"{', '.join(f'{part}.safetensors' for part in PARTS)}) or of diffusers (unet/, "
                f"vae/ and text_encoder/ with .safetensors files){_unread(path, PARTS)}")
        held = [open_file(file) for file in files.values()]
    parts = tuple(part for part in PARTS if any(part in source.parts for source in held))
    return Source(path, held[0].layout, parts, any(source.averaged for source in held),
                  {name: where for source in held for name, where in source.tensors.items()})


def open_file(path: Path) -> Source:
    """One file, as `open_model` does."""
    weights = open_weights(path)
    with reading(path, "model"):
        found = translate(weights.shapes)
    return Source(path, found.layout, found.parts, found.averaged,
                  {ours: (weights, theirs) for ours, theirs in found.names.items()})


def require(source: Source, parts: Iterable[str]) -> None:
    """Raise Refused where a source lacks one of these networks."""
    lacking = [part for part in parts if part not in source.parts]
    if not lacking:
        return
    if source.path.is_file():
        advice = "expected a whole checkpoint, or the folder that this file is a part of"
    else:
        names = [DIFFUSERS_FILES[part][0] if source.layout == "diffusers" else
                 f"{part}.safetensors" for part in lacking]
        advice = (f"expected {' and '.join(names)} there; fetch what is missing"
                  f"{_unread(source.path, lacking)}")
    held = " and the ".join(SPOKEN[part] for part in source.parts)
    raise refusal(source.path, f"it holds only the {held}, and no "
                               f"{' or '.join(SPOKEN[part] for part in lacking)}: {advice}")


def _unread(folder: Path, parts: Iterable[str]) -> str:
    """What lies in place of networks in a diffusers folder: in pieces, or under another name."""
    seen = sorted(file.relative_to(folder).as_posix() for part in parts
                  for file in (folder / part).glob("[!.]*") if file.suffix != ".json")
    return f" (what lies there is not read: {shown(', '.join(seen))})" if seen else ""


# Its sizes. How many levels, layers and heads there are is v1's, whatever the widths: what is
# missing must not look like a smaller model.

def config_of(source: Source) -> Config:
    """The sizes that a source has: written beside the weights, or read off its tensors.

    What it does not hold has v1's sizes. Raises Refused for another model, or where tensors are
    missing that would show a size.
    """
    path = source.path
    if source.layout == "minisd":
        return read_own_config((path if path.is_dir() else path.parent) / "config.json")
    with reading(path, "model"):
        written = read_diffusers_configs(path)
        if "unet" in source.parts:
            _refuse_other_unets(source.shapes)
        unwritten = [part for part in source.parts if part.removesuffix("_encoder") not in written]
        return checked(replace(V1, **written, **_sizes(source.shapes, unwritten)))


def _refuse_other_unets(shapes: Shapes) -> None:
    """Raise Refused for the UNets of other models with v1's names; it says whose they are."""
    channels = _side(shapes, "unet.conv_in.weight", 1)
    if channels in OTHER_CHANNELS:
        raise Refused(f"this is {OTHER_CHANNELS[channels]} (its UNet takes {channels} channels); "
                      f"expected plain Stable Diffusion v1, which takes 4, and inpaints with them "
                      f"through sd.inpaint")
    if len(shapes.get(PROJECTION, ())) == 2:
        raise Refused("this is a Stable Diffusion v2 or SDXL model (its projections are linear); "
                      "expected v1")
    if _side(shapes, CROSS_ATTENTION, 1) == CONTEXT_V2:
        raise Refused("this is a Stable Diffusion v2 model (its context is 1024 wide); expected v1")


def _sizes(shapes: Shapes, parts: Iterable[str]) -> dict[str, Any]:
    """Fields of Config by name, read off the tensors. Raises Refused."""
    found: dict[str, Any] = {}
    if "text_encoder" in parts:
        vocabulary, width = (_side(shapes, "text_encoder.token_embedding.weight", i)
                             for i in range(2))
        found["text"] = replace(
            V1.text, vocab_size=vocabulary, width=width, heads=max(1, width // CLIP_HEAD_WIDTH),
            max_length=_side(shapes, "text_encoder.position_embedding.weight", 0))
    if "vae" in parts:
        found["vae"] = replace(
            V1.vae, latent_channels=_side(shapes, "vae.post_quant_conv.weight", 0),
            channels=tuple(_side(shapes, f"vae.encoder.levels.{i}.resnets.0.conv1.weight", 0)
                           for i in LEVELS))
    if "unet" in parts:
        found["unet"] = replace(
            V1.unet, latent_channels=_side(shapes, "unet.conv_in.weight", 1),
            context_dim=_side(shapes, CROSS_ATTENTION, 1),
            channels=tuple(_side(shapes, f"unet.down.{i}.layers.0.resnet.conv1.weight", 0)
                           for i in LEVELS))
    return found


def _side(shapes: Shapes, name: str, axis: int) -> int:
    """One side of a tensor. Raises Refused where it is missing, or has too few."""
    if name not in shapes:
        raise Refused(f"it is incomplete, it lacks {name}: fetch it again")
    if len(shapes[name]) <= axis:
        raise Refused(f"{name} has the shape {shapes[name]}, too few sides for its place")
    return shapes[name][axis]
