"""What comes from outside: read within bounds, shown without its tricks, its faults named once.

A file, a server's answer or a header may hold anything. It reaches the terminal through `shown`,
whatever goes wrong while it is read becomes one sentence in `reading`, and texts are read from
regular files of a bounded size only. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST = 200                   # characters of a foreign text in a message
LARGEST_TEXT = 2 ** 24          # bytes of a vocabulary, a list of words, a config.json
HEAD = 512                      # bytes that betray what is no model at all
LFS_POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html", b"<?xml")
BEFORE_PAGES = b"\xef\xbb\xbf \t\r\n"       # a byte order mark, and white space


class Refused(ValueError):
    """Says in one line what is wrong with a file, and what to do; `reading` puts its name first."""

    named = False


def refusal(path: Path, reason: object) -> Refused:
    """The error of a file from outside, with its name in front."""
    error = Refused(f"{shown(path)}: {reason}")
    error.named = True
    return error


def shown(text: object, most: int = LONGEST) -> str:
    """A foreign text for a message: on one line, control characters escaped, cut where long."""
    whole = str(text)
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode()
                   for c in whole[:most])
    return safe if len(whole) <= most else f"{safe} ... ({len(whole):,} characters)"


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file from outside into one Refused that names it."""
    try:
        yield
    except Exception as error:              # crafted data makes a reader stumble over anything
        if isinstance(error, FileNotFoundError) or getattr(error, "named", False):
            raise
        if isinstance(error, Refused):
            raise refusal(path, error) from error
        if isinstance(error, OSError) and error.strerror:
            raise refusal(path, f"it cannot be read ({error.strerror})") from error
        reason = shown(str(error).partition("\n")[0]) or type(error).__name__
        raise refusal(path, f"it is damaged, cut off, or no {what} ({reason}): fetch it again"
                      ) from error


def read_text(path: Path) -> str:
    """A regular file of bounded size in UTF-8. Raises FileNotFoundError or Refused."""
    with reading(path, "text"):
        if not path.exists():
            raise FileNotFoundError(f"{shown(path)} is missing")
        if not path.is_file():
            raise Refused("it is a folder, a pipe or a device, expected a file of text")
        with path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
        if len(data) > LARGEST_TEXT:
            raise Refused(f"it has more than {LARGEST_TEXT:,} bytes, too many for what it should "
                          f"hold: fetch it again")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:                    # UTF-16 is full of these
            raise Refused("it is no text in UTF-8: save it in that encoding, or fetch it again")
        return text


def read_json(path: Path) -> Any:
    """What a file of JSON holds. Raises FileNotFoundError or Refused."""
    with reading(path, "JSON"):
        return json.loads(read_text(path))


def impostor(head: bytes) -> str:
    """What a file that begins like this is instead of a part of a model, "" for any other."""
    if not head:
        return "it is empty: fetch it again"
    if head.startswith(LFS_POINTER):
        return ("it is a Git LFS pointer, a note where the file lies, not the file: fetch the real "
                "one, for instance with `git lfs pull`")
    if head.lstrip(BEFORE_PAGES)[:9].lower().startswith(PAGES):
        return ("it is a web page, not weights: the download was refused or the address was wrong; "
                "fetch it again")
    return ""
