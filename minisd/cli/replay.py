"""`python -m minisd replay PNG`: paints a picture again from the record inside its file.

A picture starts from its seed, or from another picture. That one is not in the record but its
checksum is, so it has to be named again with --init-image, and is checked; so is a mask. Of the
weights the record has the name, which is looked for in weights/ and in $MINISD_MODEL, and a
fingerprint, which is checked. The same weights in the same dtype give the same pixels, as far as
the machine computes alike.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from minisd import images
from minisd.cli import arguments, options, paint
from minisd.cli.arguments import DTYPES, MODELS, WEIGHTS, Parser
from minisd.cli.terminal import complain, say
from minisd.observe import png

if TYPE_CHECKING:
    from minisd.pipeline import StableDiffusion

NEEDED = (*paint.SETTINGS, "seed", "height", "width", "dtype", "model", "fingerprint")
INPUTS = (("--init-image", "init_image", "init_image_sha256"),
          ("--mask", "mask", "mask_sha256"))                    # option, its value, its checksum


def make_parser() -> Parser:
    parser = Parser("minisd replay", "Paint a picture again from the record inside its PNG file.")
    add = parser.add_argument
    add("png", metavar="PNG", help="a picture that minisd painted")
    add("--init-image", metavar="FILE", help="the picture that it was started from, if any")
    add("--mask", metavar="FILE", help="the mask that it was painted with, if any")
    add("-m", "--model", type=arguments.model,
        help="what paints (default: the recorded weights)")
    add("--device", type=arguments.device, default="auto", help="(default: auto)")
    add("--dtype", choices=DTYPES[1:], help="(default: the recorded one)")
    add("-o", "--output", type=arguments.png, metavar="FILE.png",
        help="where to write, over what is there (default: outputs/<words>-<seed>.png, never over "
             "what is there)")
    return parser


def run(argv: list[str]) -> int:
    """Paint again, and say whether it is the same picture; returns the exit status."""
    given = make_parser().read(argv)
    record = png.read_metadata(given.png)
    args = settings(record, given)
    arguments.check_writable(args.output.parent if args.output else png.OUTPUTS, "-o")
    inputs = paint.Inputs.read(args)
    check_inputs(record, inputs)
    before = images.to_rgb(given.png)

    import minisd

    sd = minisd.load(args.model, device=args.device, dtype=args.dtype)
    for difference in differences(record, sd):
        complain(f"warning: {difference}")
    after, = paint.paint(sd, args, inputs)
    paint.save(sd, args, inputs, [after])
    say(compare(before, after))
    return 0


# Before painting

def settings(record: dict[str, Any], given: argparse.Namespace) -> argparse.Namespace:
    """The painter's arguments that a record stands for. Raises ValueError for what is none."""
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise ValueError(f"the record in {given.png!r} is incomplete: it lacks "
                         f"{', '.join(missing)}; nothing can be painted from it")
    files = input_options(record, given)
    names = (*paint.SETTINGS, "seed", "height", "width", "strength")
    argv = [f"--{name.replace('_', '-')}={record[name]}" for name in names if name in record]
    argv += ["--paste"] if record.get("paste") else []
    try:
        args = options.parse([*argv, f"--dtype={record['dtype']}", *files])
    except ValueError as error:
        raise ValueError(f"the record in {given.png!r} makes no sense ({error}): nothing can be "
                         f"painted from it") from error
    args.dtype = given.dtype or args.dtype
    args.model = given.model or recorded_model(record, given.png)
    args.device, args.output = given.device, given.output
    return args


def recorded_model(record: dict[str, Any], png: str) -> str:
    """What painted the picture, as minisd.load takes it.

    Records before "weights" was in them say only "v1": then it is "auto". Raises ValueError for
    weights that are not where this program looks for them by name.
    """
    name = record.get("weights", record["model"])
    if name in MODELS:
        return name
    if "weights" not in record or name == Path(os.environ.get("MINISD_MODEL", "")).name:
        return "auto"
    if isinstance(name, str) and name == Path(name).name and name and (WEIGHTS / name).exists():
        return name
    raise ValueError(f"{png!r} was painted by {name!r} (fingerprint {record['fingerprint']}), "
                     f"which is not in weights/: name them again with -m MODEL")


def input_options(record: dict[str, Any], given: argparse.Namespace) -> list[str]:
    """The pictures that the painting started from. Raises ValueError for one too few or many."""
    named = []
    for option, name, key in INPUTS:
        file = getattr(given, name)
        if key in record and file is None:
            raise ValueError(f"{given.png!r} was painted with {option}: name that file again with "
                             f"{option} FILE (the SHA-256 of its pixels is {record[key]})")
        if key not in record and file is not None:
            raise ValueError(f"{given.png!r} was painted without {option}: leave it out")
        named += [] if file is None else [f"{option}={file}"]
    return named


def check_inputs(record: dict[str, Any], inputs: paint.Inputs) -> None:
    """Raises ValueError for another input picture than the recorded one."""
    for option, _, key in INPUTS:
        if key in record and inputs.sha256[key] != record[key]:
            raise ValueError(f"argument {option}: expected the picture that was used then (SHA-256 "
                             f"of its pixels {record[key]}), got another ({inputs.sha256[key]})")


def differences(record: dict[str, Any], sd: "StableDiffusion") -> Iterator[str]:
    """Why the picture may come out otherwise."""
    if record["fingerprint"] != sd.fingerprint:
        yield (f"painted by {record.get('weights', record['model'])} with the fingerprint "
               f"{record['fingerprint']}, and {sd.weights} has {sd.fingerprint}: expect another "
               f"picture, or name the right weights with -m")
    if record["dtype"] != paint.dtype_name(sd):
        yield (f"painted in {record['dtype']}, and this is {paint.dtype_name(sd)}: expect a "
               f"picture that differs a little")


# After it

def compare(before: Image.Image, after: Image.Image) -> str:
    """One line about two pictures in RGB."""
    if before.size != after.size:
        return (f"not compared: the file is {before.width} x {before.height} pixels, and its "
                f"record says {after.width} x {after.height}")
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16))
    most, share = apart.max(), f"{np.mean(apart > 0):.2%}"
    if most == 0:
        return "the same picture, pixel for pixel"
    if most == 1:                           # as between a batch and a picture painted alone
        return f"the same picture up to rounding: {share} of its values differ by 1"
    return f"not the same picture: {share} of its values differ, by at most {most} of 255"
