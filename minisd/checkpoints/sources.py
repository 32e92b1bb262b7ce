"""A model on disk, in whatever layout: which networks it holds, of which sizes, under our names.

Our own layout is one folder with one file per network:

    config.json                 every size (see config.py)
    text_encoder.safetensors    CLIPTextTransformer
    unet.safetensors            UNet
    vae.safetensors             VAE
    tokenizer/                  vocab.json, merges.txt, words.txt

The others are a CompVis checkpoint, one file, and a diffusers folder. A `Source` is any of them
with every tensor under this project's name (layouts.py), each in a file that is mapped, not read
(files.py).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from minisd.checkpoints import layouts
from minisd.checkpoints.diffusers_config import read_configs
from minisd.checkpoints.files import Weights, open_weights
from minisd.config import V1, Config, from_dict

PARTS = ("text_encoder", "unet", "vae")
SPOKEN = {"text_encoder": "text encoder", "unet": "UNet", "vae": "VAE"}
READ_OFF = {"text_encoder": ("text", layouts.read_text_config),
            "vae": ("vae", layouts.read_vae_config), "unet": ("unet", layouts.read_unet_config)}
# The file of each network in a diffusers folder; the first that is there is taken.
DIFFUSERS_FILES = {
    part: [f"{part}/{stem}{ending}" for stem, ending in (
        (safe, ".safetensors"), (safe, ".fp16.safetensors"), (old, ".bin"), (old, ".fp16.bin"))]
    for part, safe, old in (
        ("text_encoder", "model", "pytorch_model"),
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"))}


@dataclass(frozen=True)
class Source:
    """A model on disk, whatever its layout."""

    path: Path
    layout: str                                     # "minisd", "compvis" or "diffusers"
    parts: tuple[str, ...]                          # those it holds, of PARTS
    ema: bool                                       # the UNet's averaged weights are taken
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
        averaged = " (of its two sets of UNet weights, the averaged one)" if self.ema else ""
        return f"{kind} with {', '.join(self.parts)}{averaged}: {self.path}"


# Recognising it

def network_files(folder: Path) -> dict[str, Path]:
    """The weight file of each network that a folder holds, in our layout or in diffusers'."""
    found = {part: folder / f"{part}.safetensors" for part in PARTS
             if (folder / f"{part}.safetensors").is_file()}
    if found and (folder / "config.json").is_file():
        return found
    places = {part: [folder / name for name in names] for part, names in DIFFUSERS_FILES.items()}
    return {part: next(path for path in paths if path.is_file())
            for part, paths in places.items() if any(path.is_file() for path in paths)}


def open_model(path: str | Path) -> Source:
    """Recognise a file or a folder. Nothing is read but names and shapes.

    Raises FileNotFoundError, and ValueError naming what it is instead of Stable Diffusion v1.
    """
    path = Path(path)
    if path.is_file():
        return open_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no model at {path}: expected a .safetensors or .ckpt "
                                f"file, or a folder")
    files = network_files(path)
    if not files:
        raise ValueError(
            f"{path} is no model: expected a folder of this project (config.json and "
            f"{', '.join(f'{part}.safetensors' for part in PARTS)}) or of diffusers (unet/, vae/ "
            f"and text_encoder/ with .safetensors files)")
    ours = next(iter(files.values())).parent == path
    sources = [open_file(file, part if ours else "", ours=ours) for part, file in files.items()]
    tensors = {name: where for source in sources for name, where in source.tensors.items()}
    parts = tuple(part for part in PARTS if any(part in source.parts for source in sources))
    return Source(path, sources[0].layout, parts, any(source.ema for source in sources), tensors)


def open_file(path: Path, part: str = "", *, ours: bool = False) -> Source:
    """One file. part: what it should be, for a file whose names say nothing; ours: it must be."""
    weights = open_weights(path)
    try:
        found = _recognise(weights, part, ours=ours)
        named = layouts.to_ours(weights.shapes, found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Source(path, found.layout, found.parts, found.ema,
                  {mine: (weights, theirs) for mine, theirs in named.items()})


def _recognise(weights: Weights, part: str, *, ours: bool) -> layouts.Recognised:
    if ours:
        return layouts.Recognised("minisd", (part,))
    try:
        return layouts.recognise(weights.shapes)
    except layouts.Unknown:
        if not part:
            raise
        return layouts.Recognised("minisd", (part,))        # the strict check will list it all


def require(source: Source, parts: Iterable[str]) -> None:
    """Raise ValueError where a source lacks one of these networks."""
    lacking = [part for part in parts if part not in source.parts]
    if not lacking:
        return
    if source.path.is_file():
        advice = "expected a whole checkpoint, or the folder that this file is a part of"
    else:
        names = [DIFFUSERS_FILES[part][0] if source.layout == "diffusers" else
                 f"{part}.safetensors" for part in lacking]
        advice = f"expected {' and '.join(names)} there; fetch what is missing"
    raise ValueError(f"{source.path} holds only the "
                     f"{' and the '.join(SPOKEN[part] for part in source.parts)}, and no "
                     f"{' or '.join(SPOKEN[part] for part in lacking)}: {advice}")


# Its sizes

def read_config(path: str | Path) -> Config:
    """A model's sizes, without looking at its weights where a config.json tells them.

    Raises FileNotFoundError or ValueError.
    """
    own = Path(path) / "config.json"
    return _own_config(own) if own.is_file() else config_of(open_model(path))


def config_of(source: Source) -> Config:
    """The sizes that a source has: written beside the weights, or read off its tensors.

    What it does not hold has v1's sizes. Raises ValueError for another model, or where tensors
    are missing that would show a size.
    """
    path, shapes = source.path, source.shapes
    if source.layout == "minisd":
        return _own_config((path if path.is_dir() else path.parent) / "config.json")
    try:
        if "unet" in source.parts:
            layouts.refuse_other_unets(shapes)
        sizes = read_configs(path)
        for part, (field, read) in READ_OFF.items():
            if part in source.parts and field not in sizes:
                sizes[field] = read(shapes)
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: it lacks {error.args[0]}; fetch it "
                         f"again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return replace(V1, **sizes)


def _own_config(path: Path) -> Config:
    if not path.is_file():
        raise ValueError(f"{path} is missing, which says how large the networks beside it are: "
                         f"restore it")
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a model ({error}): restore it") from error
