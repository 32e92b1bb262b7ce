"""The command line: `python -m minisd "a red car below a yellow balloon" -o out.png`.

A first word from the table below runs that subcommand, the file of its name in cli/; all else is
painted. Only the chosen file is imported, and it checks its arguments before it imports torch,
which takes seconds, so that a mistake answers at once.
"""

from __future__ import annotations

import errno
import re
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

from minisd.cli.memory import ADVICE
from minisd.cli.terminal import Output, complain, warn

SUBCOMMANDS = {
    "info": "what a model is made of: its parts, layers, parameters and cost",
    "models": "the known models, their sizes, and which are at hand",
    "download": "fetch real Stable Diffusion v1 weights, or the vocabulary alone",
    "verify": "say which known file a file is, and whether it is whole",
    "replay": "paint a picture again from the record inside its PNG file",
    "lab": "open JupyterLab on the notebooks with the right kernel",
    "doctor": "check the installation, and say what to do about each problem",
}
STATUSES = """\
exit status: 0 done; 1 the run failed (no memory, no network, a full disk, a refused download,
numbers that overflow), or `doctor` found a problem; 2 the input makes no sense; 130 interrupted
"""
OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)     # what is wrong with a path
NO_MEMORY = "out of memory|allocate memory|unable to allocate|bad_alloc|enough memory|^MemoryError$"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 1 where nobody took what was to be said."""
    argv = sys.argv[1:] if argv is None else argv
    out: Any = Output(sys.stdout)
    err: Any = Output(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.showwarning = warn         # type: ignore[assignment]
        try:
            return dispatch(argv) or int(out.failed)
        except KeyboardInterrupt:
            complain("interrupted")
            return 130
        except Exception as error:
            status, line = explained(error)
            complain(f"error: {line}")
            return status


def dispatch(argv: list[str]) -> int:
    """Run the subcommand that the arguments name, or paint; returns the exit status."""
    if argv and argv[0] in SUBCOMMANDS:
        status: int = import_module(f"minisd.cli.{argv[0]}").run(argv[1:])
        return status
    from minisd.cli import paint

    rows = "".join(f"  {name:10}{meaning}\n" for name, meaning in SUBCOMMANDS.items())
    return paint.run(argv, f"\nsubcommands, each with its own --help (to paint one of these words, "
                           f"write --prompt lab):\n{rows}\n{STATUSES}")


def explained(error: Exception) -> tuple[int, str]:
    """The exit status of an error, and its line; raises a mistake of this package again."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError | RuntimeError) and re.search(NO_MEMORY, text, re.I):
        size = re.search(r"tried to allocate [\d.]+ \w+", text, re.I)
        return 1, f"out of memory{f' ({size[0].lower()})' if size else ''}: {ADVICE}"
    if type(error) is OSError and error.errno not in OF_A_NAME:     # a full disk, no memory, ...
        return 1, text
    if isinstance(error, ValueError | TypeError | OSError):
        return 2, text
    if isinstance(error, ArithmeticError | MemoryError | RuntimeError):
        return 1, text.splitlines()[0]          # below it torch lists its own functions
    if isinstance(error, ImportError) and not (error.name or "").startswith("minisd"):
        return 1, f"{error}, in the Python at {sys.executable}: `python -m minisd doctor` says more"
    raise error
