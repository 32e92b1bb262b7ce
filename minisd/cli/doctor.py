"""`python -m minisd doctor`: looks for what goes wrong the first time, and says what to do.

One line for each thing: "ok", "note" for what you may want to change, "PROBLEM" for what does not
work until you do. Exit status 0 without problems, 1 with some. It changes nothing. Models are
looked at as loading looks at them (registry.fault), every value included.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from minisd.checkpoints.places import SHIPPED, WEIGHTS
from minisd.cli import installation, memory
from minisd.cli.arguments import MODELS, Parser
from minisd.cli.installation import ROOT, Finding, Findings
from minisd.cli.terminal import say

LEAST_DISK = 100_000_000        # bytes, for pictures and traces


def run(argv: list[str]) -> int:
    """Say what every check finds; returns the exit status."""
    Parser("minisd doctor", "Check the installation, and say what to do about each problem."
           ).read(argv)
    problems = 0
    for check in CHECKS:
        for finding in findings(check):
            say(str(finding))
            problems += finding.broken
    say(f"{problems} problem{'s' * (problems > 1)} found" if problems else "no problems found")
    return 1 if problems else 0


def findings(check: Callable[[], Findings]) -> Findings:
    """What a check finds; that it could not be made, where it fails itself."""
    name = check.__name__.replace("_", " ")
    try:
        yield from check()
    except ImportError as error:            # packages() has said so already
        yield Finding(name, f"not looked at ({error})", "first install what is missing")
    except Exception as error:              # a broken installation can raise anything
        yield Finding(name, f"could not be looked at ({type(error).__name__}: {error})",
                      "see to the other problems first", broken=True)


# The weights

def weights() -> Findings:
    """Everything below weights/: dead links, and unfinished downloads."""
    yield Finding("weights", f"your own go into {WEIGHTS}")
    tops = sorted(WEIGHTS.iterdir()) if WEIGHTS.is_dir() else []
    for place in [place for top in tops for place in (top, *sorted(top.rglob("*")))]:
        if place.is_symlink() and not place.exists():
            yield Finding("weights", f"{place} is a link to {os.readlink(place)}, which is not "
                                     f"there", "put it back there, or remove the link", broken=True)
        elif place.suffix == ".part":
            yield Finding("weights", f"{place} is an unfinished download",
                          "the same `python -m minisd download` goes on with it")


def models() -> Findings:
    """What "auto" chooses from, and toyworld: each loads or not."""
    from minisd.checkpoints.registry import VARIABLE, candidates, fault

    try:
        places = candidates("auto")
    except ValueError as error:
        yield Finding(VARIABLE, str(error), "correct or unset it", broken=True)
        places = [SHIPPED]
    named = os.environ.get(VARIABLE, "")
    if named not in ("", *MODELS) and not os.path.isabs(named) and Path(named).exists():
        yield Finding(VARIABLE, f"{named!r} is found from this folder only", "write all of it")
    faults = {place: fault(place, values=True) for place in dict.fromkeys([*places, SHIPPED])}
    for place, reason in faults.items():
        remedy = ("`git checkout -- weights/toyworld`, or install minisd again"
                  if place == SHIPPED else f"or move it out of {WEIGHTS}")
        yield Finding("model", f"{place} {f'does not load: {reason}' if reason else 'loads'}",
                      remedy if reason else "", broken=bool(reason))
    best = next((place for place in places if not faults[place]), places[-1])
    real = "" if best != SHIPPED else "; `python -m minisd download v1-5` fetches real weights"
    yield Finding("auto", f"takes {best}{real}")


# The machine. A lack breaks nothing: toyworld runs anywhere.

def room() -> Findings:
    """Whether there is disk for pictures, and disk and memory for v1."""
    from minisd.checkpoints.known import V1_BYTES

    free, needed = shutil.disk_usage(ROOT).free, f"v1 in float32 takes {_gb(V1_BYTES)}"
    remedy = ("free some before you paint" if free < LEAST_DISK else
              "free some, or fetch --half of it" if free < V1_BYTES else "")
    yield Finding("disk", f"{_gb(free)} free at {ROOT}; {needed}", remedy, broken=free < LEAST_DISK)
    left = memory.free_memory()
    if left is None:
        yield Finding("memory", "this system does not say how much is free")
    else:
        remedy = "for v1 close other programs, or take --dtype bfloat16, half of it"
        yield Finding("memory", f"{_gb(left)} free; {needed}", remedy * (left < V1_BYTES))


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
                      f"{_gb(torch.cuda.mem_get_info(best)[0])} free")
        blind = best.type == "cpu" and shutil.which("nvidia-smi") is not None
        yield Finding("device", found, f"NVIDIA's driver is here, and torch {torch.__version__} "
                                       f"sees no GPU; install the CUDA build of torch that "
                                       f"pytorch.org shows, or go on without" * blind)
    except RuntimeError as error:
        yield Finding("device", f"{found}, and torch cannot compute there "
                                f"({str(error).splitlines()[0]})", "install the torch build that "
                      "pytorch.org shows for it, or say --device cpu", broken=True)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


CHECKS = (installation.python, installation.packages, installation.kernel,
          installation.importable, installation.outputs, weights, models, room, device)
