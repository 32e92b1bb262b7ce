"""The models known here by name: where each lies, what it is made of, and which are at hand.

A name stands for a place in weights/: the folder of that name, as `python -m minisd download`
makes it, or one of the published files in one piece. "auto" is the first of

1. what $MINISD_MODEL names;
2. real Stable Diffusion v1 weights in weights/: v1-5, v1-4, ... v1-1, then any other file or
   folder there that is a whole v1 model, in the order of their names;
3. toyworld, which ships.

A half-fetched model is none; it is named in a warning, so that nobody wonders.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import torch

from minisd.checkpoints.download import LICENCE, WEIGHTS
from minisd.checkpoints.known import KNOWN, SINGLE_FILES, VERSIONS
from minisd.checkpoints.sources import PARTS, SPOKEN, config_of, network_files, open_model, require
from minisd.config import TOYWORLD, V1, Config
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import warn

SHIPPED = "toyworld"
VARIABLE = "MINISD_MODEL"       # in the environment: what "auto" stands for
BYTES = 4                       # of one parameter in float32
SUFFIXES = (".safetensors", ".ckpt")
TO_THE_LEFT = ("model", "licence", "at hand")       # columns of text
# What can be loaded by itself, and the modules it consists of: the VAE is loaded by halves.
LOADABLE = {"text_encoder": ("text_encoder",), "unet": ("unet",),
            "encoder": ("vae.encoder", "vae.quant_conv"),
            "decoder": ("vae.decoder", "vae.post_quant_conv")}


# Where they are

def find(model: str | Path) -> Path:
    """The file or folder that a name or a path stands for; see above for the names.

    Raises ValueError for a model that is not there, saying how to get it.
    """
    name = str(model)
    if name == "auto":
        named = os.environ.get(VARIABLE) or "auto"
        return _best() if named == "auto" else find(named)
    if name == SHIPPED:
        return WEIGHTS / SHIPPED
    if name in VERSIONS:
        places = _places(name)
        if not places:
            file = SINGLE_FILES[name][0][0]
            raise ValueError(f"{name} is not at hand: {_advice(name)}"
                             + f", or put {file} into weights/" * (name in KNOWN)
                             + " (see weights/README.md)")
        whole = [place for place in places if not _lacking(place)]
        if not whole:
            raise ValueError(_unfinished(places[0]))
        return whole[0]
    path = Path(os.path.expanduser(model))
    for place in (path, WEIGHTS / path):
        if name and place.exists():
            return place
    raise ValueError(f"unknown model {name!r}: expected 'auto', {SHIPPED!r}, "
                     f"{', '.join(map(repr, VERSIONS))}, or the path of a folder, a .safetensors "
                     f"or a .ckpt file")


def _advice(version: str) -> str:
    """What to do for a version to be at hand."""
    return (f"run `python -m minisd download {version}`" if version in KNOWN else
            f"put {SINGLE_FILES[version][0][0]} into weights/")


def _places(version: str) -> list[Path]:
    """What lies under a version's names, in the order in which it is preferred."""
    names = [version, *(file for file, *_ in SINGLE_FILES[version])]
    return [WEIGHTS / name for name in names if (WEIGHTS / name).exists()]


def _lacking(place: Path) -> list[str]:
    """The networks that a folder has no file of."""
    if place.is_file():
        return []
    held = network_files(place)
    return [part for part in PARTS if part not in held]


def _unfinished(folder: Path) -> str:
    lacking = " and the ".join(SPOKEN[part] for part in _lacking(folder))
    return (f"{_shown(folder)} is no whole model, it lacks the {lacking}: "
            + (f"`python -m minisd download {folder.name}` goes on where it stopped"
               if folder.name in KNOWN else "put the missing files there"))


def _best() -> Path:
    """What "auto" stands for."""
    for version in VERSIONS:
        for place in _places(version):
            if not _lacking(place):
                return place
            warn(_unfinished(place))
    return next(_others(aloud=True), WEIGHTS / SHIPPED)


def _others(*, aloud: bool) -> Iterator[Path]:
    """What else in weights/ is a whole v1 model. aloud: say which files are left aside, and why."""
    known = {SHIPPED, *VERSIONS, *(file for files in SINGLE_FILES.values() for file, *_ in files)}
    for place in sorted(WEIGHTS.iterdir()) if WEIGHTS.is_dir() else []:
        if place.name in known or place.is_dir() and _lacking(place) or (
                place.is_file() and place.suffix not in SUFFIXES):
            continue
        try:
            source = open_model(place)
            require(source, PARTS)
            config_of(source)
        except (ValueError, OSError) as error:
            if aloud:
                warn(f"{_shown(place)} is left aside: {error}")
            continue
        if source.layout != "minisd":
            yield place


def _shown(place: Path) -> str:
    """A place in weights/ as it reads from this project's folder."""
    return place.relative_to(WEIGHTS.parent).as_posix()


# What they are

@dataclass(frozen=True)
class ModelPart:
    """What can be loaded by itself."""

    name: str                       # as in minisd.load(parts=...)
    parameters: int

    @property
    def size(self) -> int:
        """Bytes in memory, in float32."""
        return BYTES * self.parameters


@dataclass(frozen=True)
class KnownModel:
    """A model, at hand or not."""

    name: str                       # as in minisd.load(...)
    parts: tuple[ModelPart, ...]
    licence: str
    path: Path | None               # where it lies; None: not at hand
    on_disk: int | None             # bytes of its weight files; None: not at hand
    advice: str                     # how to get it; "": it is at hand

    @property
    def at_hand(self) -> bool:
        return self.path is not None

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes in memory, in float32."""
        return BYTES * self.parameters


class Catalogue(list[KnownModel]):
    """Models, shown as tables: what they are made of, and where they are."""

    def _tables(self) -> list[list[list[str]]]:
        parts = [["model", *LOADABLE, "parameters"]]
        places = [["model", "in float32", "on disk", "licence", "at hand"]]
        for model in self:
            parts.append([model.name, *(f"{part.parameters:,}" for part in model.parts),
                          f"{model.parameters:,}"])
            places.append([
                model.name, _size(model.size), _size(model.on_disk), model.licence,
                "no: " + model.advice if model.path is None else _shown(model.path)])
        return [parts, places]

    def __str__(self) -> str:
        texts = []
        for rows in self._tables():
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            texts.append("\n".join("  ".join(
                cell.ljust(width) if column in TO_THE_LEFT else cell.rjust(width)
                for cell, width, column in zip(row, widths, rows[0], strict=True)).rstrip()
                for row in rows))
        return "\n\n".join(texts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks; what stands in `backticks` as code."""
        def html(cell: str) -> str:
            return re.sub("`([^`]+)`", r"<code>\1</code>", escape(cell))

        return "".join(
            "<table>" + "".join(
                "<tr>" + "".join(f"<{tag}>{html(cell)}</{tag}>" for cell in row) + "</tr>"
                for tag, row in zip(["th"] + ["td"] * len(rows), rows, strict=False))
            + "</table>" for rows in self._tables())


def models() -> Catalogue:
    """Every model known here: its parts, their sizes, and where it lies if it is at hand.

    Whole v1 models of other names in weights/ follow. Nothing is loaded.
    """
    shipped = WEIGHTS / SHIPPED
    rows = [_row(SHIPPED, TOYWORLD, "MIT", None if _lacking(shipped) else shipped,
                 "restore weights/toyworld/ from the repository")]
    for version in VERSIONS:
        whole = [place for place in _places(version) if not _lacking(place)]
        rows.append(_row(version, V1, LICENCE, whole[0] if whole else None, _advice(version)))
    rows += [_row(place.name, config_of(open_model(place)), "as its maker says", place, "")
             for place in _others(aloud=False)]
    return Catalogue(rows)


def _row(name: str, config: Config, licence: str, path: Path | None, advice: str) -> KnownModel:
    files = [] if path is None else [path] if path.is_file() else network_files(path).values()
    return KnownModel(name, _parts(config), licence, path,
                      sum(file.stat().st_size for file in files) if path else None,
                      "" if path else advice)


@cache
def _parts(config: Config) -> tuple[ModelPart, ...]:
    with torch.device("meta"):
        sd = StableDiffusion(config)
    return tuple(ModelPart(part, sum(p.numel() for module in modules
                                     for p in sd.get_submodule(module).parameters()))
                 for part, modules in LOADABLE.items())


def _size(count: int | None) -> str:
    """Bytes in a unit that fits them."""
    if count is None:
        return "-"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
