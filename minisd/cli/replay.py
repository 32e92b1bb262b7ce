"""`python -m minisd replay PNG`: paints a picture again from the record inside its file.

A picture that it started from, and a mask, are not in the record but their checksums are: they are
named again and checked. Of the weights the record has the name, which is looked for in weights/ and
in $MINISD_MODEL, and a fingerprint, which is checked. The same weights in the same dtype give the
same pixels, as far as the machine computes alike.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minisd.checkpoints.places import WEIGHTS
from minisd.cli import arguments, options, paint
from minisd.cli.arguments import MODELS, Parser
from minisd.cli.terminal import complain, say
from minisd.observe import png

ASKED = ("prompt", *paint.OF_THE_RECORD, "seed", "height", "width", "dtype")
NEEDED = (*ASKED, "model", "fingerprint")


def run(argv: list[str]) -> int:
    """Paint again, and say whether it is the same picture; returns the exit status."""
    parser = Parser("minisd replay", "Paint a picture again from the record inside its PNG file, "
                                     "and say whether the pixels are the same.")
    parser.add_argument("png", type=arguments.file, metavar="PNG",
                        help="a picture that minisd painted")
    options.add_shared(parser, default="the recorded one")
    given = parser.read(argv)
    record = png.read_metadata(given.png)
    args = as_arguments(record, given)
    options.check_places(args)

    import minisd
    from minisd.checkpoints.weights import identity
    from minisd.observe.reading import to_rgb

    before, asked = to_rgb(given.png), paint.read_inputs(args)
    width, height = asked["image"].size if args.paste else (args.width, args.height)
    if before.size != (width, height):
        raise ValueError(f"'{given.png}' is {before.width} x {before.height} pixels, and its "
                         f"record says {width} x {height}: it was resized, or the record is not "
                         f"its own; nothing is painted")
    for name, found in paint.checksums(asked).items():
        if found != record[name]:
            raise ValueError(f"argument {option(name)}: expected the picture that was used then "
                             f"(SHA-256 of its pixels {record[name]}), got another ({found})")
    sd = minisd.load(args.model, device=args.device, dtype=args.dtype)
    now = identity(sd)
    if now["fingerprint"] != record["fingerprint"]:
        complain(f"warning: painted by {record.get('weights', record['model'])} with the "
                 f"fingerprint {record['fingerprint']}, and {now['weights']} has "
                 f"{now['fingerprint']}: expect another picture, or name the right weights with -m")
    if now["dtype"] != record["dtype"]:
        complain(f"warning: painted in {record['dtype']}, and this is {now['dtype']}: expect a "
                 f"picture that differs a little")
    _, (after,) = paint.paint(sd, args, asked)
    say(compare(before, after))
    return 0


def as_arguments(record: dict[str, Any], given: argparse.Namespace) -> argparse.Namespace:
    """The painter's arguments that a record stands for. Raises ValueError for what is none."""
    missing = [name for name in NEEDED if record.get(name) is None]
    if missing:
        raise ValueError(f"the record in '{given.png}' is incomplete: it lacks "
                         f"{', '.join(missing)}; nothing can be painted from it")
    for name, file in (("init_image_sha256", given.init_image), ("mask_sha256", given.mask)):
        then = record.get(name)
        if then is not None and file is None:
            raise ValueError(f"'{given.png}' was painted with {option(name)}: name that file again "
                             f"(the SHA-256 of its pixels is {then})")
        if then is None and file is not None:
            raise ValueError(f"'{given.png}' was painted without {option(name)}: leave it out")
    asked = {name: record.get(name) for name in (*ASKED, "strength")} | {
        name: value for name, value in vars(given).items() if value is not None and name != "png"}
    asked["model"] = given.model or recorded_model(record, given.png)
    argv = [f"{option(name)}={value}" for name, value in asked.items() if value is not None]
    try:
        return options.parse(argv + ["--paste"] * bool(record.get("paste")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the record in '{given.png}' makes no sense ({error}): nothing can be "
                         f"painted from it") from error


def option(name: str) -> str:
    """Of the painter, that gave a record's entry."""
    return f"--{name.removesuffix('_sha256').replace('_', '-')}"


def recorded_model(record: dict[str, Any], picture: Path) -> str:
    """What painted the picture, as minisd.load takes it.

    Records before "weights" was in them say only "v1": then it is "auto". Raises ValueError for
    weights that are not where this program looks for them by name.
    """
    name = record.get("weights", record["model"])
    if "weights" not in record or name == Path(os.environ.get("MINISD_MODEL", "")).name:
        return name if name in MODELS else "auto"
    if name in MODELS or (isinstance(name, str) and name == Path(name).name and name
                          and (WEIGHTS / name).exists()):
        return name
    raise ValueError(f"'{picture}' was painted by {name!r} (fingerprint {record['fingerprint']}), "
                     f"which is not in weights/: name them again with -m MODEL")


def compare(before: Image.Image, after: Image.Image) -> str:
    """One line about two RGB pictures of one size."""
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16))
    most, share = apart.max(), f"{np.mean(apart > 0):.2%}"
    if most == 0:
        return "the same picture, pixel for pixel"
    if most == 1:                           # as between a batch and a picture painted alone
        return f"the same picture up to rounding: {share} of its values differ by 1"
    return f"not the same picture: {share} of its values differ, by at most {most} of 255"
