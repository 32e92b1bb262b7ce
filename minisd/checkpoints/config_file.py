"""The sizes of a model as files tell them: this project's config.json, and diffusers' own.

Both end in one schema, the dataclasses of minisd/config.py with a range for each number, so that
no size reaches a network, or memory, that no network has. Of diffusers' settings those are refused
by name that lead to another network than v1's without a trace in the names or shapes of tensors.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from minisd.checkpoints.untrusted import Refused, read_json, reading, shown
from minisd.config import V1, Config, ScheduleConfig, TextConfig, UNetConfig, VAEConfig
from minisd.observe.files import written_whole
from minisd.tokenizer import warn

TABLES = tomllib.loads(Path(__file__).with_name("sizes.toml").read_text(encoding="utf-8"))
RANGES: dict[str, tuple[float, float]] = TABLES["ranges"]
MOST_LEVELS = 8                 # of a network: entries of `channels`
LONGEST_NAME = 100              # characters


# The schema

def checked(config: Config) -> Config:
    """A configuration whose numbers are all possible. Raises Refused."""
    return _built(Config, asdict(config), "")


def _built(kind: Any, value: Any, where: str) -> Any:
    """What a value of a file stands for in a field of this type. Raises Refused, naming `where`."""
    if type(None) in get_args(kind):
        return None if value is None else _built(get_args(kind)[0], value, where)
    if is_dataclass(kind):
        return _record(kind, value, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_LEVELS:
            raise _wrong(where, value, f"a list of 1 to {MOST_LEVELS} values")
        return tuple(_built(get_args(kind)[0], each, where) for each in value)
    if kind is str:
        if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_NAME:
            raise _wrong(where, value, f"at most {LONGEST_NAME} printable characters")
    elif kind is bool:
        if not isinstance(value, bool):
            raise _wrong(where, value, "true or false")
    else:
        low, high = RANGES[where.rpartition(".")[2]]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or kind is float and isinstance(value, float)) or not low <= value <= high:
            raise _wrong(where, value, f"{'a number' if kind is float else 'an integer'} from "
                                       f"{low:g} to {high:,g}")
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where or "all of it", value, "names with values")
    hints, inside = get_type_hints(kind), f"{where}." if where else ""
    unknown = sorted(value.keys() - hints.keys())
    missing = [field.name for field in fields(kind) if field.name not in value
               and field.default is MISSING and field.default_factory is MISSING]
    if unknown or missing:
        raise Refused(f"{inside}{shown((missing + unknown)[0])} is "
                      f"{'missing' if missing else 'no setting that is known here'}")
    return kind(**{name: _built(hints[name], each, inside + name) for name, each in value.items()})


def _wrong(where: str, value: Any, expected: str) -> Refused:
    return Refused(f"{where} is {shown(repr(value), 60)}, expected {expected}")


# This project's own file

def read_own_config(path: Path) -> Config:
    """Raises Refused where the file is missing, or describes no model."""
    with reading(path, "config.json"):
        if not path.is_file():
            raise Refused("it is missing, which says how large the networks are: restore it")
        return _built(Config, read_json(path), "")


def write_config(folder: Path, config: Config) -> None:
    """Write folder/config.json, whole or not at all."""
    with written_whole(folder / "config.json") as part:
        part.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


# diffusers' files

KINDS = {"text": TextConfig, "vae": VAEConfig, "unet": UNetConfig, "schedule": ScheduleConfig}
CROSS_ATTENTION = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}


def read_diffusers_configs(folder: Path) -> dict[str, Any]:
    """What the files of a folder say: fields of `Config` by name; {} where there are none.

    Raises Refused for a damaged file, and for settings of another network than v1's.
    """
    found: dict[str, Any] = {}
    for field, table in TABLES["diffusers"].items():
        path = folder / table["file"]
        if not path.exists():
            continue
        with reading(path, "description of such a network"):
            said = read_json(path)
            for key, (value, expected) in _others(said, table).items():
                raise Refused(f"its {key} is {shown(repr(value))}, expected {expected!r} as in "
                              f"Stable Diffusion v1")
            ours = {mine: said.get(theirs, table["defaults"].get(theirs))
                    for mine, theirs in table["names"].items()}
            found[field] = _built(KINDS[field], ours | (_blocks(said) if field == "unet" else {}),
                                  "")
            cells = said.get("sample_size") if field == "unet" else None
            if cells:
                factor = found.get("vae", V1.vae).downscale
                pixels = cells * factor if isinstance(cells, int) else cells
                found["image_size"] = _built(int, pixels, "image_size")
            if field == "schedule" and (other := _others(said, TABLES["betas"])):
                warn(f"v1's noise schedule is used in place of the one in scheduler_config.json "
                     f"({shown({key: value for key, (value, _) in other.items()})})")
                found["schedule"] = V1.schedule
    return found


def _others(said: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of a file that are not as in a table: what they are, and what they should be."""
    expected = table["fixed"] | dict.fromkeys(table.get("absent", ()))
    return {key: (said[key], value) for key, value in expected.items()
            if said.get(key, value) != value}


def _blocks(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the UNet's kinds of blocks say, and its heads, which are called attention_head_dim."""
    kinds = list(said.get("down_block_types") or ())
    mirrored = [str(kind).replace("Down", "Up") for kind in reversed(kinds)]
    up = said.get("up_block_types", mirrored)
    if any(kind not in CROSS_ATTENTION for kind in kinds) or up != mirrored:
        raise Refused(f"its blocks are {shown(kinds)} and {shown(up)}, expected "
                      f"{' or '.join(CROSS_ATTENTION)} down, and the same up")
    return {"attention": [CROSS_ATTENTION[kind] for kind in kinds],
            "heads": said.get("num_attention_heads") or said.get("attention_head_dim")}
