"""The arguments of the command line, one by one: text in, a value or one clear line out.

Numbers are only read here; which make sense settings.py says. Nothing here imports torch, which
takes seconds, so that a mistake answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from minisd.checkpoints.untrusted import shown

MODELS = ("auto", "toyworld", "v1-1", "v1-2", "v1-3", "v1-4", "v1-5")
SAMPLERS = ("ddim", "ddpm", "plms", "lms", "euler", "euler_a", "heun", "dpm++2m")
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def read(self, argv: list[str], *, surplus: str = ": see --help") -> argparse.Namespace:
        """The arguments. surplus: how to go on about a word too many. Raises ValueError.

        Unknown options come first, and without the value that follows: it may be a secret.
        """
        for word in argv[:argv.index("--")] if "--" in argv else argv:
            name = word.split("=")[0]
            if re.fullmatch("--[^ ]+", name) and name not in self._option_string_actions:
                raise ValueError(f"unknown option {name!r}: see --help")
        args, rest = self.parse_known_args(argv)
        if rest:
            raise ValueError(f"unknown option {rest[0][:2]!r}: see --help"
                             if rest[0].startswith("-") else f"unexpected {rest[0]!r}{surplus}")
        return args


def expected(what: str, got: str) -> argparse.ArgumentTypeError:
    """The error of an argument that is not `what`."""
    return argparse.ArgumentTypeError(f"expected {what}, got '{shown(got, 60)}'")


# Values

def text(value: str) -> str:
    """Any characters; a terminal of another encoding, or half a surrogate pair, gives none."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise expected("text in UTF-8", value) from error
    return value


def number(value: str) -> int | float | str:
    """An integer, a fraction, or else the text, of which settings.check says what it is not."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def share(value: str) -> float:
    """Above 0, at most 1. It may be left out, and then the prompt must not follow it."""
    ratio = number(value)
    if isinstance(ratio, str) or not 0 < ratio <= 1:
        raise expected("a number above 0 and at most 1, or nothing and the prompt before it", value)
    return ratio


# Files

def file(value: str) -> Path:
    """A file that is there, to be read."""
    path = Path(os.path.expanduser(value))
    if not path.is_file():
        raise expected("a file that is there" + ": download it first" * ("://" in value), value)
    return path


def place(value: str) -> Path:
    """Where to write; a shell leaves the ~ in --output=~/x.png to us."""
    return Path(os.path.expanduser(value))


def png(value: str) -> Path:
    """The name of a PNG file to write."""
    path = place(value)
    if path.suffix.lower() != ".png":
        raise expected("the name of a file that ends in .png", value)
    return path


def check_writable(files: Collection[Path], option: str) -> None:
    """Raises ValueError where one of these could not be written later; leaves nothing behind."""
    for file in files:
        if file.is_dir():
            raise ValueError(f"argument {option}: expected the name of a file, got '{file}', which "
                             f"is a folder")
        folder = (Path(os.path.realpath(file)).parent if file.is_symlink() else
                  next(above for above in file.absolute().parents if os.path.lexists(above)))
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(f"expected a folder that can be written, got '{folder}' "
                             f"({error.strerror}): choose another with {option}") from error
