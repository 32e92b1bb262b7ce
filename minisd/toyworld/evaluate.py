"""`python -m minisd.toyworld.evaluate [vae|guidance|adherence|stages|sheet|speed|all|export]`.

Measures a toyworld model. Everything that takes long is kept prompt by prompt in the folder, so a
killed evaluation continues by the same command, and
`torchrun --nproc_per_node=N -m minisd.toyworld.evaluate ...` shares it between N processes.
Results go to <folder>/summary.json and to the terminal, figures to figures/. `export` writes what
was measured on the model, and what it got wrong, to evaluation.json beside the shipped weights.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minisd import figures
from minisd.checkpoints.load import WEIGHTS, load
from minisd.images import to_pil
from minisd.observe.pictures import psnr
from minisd.toyworld import bench, loop, results
from minisd.toyworld.adherence import (
    best_guidance,
    measure_adherence,
    measure_guidance,
    measure_stages,
)
from minisd.toyworld.bench import Bench, Job, Options, Section, jobs, rates
from minisd.toyworld.judge import load_judge
from minisd.toyworld.rates import as_text, table
from minisd.toyworld.records import Row, update_summary

VAE_SCENES, QUANTILES, SHOWN_SCENES = 500, (0.05, 0.5, 0.95), 8
SHEET_SEEN, SHEET_HELD_OUT = 48, 16
HEADER = 6                      # of them, in the README's picture
SPEED_PROMPT, SPEED_STEPS, SPEED_RUNS = "a red car below a yellow balloon in the sky", 25, 5


# The autoencoder

def measure_vae(on: Bench, options: Options) -> Section | None:
    """How well the autoencoder gives scenes back, and how well the judge reads both."""

    def work(batch: Sequence[Job]) -> list[Row]:
        scenes = [job.scene for job in batch]
        before = bench.drawn(scenes, on.side)
        after = bench.as_tensor(on.sd.decode(on.sd.encode_image(before)))
        read = [on.judge.read(images.to(on.sd.device)) for images in (before, after)]
        return [{"psnr": round(decibels, 3), "drawn": bench.answers(first, scene),
                 "autoencoded": bench.answers(second, scene)}
                for decibels, first, second, scene in zip(psnr(after, before).tolist(), *read,
                                                          scenes, strict=True)]

    count = options.prompts or VAE_SCENES
    rows = on.finish("vae", on.identity(), jobs("seen", count) + jobs("held_out", count), work)
    if on.share.rank > 0:
        return None
    values = {split: _fidelity([row for row in rows if row["split"] == split])
              for split in bench.SPLITS}
    before = bench.drawn([job.scene for job in jobs("seen", SHOWN_SCENES)], on.side)
    after = on.sd.decode(on.sd.encode_image(before))
    title = f"The autoencoder gives unseen scenes back at {values['seen']['psnr_mean']:.1f} dB"
    figures.save(figures.picture_grid([to_pil(before), after], ["drawn", "autoencoded"], [], title),
                 options.figures / "autoencoded.png")
    text = table(("scenes", "n", "PSNR", "min", *(f"{100 * q:g} %" for q in QUANTILES),
                  "drawn: all right %", "autoencoded: all right %"),
                 [(split, v["n"], f"{v['psnr_mean']:.2f} dB", f"{v['psnr_min']:.2f}",
                   *(f"{q:.2f}" for q in v["psnr_quantiles"].values()),
                   as_text(v["drawn"]["all"]), as_text(v["autoencoded"]["all"]))
                  for split, v in values.items()])
    return Section(on.identity(), values, text)


def _fidelity(rows: Sequence[Row]) -> Row:
    found = np.array([row["psnr"] for row in rows])
    quantiles = np.quantile(found, QUANTILES).tolist()
    return {"n": len(rows), "psnr_mean": float(found.mean()), "psnr_min": float(found.min()),
            "psnr_quantiles": {str(q): x for q, x in zip(QUANTILES, quantiles, strict=True)},
            "drawn": rates(rows, "drawn"), "autoencoded": rates(rows, "autoencoded")}


# Pictures to look at

def draw_sheet(on: Bench, options: Options) -> Section | None:
    """64 prompts with their pictures, the last of pairs held out; the first few for the README."""
    guidance = best_guidance(on, options)
    if on.share.rank > 0:
        return None
    shown = jobs("seen", SHEET_SEEN) + jobs("held_out", SHEET_HELD_OUT)
    pictures = []
    for start in range(0, len(shown), on.batch):
        batch = shown[start:start + on.batch]
        pictures += bench.paint(on.sd, [job.prompt for job in batch], [job.index for job in batch],
                                guidance_scale=guidance, steps=options.steps, sampler="ddim")
    readings = on.judge.read(bench.as_tensor(pictures).to(on.sd.device))
    right = [bool(bench.answers(reading, job.scene)["all"])
             for reading, job in zip(readings, shown, strict=True)]
    captions = [job.prompt if good else f"✗ {job.prompt}"
                for job, good in zip(shown, right, strict=True)]
    title = (f"{sum(right)} of {len(shown)} prompts come out right (✗: the judge reads something "
             f"else); the last {SHEET_HELD_OUT} hold pairs never trained")
    path = options.figures / "samples.png"
    figures.save(figures.sample_sheet(pictures, captions, title), path)
    first = shown[:HEADER]
    figures.save(figures.picture_grid(
        [pictures[:HEADER], to_pil(bench.drawn([job.scene for job in first], on.side))],
        ["painted", "drawn"], [job.prompt for job in first],
        f"{on.sd.config.name}: the first {HEADER} sentences that it never saw", side=2.0),
        options.figures / "header.png")
    return Section(on.identity({"sampler": "ddim", "steps": options.steps,
                                "guidance": guidance}),
                   {"n": len(shown), "right": sum(right)}, f"{title}: {path}")


# Time

def measure_speed(on: Bench, options: Options) -> Section | None:
    """Seconds for a picture on the loaded model, and for the whole command from start to file."""
    if on.share.rank > 0:
        return None

    def picture(seed: int) -> None:
        on.sd.text_to_image(SPEED_PROMPT, steps=SPEED_STEPS, seed=seed)

    with tempfile.TemporaryDirectory() as folder:
        def command(seed: int) -> None:
            subprocess.run([sys.executable, "-m", "minisd", SPEED_PROMPT, "--seed", str(seed),
                            "--steps", str(SPEED_STEPS), "-o", f"{folder}/{seed}.png"],
                           check=True, stdout=subprocess.DEVNULL,
                           env={**os.environ, "MINISD_MODEL": options.model})

        picture(SPEED_RUNS)             # the first run warms the caches up
        values = {"text_to_image": _timed(picture), "command": _timed(command)}
    text = table(("seconds", "median", "fastest", "slowest"),
                 [(name, *(f"{x:.2f}" for x in (found["median"], min(found["all"]),
                                                max(found["all"]))))
                  for name, found in values.items()])
    return Section(on.identity({"steps": SPEED_STEPS}), values,
                   f"{text}\n{SPEED_STEPS} guided steps")


def _timed(run: Callable[[int], Any]) -> Row:
    """Seconds that run(0), run(1), ... take."""
    seconds = []
    for i in range(SPEED_RUNS):
        begun = time.perf_counter()
        run(i)
        seconds.append(round(time.perf_counter() - begun, 3))
    return {"median": statistics.median(seconds), "all": seconds}


# The command

SECTIONS: dict[str, Callable[[Bench, Options], Section | None]] = {
    "vae": measure_vae, "guidance": measure_guidance, "adherence": measure_adherence,
    "stages": measure_stages, "sheet": draw_sheet, "speed": measure_speed}


def hardware(device: torch.device) -> Row:
    """What the numbers were measured on."""
    name = (torch.cuda.get_device_name(device) if device.type == "cuda"
            else torch.cpu.get_capabilities().get("cpu_name", "CPU"))
    return {"hardware": f"{name}, {os.cpu_count()} CPU cores", "torch": torch.__version__,
            "threads": torch.get_num_threads()}


def export(on: Bench, target: Path) -> str:
    """Write what the folder holds on this very model and judge; says what, and what is missing.

    Raises ValueError where it holds nothing of them.
    """
    identity, path = on.identity(), target / results.FILE
    found, left_out = results.collect(on.folder, identity["model"], identity["judge"])
    results.write(path, found)
    return "\n".join([*left_out, f"not measured: {', '.join(found.missing) or 'nothing'}",
                      f"{path}: {', '.join(found.sections)}, {len(found.failures)} failures"])


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.evaluate",
                                     description=__doc__)
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all", "export"])
    parser.add_argument("--model", default="toyworld", help="as minisd.load takes it")
    parser.add_argument("--judge", type=Path, default=WEIGHTS / "toyworld" / "judge.safetensors")
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluation"),
                        help="rows and summary.json (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("figures"))
    parser.add_argument("--target", type=Path, default=WEIGHTS / "toyworld",
                        help="folder that export writes evaluation.json to")
    parser.add_argument("--prompts", type=int, help="of each kind (default: 500; for guidance "
                                                    "300, for stages 200)")
    parser.add_argument("--guidance", type=float, help="default: the best that was measured")
    parser.add_argument("--steps", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="at once (default: %(default)s)")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[],
                        help="earlier stages, in the order of training: folders of whole models "
                             "or files of UNets alone")
    args = parser.parse_args(argv)
    if args.section == "stages" and not args.checkpoints:
        parser.error("stages takes --checkpoints PATH ...: models or UNets saved during training")
    if (args.prompts is not None and args.prompts < 2) or args.batch < 1:
        parser.error(f"--prompts takes at least 2 and --batch at least 1, got {args.prompts} and "
                     f"{args.batch}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    share = loop.join_processes()
    sd = load(args.model, device=str(loop.device()), dtype=args.dtype)
    on = Bench(sd, load_judge(args.judge).to(sd.device), args.folder, share, args.batch)
    options = Options(args.model, args.figures, args.steps, args.prompts, args.guidance,
                      tuple(args.checkpoints))
    if args.section == "export":
        if share.rank == 0:
            print(export(on, args.target))
        return 0
    wanted = [args.section] if args.section != "all" else [
        name for name in SECTIONS if name != "stages" or args.checkpoints]
    for name in wanted:
        found = SECTIONS[name](on, options)
        if found is not None:
            print(f"\n{name}\n{found.text}\n", flush=True)
            made = {**found.identity, **hardware(sd.device), "processes": share.world}
            update_summary(args.folder / "summary.json", name, {**made, **found.values})
        loop.wait_for_all(share)            # the next section reads the summary
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
