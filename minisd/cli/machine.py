"""What `doctor` looks at last: the machine's disk, memory, number formats and GPU.

A lack of these breaks nothing: toyworld runs anywhere. They say what to expect of real weights.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from minisd.cli.installation import ROOT, Finding, Findings, problem

LEAST_DISK = 100_000_000        # bytes, for pictures and traces
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")                 # of a container: its own limit of memory


def disk() -> Findings:
    """Whether there is room for pictures, and for v1."""
    needed, free = v1_bytes(), shutil.disk_usage(ROOT).free
    if free < LEAST_DISK:
        yield problem("disk", f"{_gb(free)} free at {ROOT}", "free some before you paint")
    elif free < needed:
        yield Finding("disk", f"{_gb(free)} free at {ROOT}",
                      f"v1 in float32 takes {_gb(needed)}; free some, or fetch --half of it")
    else:
        yield Finding("disk", f"{_gb(free)} free at {ROOT}; v1 in float32 takes {_gb(needed)}")


def memory() -> Findings:
    """Whether v1's weights would fit into memory."""
    needed, free = v1_bytes(), free_memory()
    if free is None:
        yield Finding("memory", "this system does not say how much is free")
    elif free < needed:
        yield Finding("memory", f"{_gb(free)} free",
                      f"v1's weights alone take {_gb(needed)} in float32, and half of that in "
                      f"bfloat16; close other programs before you load them")
    else:
        yield Finding("memory", f"{_gb(free)} free; v1's weights alone take {_gb(needed)} in "
                                f"float32")


def v1_bytes() -> int:
    """Of v1's weights in float32."""
    from minisd.checkpoints.known import V1_BYTES

    return V1_BYTES


def free_memory() -> int | None:
    """Bytes that a program could still have; None where the system does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    try:
        limit, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):               # no container, or one without a limit
        return free


def formats() -> Findings:
    """In which precision `--dtype auto` computes on the processor."""
    import torch

    from minisd.checkpoints.load import choose_dtype

    if choose_dtype("auto", torch.device("cpu")) == torch.bfloat16:
        yield Finding("processor", "computes in bfloat16, which `--dtype auto` takes")
    else:
        yield Finding("processor", "has no bfloat16 of its own; `--dtype auto` takes float32")


def gpu() -> Findings:
    """Whether there is one, and whether torch can compute on it."""
    import torch

    if torch.cuda.is_available():
        try:
            name, room = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0]
            works = torch.ones(4, device="cuda").sum().item() == 4
        except RuntimeError as error:
            works, name, room = False, str(error).splitlines()[0], 0
        if works:
            yield Finding("GPU", f"{name}, {_gb(room)} free")
        else:
            yield problem("GPU", f"there is one, and torch cannot compute on it ({name})",
                          "install the torch build that pytorch.org shows for it, or say "
                          "--device cpu")
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "of this Mac, through mps")
    elif shutil.which("nvidia-smi"):
        yield Finding("GPU", f"NVIDIA's driver is here, and torch {torch.__version__} sees no GPU",
                      "install the CUDA build of torch that pytorch.org shows, or go on without")
    else:
        yield Finding("GPU", "none, and none is needed for toyworld")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
