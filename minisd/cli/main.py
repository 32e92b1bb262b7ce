"""The command line: `python -m minisd "a red car below a yellow balloon" -o out.png`.

A first word from the table below runs that subcommand, the file of its name in commands/; all else
is painted. Only the chosen file is imported, and it checks its arguments before it imports torch,
which takes seconds, so that a mistake answers at once.

Exit status: 0 done; 1 the run failed (no memory, no network, a refused download, numbers that
overflow), or `doctor` found a problem; 2 the input makes no sense; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from minisd.cli.terminal import complain, warn

SUBCOMMANDS = {
    "info": "what a model is made of: its parts, layers, parameters and cost",
    "models": "the known models, their sizes, and which are at hand",
    "download": "fetch real Stable Diffusion v1 weights, or the vocabulary alone",
    "verify": "say which known file a file is, and whether it is whole",
    "replay": "paint a picture again from the record inside its PNG file",
    "lab": "open JupyterLab on the notebooks with the right kernel",
    "doctor": "check the installation, and say what to do about each problem",
}


def listing() -> str:
    """The subcommands, as the help shows them."""
    rows = "".join(f"  {name:10}{meaning}\n" for name, meaning in SUBCOMMANDS.items())
    return f"\nsubcommands (each with its own --help):\n{rows}"


def dispatch(argv: list[str]) -> int:
    """Run the subcommand that the arguments name, or paint; returns the exit status."""
    if argv and argv[0] in SUBCOMMANDS:
        status: int = import_module(f"minisd.cli.{argv[0]}").run(argv[1:])
        return status
    from minisd.cli import paint

    return paint.run(argv, listing())


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn
            return dispatch(argv)
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:                 # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError) as error:
        complain(f"error: {error}")
        return 2
    except (ArithmeticError, MemoryError, RuntimeError) as error:   # not finite, out of memory
        complain(f"error: {str(error) or type(error).__name__}")
        return 1
    except ImportError as error:
        if (error.name or "").startswith("minisd"):
            raise                           # a mistake in this package
        complain(f"error: {error}, in the Python at {sys.executable}: `python -m minisd doctor` "
                 f"says what is missing")
        return 1

