"""The options of painting: what the command line takes where no subcommand is named."""

import argparse
from pathlib import Path

from minisd.cli import arguments
from minisd.cli.arguments import DTYPES, MODELS, SAMPLERS, Parser

LARGEST_SEED = 2 ** 63 - 1
STEPS, GUIDANCE = 50, 7.5
TOYWORLD_STEPS = 25             # more changes little there
TOYWORLD_GUIDANCE = 3.0         # as good as 4 at following the prompt, and nearer to drawn scenes
STRENGTH, MASK_STRENGTH = 0.75, 1.0
SNAPSHOTS = 0.25                # of a run, between two of them

EXAMPLES = """\
examples:
  python -m minisd "a red car below a yellow balloon"
  python -m minisd "a blue fish" --negative-prompt "sand" --seed 7 -o fish.png
  python -m minisd "a green tree at night" --init-image photo.jpg --strength 0.6
  python -m minisd "a white house" --init-image photo.jpg --mask sky.png --paste
"""


def make_parser(subcommands: str = "") -> Parser:
    """Every option, its aliases and its default; `subcommands` ends the help."""
    parser = Parser("minisd", "Paint what a prompt says.", EXAMPLES + subcommands)
    add_prompt(parser)
    add_editing(parser)
    add_model(parser)
    add_files(parser)
    return parser


def add_prompt(parser: Parser) -> None:
    """What to paint, and how."""
    add = parser.add_argument
    add("words", nargs="?", type=arguments.text, metavar="prompt",
        help="what to paint, in quotes")
    add("--prompt", type=arguments.text, help="the same, as an option")
    add("--negative-prompt", type=arguments.text, default="", help="what to keep away from")
    add("--guidance-scale", "--cfg-scale", "--scale", type=arguments.real(), metavar="G",
        help=f"how strongly to follow the prompt; 0 ignores it, 1 adds nothing (default: "
             f"{GUIDANCE}; {TOYWORLD_GUIDANCE:g} with toyworld)")
    add("--steps", "--ddim_steps", type=arguments.whole(1), metavar="N",
        help=f"steps from noise to picture (default: {STEPS}; {TOYWORLD_STEPS} with toyworld)")
    add("--seed", type=arguments.whole(0, LARGEST_SEED), default=42, metavar="N",
        help="the starting noise; picture i of several has seed + i (default: 42)")
    add("-H", "--height", type=arguments.side, metavar="PIXELS",
        help="a multiple of 8 (default: the model's, or the input picture's)")
    add("-W", "--width", type=arguments.side, metavar="PIXELS", help="likewise")
    add("--sampler", choices=list(SAMPLERS), default="ddim", help="(default: ddim)")
    add("--eta", type=arguments.real(0, 1), default=0.0,
        help="fresh noise in every ddim step, from 0 to 1 (default: 0)")
    add("--num-images", type=arguments.whole(1), default=1, metavar="N",
        help="how many pictures to paint at once (default: 1)")


def add_editing(parser: Parser) -> None:
    """The pictures to start from."""
    add = parser.add_argument
    add("--init-image", metavar="FILE", help="a picture to start from instead of noise")
    add("--strength", type=arguments.real(0, 1),
        help=f"how much of it to repaint, from 0 to 1 (default: {STRENGTH}; {MASK_STRENGTH:g} "
             f"with --mask)")
    add("--mask", metavar="FILE",
        help="a picture of the same size, white where --init-image is to be repainted")
    add("--paste", action="store_true",
        help="paste the pixels that the mask keeps back over the result, unchanged")


def add_model(parser: Parser) -> None:
    """What paints, where and in which precision."""
    add = parser.add_argument
    add("-m", "--model", type=arguments.model, default="auto",
        help=f"{', '.join(MODELS)} or the path of a model (default: auto)")
    add("--device", type=arguments.device, default="auto",
        help="auto, cpu, cuda, mps (default: auto)")
    add("--dtype", choices=DTYPES, default="auto", help="(default: auto)")


def add_files(parser: Parser) -> None:
    """What to write, and where."""
    add = parser.add_argument
    add("-o", "--output", type=arguments.png, metavar="FILE.png",
        help="where to write, over what is there; out-1.png, out-2.png with several pictures "
             "(default: outputs/<words>-<seed>.png, never over what is there)")
    add("--snapshots", nargs="?", type=arguments.share, const=SNAPSHOTS, metavar="RATIO",
        help="also write <name>-snapshots.png: the noisy latents and, below them, the picture "
             f"predicted from them, after every RATIO of the run (RATIO: {SNAPSHOTS})")
    add("--steps-dir", type=Path, metavar="DIR",
        help="also write the predicted picture of every step: 000.png, 001.png, ... into a new "
             "or empty folder")
    add("--trace", type=Path, metavar="FILE",
        help="also save the whole run, to be looked at with minisd.Trace.load")


def parse(argv: list[str], subcommands: str = "") -> argparse.Namespace:
    """Arguments that each make sense, and make sense together.

    Raises ValueError for the first that does not.
    """
    args = make_parser(subcommands).read(
        argv, surplus=" after the prompt: put the whole prompt in quotes")
    if (args.words is None) == (args.prompt is None):
        raise ValueError("expected a prompt, got none: say what to paint, in quotes"
                         if args.prompt is None else
                         "expected one prompt, got two: leave out --prompt or the other one")
    args.prompt = args.words if args.prompt is None else args.prompt
    if args.steps is not None and args.steps > SAMPLERS[args.sampler]:
        raise ValueError(f"argument --steps: expected a whole number from 1 to "
                         f"{SAMPLERS[args.sampler]} for {args.sampler}, got {args.steps}")
    if args.seed > LARGEST_SEED - args.num_images:
        raise ValueError(f"argument --seed: expected seed + num_images of at most {LARGEST_SEED}, "
                         f"got {args.seed} + {args.num_images}: take a smaller seed")
    for option, why in (("strength", "strength says how much of that picture to repaint"),
                        ("mask", "the mask says where to repaint that picture")):
        if getattr(args, option) is not None and args.init_image is None:
            raise ValueError(f"argument --{option}: expected --init-image FILE with it, got none: "
                             f"{why}")
    if args.paste and args.mask is None:
        raise ValueError("argument --paste: expected --mask FILE with it, got none: the mask says "
                         "which pixels to keep")
    if args.init_image is not None and args.strength is None:
        args.strength = STRENGTH if args.mask is None else MASK_STRENGTH
    return args
