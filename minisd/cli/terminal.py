"""What the command line says: results on stdout, one line for each complaint on stderr.

Only the standard library is imported here, so that `doctor` can speak where nothing else works.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, TextIO


def say(text: str) -> None:
    """Text on stdout, also where its encoding lacks a letter of a file's name."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def short(path: Path) -> Path:
    """A path as it can be typed here: from the working directory on where it lies below that."""
    here, whole = Path.cwd(), path.absolute()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def complain(text: str) -> None:
    """Exactly one line on stderr, clear of any progress bar."""
    line = f"minisd: {' '.join(text.split())}"
    if "tqdm" in sys.modules:               # else there is no bar, and maybe no tqdm
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(f"{line}\n")


def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int,
         file: TextIO | None = None, line: str | None = None) -> None:
    """Stands in for warnings.showwarning, which prints file names and source lines too."""
    complain(f"warning: {message}")


class CtrlC:
    """Inside `with`, Ctrl-C interrupts at the next `check` if it did not at once.

    Python drops an exception that is raised in a destructor or a weak reference's callback, and
    Ctrl-C with it if it comes just then.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> CtrlC:
        ours = (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        self._before = signal.signal(signal.SIGINT, self._note) if ours else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.default_int_handler(number, frame)

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self.pressed:
            raise KeyboardInterrupt
