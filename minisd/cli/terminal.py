"""What the command line says: results on stdout, one line for each complaint on stderr.

Only the standard library is imported, so that `doctor` can speak where nothing else works.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import Any, TextIO

from minisd.checkpoints.untrusted import shown

LONGEST = 2000                  # characters of one complaint
SECRET = re.compile(r"(?<=//)[^/@\s]+(?=@)|\bhf_[A-Za-z0-9]{12,}")  # user:password@, a hub's token


class Output:
    """A standard stream that ends nothing: what nobody takes is dropped.

    It may be None, as services have it, or closed, a pipe whose reader has left, a full disk. A
    letter that its encoding lacks is escaped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = open(os.devnull, "w") if stream is None else stream   # noqa: SIM115
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        return self._try("write", text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *text: str) -> int:
        try:
            getattr(self.stream, method)(*text)
        except (OSError, ValueError):
            self.failed = True
            with suppress(OSError, ValueError):     # Python flushes once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return sum(map(len, text))


def say(text: str) -> None:
    """Text on stdout; control characters, as a file's name may hold them, are escaped."""
    print("\n".join(shown(line, len(line)) for line in text.split("\n")), flush=True)


def warn(message: Warning | str, *_: object) -> None:
    """Stands in for warnings.showwarning, which prints file names and source lines too."""
    complain(f"warning: {message}")


def complain(text: str) -> None:
    """Exactly one line on stderr, without secrets, clear of any progress bar."""
    line = f"minisd: {shown(SECRET.sub('***', ' '.join(text.split())), LONGEST)}\n"
    if "tqdm" in sys.modules:               # else there is no bar, and maybe no tqdm
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr, end="")
    else:
        sys.stderr.write(line)
