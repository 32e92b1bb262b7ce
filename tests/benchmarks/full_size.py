"""How fast and how lean, beside diffusers: python tests/benchmarks/full_size.py

Prints one table per question. Both sides hold the same random weights and take turns within one
run, so whatever else the machine does slows both; times are medians, ratios the median over pairs
of neighbouring turns. Below 1 we are faster.

    unet   one UNet step with guidance: batch 2, latents of 64 x 64
    vae    one picture decoded, 512 x 512, and the peak memory of a process that does nothing else
    speed  the same two, with what minisd/speed/ changes beside the book's own classes
"""

import argparse
import copy
import math
import os
import resource
import statistics
import subprocess
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

CONTEXT_LENGTH = 77
QUESTIONS = ["unet", "vae", "speed"]
# v1's topology, small: shows in seconds that the script runs, and nothing about speed.
SMALL = replace(v1_files.SMALL, name="small", image_size=128)
Row = list[str]


# Ours and diffusers', around the same random weights

def pair(part: str, config: Config, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Our network and diffusers', "unet" or "vae", holding the same tensors without a copy."""
    ours: nn.Module
    with torch.device("meta"):
        if part == "unet":
            ours, theirs = UNet(config.unet), parity.unet(config.unet)
        else:
            ours, theirs = VAE(config.vae), parity.vae(config.vae)
    draw(ours.to(dtype).to_empty(device="cpu").eval())
    tensors = ours.state_dict()
    theirs.load_state_dict({name: tensors[names.rename(f"{part}.{name}", "diffusers")
                                          .removeprefix(f"{part}.")]
                            for name in theirs.state_dict()}, assign=True)
    return ours, theirs.eval().requires_grad_(False)


def draw(module: nn.Module) -> None:
    """Random values that keep the variance of what passes; no gradients from here on."""
    generator = torch.Generator().manual_seed(0)
    for name, p in module.requires_grad_(False).named_parameters():
        width = math.sqrt(3 / p[0].numel()) if p.ndim > 1 else 0.1
        p.uniform_(-width, width, generator=generator)
        if "norm" in name and name.endswith("weight"):
            p.add_(1)


# Measuring

def alternate(ours: Callable[[], object], theirs: Callable[[], object], runs: int,
              clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, float]:
    """Medians of both in seconds, and of their ratio; turns are taken as a b, b a, a b, ..."""
    def timed(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return clock() - start

    timed(ours), timed(theirs)
    pairs = []
    for i in range(runs):
        if i % 2:
            second = timed(theirs)
            pairs.append((timed(ours), second))
        else:
            pairs.append((timed(ours), timed(theirs)))
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(
        x / y for x, y in pairs)


def distance(a: Tensor, b: Tensor) -> str:
    return f"{float((a.float() - b.float()).norm() / b.float().norm()):.1e}"


def table(title: str, head: Row, rows: list[Row]) -> None:
    print(f"\n{title}\n\n{aligned([head, *rows], left=(0, 1))}", flush=True)


def peak_of_decoding(side: str, dtype: torch.dtype, config: Config) -> str:
    """The peak memory in GiB of a fresh process that decodes, on Linux."""
    task = [side, name(dtype), str(torch.get_num_threads()), config.name]
    done = subprocess.run([sys.executable, __file__, "--alone", *task], check=True, text=True,
                          stdout=subprocess.PIPE)
    return f"{int(done.stdout) / 2 ** 20:.2f}"


def decode_alone(side: str, dtype_name: str, threads: str, size: str) -> None:
    """The other end of `peak_of_decoding`: prints its peak memory in KiB."""
    torch.set_num_threads(int(threads))
    config, dtype = V1 if size == V1.name else SMALL, getattr(torch, dtype_name)
    ours, theirs = pair("vae", config, dtype)
    with torch.no_grad():
        (accelerate(ours) if side == "ours" else theirs).decode(latents(config, 1).to(dtype))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# The questions

def latents(config: Config, batch: int) -> Tensor:
    side = config.image_size // config.vae.downscale
    return torch.randn(batch, config.unet.latent_channels, side, side)


@torch.no_grad()
def race(part: str, config: Config, dtype: torch.dtype, runs: int, *, book: bool = False) -> Row:
    """One guided step of the UNet, or one picture decoded: by us, by the others, ratio, distance.

    book: the others are the book's own classes, without minisd/speed/, in processor seconds: they
        hardly depend on what else the machine does.
    """
    ours, theirs = pair(part, config, dtype)
    theirs = copy.deepcopy(ours) if book else theirs
    ours, x = accelerate(ours), latents(config, 2).to(dtype)
    if part == "unet":
        context = torch.randn(2, CONTEXT_LENGTH, config.unet.context_dim).to(dtype)
        works = [partial(net, x, torch.tensor([481.0, 481.0]), context) for net in (ours, theirs)]
    else:
        works = [partial(net.decode, x[:1]) for net in (ours, theirs)]
    made, other = (work() for work in works)
    other = other if book else other.sample
    a, b, ratio = alternate(*works, runs, clock=time.process_time if book else time.perf_counter)
    return [f"{a:.2f}", f"{b:.2f}", f"{ratio:.3f}", distance(made, other)]


def unet(config: Config, dtypes: list[torch.dtype], runs: int) -> None:
    table("One guided UNet step", ["dtype", "ours, s", "diffusers, s", "ratio", "apart"],
          [[name(dtype), *race("unet", config, dtype, runs)] for dtype in dtypes])


def speed(config: Config, dtypes: list[torch.dtype], runs: int) -> None:
    table("With minisd/speed/ beside the book alone, seconds of all processors",
          ["dtype", "part", "fast", "book", "ratio", "apart"],
          [[name(dtype), part, *race(part, config, dtype, runs, book=True)]
           for dtype in dtypes for part in ("unet", "vae")])


def vae(config: Config, dtypes: list[torch.dtype], runs: int) -> None:
    rows = []
    for dtype in dtypes:
        row = [name(dtype), *race("vae", config, dtype, runs)]
        rows.append([*row, *(peak_of_decoding(side, dtype, config)
                             for side in ("ours", "diffusers"))])
    table(f"One picture of {config.image_size} x {config.image_size} decoded",
          ["dtype", "ours, s", "diffusers, s", "ratio", "apart", "peak memory, GiB",
           "diffusers', GiB"], rows)


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=QUESTIONS, default=QUESTIONS)
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"],
                        default=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=5, help="turns of each side (5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true",
                        help="small networks: shows that the script works, and nothing else")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        decode_alone(*args.alone)
        return
    torch.set_num_threads(args.threads)
    config = SMALL if args.small else V1
    dtypes = [getattr(torch, dtype) for dtype in args.dtype]
    for question in (unet, vae, speed):
        if question.__name__ in args.what:
            question(config, dtypes, args.runs)


if __name__ == "__main__":
    main()
