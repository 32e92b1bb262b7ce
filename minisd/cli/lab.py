"""`python -m minisd lab`: JupyterLab on the notebooks, and its kernel is this very Python.

A notebook asks for the kernel "python3", which may be any Python that was ever installed for this
user. So a kernel of that name, with this interpreter and the minisd that runs now, is put in front
of all others, in a temporary folder. The whole checkout is served, so that links from a notebook to
source files open. An installed package holds no notebooks.
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from minisd.cli.arguments import Parser

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
NEEDED = ("jupyterlab", "ipykernel", "ipywidgets", "matplotlib")

EPILOG = """\
Whatever follows `--` goes on to JupyterLab:
  python -m minisd lab --port 9000 -- --no-browser --ServerApp.token=secret
"""


def run(argv: list[str]) -> int:
    """Run JupyterLab until it ends; returns the exit status."""
    parser = Parser("minisd lab", "Open JupyterLab on the notebooks with the right kernel.", EPILOG)
    parser.add_argument("--port", type=int, metavar="N",
                        help="of its web page; the next free one if it is taken (default: 8888)")
    parser.add_argument("--no-browser", action="store_true",
                        help="only say the address, open nothing")
    cut = argv.index("--") if "--" in argv else len(argv)
    args = parser.read(argv[:cut], surplus=": what is JupyterLab's goes after --")
    if args.port is not None and args.port not in range(1, 65536):
        raise ValueError(f"argument --port: expected 1 to 65535, got {args.port}")
    if not any(NOTEBOOKS.glob("*.ipynb")):
        raise RuntimeError(f"expected the notebooks in {NOTEBOOKS}, which is not there or empty: "
                           f"an installed minisd brings none, so run `python -m minisd lab` in a "
                           f"copy of the repository")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"expected {', '.join(NEEDED)} in the Python at {sys.executable}, got "
                           f"no {', no '.join(missing)}: run `{sys.executable} -m pip install "
                           f"{' '.join(missing)}`")
    from ipykernel.kernelspec import write_kernel_spec
    from jupyterlab.labapp import LabApp

    settings = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/{NOTEBOOKS.name}"]
    settings += [f"--port={args.port}"] * (args.port is not None)
    settings += ["--no-browser"] * args.no_browser + ["--allow-root"] * is_root()
    with tempfile.TemporaryDirectory(prefix="minisd-lab-") as folder:
        write_kernel_spec(f"{folder}/kernels/python3", overrides={
            "display_name": "Python 3 (minisd)", "env": {"PYTHONPATH": before(ROOT, "PYTHONPATH")}})
        os.environ["JUPYTER_PATH"] = before(folder, "JUPYTER_PATH")
        LabApp.launch_instance([*settings, *argv[cut + 1:]])
    return 0


def is_root() -> bool:
    """Whether this is the user root, as in most containers: JupyterLab refuses that unasked."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def before(place: str | Path, variable: str) -> str:
    """A variable of the environment that lists folders, with one more in front of them."""
    return os.pathsep.join([str(place), *filter(None, [os.environ.get(variable)])])
