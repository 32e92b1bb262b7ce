"""The names that others give to the same tensors, and whose file a file is.

Stable Diffusion v1 circulates in two layouts: CompVis's one file with everything, and diffusers'
folder of parts. Both are renamed to this project's names by the rules in names.toml. Tests prove
that each layout's rules map all 1,130 names one to one.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from minisd.checkpoints.untrusted import Refused, shown

TABLES = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
ORDER = {"diffusers": ("clip", "transformer", "diffusers"),
         "compvis": ("compvis_parts", "clip", "transformer", "compvis")}
RULES = {layout: [
    (re.compile(r"(?<![^.])" + pattern.replace(".", r"\.").replace("#", r"\d+") + r"(?![^.])"), new)
    for table in tables for pattern, new in TABLES[table].items()]
    for layout, tables in ORDER.items()}
NUMBERED = re.compile(r"(?<=diffusion_model\.)(input_blocks\.(?!0\.)|output_blocks\.)(\d+)(?![^.])")


def rename(name: str, layout: str) -> str:
    """A tensor's name in this project; layout is "compvis" or "diffusers".

    Names of diffusers' parts are given with the part in front: "unet.conv_in.weight".
    """
    module, dot, last = name.rpartition(".")
    return _renamed(module, layout) + dot + last


@lru_cache(maxsize=4096)
def _renamed(module: str, layout: str) -> str:
    module = NUMBERED.sub(_by_level, module)
    for pattern, new in RULES[layout]:
        module = pattern.sub(new, module)
    return module


def _by_level(block: re.Match[str]) -> str:
    """CompVis numbers the UNet's blocks through, three to a level; the very first is conv_in."""
    down = block[1] == "input_blocks."
    level, place = divmod(int(block[2]) - down, 3)
    return f"{'down' if down else 'up'}.{level}.{place}"


# Whose file is it?

COMPVIS_PREFIXES = {"text_encoder": "cond_stage_model.transformer.",
                    "unet": "model.diffusion_model.", "vae": "first_stage_model."}
AVERAGED = "model_ema.diffusion_model"

# How a name begins that tells the layout and the part. The first layout found is the file's.
MARKS: tuple[tuple[str, str, str], ...] = (
    *(("compvis", part, re.escape(prefix)) for part, prefix in COMPVIS_PREFIXES.items()),
    ("compvis", "vae", r"encoder\.down\."),         # a VAE alone, as improved ones were published
    ("diffusers", "vae", r"encoder\.(down_blocks|mid_block)\."),
    ("diffusers", "unet", r"time_embedding\.linear_1\.|(down|mid|up)_blocks?\."),
    ("diffusers", "text_encoder", r"(text_model\.)?encoder\.layers\.\d+\.self_attn\.q_proj\."),
    ("minisd", "vae", r"encoder\.levels\."),
    ("minisd", "unet", r"time_embedding\.linear1\."),
    ("minisd", "text_encoder", r"layers\.\d+\.self_attn\.to_q\."),
)

INERT = re.compile(f"({'|'.join(TABLES['inert']['names'])})$")      # no weights of the networks

TWICE = "are the same tensor under two names; take another file of this model"

# What saving a wrapped model puts into every name. `model.` is one too where all names have it.
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module|state_dict)\.")


@dataclass(frozen=True)
class Translation:
    """What a file's names say it is, and what its tensors are called here."""

    layout: str                     # "minisd", "compvis" or "diffusers"
    parts: tuple[str, ...]          # of "text_encoder", "unet", "vae"
    averaged: bool                  # the UNet's weights are the averages that lie beside the plain
    names: dict[str, str]           # our name -> the name in the file


def translate(names: Iterable[str]) -> Translation:
    """Which layout and parts these names are of, and what they are called here.

    Left out is what is known to be no weight; all else keeps its name, and fails the strict check.
    Where there are averaged UNet weights they are taken in place of the plain ones, so that a full
    file and its ema-only sister paint the same picture. Raises Refused for other models.
    """
    theirs = _unwrapped(names)
    layout, parts = _recognised(theirs)
    averaged = any(name.startswith(AVERAGED) for name in theirs)
    ours: dict[str, str] = {}
    for bare, name in theirs.items():
        if layout == "minisd":
            mine = f"{parts[0]}.{bare}"
        elif INERT.match(bare):
            continue
        else:
            mine = rename(_whole_name(bare, layout, parts), layout)
        if averaged and bare.startswith(COMPVIS_PREFIXES["unet"]):
            average = averaged_name(bare)
            if average not in theirs:
                raise Refused(f"its averaged UNet weights are incomplete, {shown(average)} is "
                              f"missing: take the ema-only file of this model")
            name = theirs[average]
        if mine in ours:
            raise Refused(f"{shown(ours[mine])} and {shown(name)} {TWICE}")
        ours[mine] = name
    return Translation(layout, parts, averaged, ours)


def averaged_name(name: str) -> str:
    """Where a full CompVis file keeps the moving average of this tensor of the UNet."""
    return AVERAGED + name.removeprefix(COMPVIS_PREFIXES["unet"]).replace(".", "")


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The names without what a wrapper put before or into them -> the names in the file."""
    theirs: dict[str, str] = {}
    for name in names:
        bare = WRAPPERS.sub("", name)
        if bare in theirs:
            raise Refused(f"{shown(theirs[bare])} and {shown(name)} {TWICE}")
        theirs[bare] = name
    while theirs and all(name.startswith("model.") for name in theirs) and not any(
            name.startswith(COMPVIS_PREFIXES["unet"]) for name in theirs):
        theirs = {name.removeprefix("model."): original for name, original in theirs.items()}
    return theirs


def _recognised(names: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """The layout, and the parts that are there. Raises Refused saying what it is instead."""
    for pattern, what in TABLES["strangers"].items():
        stranger = next((name for name in names if re.search(pattern, name)), None)
        if stranger is not None:
            raise Refused(f"this is {what} (it holds {shown(names[stranger])}); expected Stable "
                          f"Diffusion v1")
    found = [(layout, held) for layout, held, pattern in MARKS
             if any(map(re.compile(pattern).match, names))]
    if found:
        layout = found[0][0]
        return layout, tuple(dict.fromkeys(held for other, held in found if other == layout))
    some = ", ".join(shown(name, 60) for name in sorted(names)[:3]) or "no tensors at all"
    raise Refused(f"these are not the weights of a Stable Diffusion v1 network ({some}, ...); "
                  f"expected CompVis's or diffusers' names")


def _whole_name(name: str, layout: str, parts: tuple[str, ...]) -> str:
    """A tensor's name as in a file with all parts, without the short forms that people use."""
    if layout == "diffusers":
        name = f"{parts[0]}.{name}"
    elif parts == ("vae",) and not name.startswith(COMPVIS_PREFIXES["vae"]):
        name = COMPVIS_PREFIXES["vae"] + name
    return re.sub(r"^(text_encoder|cond_stage_model\.transformer)\.(?!text_model\.)",
                  r"\1.text_model.", name)
