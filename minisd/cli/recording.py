"""What is kept of a run beside its pictures: --snapshots, --steps-dir and --trace.

All of them watch the steps that painting makes anyway, so the pictures are the same with them.
"""

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from minisd.cli.arguments import check_writable
from minisd.cli.options import SNAPSHOTS
from minisd.observe import pictures, png

if TYPE_CHECKING:
    from minisd.observe.trace import Trace
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep

OPTIONS = ("snapshots", "steps_dir", "trace")
ABOUT = ("prompt", "negative_prompt", "guidance_scale", "steps", "sampler", "eta", "seed",
         "num_images", "strength")


def check_places(args: argparse.Namespace) -> None:
    """Raises ValueError where --steps-dir or --trace could not be written."""
    folder, file = args.steps_dir, args.trace
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"argument --steps-dir: expected a folder, got {str(folder)!r}, "
                             f"which is a file")
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"argument --steps-dir: expected a new or empty folder, got "
                             f"{str(folder)!r}, which holds files: steps of two runs would mix")
        check_writable(folder, "--steps-dir")
    if file is not None:
        if file.is_dir():
            raise ValueError(f"argument --trace: expected the name of a file, got {str(file)!r}, "
                             f"which is a folder")
        check_writable(file.parent, "--trace")


class Recorder:
    """Sees every step of a run, and afterwards writes what was asked for."""

    def __init__(self, sd: "StableDiffusion", args: argparse.Namespace) -> None:
        """Raises ValueError where there will be no step to see."""
        self.sd, self.args = sd, args
        self.steps: list[SampleStep] = []
        asked = [name for name in OPTIONS if getattr(args, name) is not None]
        if asked and args.init_image is not None and int(args.steps * args.strength + 1e-9) < 1:
            raise ValueError(f"argument --{asked[0].replace('_', '-')}: expected a run of at least "
                             f"one step, got strength {args.strength:g} of {args.steps} steps: "
                             f"take a larger strength")

    def __call__(self, step: "SampleStep") -> None:
        if self.args.snapshots is not None or self.args.trace is not None:
            self.steps.append(step)
        if self.args.steps_dir is not None:
            pictures = self.sd.decode(step.x0)
            for i, picture in enumerate(pictures):
                number = f"-{i + 1}" if len(pictures) > 1 else ""
                png.save_png(picture, self.args.steps_dir / f"{step.index:03d}{number}.png")

    def write(self, paths: list[Path]) -> Iterator[str]:
        """Write the rest, the strips beside the pictures at `paths`; yields where each thing is."""
        if self.steps:
            trace = make_trace(self.sd, self.args, self.steps)
            if self.args.snapshots is not None:
                for path, strip in zip(paths, strips(trace), strict=True):
                    target = path.with_stem(f"{path.stem}-snapshots")
                    target = target if self.args.output else unused(target)
                    png.save_png(strip, target)
                    yield str(target)
            if self.args.trace is not None:
                trace.save(self.args.trace)
                yield str(self.args.trace)
        if self.args.steps_dir is not None:
            yield str(self.args.steps_dir)


def make_trace(sd: "StableDiffusion", args: argparse.Namespace, steps: list["SampleStep"]
               ) -> "Trace":
    """What sd.trace would have recorded of the same run, with the pictures of its snapshots."""
    import torch

    from minisd.observe.preview import factors_of
    from minisd.observe.trace import Trace, snapshot_marks

    factor = sd.config.vae.downscale
    height, width = (side * factor for side in steps[0].x_t.shape[2:])
    about = {name: getattr(args, name) for name in ABOUT} | {
        "height": height, "width": width,
        "task": ("text_to_image" if args.init_image is None else
                 "image_to_image" if args.mask is None else "inpaint"),
        **sd.identity, "torch": torch.__version__}
    trace = Trace.record(steps)
    marks = snapshot_marks(len(trace), args.snapshots or SNAPSHOTS)
    return replace(trace.with_pictures(sd.decode, marks), about=about,
                   factors=factors_of(sd.config.vae), enlarge=factor)


def strips(trace: "Trace") -> list[Image.Image]:
    """For each picture of the run its decoded snapshots: x_t, and below it the predicted x0."""
    moments = [trace.pictures[done] for done in sorted(trace.pictures)]
    return [pictures.grid([moment[row][i] for row in (0, 1) for moment in moments],
                        columns=len(moments)) for i in range(len(trace.latents))]


def unused(path: Path) -> Path:
    """The path, or with a number the first one like it that does not exist."""
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not os.path.lexists(place))
