"""The models known here by name: where each lies, what it is made of, and which are at hand.

A name stands for a place in weights/ (places.py): the folder of that name, as `python -m minisd
download` makes it, or one of the published files in one piece. "auto" is the first that loads of

1. what $MINISD_MODEL names;
2. real Stable Diffusion v1 weights in weights/: v1-5, v1-4, ... v1-1, then any other file or
   folder there that is a whole v1 model, in the order of their names;
3. toyworld, which ships.

At hand is what `whole_model` opens, its vocabulary included, and loading begins with that. What it
refuses is left aside with a warning that names it, whatever lies there.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from minisd.checkpoints import known
from minisd.checkpoints.known import KNOWN, LICENCE, SINGLE_FILES, VERSIONS
from minisd.checkpoints.places import SHIPPED, WEIGHTS, short
from minisd.checkpoints.sources import PARTS, Source, config_of, network_files, open_model, require
from minisd.checkpoints.untrusted import Refused, reading, refusal, shown
from minisd.checkpoints.vocabulary import FETCH, find_tokenizer, no_vocabulary
from minisd.checkpoints.weights import finite, match
from minisd.config import TOYWORLD, V1, Config
from minisd.observe.tables import aligned
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import warn

Found = TypeVar("Found")

VARIABLE = "MINISD_MODEL"       # in the environment: what "auto" stands for
BYTES = 4                       # of one parameter in float32
SUFFIXES = (".safetensors", ".ckpt")
# What can be loaded by itself, and the modules it consists of: the VAE is loaded by halves.
LOADABLE = {"text_encoder": ("text_encoder",), "unet": ("unet",),
            "encoder": ("vae.encoder", "vae.quant_conv"),
            "decoder": ("vae.decoder", "vae.post_quant_conv")}


# Where they are

def first(model: str | Path, load: Callable[[Path, bool], Found]) -> Found:
    """What `load` makes of the first place that a name or a path may stand for (see above).

    load: gets a place, and whether there is another after it; those that it refuses are left
    aside with a warning. Raises ValueError for a model that is not there, saying how to get it,
    and what `load` raises for the last.
    """
    *places, last = candidates(model)
    for place in places:
        try:
            return load(place, True)
        except (ValueError, OSError) as error:
            advice = (f"`python -m minisd download {place.name}` goes on where it stopped"
                      if place.name in KNOWN and place.is_dir() else
                      f"name it to load it and no other: -m {shown(short(place))}")
            warn(f"{shown(short(place))} is left aside: {error}; {advice}")
    return load(last, False)


def find(model: str | Path) -> Path:
    """The file or folder that a name or a path stands for. Warns and raises as `first` does."""
    def loadable(place: Path, others: bool) -> Path:
        if others and (reason := fault(place)):
            raise Refused(reason)
        return place
    return first(model, loadable)


def candidates(model: str | Path) -> list[Path]:
    """What a name may stand for, the best first. Raises ValueError where there is nothing."""
    name = str(model)
    if name == "auto":
        named = os.environ.get(VARIABLE) or "auto"
        if named == "auto":
            known = [place for version in VERSIONS for place in _places(version)]
            return [*known, *_others(), SHIPPED]
        try:
            return candidates(named)
        except ValueError as error:
            raise ValueError(f"{VARIABLE} in the environment: {error}") from error
    if name == TOYWORLD.name:
        return [SHIPPED]
    if name in VERSIONS:
        places = _places(name)
        if not places:
            by_hand = f", or put {next(iter(SINGLE_FILES[name]))} into {WEIGHTS}"
            raise ValueError(f"{name} is not at hand: {_advice(name)}{by_hand * (name in KNOWN)}")
        return places
    path = Path(os.path.expanduser(model))
    for place in (path, WEIGHTS / path):
        if name and place.exists():
            return [place]
    raise ValueError(f"unknown model '{shown(name)}': expected 'auto', {TOYWORLD.name!r}, "
                     f"{', '.join(map(repr, VERSIONS))}, or the path of a folder, a .safetensors "
                     f"or a .ckpt file, as seen from here or from {WEIGHTS}")


def _advice(version: str) -> str:
    """What to do for a version to be at hand."""
    return (f"run `python -m minisd download {version}`" if version in KNOWN else
            f"put {next(iter(SINGLE_FILES[version]))} into {short(WEIGHTS)}")


def _places(version: str) -> list[Path]:
    """What lies under a version's names, in the order in which it is preferred."""
    return [WEIGHTS / name for name in (version, *SINGLE_FILES[version])
            if (WEIGHTS / name).exists()]


def _others() -> list[Path]:
    """What else in weights/ may be a v1 model; hidden files, as macOS writes them, are none."""
    named = {TOYWORLD.name, *VERSIONS, *known.SINGLE_SIZES}
    return [place for place in (sorted(WEIGHTS.iterdir()) if WEIGHTS.is_dir() else [])
            if place.name not in named and not place.name.startswith(".") and _promising(place)]


def _promising(place: Path) -> bool:
    """By its ending, or its files in diffusers' layout: ours is loaded only where it is named."""
    try:
        if place.is_file():
            return place.suffix in SUFFIXES
        files = network_files(place)
        return files.keys() == set(PARTS) and files["unet"].parent != place
    except OSError:                 # not ours to read
        return False


# Whether they load

def whole_model(place: Path, parts: Iterable[str] = PARTS, *, words: bool = False
                ) -> tuple[Source, StableDiffusion]:
    """A model opened, and its networks without memory: all its names, shapes and words fit.

    parts: the networks that must be there; words: so must a vocabulary for the text encoder.
    Raises FileNotFoundError or Refused.
    """
    source = open_model(place)
    config = config_of(source)
    require(source, parts)
    tokenizer = find_tokenizer(source.path, config)
    with reading(place, "Stable Diffusion v1, its sizes make no network"), torch.device("meta"):
        sd = StableDiffusion(config, tokenizer)
    if words and tokenizer is None:
        raise refusal(place, no_vocabulary(config))
    match(sd, source)
    return source, sd


def fault(place: Path, *, values: bool = False) -> str:
    """Why a place is no whole model that paints, "" where it is one. values: read them all too."""
    try:
        source, _ = whole_model(place, words=True)
        for name in source.tensors if values else ():
            finite(source, name, torch.float32)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


# What they are

@dataclass(frozen=True)
class KnownModel:
    """A model, at hand or not."""

    name: str                       # as in minisd.load(...)
    parts: dict[str, int]           # what can be loaded by itself -> its parameters
    licence: str
    path: Path | None               # where it lies; None: not at hand
    on_disk: int                    # bytes of its weight files; 0: not at hand
    advice: str                     # how to get it; "": it is at hand

    @property
    def at_hand(self) -> bool:
        return self.path is not None

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())


class Models(list[KnownModel]):
    """Models, shown as two tables: what they are made of, and where they are."""

    def __repr__(self) -> str:
        parts: list[list[object]] = [["model", *LOADABLE, "parameters"]]
        places = [["model", "in float32", "on disk", "licence", "at hand"]]
        for model in self:
            parts.append([shown(model.name), *model.parts.values(), model.parameters])
            at = f"no: {model.advice}" if model.path is None else shown(short(model.path))
            places.append([shown(model.name), _size(BYTES * model.parameters),
                           _size(model.on_disk), model.licence, at])
        return (f"{aligned(parts)}\n\n{aligned(places, left=(0, 3, 4))}\n\n"
                f"Files of your own go into {short(WEIGHTS)}.")


def models() -> Models:
    """Every model known here: its parts, their sizes, and where it lies if it is at hand.

    Whole v1 models of other names in weights/ follow. Nothing is loaded.
    """
    rows = [_row(TOYWORLD.name, TOYWORLD, "MIT", [SHIPPED], "install minisd again")]
    rows += [_row(version, V1, LICENCE, _places(version), _advice(version))
             for version in VERSIONS]
    rows += [_row(place.name, config_of(open_model(place)), "as its maker says", [place])
             for place in _others() if not fault(place)]
    return Models(rows)


def _row(name: str, config: Config, licence: str, places: list[Path], advice: str = ""
         ) -> KnownModel:
    path = None
    for place in places:                # opening one takes time: no further than to the first whole
        reason = fault(place)
        if not reason:
            path = place
            break
        advice = FETCH if FETCH in reason else advice
    files = [] if path is None else [path] if path.is_file() else network_files(path).values()
    return KnownModel(name, _parts(config), licence, path,
                      sum(file.stat().st_size for file in files), "" if path else advice)


@cache
def _parts(config: Config) -> dict[str, int]:
    with torch.device("meta"):
        sd = StableDiffusion(config)
    return {part: sum(weight.numel() for module in modules
                      for weight in sd.get_submodule(module).parameters())
            for part, modules in LOADABLE.items()}


def _size(count: int) -> str:
    """Bytes in a unit that fits them."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count else "-"
