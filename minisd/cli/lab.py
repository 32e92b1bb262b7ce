"""`python -m minisd lab`: JupyterLab on the notebooks, and its kernel is this very Python.

A notebook asks for the kernel "python3". Which Python that is depends on what was ever installed
for this user, so a kernel of that name is put in front of all others: this interpreter, and the
minisd that runs now. It lies in a temporary folder and is gone when JupyterLab ends.

JupyterLab serves the whole checkout and begins in notebooks/, so that links from a notebook to the
source files open. An installed package holds no notebooks.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from minisd.cli import arguments
from minisd.cli.arguments import Parser

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
NEEDED = ("jupyterlab", "ipykernel", "ipywidgets")

EPILOG = """\
Whatever follows `--` goes on to JupyterLab:
  python -m minisd lab --port 9000 -- --no-browser --ServerApp.token=secret
"""


def make_parser() -> Parser:
    parser = Parser("minisd lab", "Open JupyterLab on the notebooks with the right kernel.", EPILOG)
    parser.add_argument("--port", type=arguments.whole(1, 65535), metavar="N",
                        help="of its web page; the next free one if it is taken (default: 8888)")
    parser.add_argument("--no-browser", action="store_true",
                        help="only say the address, open nothing")
    return parser


def run(argv: list[str]) -> int:
    """Run JupyterLab until it ends; returns its exit status."""
    cut = argv.index("--") if "--" in argv else len(argv)
    args = make_parser().read(argv[:cut], surplus=": what is JupyterLab's goes after --")
    if not any(NOTEBOOKS.glob("*.ipynb")):
        raise RuntimeError(f"expected the notebooks in {NOTEBOOKS}, which is not there or empty: "
                           f"an installed minisd brings none, so run `python -m minisd lab` in a "
                           f"copy of the repository")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"expected {', '.join(NEEDED)} in the Python at {sys.executable}, got "
                           f"no {', no '.join(missing)}: run `{sys.executable} -m pip install "
                           f"{' '.join(missing)}`")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}",
               f"--LabApp.default_url=/lab/tree/{NOTEBOOKS.name}"]
    command += [] if args.port is None else [f"--port={args.port}"]
    command += ["--no-browser"] if args.no_browser else []
    command += ["--allow-root"] if is_root() else []
    with tempfile.TemporaryDirectory(prefix="minisd-lab-") as folder:
        write_kernel(Path(folder))
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("JUPYTER_PATH")])])
        return wait_for([*command, *argv[cut + 1:]], {**os.environ, "JUPYTER_PATH": path})


def is_root() -> bool:
    """Whether this is the user root, as in most containers: JupyterLab refuses that unasked."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def write_kernel(folder: Path) -> None:
    """The kernel "python3" below a folder of JUPYTER_PATH: this interpreter and this minisd."""
    from ipykernel.kernelspec import get_kernel_dict

    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    spec = get_kernel_dict() | {"display_name": "Python 3 (minisd)", "env": {"PYTHONPATH": path}}
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def wait_for(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end. Ctrl-C is its own business; what ends us ends it too.

    Returns its exit status, 128 + n where signal n ended it, as a shell does.
    """
    process = subprocess.Popen(command, env=environment)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)   # JupyterLab asks what it should mean
    end = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
        return status if status >= 0 else 128 - status
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, end)
