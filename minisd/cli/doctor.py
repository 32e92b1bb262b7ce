"""`python -m minisd doctor`: looks for what goes wrong the first time, and says what to do.

One line for each thing: "ok", "note" for what you may want to change, "PROBLEM" for what does not
work until you do. Exit status 0 without problems, 1 with some. It changes nothing. Only the
standard library is imported at the top, so that it runs where nothing else does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from minisd.checkpoints.places import PACKAGE, SHIPPED, WEIGHTS
from minisd.cli import arguments
from minisd.cli.terminal import say

OLDEST_PYTHON = (3, 11)
SECONDS = 60                    # for another Python to answer


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


def run(argv: list[str]) -> int:
    """Say what every check finds; returns the exit status."""
    arguments.Parser("minisd doctor", "Check the installation, and say what to do about each "
                                      "problem.").read(argv)
    problems = 0
    for check in CHECKS:
        for finding in findings(check):
            say(str(finding))
            problems += finding.broken
    say(f"{problems} problem{'s' * (problems > 1)} found" if problems else "no problems found")
    return 1 if problems else 0


def findings(check: Callable[[], Findings]) -> Findings:
    """What a check finds; that it could not be made, where it fails itself."""
    try:
        yield from check()
    except ImportError as error:            # packages() has said so already
        yield Finding(check.__name__, f"not looked at ({error})", "first install what is missing")
    except Exception as error:              # a broken installation can raise anything
        yield Finding(check.__name__, f"could not be looked at ({type(error).__name__}: {error})",
                      "see to the other problems first", broken=True)


# Python, its packages, the notebooks

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
    """Whether all that minisd asks for is there, in versions that are known to work."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in metadata.requires("minisd") or ()]
    except ImportError:                     # nothing was installed, or not by pip
        yield Finding("packages", "this Python has no minisd, with all that it needs",
                      f'run `{sys.executable} -m pip install -e "{PACKAGE.parent}[notebooks]"`',
                      broken=True)
        return
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": "notebooks"}):
            continue
        try:
            version = metadata.version(one.name)
            right = one.specifier.contains(version, prereleases=True)
        except metadata.PackageNotFoundError:
            version, right = "not installed", False
        needed = one.marker is None
        remedy = (f'run `{sys.executable} -m pip install "{one.name}{one.specifier}"`'
                  + ("" if needed else ", for the notebooks"))
        yield Finding(one.name, version, "" if right else remedy, broken=needed and not right)


def kernel() -> Findings:
    """Whether notebooks that ask for the kernel "python3" run in this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

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
    remedy = "start notebooks with `python -m minisd lab`, which brings its own kernel"
    yield Finding("kernel", f"python3 is {command}{fault}", remedy * bool(fault),
                  broken=bool(fault))


def importable() -> Findings:
    """Whether `import minisd` finds this copy from every folder, as notebooks need it."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, "-c", "import minisd; print(minisd.__file__)"],
                              cwd=elsewhere, timeout=SECONDS, capture_output=True, text=True)
    found = "nothing" if done.returncode else Path(done.stdout.strip()).parent.resolve()
    wrong = found != PACKAGE.resolve()
    remedy = f"run `{sys.executable} -m pip install -e {PACKAGE.parent}`"
    yield Finding("minisd", f"{PACKAGE}" + f", and other folders import {found}" * wrong,
                  remedy * wrong, broken=wrong)


# The weights, and what computes

def models() -> Findings:
    """What "auto" chooses from, and toyworld: each loads or not, every value included."""
    from minisd.checkpoints.registry import VARIABLE, candidates, fault

    yield Finding("weights", f"your own go into {WEIGHTS}")
    try:
        places = candidates("auto")
    except ValueError as error:
        yield Finding(VARIABLE, str(error), "correct or unset it", broken=True)
        places = [SHIPPED]
    faults = {place: fault(place, values=True) for place in dict.fromkeys([*places, SHIPPED])}
    for place, reason in faults.items():
        remedy = ("`git checkout -- weights/toyworld`, or install minisd again"
                  if place == SHIPPED else f"or move it out of {WEIGHTS}")
        yield Finding("model", f"{place} {f'does not load: {reason}' if reason else 'loads'}",
                      remedy if reason else "", broken=bool(reason))
    best = next((place for place in places if not faults[place]), places[-1])
    real = "" if best != SHIPPED else "; `python -m minisd download v1-5` fetches real weights"
    yield Finding("auto", f"takes {best}{real}")


def device() -> Findings:
    """What `auto` computes on, in which precision, and whether it can."""
    import torch

    from minisd.checkpoints.load import choose_device, choose_dtype

    best = choose_device("auto")
    found = f"auto is {best} in {str(choose_dtype('auto', best)).removeprefix('torch.')}"
    try:
        torch.ones(4, device=best).sum().item()
        if best.type == "cuda":
            found += (f", {torch.cuda.get_device_name(best)} with "
                      f"{torch.cuda.mem_get_info(best)[0] / 1e9:.1f} GB free")
        blind = best.type == "cpu" and shutil.which("nvidia-smi") is not None
        yield Finding("device", found, f"NVIDIA's driver is here, and torch {torch.__version__} "
                                       f"sees no GPU; install the CUDA build of torch that "
                                       f"pytorch.org shows, or go on without" * blind)
    except RuntimeError as error:
        yield Finding("device", f"{found}, and torch cannot compute there "
                                f"({str(error).splitlines()[0]})", "install the torch build that "
                      "pytorch.org shows for it, or say --device cpu", broken=True)


CHECKS = (python, packages, kernel, importable, models, device)
