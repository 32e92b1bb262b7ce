"""The arguments of the command line, one by one: text in, a checked value or one clear line out.

Nothing here imports torch, which takes seconds, so that a mistake answers at once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

WEIGHTS = Path(__file__).parents[2] / "weights"
MODELS = ("auto", "toyworld", "v1-1", "v1-2", "v1-3", "v1-4", "v1-5")
SAMPLERS = {"ddim": 999, "ddpm": 1000, "plms": 999, "lms": 999, "euler": 999, "euler_a": 999,
            "heun": 999, "dpm++2m": 999}                # and the most steps each can take
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d+)?")
SIDE_STEP = 8                   # pixels along each side of one latent cell
SHOWN = 60                      # characters of a wrong value in its error


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def read(self, argv: list[str], *, surplus: str = ": see --help") -> argparse.Namespace:
        """The arguments. surplus: how to go on about a word too many. Raises ValueError."""
        args, rest = self.parse_known_args(argv)
        unknown = [argument for argument in rest if argument.startswith("-")]
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}: see --help")
        if rest:
            raise ValueError(f"unexpected {rest[0]!r}{surplus}")
        return args


def expected(what: str, got: str) -> argparse.ArgumentTypeError:
    """The error of an argument that is not `what`."""
    shown = got if len(got) <= SHOWN else f"{got[:SHOWN - 3]}..."
    return argparse.ArgumentTypeError(f"expected {what}, got {shown!r}")


# Text and numbers

def text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        bad = value[error.start]
        raise argparse.ArgumentTypeError(
            f"expected text in UTF-8, got {ascii(bad)[1:-1]} as character {error.start + 1}: "
            f"check the terminal's encoding, or retype the text") from error
    return value


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from low to high."""
    limits = f"of at least {low}" if high is None else f"from {low} to {high}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError as error:
            raise expected(f"a whole number {limits}", value) from error
        if number < low or (high is not None and number > high):
            raise expected(f"a whole number {limits}", value)
        return number

    return parse


def real(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A parser of finite numbers from low to high."""
    limits = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError as error:
            raise expected(limits, value) from error
        if not math.isfinite(number) or not low <= number <= high:
            raise expected(limits, value)
        return number

    return parse


def share(value: str) -> float:
    """Above 0, at most 1. It may be left out, and then the prompt must not follow it."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise expected("a number above 0 and at most 1, or nothing and the prompt before it", value)
    return number


def side(value: str) -> int:
    """Pixels, a multiple of 8."""
    pixels = whole(1)(value)
    if pixels % SIDE_STEP:
        below = pixels // SIDE_STEP * SIDE_STEP
        near = [n for n in (below, below + SIDE_STEP) if n]
        raise expected(f"a multiple of {SIDE_STEP} such as {' or '.join(map(str, near))}", value)
    return pixels


# Names and files

def model(value: str) -> str:
    """A name, or the path of something that is there, also when seen from weights/."""
    places = (Path(os.path.expanduser(value)), WEIGHTS / value)
    if value not in MODELS and not (value and any(place.exists() for place in places)):
        raise expected(f"{', '.join(MODELS)} or the path of a model", value)
    return value


def device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise expected("auto, cpu, cuda, cuda:1, mps or xpu", value)
    return value


def png(value: str) -> Path:
    """The name of a PNG file to write."""
    path = Path(value)
    if path.is_dir():
        raise expected("the name of a file that ends in .png", f"{value} (a folder)")
    if path.suffix.lower() != ".png":
        raise expected("the name of a file that ends in .png", value)
    return path


def check_writable(folder: Path, option: str) -> None:
    """Raises ValueError where no file could be written later; leaves nothing behind."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"expected a folder that can be written, got {str(folder)!r} "
                         f"({error.strerror}): choose another with {option}") from error
