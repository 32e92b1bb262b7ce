"""What `doctor` looks at first: Python, its packages, the kernel of the notebooks, the folders.

Only the standard library is imported at the top: these checks run where nothing else does. Each
yields what it found, line by line; none of them changes anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from minisd.checkpoints.places import PACKAGE
from minisd.cli import arguments

ROOT = PACKAGE.parent
OLDEST_PYTHON = (3, 11)
SECONDS = 60                    # for another Python to answer

# As in pyproject.toml; the second list is its extra [notebooks].
PACKAGES = ("torch>=2.10,<2.15", "numpy>=2.0", "safetensors>=0.5", "pillow>=11.0",
            "tokenizers>=0.22", "huggingface-hub>=1.0", "ftfy>=6.3", "tqdm>=4.66")
MODULES = {"pillow": "PIL", "huggingface-hub": "huggingface_hub"}   # imported under another name
NOTEBOOK_PACKAGES = ("matplotlib>=3.9", "jupyterlab>=4.4", "ipywidgets>=8.1")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    what: str
    found: str
    remedy: str = ""            # what to do, if anything
    broken: bool = False        # whether something does not work until that is done

    def __str__(self) -> str:
        kind = "PROBLEM" if self.broken else "note" if self.remedy else "ok"
        return (f"{kind:8} {self.what:14} {' '.join(self.found.split())}"
                + (f": {self.remedy}" if self.remedy else ""))


Findings = Iterator[Finding]


def python() -> Findings:
    """Which one runs, and whether it is the one of the active environment."""
    old = sys.version_info[:2] < OLDEST_PYTHON
    yield Finding("Python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}",
                  "make a virtual environment with 3.11 or newer" * old, broken=old)
    active = os.environ.get("VIRTUAL_ENV")
    if active and Path(active).resolve() != Path(sys.prefix).resolve():
        yield Finding("environment", f"{active} is active, and this Python belongs to {sys.prefix}",
                      f"if packages are missing, use the python in {active}")


def packages() -> Findings:
    """Whether each is there, in a version that is known to work."""
    for wanted in (*PACKAGES, *NOTEBOOK_PACKAGES):
        name, low, high = re.split(">=|,<", f"{wanted},<")[:3]
        needed = wanted in PACKAGES
        file = Path(f"{MODULES.get(name, name)}.py").absolute()
        try:
            version = metadata.version(name)
            number = _numbers(version.split("+")[0])
            right = number >= _numbers(low) and not (high and number >= _numbers(high))
        except metadata.PackageNotFoundError:
            version, right = "not installed", False
        if file.exists():
            yield Finding(name, f"{file} hides the package of that name",
                          "rename that file, or run from another folder", broken=True)
        else:
            purpose = "" if needed else ", for the notebooks"
            yield Finding(name, version, "" if right else _install(wanted) + purpose,
                          broken=needed and not right)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _install(*wanted: str) -> str:
    """The command that installs packages in versions that are known to work."""
    quoted = " ".join(f'"{package}"' for package in wanted)
    return f"run `{sys.executable} -m pip install {quoted}`"


def kernel() -> Findings:
    """Whether notebooks that ask for the kernel "python3" run in this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    lab = "start notebooks with `python -m minisd lab`, which brings its own kernel"
    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if re.fullmatch(r"python[\d.]*", command):      # Jupyter takes its own
        command = sys.executable
    try:
        done = subprocess.run([command, "-c", "import sys; print(sys.prefix)"], timeout=SECONDS,
                              capture_output=True, text=True, check=True)
        other = Path(done.stdout.strip()).resolve() != Path(sys.prefix).resolve()
        fault = ", not this Python" * other
    except (OSError, subprocess.SubprocessError) as error:
        fault = f", which does not run ({error})"
    yield Finding("kernel", f"python3 is {command}{fault}", lab * bool(fault), broken=bool(fault))
    jupyter = shutil.which("jupyter")
    if jupyter and Path(jupyter).resolve().parent != Path(sysconfig.get_path("scripts")).resolve():
        yield Finding("jupyter", f"the command is {jupyter}, which belongs to another Python", lab)


def importable() -> Findings:
    """Whether `import minisd` finds this copy from every folder, as notebooks need it."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, "-c", "import minisd; print(minisd.__file__)"],
                              cwd=elsewhere, timeout=SECONDS, capture_output=True, text=True)
    found = "nothing" if done.returncode else Path(done.stdout.strip()).parent.resolve()
    wrong = found != PACKAGE.resolve()
    yield Finding("minisd", f"{PACKAGE}" + f", and other folders import {found}" * wrong,
                  f"run `{sys.executable} -m pip install -e {ROOT}`" * wrong, broken=wrong)


def outputs() -> Findings:
    """Whether pictures can be written here."""
    try:
        arguments.check_writable([Path("outputs/x.png")], "-o")
        yield Finding("outputs", f"{Path('outputs').absolute()} can be written")
    except ValueError as error:
        yield Finding("outputs", str(error), "or run from another folder", broken=True)
