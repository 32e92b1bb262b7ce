"""`python -m minisd.toyworld.evaluate [vae|guidance|adherence|stages|sheet|speed|all]`.

Measures a toyworld model. Everything that takes long is kept prompt by prompt in the folder, so a
killed evaluation continues by the same command, and
`torchrun --nproc_per_node=N -m minisd.toyworld.evaluate ...` shares it between N processes.
Results go to <folder>/summary.json and to the terminal, figures to figures/.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minisd import checkpoint, figures
from minisd.images import to_pil
from minisd.pipeline import WEIGHTS, load
from minisd.toyworld import bench, data, loop
from minisd.toyworld.bench import ATTRIBUTES, Bench, Job, jobs
from minisd.toyworld.captions import full_caption
from minisd.toyworld.judge import frechet_distance, load_judge
from minisd.toyworld.rates import Rate, as_text, rate, table
from minisd.toyworld.recipe import RECIPE
from minisd.toyworld.records import Row, read_summary, update_summary
from minisd.toyworld.scenes import HELD_OUT_COLOURED, HELD_OUT_PAIRS
from minisd.toyworld.train_vae import psnr
from minisd.unet import UNet

GUIDANCES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)    # of the model card of Stable Diffusion v1
PROMPTS = {"vae": 500, "guidance": 300, "adherence": 500, "stages": 200}
# Scenes for choosing the guidance scale, and drawn ones to compare with: apart from the test's.
CHOOSING, REFERENCE, REFERENCES = 100_000, 200_000, 1000
QUANTILES = (0.05, 0.5, 0.95)
SHEET_SEEN, SHEET_HELD_OUT, SHOWN_SCENES = 48, 16, 8
SPEED_PROMPT, SPEED_STEPS, SPEED_RUNS = "a red car below a yellow balloon in the sky", 25, 5


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    model: str
    figures: Path
    steps: int
    prompts: int | None         # None: as many as `PROMPTS` says
    guidance: float | None      # None: the best one measured
    checkpoints: tuple[Path, ...]

    def count(self, section: str) -> int:
        return PROMPTS[section] if self.prompts is None else self.prompts


def report(on: Bench, section: str, identity: Row, values: Row, text: str) -> None:
    """Print a section's table and put its numbers, with what made them, into the summary."""
    print(f"\n{section}\n{text}\n", flush=True)
    device = on.sd.device
    name = (torch.cuda.get_device_name(device) if device.type == "cuda"
            else f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, {os.cpu_count()} cores")
    made = {"hardware": name, "threads": torch.get_num_threads(), "processes": on.share.world,
            "torch": torch.__version__}
    update_summary(on.folder / "summary.json", section, {**identity, **made, **values})


def rates(rows: Sequence[Row], kind: str = "answers") -> dict[str, Rate]:
    """The rate of each attribute over rows."""
    return {name: rate(row[kind][name] for row in rows) for name in ATTRIBUTES}


# The autoencoder

def measure_vae(on: Bench, options: Options) -> None:
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

    count = options.count("vae")
    identity = on.identity()
    rows = on.finish("vae", identity, jobs("seen", count) + jobs("held_out", count), work)
    if on.share.rank > 0:
        return
    values: Row = {}
    for split in bench.SPLITS:
        mine = [row for row in rows if row["split"] == split]
        found = np.array([row["psnr"] for row in mine])
        values[split] = {
            "n": count, "psnr_mean": found.mean(), "psnr_min": found.min(),
            "psnr_quantiles": dict(zip(map(str, QUANTILES), np.quantile(found, QUANTILES),
                                       strict=True)),
            **{kind: rates(mine, kind) for kind in ("drawn", "autoencoded")}}
    text = table(("scenes", "n", "PSNR", "min", *(f"{100 * q:g} %" for q in QUANTILES),
                  "drawn: all right %", "autoencoded: all right %"),
                 [(split, v["n"], f"{v['psnr_mean']:.2f} dB", f"{v['psnr_min']:.2f}",
                   *(f"{q:.2f}" for q in v["psnr_quantiles"].values()),
                   as_text(v["drawn"]["all"]), as_text(v["autoencoded"]["all"]))
                  for split, v in values.items()])
    report(on, "vae", identity, values, text)
    before = bench.drawn([job.scene for job in jobs("seen", SHOWN_SCENES)], on.side)
    after = on.sd.decode(on.sd.encode_image(before))
    title = f"The autoencoder gives unseen scenes back at {values['seen']['psnr_mean']:.1f} dB"
    figures.save(figures.picture_grid([to_pil(before), after], ["drawn", "autoencoded"], [], title),
                 options.figures / "autoencoded.png")


# Guidance

def measure_guidance(on: Bench, options: Options) -> None:
    """Adherence and Frechet distance against the guidance scale, with PLMS."""
    wanted = jobs("seen", options.count("guidance"), CHOOSING)
    found = {scale: on.paint_and_judge(wanted, sampler="plms", steps=options.steps, guidance=scale)
             for scale in GUIDANCES}
    if on.share.rank > 0:
        return
    reference, floor = (on.features(bench.drawn([job.scene for job in some], on.side))
                        for some in (jobs("seen", REFERENCES, REFERENCE), wanted))
    rows: list[Row] = [{"guidance": scale, **rates(painted), "frechet": frechet_distance(
        torch.tensor([row["features"] for row in painted]), reference)}
        for scale, painted in found.items()]
    best = max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))
    values: Row = {"n": len(wanted), "best": best["guidance"], "rows": rows,
              "frechet_drawn": frechet_distance(floor, reference)}
    text = table(("guidance", *(f"{name} %" for name in ATTRIBUTES), "Frechet"),
                 [(f"{row['guidance']:g}", *(as_text(row[name]) for name in ATTRIBUTES),
                   f"{row['frechet']:.4f}") for row in rows])
    text += (f"\nn = {len(wanted)}; best guidance: {best['guidance']:g}; drawn scenes have "
             f"a Frechet distance of {values['frechet_drawn']:.4f}")
    report(on, "guidance", on.identity(sampler="plms", steps=options.steps), values, text)
    figures.save(figures.guidance_curve(rows), options.figures / "guidance.png")


def best_guidance(on: Bench, options: Options) -> float:
    """The guidance scale asked for, else the best one measured for this very model."""
    if options.guidance is not None:
        return options.guidance
    section = read_summary(on.folder / "summary.json").get("guidance", {})
    identity = on.identity()
    if any(section.get(key) != value for key, value in identity.items()):
        raise ValueError(f"the best guidance scale of model {identity['model']} is not known: run "
                         f"`python -m minisd.toyworld.evaluate guidance` first, or give --guidance")
    return section["best"]


# Adherence

def measure_adherence(on: Bench, options: Options) -> None:
    """How often pictures show what their prompts say: pairs seen in training, and held-out ones."""
    guidance, count = best_guidance(on, options), options.count("adherence")
    wanted = jobs("seen", count) + jobs("held_out", count)
    rows = on.paint_and_judge(wanted, sampler="ddim", steps=options.steps, guidance=guidance)
    if on.share.rank > 0:
        return
    groups = {name: rates([row for job, row in zip(wanted, rows, strict=True) if belongs(job)])
              for name, belongs in adherence_groups().items()}
    text = table(("prompts", "n", *(f"{name} %" for name in ATTRIBUTES)),
                 [(name, found["all"]["of"], *(as_text(found[a]) for a in ATTRIBUTES))
                  for name, found in groups.items()])
    report(on, "adherence", on.identity(sampler="ddim", steps=options.steps, guidance=guidance),
           {"groups": groups}, f"{text}\nDDIM, {options.steps} steps, guidance {guidance:g}")
    bars = [{"group": name, "rates": groups[name]} for name in groups if not name.startswith(" ")]
    figures.save(figures.adherence_bars(bars), options.figures / "adherence.png")


def adherence_groups() -> dict[str, Callable[[Job], bool]]:
    """Which prompts are counted together; an indented group is part of the one above it."""
    trained = {full_caption(data.scene(i, seed=RECIPE.seed)) for i in range(RECIPE.scenes)}

    def held_out(job: Job) -> bool:
        return job.split == "held_out"

    return {
        "pairs seen in training": lambda job: not held_out(job),
        "  of one thing": lambda job: not held_out(job) and len(job.scene.things) == 1,
        "  of two things": lambda job: not held_out(job) and len(job.scene.things) == 2,
        "  in words never trained": lambda job: not held_out(job) and job.prompt not in trained,
        "pairs held out": held_out,
        "  colour and thing": lambda job: held_out(job) and any(
            (thing.colour, thing.kind) in HELD_OUT_COLOURED for thing in job.scene.things),
        "  thing and thing": lambda job: held_out(job) and frozenset(
            thing.kind for thing in job.scene.things) in HELD_OUT_PAIRS}


# Earlier stages of training

def measure_stages(on: Bench, options: Options) -> None:
    """Adherence of UNets from earlier in training, as the model card compares v1-1 ... v1-4."""
    guidance, count = best_guidance(on, options), options.count("stages")
    wanted = jobs("seen", count) + jobs("held_out", count)
    rows: list[Row] = []
    for path in options.checkpoints:
        earlier = replace(on, sd=load(options.model, device=str(on.sd.device), dtype=on.sd.dtype))
        step = read_unet(earlier.sd.unet, path)
        painted = earlier.paint_and_judge(wanted, sampler="ddim", steps=options.steps,
                                          guidance=guidance)
        by_split = {split: [row for row in painted if row["split"] == split]
                    for split in bench.SPLITS}
        rows.append({"name": path.stem, "step": step, "model": earlier.identity()["model"],
                     **{split: rates(mine) for split, mine in by_split.items()}})
    if on.share.rank > 0:
        return
    text = table(("stage", "steps", "seen: all right %", "held out: all right %"),
                 [(row["name"], row["step"] or "-",
                   *(as_text(row[split]["all"]) for split in bench.SPLITS)) for row in rows])
    report(on, "stages", on.identity(sampler="ddim", steps=options.steps, guidance=guidance),
           {"rows": rows}, f"{text}\nn = {count} each, guidance {guidance:g}")
    shown = [{"name": row["name"], **{split: row[split]["all"] for split in bench.SPLITS}}
             for row in rows]
    figures.save(figures.stages(shown), options.figures / "stages.png")


def read_unet(unet: UNet, path: Path) -> int | None:
    """Fill a UNet from a checkpoint of `loop.Fit` (its average) or from safetensors.

    Returns the step of the checkpoint, which safetensors do not tell.
    """
    if path.suffix == ".safetensors":
        checkpoint.load_into(unet, path)
        return None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = {name: tuple(tensor.shape) for name, tensor in state["average"].items()}
    checkpoint.check_names(unet, found, path)
    unet.load_state_dict(state["average"])
    return state["step"]


# Pictures to look at, and time

def draw_sheet(on: Bench, options: Options) -> None:
    """64 prompts with their pictures, the last ones with pairs held out of training."""
    guidance = best_guidance(on, options)
    if on.share.rank > 0:
        return
    shown = jobs("seen", SHEET_SEEN) + jobs("held_out", SHEET_HELD_OUT)
    pictures = []
    for start in range(0, len(shown), on.batch):
        batch = shown[start:start + on.batch]
        pictures += bench.paint(on.sd, [job.prompt for job in batch], [job.index for job in batch],
                                guidance_scale=guidance, steps=options.steps, sampler="ddim")
    readings = on.judge.read(bench.as_tensor(pictures).to(on.sd.device))
    right = [bench.answers(reading, job.scene)["all"]
             for reading, job in zip(readings, shown, strict=True)]
    captions = [job.prompt if good else f"✗ {job.prompt}"
                for job, good in zip(shown, right, strict=True)]
    title = (f"{sum(map(bool, right))} of {len(shown)} prompts come out right (✗: the judge reads "
             f"something else); the last {SHEET_HELD_OUT} hold pairs never trained")
    path = options.figures / "samples.png"
    figures.save(figures.sample_sheet(pictures, captions, title), path)
    print(f"\nsheet\n{title}: {path}\n", flush=True)


def measure_speed(on: Bench, options: Options) -> None:
    """Seconds for a picture on the loaded model, and for the whole command from start to file."""
    if on.share.rank > 0:
        return

    def timed(run: Callable[[int], Any], count: int) -> Row:
        seconds = []
        for i in range(count):
            begun = time.perf_counter()
            run(i)
            seconds.append(round(time.perf_counter() - begun, 3))
        return {"median": statistics.median(seconds), "all": seconds}

    def picture(seed: int) -> None:
        on.sd.text_to_image(SPEED_PROMPT, steps=SPEED_STEPS, seed=seed)

    environment = {**os.environ, "MINISD_MODEL": options.model}
    with tempfile.TemporaryDirectory() as folder:
        def command(seed: int) -> None:
            subprocess.run([sys.executable, "-m", "minisd", SPEED_PROMPT, "--seed", str(seed),
                            "--steps", str(SPEED_STEPS), "-o", f"{folder}/{seed}.png"],
                           check=True, capture_output=True, env=environment)

        picture(SPEED_RUNS)             # the first run warms caches up
        values: Row = {"steps": SPEED_STEPS, "text_to_image": timed(picture, SPEED_RUNS),
                  "command": timed(command, SPEED_RUNS)}
    text = table(("seconds", "median", "fastest", "slowest"),
                 [(name, *(f"{x:.2f}" for x in (values[key]["median"], min(values[key]["all"]),
                                                max(values[key]["all"]))))
                  for name, key in (("text_to_image, loaded", "text_to_image"),
                                    ("whole command", "command"))])
    report(on, "speed", on.identity(), values, f"{text}\n{SPEED_STEPS} guided steps")


# The command

SECTIONS: dict[str, Callable[[Bench, Options], None]] = {
    "vae": measure_vae, "guidance": measure_guidance, "adherence": measure_adherence,
    "stages": measure_stages, "sheet": draw_sheet, "speed": measure_speed}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.evaluate",
                                     description=__doc__)
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all"])
    parser.add_argument("--model", default="toyworld", help="as minisd.load takes it")
    parser.add_argument("--judge", type=Path, default=WEIGHTS / "toyworld" / "judge.safetensors")
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluation"),
                        help="rows and summary.json (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("figures"))
    parser.add_argument("--prompts", type=int, help=f"of each kind (default: {PROMPTS})")
    parser.add_argument("--guidance", type=float, help="default: the best that was measured")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=32, help="pictures at once")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[],
                        help="UNets of earlier stages, in the order of training")
    args = parser.parse_args(argv)
    if args.section == "stages" and not args.checkpoints:
        parser.error("stages takes --checkpoints FILE ...: UNets saved during training")
    share = loop.join_processes()
    sd = load(args.model, device=str(loop.device()), dtype=args.dtype)
    on = Bench(sd, load_judge(args.judge).to(sd.device), args.folder, share, args.batch)
    options = Options(args.model, args.figures, args.steps, args.prompts, args.guidance,
                      tuple(args.checkpoints))
    for name, measure in SECTIONS.items():
        if name == args.section or (args.section == "all" and (name != "stages"
                                                               or args.checkpoints)):
            measure(on, options)
            loop.wait_for_all(share)        # the next one reads the summary
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
