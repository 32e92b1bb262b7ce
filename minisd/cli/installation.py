"""What `doctor` looks at first: Python, its packages, the kernel of the notebooks, the folders.

Only the standard library is imported at the top: these checks run where nothing else does. Each
yields what it found, line by line; none of them changes anything.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minisd.cli.arguments import MODELS, WEIGHTS, check_writable

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
OLDEST_PYTHON = (3, 11)
SECONDS = 60                    # for another Python to answer

Range = tuple[tuple[int, ...], tuple[int, ...]]     # from, and up to but without; () is no limit

# What pyproject.toml asks for, by the name on PyPI. The second table is its extra [notebooks].
PACKAGES: dict[str, Range] = {
    "torch": ((2, 10), (2, 15)), "numpy": ((2, 0), ()), "safetensors": ((0, 5), ()),
    "pillow": ((11, 0), ()), "tokenizers": ((0, 21), ()), "ftfy": ((6, 3), ()),
    "tqdm": ((4, 66), ())}
NOTEBOOK_PACKAGES: dict[str, Range] = {
    "matplotlib": ((3, 9), ()), "jupyterlab": ((4, 4), ()), "ipywidgets": ((8, 1), ())}
MODULES = {"pillow": "PIL"}     # where the name to import is another


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    what: str
    found: str
    remedy: str = ""            # what to do, if anything
    broken: bool = False        # whether something does not work until that is done

    def __str__(self) -> str:
        kind = "PROBLEM" if self.broken else "note" if self.remedy else "ok"
        return (f"{kind:8} {self.what:14} {self.found}"
                + (f": {self.remedy}" if self.remedy else ""))


Findings = Iterator[Finding]


def problem(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, " ".join(found.split()), remedy, broken=True)


# Python and its packages

def python() -> Findings:
    """Which one runs, and whether it is the one of the active environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield problem("Python", f"{version} at {sys.executable}, and 3.11 is the oldest that works",
                      "install a newer one, and make a virtual environment with it")
    else:
        yield Finding("Python", f"{version} at {sys.executable}")
    active = os.environ.get("VIRTUAL_ENV")
    if active and not _same(Path(active), Path(sys.prefix)):
        yield Finding("environment", f"{active} is active, and this Python belongs to {sys.prefix}",
                      f"if packages are missing, use the python in {active}")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def packages() -> Findings:
    """Whether each is there, in a version that is known to work."""
    for name, limits in PACKAGES.items():
        yield _package(name, limits, broken=True)
    for name, limits in NOTEBOOK_PACKAGES.items():
        yield _package(name, limits, broken=False)


def _package(name: str, limits: Range, *, broken: bool) -> Finding:
    purpose = "" if broken else ", which the notebooks need"
    module = MODULES.get(name, name)
    if Path(f"{module}.py").exists():
        return problem(name, f"{Path(f'{module}.py').absolute()} hides the package of that name",
                       "rename that file, or run from another folder")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed{purpose}", _install(name), broken)
    number = tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))
    low, high = limits
    if number < low or (high and number >= high):
        wanted = f"{_dotted(low)} or newer" + (f", older than {_dotted(high)}" if high else "")
        return Finding(name, f"{version}, expected {wanted}{purpose}", _install(name), broken)
    return Finding(name, version)


def _install(*names: str) -> str:
    """The command that installs packages in versions that are known to work."""
    limits = PACKAGES | NOTEBOOK_PACKAGES
    wanted = (f'"{name}>={_dotted(low)}' + (f",<{_dotted(high)}" if high else "") + '"'
              for name in names for low, high in [limits[name]])
    return f"run `{sys.executable} -m pip install {' '.join(wanted)}`"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def arrays() -> Findings:
    """Whether torch starts at all, and whether it and numpy were built for one another."""
    try:
        import numpy as np
        import torch
    except ModuleNotFoundError as error:
        yield Finding("arrays", f"not looked at ({error})", _install("torch", "numpy"))
        return
    except Exception as error:      # a package built for another machine can raise anything
        yield problem("arrays", f"torch or numpy does not start ({error})",
                      _install("torch", "numpy"))
        return
    try:
        right = torch.from_numpy(np.arange(3)).add(1).numpy().tolist() == [1, 2, 3]
        fault = "" if right else "numbers change on the way"
    except Exception as error:
        fault = str(error) or type(error).__name__
    if fault:
        yield problem("arrays", f"torch {torch.__version__} and numpy {np.__version__} do not fit "
                      f"together ({fault})", _install("torch", "numpy"))
    else:
        yield Finding("arrays", "torch and numpy hand each other numbers")


# The notebooks

def kernel() -> Findings:
    """Whether notebooks that ask for the kernel "python3" run in this Python."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError:
        yield Finding("kernel", "no Jupyter in this Python", _install(*NOTEBOOK_PACKAGES))
        return
    lab = "start notebooks with `python -m minisd lab`, which brings its own kernel"
    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if re.fullmatch(r"python[\d.]*", command):      # Jupyter takes its own
        command = sys.executable
    try:
        done = subprocess.run([command, "-c", "import sys; print(sys.prefix)"], timeout=SECONDS,
                              capture_output=True, text=True, check=True)
        prefix = Path(done.stdout.strip())
    except (OSError, subprocess.SubprocessError) as error:
        yield problem("kernel", f"the kernel python3 is {command}, which does not run ({error})",
                      lab)
        return
    if _same(prefix, Path(sys.prefix)):
        yield Finding("kernel", f"python3 is {command}")
    else:
        yield problem("kernel", f"the kernel python3 is {command}, not this Python", lab)
    jupyter = shutil.which("jupyter")
    if jupyter and not _same(Path(jupyter).parent, Path(sysconfig.get_path("scripts"))):
        yield Finding("jupyter", f"the command is {jupyter}, which belongs to another Python", lab)


# The folders

def importable() -> Findings:
    """Whether `import minisd` finds this copy from every folder, as notebooks need it."""
    install = f"run `{sys.executable} -m pip install -e {ROOT}`"
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, "-c", "import minisd; print(minisd.__file__)"],
                              cwd=elsewhere, timeout=SECONDS, capture_output=True, text=True)
    found = Path(done.stdout.strip()).parent
    if done.returncode:
        yield problem("minisd", f"found from {ROOT} only", install)
    elif not _same(found, PACKAGE):
        yield problem("minisd", f"this copy is {PACKAGE}, and other folders import {found}",
                      install)
    else:
        yield Finding("minisd", f"{PACKAGE}, from every folder")


def folders() -> Findings:
    """Whether pictures can be written here, and what $MINISD_MODEL names from here."""
    try:
        check_writable(Path("outputs"), "-o")
        yield Finding("outputs", f"{Path('outputs').absolute()} can be written")
    except ValueError as error:
        yield problem("outputs", str(error), "or run from another folder")
    model = os.environ.get("MINISD_MODEL", "")
    if not model or model in MODELS:
        return
    if not Path(model).expanduser().exists() and not (WEIGHTS / model).exists():
        yield problem("MINISD_MODEL", f"{model!r} is not there, seen from {Path.cwd()}",
                      "write the whole path, or unset it")
    elif not Path(model).expanduser().is_absolute() and not (WEIGHTS / model).exists():
        yield Finding("MINISD_MODEL", f"{model!r} is found from this folder only",
                      "write the whole path")
