"""How fast and how lean, beside diffusers: python tests/benchmarks/full_size.py

Both sides hold the same random weights and take turns within one run, so whatever else the machine
does slows both; times are medians, ratios the median over pairs of neighbouring turns. Below 1 we
are faster.

    unet   one UNet step with guidance: batch 2, latents of 64 x 64
    vae    one picture decoded, 512 x 512
    speed  the same two beside the book's own classes, without minisd/speed/, in processor seconds:
           they hardly depend on what else the machine does

`--peak ours` and `--peak diffusers` decode one picture and print the peak memory of the process.
"""

import argparse
import copy
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

# Before diffusers is imported, here and in the processes that are started from here.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "DIFFUSERS_VERBOSITY": "error",
               "TRANSFORMERS_VERBOSITY": "error"}

sys.path.insert(0, str(Path(__file__).parents[1]))

import parity
import torch
import v1_files
from torch import Tensor, nn

from minisd.checkpoints import names
from minisd.config import V1, Config
from minisd.observe.tables import aligned
from minisd.speed import accelerate
from minisd.unet import UNet
from minisd.vae import VAE

# The network, and whether it is compared with the book's classes instead of diffusers'.
QUESTIONS = {"unet": [("unet", False)], "vae": [("vae", False)],
             "speed": [("unet", True), ("vae", True)]}
# v1's topology, small: shows in seconds that the script runs, and nothing about speed.
SMALL = replace(v1_files.SMALL, name="small", image_size=128)


# Ours and diffusers', around the same random weights

def pair(part: str, config: Config, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Our network and diffusers', "unet" or "vae", holding the same tensors without a copy."""
    ours: nn.Module
    with torch.device("meta"):
        if part == "unet":
            ours, theirs = UNet(config.unet), parity.unet(config.unet)
        else:
            ours, theirs = VAE(config.vae), parity.vae(config.vae)
    parity.scramble(ours.to(dtype).to_empty(device="cpu").eval())
    tensors = ours.state_dict()
    theirs.load_state_dict({name: tensors[names.rename(f"{part}.{name}", "diffusers")
                                          .removeprefix(f"{part}.")]
                            for name in theirs.state_dict()}, assign=True)
    return ours, theirs.eval().requires_grad_(False)


# Measuring

def alternate(ours: Callable[[], object], theirs: Callable[[], object], runs: int,
              clock: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of both in seconds, and of their ratio; turns are taken as a b, b a, a b, ..."""
    def timed(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return clock() - start

    timed(ours), timed(theirs)
    pairs = [(timed(theirs), timed(ours))[::-1] if i % 2 else (timed(ours), timed(theirs))
             for i in range(runs)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in pairs)


def latents(config: Config, batch: int) -> Tensor:
    side = config.image_size // config.vae.downscale
    return torch.randn(batch, config.unet.latent_channels, side, side)


@torch.no_grad()
def race(part: str, config: Config, dtype: torch.dtype, runs: int, *, book: bool) -> list[str]:
    """One guided step of the UNet, or one picture decoded: by us, by the others, ratio, distance.

    book: the others are the book's own classes.
    """
    ours, theirs = pair(part, config, dtype)
    theirs = copy.deepcopy(ours) if book else theirs
    ours, x = accelerate(ours), latents(config, 2).to(dtype)
    if part == "unet":
        context = torch.randn(2, config.text.max_length, config.unet.context_dim).to(dtype)
        works = [partial(net, x, torch.tensor([481.0, 481.0]), context) for net in (ours, theirs)]
    else:
        works = [partial(net.decode, x[:1]) for net in (ours, theirs)]
    made, other = (work() for work in works)
    apart = parity.relative_error(made, other if book else other.sample)
    a, b, ratio = alternate(*works, runs, time.process_time if book else time.perf_counter)
    return [f"{a:.2f}", f"{b:.2f}", f"{ratio:.3f}", f"{apart:.1e}"]


@torch.no_grad()
def peak(side: str, config: Config, dtype: torch.dtype) -> str:
    """The most memory that this process ever had, after one picture, on Linux."""
    ours, theirs = pair("vae", config, dtype)
    (accelerate(ours) if side == "ours" else theirs).decode(latents(config, 1).to(dtype))
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=QUESTIONS, default=[*QUESTIONS])
    parser.add_argument("--peak", choices=["ours", "diffusers"])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"],
                        default=["float32", "bfloat16"], help="--peak takes the first")
    parser.add_argument("--runs", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true",
                        help="small networks: shows that the script works, and nothing else")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = SMALL if args.small else V1
    if args.peak:
        print(peak(args.peak, config, getattr(torch, args.dtype[0])))
        return
    rows = [[what, dtype, part, *race(part, config, getattr(torch, dtype), args.runs, book=book)]
            for what in args.what for dtype in args.dtype for part, book in QUESTIONS[what]]
    print(aligned([["what", "dtype", "part", "ours, s", "others, s", "ratio", "apart"], *rows],
                  left=(0, 1, 2)))


if __name__ == "__main__":
    main()
