"""A prompt, and maybe a picture, to PNG files: what the command line does without a subcommand."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm

from minisd import images
from minisd.cli import arguments, recording
from minisd.cli.options import GUIDANCE, STEPS, TOYWORLD_GUIDANCE, TOYWORLD_STEPS, parse
from minisd.cli.terminal import CtrlC, say
from minisd.observe import pictures, png

if TYPE_CHECKING:
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep

SETTINGS = ("prompt", "negative_prompt", "guidance_scale", "steps", "sampler", "eta")


@dataclass(frozen=True)
class Inputs:
    """The pictures that a run starts from, in RGB."""

    image: Image.Image | None = None
    mask: Image.Image | None = None         # white where `image` is to be repainted

    @classmethod
    def read(cls, args: argparse.Namespace) -> "Inputs":
        """Raises what images.to_rgb raises, and ValueError for a mask of another size."""
        image, mask = (None if path is None else images.to_rgb(path)
                       for path in (args.init_image, args.mask))
        if image is not None and mask is not None and image.size != mask.size:
            raise ValueError(f"argument --mask: expected a picture of {image.width} x "
                             f"{image.height} pixels like --init-image, got {mask.width} x "
                             f"{mask.height}: draw it in the picture's size")
        return cls(image, mask)

    @property
    def sha256(self) -> dict[str, object]:
        """Of each that there is, by its name in a picture's record."""
        named = {"init_image_sha256": self.image, "mask_sha256": self.mask}
        return {name: pictures.pixel_sha256(picture) for name, picture in named.items() if picture}


# The run

class Progress:
    """A bar on stderr that appears with the first step, so that errors stand alone."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, step: "SampleStep") -> None:
        if self.bar is None:
            self.bar = tqdm(total=step.total, unit="step", file=sys.stderr)
        self.bar.update(step.index + 1 - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def run(argv: list[str], subcommands: str = "") -> int:
    """Paint what the arguments ask for; returns the exit status."""
    begun = time.perf_counter()
    args = parse(argv, subcommands)
    arguments.check_writable(args.output.parent if args.output else png.OUTPUTS, "-o")
    recording.check_places(args)
    inputs = Inputs.read(args)

    import minisd

    sd = minisd.load(args.model, device=args.device, dtype=args.dtype)
    toyworld = sd.config.name == "toyworld"
    if args.steps is None:
        args.steps = TOYWORLD_STEPS if toyworld else STEPS
    if args.guidance_scale is None:
        args.guidance_scale = TOYWORLD_GUIDANCE if toyworld else GUIDANCE
    recorder = recording.Recorder(sd, args)
    pictures = paint(sd, args, inputs, recorder)
    paths = save(sd, args, inputs, pictures)
    for line in recorder.write(paths):
        say(line)
    count = f"{len(pictures)} pictures" if len(pictures) > 1 else "1 picture"
    say(f"{count} in {time.perf_counter() - begun:.1f} s: {args.steps} {args.sampler} steps, "
        f"guidance {args.guidance_scale:g}, seed {args.seed}, {sd.config.name} in "
        f"{dtype_name(sd)}")
    return 0


def paint(sd: "StableDiffusion", args: argparse.Namespace, inputs: Inputs,
          recorder: "recording.Recorder | None" = None) -> list[Image.Image]:
    """The pictures, with a progress bar meanwhile; the recorder sees every step."""
    progress, ctrl_c = Progress(), CtrlC()

    def on_step(step: "SampleStep") -> None:
        ctrl_c.check()
        progress(step)
        if recorder is not None:
            recorder(step)

    asked = {"negative_prompt": args.negative_prompt, "guidance_scale": args.guidance_scale,
             "steps": args.steps, "sampler": args.sampler, "eta": args.eta, "seed": args.seed,
             "height": args.height, "width": args.width, "num_images": args.num_images,
             "on_step": on_step}
    try:
        with ctrl_c:
            if inputs.image is None:
                return sd.text_to_image(args.prompt, **asked)
            if inputs.mask is None:
                return sd.image_to_image(args.prompt, inputs.image, strength=args.strength,
                                         **asked)
            return sd.inpaint(args.prompt, inputs.image, inputs.mask, strength=args.strength,
                              paste=args.paste, **asked)
    finally:
        progress.close()


def save(sd: "StableDiffusion", args: argparse.Namespace, inputs: Inputs,
         pictures: list[Image.Image]) -> list[Path]:
    """Write the pictures with their records, say where, and return where."""
    record, paths = record_of(sd, args, inputs), []
    for i, picture in enumerate(pictures):
        path = _target(args, i)
        png.save_png(picture, path, {**record, "seed": args.seed + i, "height": picture.height,
                                        "width": picture.width})
        say(str(path))
        paths.append(path)
    return paths


def record_of(sd: "StableDiffusion", args: argparse.Namespace, inputs: Inputs
              ) -> dict[str, object]:
    """What makes the pictures again; seed and size are each picture's own."""
    import minisd

    record: dict[str, object] = {name: getattr(args, name) for name in SETTINGS}
    if inputs.image is not None:
        record["strength"] = args.strength
    if inputs.mask is not None:
        record["paste"] = args.paste
    return record | inputs.sha256 | sd.identity | {"minisd_version": minisd.__version__}


def dtype_name(sd: "StableDiffusion") -> str:
    return str(sd.dtype).removeprefix("torch.")


def _target(args: argparse.Namespace, i: int) -> Path:
    """Where picture i goes."""
    output: Path | None = args.output
    if output is None:
        return png.default_path(args.prompt, args.seed + i)
    return output if args.num_images == 1 else output.with_stem(f"{output.stem}-{i + 1}")
