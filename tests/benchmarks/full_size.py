"""How fast and how lean, beside diffusers: python tests/benchmarks/full_size.py

Prints one table per question. Both sides hold the same random weights and take turns within one
run, so whatever else the machine does slows both; times are medians, ratios the median over pairs
of neighbouring turns. Below 1 we are faster.

    unet   one UNet step with guidance: batch 2, latents of 64 x 64
    vae    one picture decoded, 512 x 512, and the peak memory of a process that does nothing else
    speed  the same two, with what minisd/speed/ changes beside the book's own classes
    load   a single CompVis-style safetensors file of 4.27 GB into float32, in processes of its own
    gpu    50 guided steps and the picture, in half precision, eager and compiled
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Before diffusers is imported, here and in the processes that are started from here.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "DIFFUSERS_VERBOSITY": "error",
               "TRANSFORMERS_VERBOSITY": "error"}

import peers
import torch
from torch import Tensor

from minisd.checkpoints.load import load
from minisd.config import V1, Config
from minisd.observe.summary import cost
from minisd.observe.tables import aligned
from minisd.speed import accelerate

GIB = 2 ** 30
SAMPLED_EVERY = 0.005           # seconds between two looks at another process's memory
CONTEXT_LENGTH, GUIDED_STEPS, GUIDANCE = 77, 50, 7.5
QUESTIONS = ["unet", "vae", "speed", "load", "gpu"]
Row = list[str]


# Measuring

def alternate(ours: Callable[[], object], theirs: Callable[[], object], runs: int,
              wait: Callable[[], None] = lambda: None,
              clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, float]:
    """Medians of both in seconds, and of their ratio; turns are taken as a b, b a, a b, ..."""
    def timed(work: Callable[[], object]) -> float:
        wait()
        start = clock()
        work()
        wait()
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


def matrix_rate(dtype: torch.dtype, device: str, size: int) -> float:
    """FLOP per second of one large matrix product, the best of five."""
    a = torch.randn(size, size, device=device).to(dtype)

    def timed() -> float:
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        return time.perf_counter() - start

    timed()
    return 2 * size ** 3 / min(timed() for _ in range(5))


def unet_flops(config: Config) -> int:
    """Of one guided step of one picture."""
    side = config.image_size // config.vae.downscale
    return 2 * sum(row.flops for row in cost(peers.shells("unet", config)[0], tokens=CONTEXT_LENGTH,
                                             latent_size=(side, side)))


def distance(a: Tensor, b: Tensor) -> str:
    return f"{float((a.float() - b.float()).norm() / b.float().norm()):.1e}"


def table(title: str, head: Row, rows: list[Row]) -> None:
    print(f"\n{title}\n\n{aligned([head, *rows], left=(0, 1))}", flush=True)


# Another process, watched

def alone(*task: str) -> tuple[dict[str, float], float, float]:
    """Run a task in a fresh process: what it reports, its peak anonymous memory, its peak memory.

    In bytes; nan where the system does not tell.
    """
    command = [sys.executable, __file__, "--alone", *task]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    anonymous = resident = float("nan")
    while process.poll() is None:
        status = memory(process.pid)
        anonymous = max(status.get("RssAnon", 0.0), anonymous if anonymous > 0 else 0.0)
        resident = max(status.get("VmHWM", 0.0), resident if resident > 0 else 0.0)
        time.sleep(SAMPLED_EVERY)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"the task {' '.join(task)} failed")
    return json.loads(process.stdout.read().splitlines()[-1]), anonymous, resident


def memory(pid: int) -> dict[str, float]:
    """The kinds of memory of a process in bytes, as Linux tells them."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith("kB"))
    return {name.rstrip(":"): 1024 * float(size) for name, size, _ in fields}


def run_alone(task: list[str]) -> None:
    """The other end of `alone`: do it and report."""
    kind, side, dtype, threads, *paths = task
    torch.set_num_threads(int(threads))
    report: dict[str, float] = {}
    if kind == "decode":
        config = V1 if paths[0] == V1.name else peers.SMALL
        ours, theirs = peers.pair("vae", config, getattr(torch, dtype))
        ours = accelerate(ours)
        z = latents(config, 1).to(getattr(torch, dtype))
        with torch.no_grad():
            ours.decode(z) if side == "ours" else theirs.decode(z)
    else:
        report = loading(side, getattr(torch, dtype), *paths)
    print(json.dumps(report))


def loading(side: str, dtype: torch.dtype, path: str, description: str) -> dict[str, float]:
    """Seconds to load, and then to read every weight once: a mapped file is read only then."""
    if side == "ours":
        def load_it() -> list[Any]:
            return [load(path, device="cpu", dtype=dtype)]
    else:
        from diffusers import StableDiffusionPipeline

        def load_it() -> list[Any]:
            pipeline = StableDiffusionPipeline.from_single_file(
                path, config=description, torch_dtype=dtype, local_files_only=True)
            return [pipeline.unet, pipeline.vae, pipeline.text_encoder]
    before = memory(os.getpid()).get("RssAnon", float("nan"))
    start = time.perf_counter()
    networks = load_it()
    loaded = time.perf_counter()
    for network in networks:
        for tensor in network.state_dict().values():
            tensor.sum()
    return {"before": before, "load": loaded - start, "read": time.perf_counter() - loaded}


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
    ours, theirs = peers.pair(part, config, dtype)
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
    flops = unet_flops(config)
    table(f"One guided UNet step, {flops / 1e12:.3f} TFLOP",
          ["dtype", "ours, s", "diffusers, s", "ratio", "apart", "one matrix product, s"],
          [[name(dtype), *race("unet", config, dtype, runs),
            f"{flops / matrix_rate(dtype, 'cpu', config.image_size * 8):.2f}"] for dtype in dtypes])


def speed(config: Config, dtypes: list[torch.dtype], runs: int) -> None:
    table("With minisd/speed/ beside the book alone, seconds of all processors",
          ["dtype", "part", "fast", "book", "ratio", "apart"],
          [[name(dtype), part, *race(part, config, dtype, runs, book=True)]
           for dtype in dtypes for part in ("unet", "vae")])


def vae(config: Config, dtypes: list[torch.dtype], runs: int) -> None:
    rows = []
    for dtype in dtypes:
        row = [name(dtype), *race("vae", config, dtype, runs)]
        peaks = [alone("decode", side, name(dtype), str(torch.get_num_threads()), config.name)[2]
                 for side in ("ours", "diffusers")]
        rows.append([*row, *(f"{peak / GIB:.2f}" for peak in peaks)])
    table(f"One picture of {config.image_size} x {config.image_size} decoded",
          ["dtype", "ours, s", "diffusers, s", "ratio", "apart", "peak memory, GiB",
           "diffusers', GiB"], rows)


def load_single_file(config: Config, dtypes: list[torch.dtype], runs: int, folder: Path) -> None:
    path = peers.make_checkpoint(folder, config)
    description = peers.make_description(folder, config)
    path.read_bytes()                       # both find it in the page cache
    rows = []
    for dtype in dtypes:
        weights = path.stat().st_size * dtype.itemsize / torch.float32.itemsize
        found: dict[str, list[tuple[dict[str, float], float, float]]] = {}
        for i in range(runs):
            for side in ("ours", "diffusers") if i % 2 else ("diffusers", "ours"):
                found.setdefault(side, []).append(alone(
                    "load", side, name(dtype), str(torch.get_num_threads()), str(path),
                    str(description)))
        for side, runs_of_it in found.items():
            load_s, read_s = (statistics.median(report[what] for report, *_ in runs_of_it)
                              for what in ("load", "read"))
            before = statistics.median(report["before"] for report, *_ in runs_of_it)
            peak = max(anonymous for _, anonymous, _ in runs_of_it)
            rows.append([name(dtype), side, f"{load_s:.2f}", f"{load_s + read_s:.2f}",
                         f"{before / GIB:.2f}", f"{peak / GIB:.2f}", f"{peak / weights:.2f}"])
    table(f"A safetensors file of {path.stat().st_size / 1e9:.2f} GB loaded",
          ["dtype", "by", "loaded, s", "and read once, s", "anonymous before, GiB", "peak, GiB",
           "of the weights"], rows)


def gpu(config: Config, runs: int, device: str) -> None:
    """Whole pictures by both pipelines; theirs is given our context, for it has no text encoder."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    sd, theirs = peers.pipelines(config, dtype, device)
    x = latents(config, 1)
    context = sd.encode_prompt(["", "a photograph of an astronaut riding a horse"])
    guided = GUIDED_STEPS * unet_flops(config)
    rate = matrix_rate(dtype, device, config.image_size * 16)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def our_picture() -> object:
        return sd.text_to_image("a photograph of an astronaut riding a horse", seed=0, latents=x,
                                steps=GUIDED_STEPS, guidance_scale=GUIDANCE)

    def their_picture() -> object:
        return theirs(prompt_embeds=context[1:], negative_prompt_embeds=context[:1],
                      latents=x.to(device, dtype), num_inference_steps=GUIDED_STEPS,
                      guidance_scale=GUIDANCE, height=config.image_size,
                      width=config.image_size).images

    rows = []
    for how in ("eager", "compiled"):
        if how == "compiled":
            sd.unet.compile()
            theirs.unet.compile()
        a, b, ratio = alternate(our_picture, their_picture, runs, wait)
        for side, seconds, picture in (("ours", a, our_picture), ("diffusers", b, their_picture)):
            rows.append([how, side, f"{seconds:.2f}", f"{1 / seconds:.2f}",
                         f"{guided / seconds / rate:.2f}", peak_on_gpu(picture, device),
                         f"{ratio:.3f}" if side == "ours" else ""])
    table(f"A picture in {GUIDED_STEPS} guided steps, {name(dtype)}",
          ["how", "by", "s", "pictures/s", f"of {rate / 1e12:.0f} TFLOP/s", "peak, GiB", "ratio"],
          rows)


def peak_on_gpu(work: Callable[[], object], device: str) -> str:
    if device != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    work()
    return f"{torch.cuda.max_memory_allocated() / GIB:.2f}"


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
    parser.add_argument("--folder", type=Path, help="where the weights to load are kept (a "
                        "temporary folder: 4.3 GB, removed at the end)")
    parser.add_argument("--small", action="store_true",
                        help="small networks: shows that the script works, and nothing else")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        run_alone(args.alone)
        return
    torch.set_num_threads(args.threads)
    config = peers.SMALL if args.small else V1
    dtypes = [getattr(torch, dtype) for dtype in args.dtype]
    for question in (unet, vae, speed):
        if question.__name__ in args.what:
            question(config, dtypes, args.runs)
    if "load" in args.what:
        with tempfile.TemporaryDirectory() as temporary:
            load_single_file(config, dtypes, args.runs, args.folder or Path(temporary))
    if "gpu" in args.what:
        if torch.cuda.is_available() or args.small:
            gpu(config, args.runs, "cuda" if torch.cuda.is_available() else "cpu")
        else:
            print("\nNo GPU at hand.")


if __name__ == "__main__":
    main()
