"""What a run needs of the machine's memory, and how much of that is free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minisd.pipeline import StableDiffusion
    from minisd.settings import Run

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")             # of a container: its own limit of memory
WORKING = 1.3                               # for what convolutions need beside their results
ADVICE = ("make smaller pictures with -H and -W or fewer at once with --num-images, or close other "
          "programs")


def free_memory() -> int | None:
    """Bytes that a program could still have; None where the system does not say, as Linux does."""
    try:
        lines = MEMINFO.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):           # no container, or one without a limit
        return free


def check(sd: StableDiffusion, run: Run) -> None:
    """Raises MemoryError where a run cannot fit, before it starts. GPUs say so themselves.

    Counted are the tensors that exist at once in the ResBlocks of the largest size, in the UNet for
    all predictions with the skips, in the decoder for one picture; measured was always more.
    """
    unet, vae, count = sd.config.unet, sd.config.vae, len(run.prompts)
    side = sd.config.image_size if run.image is None else vae.downscale     # where none is given
    pixels = (run.height or side) * (run.width or side)
    rows = count * (2 if run.both_predictions or run.guidance_scale not in (0, 1) else 1)
    in_unet = (unet.layers_per_block + 4) * unet.channels[0] + 2 * unet.channels[1]
    in_decoder = vae.channels[0] + 2 * vae.channels[1]
    values = max(rows * in_unet * pixels // vae.downscale ** 2, in_decoder * pixels)
    needed = int(WORKING * sd.dtype.itemsize * values) + 3 * count * pixels
    free = free_memory()
    if sd.device.type == "cpu" and free is not None and needed > free:
        raise MemoryError(f"this run needs at least {needed / 1e9:,.1f} GB of memory, and "
                          f"{free / 1e9:,.1f} GB are free: {ADVICE}")
