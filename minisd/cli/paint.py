"""A prompt, and maybe a picture, to PNG files: what the command line does without a subcommand."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from minisd.cli import memory, options
from minisd.cli.terminal import complain, say
from minisd.observe import png, reading
from minisd.settings import Run, RunSettings, plan

if TYPE_CHECKING:
    from minisd.observe.trace import Trace
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep

OF_THE_RECORD = ("negative_prompt", "guidance_scale", "steps", "sampler", "eta")


def run(argv: list[str], epilog: str = "") -> int:
    """Paint what the arguments ask for; returns the exit status."""
    begun = time.perf_counter()
    args = options.parse(argv, epilog)
    options.check_places(args)
    asked = read_inputs(args)

    import minisd

    sd = minisd.load(args.model, device=args.device, dtype=args.dtype)
    done, pictures = paint(sd, args, asked)
    count = f"{len(pictures)} pictures" if len(pictures) > 1 else "1 picture"
    steps = f"{done.steps_to_run} of " * (done.steps_to_run < done.steps) + str(done.steps)
    say(f"{count} in {time.perf_counter() - begun:.1f} s: {steps} {done.sampler} steps, guidance "
        f"{done.guidance_scale:g}, seed {done.seeds[0]}, {sd.config.name} in {dtype_name(sd)}")
    return 0


def read_inputs(args: argparse.Namespace) -> RunSettings:
    """The settings of a run, with the pictures that it starts from in RGB."""
    asked = options.settings(args)
    if args.init_image is not None:
        asked["image"] = reading.to_rgb(args.init_image)
        asked["mask"] = None if args.mask is None else reading.read_mask(args.mask)
    return asked


def paint(sd: "StableDiffusion", args: argparse.Namespace, asked: RunSettings
          ) -> tuple[Run, list[Image.Image]]:
    """Paint with a progress bar, write all that is wanted; the complete settings and pictures."""
    run = plan(sd.config, args.prompt, asked)
    recorded = args.trace is not None or args.snapshots is not None
    if not run.steps_to_run:
        none = f"strength {run.strength:g} of {run.steps} steps runs none of them"
        if recorded or args.steps_dir is not None:
            raise ValueError(f"{none}: there is nothing to record, take a larger strength")
        complain(f"note: {none}: the picture is only encoded and decoded")
    memory.check(sd, run)
    bars: list[tqdm] = []           # one, from the first step on: an error before it stands alone

    def on_step(step: "SampleStep") -> None:
        if not bars:
            bars.append(tqdm(total=step.total, unit="step", file=sys.stderr))
        bars[0].update()
        for i, picture in enumerate(sd.decode(step.x0) if args.steps_dir is not None else ()):
            number = f"-{i + 1}" if len(step.x0) > 1 else ""
            png.save_png(picture, args.steps_dir / f"{step.index:03d}{number}.png")

    asked = {**asked, "seed": run.seeds, "on_step": on_step}
    try:
        trace = sd.trace(args.prompt, pictures="none", **asked) if recorded else None
        pictures = (sd.text_to_image(args.prompt, **asked) if trace is None else
                    sd.decode(trace.latents))
    except FloatingPointError as error:
        advice = "; try it with --dtype float32" * (dtype_name(sd) == "float16")
        raise FloatingPointError(f"{error}{advice}") from error
    finally:
        for bar in bars:
            bar.close()
    width, height = pictures[0].size        # of the run: pasted pictures have their reference's
    if args.paste:
        pictures = [reading.paste(one, asked["image"], asked["mask"]) for one in pictures]
    record = record_of(sd, args, run) | {"height": height, "width": width}
    places = save(args, run, pictures, record)
    if trace is not None:
        save_trace(sd, args, trace, places)
    if args.steps_dir is not None:
        say(str(args.steps_dir))
    return run, pictures


# What is written

def save(args: argparse.Namespace, run: Run, pictures: list[Image.Image],
         record: dict[str, object]) -> list[Path]:
    """Write the pictures with their records, say where, and return where."""
    places = []
    targets = options.targets(args) or [png.default_path(args.prompt, seed) for seed in run.seeds]
    for path, picture, seed in zip(targets, pictures, run.seeds, strict=True):
        places.append(png.save_png(picture, path, record | {"seed": seed},
                                   new=args.output is None))
        say(str(places[-1]))
    return places


def save_trace(sd: "StableDiffusion", args: argparse.Namespace, trace: "Trace", places: list[Path]
               ) -> None:
    """Write a strip of snapshots beside each picture, x_t above the predicted x0, and the trace."""
    from minisd.observe.pictures import grid
    from minisd.observe.trace import snapshot_marks

    marks = snapshot_marks(len(trace), args.snapshots or options.SNAPSHOTS)
    trace = trace.with_pictures(sd.decode, marks)
    for i, place in enumerate(places if args.snapshots is not None else ()):
        rows = [[trace.pictures[done][row][i] for done in marks] for row in (0, 1)]
        strip = grid(rows[0] + rows[1], columns=len(marks))
        file = place.with_stem(f"{place.stem}-snapshots")
        say(str(png.save_png(strip, file, new=args.output is None)))
    if args.trace is not None:
        trace.save(args.trace)
        say(str(args.trace))


def record_of(sd: "StableDiffusion", args: argparse.Namespace, run: Run) -> dict[str, object]:
    """What makes the pictures again, beside the size; the seed is each picture's own."""
    import minisd
    from minisd.checkpoints.weights import identity

    record: dict[str, object] = {"prompt": args.prompt}
    record |= {name: getattr(run, name) for name in OF_THE_RECORD}
    record |= {"strength": run.strength} if run.image is not None else {}
    record |= {"paste": args.paste} if run.mask is not None else {}
    return (record | checksums({"image": run.image, "mask": run.mask}) | identity(sd)
            | {"minisd_version": minisd.__version__})


def checksums(asked: RunSettings) -> dict[str, str]:
    """SHA-256 of the pixels of the pictures that a run starts from, named as in a record."""
    from minisd.observe.pictures import pixel_sha256

    pictures = {"init_image_sha256": asked["image"], "mask_sha256": asked["mask"]}
    return {name: pixel_sha256(one) for name, one in pictures.items() if one is not None}


def dtype_name(sd: "StableDiffusion") -> str:
    return str(sd.dtype).removeprefix("torch.")
