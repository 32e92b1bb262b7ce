"""The options of painting: what the command line takes where no subcommand is named."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

from minisd.cli import arguments
from minisd.cli.arguments import DTYPES, MODELS, SAMPLERS, Parser, number, text
from minisd.config import TOYWORLD, V1
from minisd.observe.png import OUTPUTS
from minisd.settings import RunSettings, plan

SNAPSHOTS = 0.25                # of a run, between two of them
OF_A_STEP = r"\d{3,}(-\d+)?\.png"       # names of files in --steps-dir

EXAMPLES = """\
examples:
  python -m minisd "a red car below a yellow balloon"
  python -m minisd "a blue fish" --negative-prompt "sand" --seed 7 -o fish.png
  python -m minisd "a green tree at night" --init-image photo.jpg --strength 0.6
  python -m minisd "a white house" --init-image photo.jpg --mask sky.png --paste

Every picture carries its prompt, seed and settings inside the PNG file; `replay` reads them.
"""


def make_parser(epilog: str = "") -> Parser:
    """Every option, its aliases and its default; `epilog` ends the help."""
    parser = Parser("minisd", "Paint what a prompt says.", EXAMPLES + epilog)
    add = parser.add_argument
    add("words", nargs="?", type=text, metavar="prompt", help="what to paint, in quotes")
    add("--prompt", type=text, help="the same, as an option")
    add("--negative-prompt", type=text, default="", metavar="TEXT", help="what to keep away from")
    add("--guidance-scale", "--cfg-scale", "--scale", type=number, metavar="G",
        help=f"how strongly to follow the prompt; 0 ignores it, 1 adds nothing (default: the "
             f"model's own, {V1.guidance_scale:g})")
    add("--steps", "--ddim_steps", type=number, metavar="N",
        help=f"steps from noise to picture, 1 to 999 (default: the model's own, {V1.steps}; "
             f"{TOYWORLD.steps} with toyworld)")
    add("--sampler", choices=SAMPLERS, default="ddim", help="(default: ddim)")
    add("--eta", type=number, default=0.0, metavar="X",
        help="fresh noise in every ddim step, from 0 to 1 (default: 0)")
    add("--seed", type=number, default=42, metavar="N",
        help="the starting noise; picture i of several has seed + i (default: 42)")
    add("--num-images", type=number, default=1, metavar="N",
        help="how many pictures to paint at once (default: 1)")
    add("-H", "--height", type=number, metavar="PIXELS",
        help="a multiple of 8 (default: the model's, or the input picture's)")
    add("-W", "--width", type=number, metavar="PIXELS", help="likewise")
    add("--strength", type=number, metavar="X",
        help="how much of --init-image to repaint: 0 keeps it, 1 repaints all of it (default: "
             "0.75; 1 with --mask)")
    add("--paste", action="store_true",
        help="paste the pixels that --mask keeps back over the result, unchanged")
    add_shared(parser)
    add("--snapshots", nargs="?", type=arguments.share, const=SNAPSHOTS, metavar="RATIO",
        help="also write <name>-snapshots.png: the noisy latents and, below them, the picture "
             f"predicted from them, after every RATIO of the run (RATIO: {SNAPSHOTS}, which is at "
             "0, 25, 50, 75 and 100 %%)")
    add("--steps-dir", type=arguments.place, metavar="DIR",
        help="also write the predicted picture of every step: 000.png, 001.png, ... into a new "
             "or empty folder")
    add("--trace", type=arguments.place, metavar="FILE",
        help="also save the whole run, to be looked at with minisd.Trace.load")
    return parser


def add_shared(parser: Parser, default: str = "") -> None:
    """The options that `replay` has too. default: what its record gives in place of auto."""
    add, auto = parser.add_argument, None if default else "auto"
    add("--init-image", type=arguments.file, metavar="FILE",
        help="the picture to start from, instead of noise")
    add("--mask", type=arguments.file, metavar="FILE",
        help="a picture of the same size, white where --init-image is to be repainted")
    add("-m", "--model", default=auto,
        help=f"{', '.join(MODELS)} or the path of a model (default: {default or auto})")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu (default: auto)")
    add("--dtype", choices=DTYPES, default=auto,
        help=f"the precision (default: {default or auto})")
    add("-o", "--output", type=arguments.png, metavar="FILE.png",
        help="where to write, over what is there; out-1.png, out-2.png with several pictures "
             "(default: outputs/<words>-<seed>.png, never over what is there)")


def parse(argv: list[str], epilog: str = "") -> argparse.Namespace:
    """Arguments that each make sense, and make sense together.

    Raises ValueError or TypeError for the first that does not.
    """
    args = make_parser(epilog).read(
        argv, surplus=" after the prompt: put the whole prompt in quotes")
    if (args.words is None) == (args.prompt is None):
        raise ValueError("expected a prompt, got none: say what to paint, in quotes"
                         if args.prompt is None else
                         "expected one prompt, got two: leave out --prompt or the other one")
    args.prompt = args.words if args.prompt is None else args.prompt
    for option, needed in (("strength", "init_image"), ("mask", "init_image"), ("paste", "mask")):
        if getattr(args, option) not in (None, False) and getattr(args, needed) is None:
            raise ValueError(f"argument --{option}: expected --{needed.replace('_', '-')} FILE "
                             f"with it, got none")
    plan(V1, args.prompt, settings(args))       # before a model is loaded: any will do
    return args


def settings(args: argparse.Namespace) -> RunSettings:
    """What the arguments ask of a run; but for one they are named as in settings.Settings."""
    asked: Any = {name: value for name, value in vars(args).items()
                  if name in RunSettings.__annotations__}
    return {**asked, "image": args.init_image}


# Where things go

def targets(args: argparse.Namespace) -> list[Path]:
    """The files of the pictures, where the user named them."""
    if args.output is None:
        return []
    return [args.output] if args.num_images == 1 else [
        args.output.with_stem(f"{args.output.stem}-{i + 1}") for i in range(args.num_images)]


def check_places(args: argparse.Namespace) -> None:
    """Raises ValueError where something could not be written, or two things in one place."""
    files, folder = targets(args), args.steps_dir
    files += [file.with_stem(f"{file.stem}-snapshots") for file in files if args.snapshots]
    arguments.check_writable(files or [OUTPUTS / "x.png"], "-o")
    if args.trace is not None:
        arguments.check_writable([args.trace], "--trace")
        files.append(args.trace)
    places = [Path(os.path.realpath(file)) for file in files]
    if len(set(places)) < len(places):
        raise ValueError(f"expected a file for each, got '{files[-1]}' twice: name another")
    if folder is None:
        return
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"argument --steps-dir: expected a new or empty folder, got '{folder}', "
                         f"which holds files or is one: steps of two runs would mix")
    arguments.check_writable([folder / "000.png"], "--steps-dir")
    if any(place.parent == Path(os.path.realpath(folder)) and re.fullmatch(OF_A_STEP, place.name)
           for place in places):
        raise ValueError(f"argument --steps-dir: expected a folder of its own, got '{folder}', "
                         f"where another option names a file like one of a step")
