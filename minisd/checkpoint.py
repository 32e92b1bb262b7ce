"""A model's weights on disk: any layout in, this project's own layout out, always strictly.

Our own layout is one folder with one file per network:

    config.json                 every size (see config.py)
    text_encoder.safetensors    CLIPTextTransformer
    unet.safetensors            UNet
    vae.safetensors             VAE
    tokenizer/                  vocab.json, merges.txt, words.txt

A `Source` is a model in any layout with every tensor under this project's name (layouts.py), each
in a file that is mapped, not read (files.py). Loading never skips, guesses or leaves a tensor as
it was: every name and every shape must match, or nothing is loaded and one error lists all
differences. Each tensor is then copied straight into the model, and no second copy is made.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minisd import layouts
from minisd.clip import CLIPTextTransformer
from minisd.config import V1, Config, from_dict, to_dict
from minisd.files import Weights, open_weights
from minisd.unet import UNet
from minisd.vae import VAE

PARTS = ("text_encoder", "unet", "vae")
PART_OF = {CLIPTextTransformer: "text_encoder", UNet: "unet", VAE: "vae"}
LISTED = 5                      # names shown of each kind of difference
SAMPLED = 64                    # values per tensor that enter the fingerprint
DIFFUSERS_FILES = {"text_encoder": "model", "unet": "diffusion_pytorch_model",
                   "vae": "diffusion_pytorch_model"}
DIFFUSERS_ENDINGS = (".safetensors", ".fp16.safetensors", ".bin")


# What lies there

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


def open_model(path: str | Path) -> Source:
    """Recognise a file or a folder. Nothing is read but names and shapes.

    Raises FileNotFoundError, and ValueError naming what it is instead of Stable Diffusion v1.
    """
    path = Path(path)
    if path.is_file():
        return _merge(path, [_open_file(path)])
    if not path.is_dir():
        raise FileNotFoundError(f"there is no model at {path}: expected a .safetensors or .ckpt "
                                f"file, or a folder")
    if (path / "config.json").is_file():
        return _merge(path, [_open_file(path / f"{part}.safetensors", part, ours=True)
                             for part in PARTS])
    found = [_diffusers_file(path / part, stem) for part, stem in DIFFUSERS_FILES.items()]
    if not any(found):
        raise ValueError(
            f"{path} is no model: expected a folder of this project (config.json and "
            f"{', '.join(f'{part}.safetensors' for part in PARTS)}) or of diffusers (unet/, vae/ "
            f"and text_encoder/ with .safetensors files)")
    return _merge(path, [_open_file(file) for file in found if file])


def _diffusers_file(folder: Path, stem: str) -> Path | None:
    """The weights of one part of a diffusers folder: float32 if it is there, else float16."""
    return next((folder / f"{stem}{ending}" for ending in DIFFUSERS_ENDINGS
                 if (folder / f"{stem}{ending}").is_file()), None)


def _open_file(path: Path, part: str = "", *, ours: bool = False) -> Source:
    """One file. part: what it should be, for a file whose names say nothing; ours: it must be."""
    weights = open_weights(path)
    try:
        found = (layouts.Recognised("minisd", (part,)) if ours
                 else layouts.recognise(weights.shapes))
    except layouts.Unknown as error:
        if not part:
            raise ValueError(f"{path}: {error}") from error
        found = layouts.Recognised("minisd", (part,))       # the strict check will list it all
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    named = layouts.to_ours(weights.shapes, found)
    return Source(path, found.layout, found.parts, found.ema,
                  {mine: (weights, theirs) for mine, theirs in named.items()})


def _merge(path: Path, sources: list[Source]) -> Source:
    """The files of one model as one source."""
    tensors = {name: where for source in sources for name, where in source.tensors.items()}
    parts = tuple(part for part in PARTS if any(part in source.parts for source in sources))
    return Source(path, sources[0].layout, parts, any(s.ema for s in sources), tensors)


def read_config(path: str | Path) -> Config:
    """A model's sizes: from its config.json, or read off its own tensors.

    What the file does not hold has v1's sizes. Raises FileNotFoundError or ValueError.
    """
    own = Path(path) / "config.json"
    if own.is_file():
        try:
            return from_dict(json.loads(own.read_text(encoding="utf-8")))
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{own} does not describe a model ({error}): restore it") from error
    return config_of(open_model(path))


def config_of(source: Source) -> Config:
    """The sizes that a source's tensors have. Raises ValueError where some are missing."""
    shapes, config = source.shapes, V1
    try:
        if "text_encoder" in source.parts:
            config = replace(config, text=layouts.read_text_config(shapes))
        if "vae" in source.parts:
            config = replace(config, vae=layouts.read_vae_config(shapes))
        if "unet" in source.parts:
            config = replace(config, unet=layouts.read_unet_config(shapes))
    except KeyError as error:
        raise ValueError(f"{source.path} is incomplete: it lacks {error.args[0]}; fetch it "
                         f"again") from error
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    return config


def write_config(folder: Path, config: Config) -> None:
    """Write folder/config.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "config.part"
    part.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")
    part.replace(folder / "config.json")


# In and out of a model

def load_into(module: nn.Module, path: str | Path) -> None:
    """Fill every tensor of a model, or of one of its networks, in its own dtype and place.

    path: a file or a folder in any layout. A network that is none of the three (the judge, CLIP's
    image tower) is filled from a file that has its own names. Raises FileNotFoundError, and
    ValueError where the file is damaged or does not fit; the model is then as it was before.
    """
    part = PART_OF.get(type(module), "")
    if part or all(hasattr(module, name) for name in PARTS):
        single = part and Path(path).is_file()
        fill(module, _open_file(Path(path), part) if single else open_model(path), part)
        return
    weights = open_weights(path)
    fill(module, Source(Path(path), "minisd", (), False,
                        {name: (weights, name) for name in weights.shapes}))


def fill(module: nn.Module, source: Source, part: str = "") -> None:
    """Copy a source's tensors into a module. part: the source's part that the module is."""
    prefix = f"{part}." if part else ""
    found = {name.removeprefix(prefix): shape for name, shape in source.shapes.items()
             if name.startswith(prefix)}
    check_names(module, found, source.path)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(source.get(prefix + name).view(tensor.shape))


def check_names(module: nn.Module, found: dict[str, tuple[int, ...]], path: Path) -> None:
    """Raise one ValueError that lists what `found` lacks, has too much, or has in another shape.

    The VAE's attention was once written as 1x1 convolutions: (c, c, 1, 1) counts as (c, c).
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shaped = [f"{name} {found[name]} instead of {shape}" for name, shape in wanted.items()
              if name in found and found[name] not in (shape, (*shape, 1, 1))]
    problems = [("missing", sorted(wanted.keys() - found.keys())),
                ("unexpected", sorted(found.keys() - wanted.keys())), ("of another shape", shaped)]
    lines = [f"{len(names)} {kind}: {', '.join(names[:LISTED])}{' ...' * (len(names) > LISTED)}"
             for kind, names in problems if names]
    if lines:
        raise ValueError(f"{path} does not fit {type(module).__name__}, nothing was loaded: "
                         + "; ".join(lines))


def save(module: nn.Module, path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a network's weights; a failure leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    tensors = {name: value.detach().to("cpu", dtype).contiguous()
               for name, value in module.state_dict().items()}
    try:
        save_file(tensors, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits that differ whenever the weights do, in practice.

    A hash of every tensor's name, shape and a few evenly spaced values, rounded to bfloat16 so
    that it does not depend on the dtype the weights were loaded in.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        flat = tensor.detach().flatten()
        sampled = flat[::max(1, len(flat) // SAMPLED)].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sampled.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:12]
