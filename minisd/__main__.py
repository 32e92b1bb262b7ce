"""The command line: `python -m minisd "a red car below a yellow balloon" -o out.png`.

Arguments are checked before torch is imported, which takes seconds, so that a mistake answers at
once. Exit status: 0 done, 1 the run failed, 2 the input makes no sense, 130 interrupted.
"""

import argparse
import math
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from tqdm import tqdm

from minisd import images

if TYPE_CHECKING:
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep

MODELS = ("auto", "toyworld")
SAMPLERS = {"ddim": 999, "ddpm": 1000, "plms": 999, "lms": 999, "euler": 999, "euler_a": 999,
            "heun": 999, "dpm++2m": 999}                # and the most steps each can take
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d+)?")
LARGEST_SEED = 2 ** 63 - 1
SIDE_STEP = 8                   # pixels along each side of one latent cell
STEPS = 50
TOYWORLD_STEPS = 25             # more changes little there
STRENGTH = 0.75

EXAMPLES = """\
examples:
  python -m minisd "a red car below a yellow balloon"
  python -m minisd "a blue fish" --negative-prompt "sand" --seed 7 -o fish.png
  python -m minisd "a green tree at night" --init-image photo.jpg --strength 0.6
"""


@dataclass(frozen=True)
class Subcommand:
    """What runs instead of the painter when its name is the first argument."""

    run: Callable[[list[str]], int]     # takes the other arguments, returns the exit status
    help: str                           # one line


SUBCOMMANDS: dict[str, Subcommand] = {}


# The arguments, one by one

class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _expected(what: str, got: str) -> argparse.ArgumentTypeError:
    shown = got if len(got) <= 60 else f"{got[:57]}..."
    return argparse.ArgumentTypeError(f"expected {what}, got {shown!r}")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        bad = value[error.start]
        raise argparse.ArgumentTypeError(
            f"expected text in UTF-8, got {ascii(bad)[1:-1]} as character {error.start + 1}: "
            f"check the terminal's encoding, or retype the text") from error
    return value


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    limits = f"of at least {low}" if high is None else f"from {low} to {high}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError as error:
            raise _expected(f"a whole number {limits}", value) from error
        if number < low or (high is not None and number > high):
            raise _expected(f"a whole number {limits}", value)
        return number

    return parse


def _real(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    limits = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError as error:
            raise _expected(limits, value) from error
        if not math.isfinite(number) or not low <= number <= high:
            raise _expected(limits, value)
        return number

    return parse


def _side(value: str) -> int:
    side = _whole(1)(value)
    if side % SIDE_STEP:
        near = [n for n in (side // SIDE_STEP * SIDE_STEP, -(-side // SIDE_STEP) * SIDE_STEP) if n]
        raise _expected(f"a multiple of {SIDE_STEP} such as {' or '.join(map(str, near))}", value)
    return side


def _device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise _expected("auto, cpu, cuda, cuda:1, mps or xpu", value)
    return value


def _model(value: str) -> str:
    if value not in MODELS and not Path(value).exists():
        raise _expected(f"{', '.join(MODELS)} or the path of a model", value)
    return value


def _output(value: str) -> Path:
    path = Path(value)
    if path.is_dir():
        raise _expected("the name of a file that ends in .png", f"{value} (a folder)")
    if path.suffix.lower() != ".png":
        raise _expected("the name of a file that ends in .png", value)
    return path


def make_parser() -> Parser:
    """Every option, its aliases and its default."""
    subcommands = "".join(f"  {name:12}{row.help}\n" for name, row in SUBCOMMANDS.items())
    parser = Parser(
        prog="minisd", description="Paint what a prompt says.", allow_abbrev=False,
        epilog=EXAMPLES + (f"\nsubcommands:\n{subcommands}" if subcommands else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("words", nargs="?", type=_text, metavar="prompt", help="what to paint, in quotes")
    add("--prompt", type=_text, help="the same, as an option")
    add("--negative-prompt", type=_text, default="", help="what to keep away from")
    add("--guidance-scale", "--cfg-scale", "--scale", type=_real(), default=7.5, metavar="G",
        help="how strongly to follow the prompt; 0 ignores it, 1 adds nothing (default: 7.5)")
    add("--steps", "--ddim_steps", type=_whole(1), metavar="N",
        help=f"steps from noise to picture (default: {STEPS}; {TOYWORLD_STEPS} with toyworld)")
    add("--seed", type=_whole(0, LARGEST_SEED), default=42, metavar="N",
        help="the starting noise; picture i of several has seed + i (default: 42)")
    add("-H", "--height", type=_side, metavar="PIXELS",
        help="a multiple of 8 (default: the model's, or the input picture's)")
    add("-W", "--width", type=_side, metavar="PIXELS", help="likewise")
    add("--sampler", choices=list(SAMPLERS), default="ddim", help="(default: ddim)")
    add("--eta", type=_real(0, 1), default=0.0,
        help="fresh noise in every ddim step, from 0 to 1 (default: 0)")
    add("--num-images", type=_whole(1), default=1, metavar="N",
        help="how many pictures to paint at once (default: 1)")
    add("--init-image", metavar="FILE", help="a picture to start from instead of noise")
    add("--strength", type=_real(0, 1),
        help=f"how much of it to repaint, from 0 to 1 (default: {STRENGTH})")
    add("-m", "--model", type=_model, default="auto",
        help=f"{', '.join(MODELS)} or the path of a model (default: auto)")
    add("--device", type=_device, default="auto", help="auto, cpu, cuda, mps (default: auto)")
    add("--dtype", choices=DTYPES, default="auto", help="(default: auto)")
    add("-o", "--output", type=_output, metavar="FILE.png",
        help="where to write, over what is there; out-1.png, out-2.png with several pictures "
             "(default: outputs/<words>-<seed>.png, never over what is there)")
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments that each make sense, and make sense together.

    Raises ValueError for the first that does not.
    """
    args, surplus = make_parser().parse_known_args(argv)
    if surplus:
        unknown = [argument for argument in surplus if argument.startswith("-")]
        raise ValueError(f"unknown option {unknown[0]!r}: see --help" if unknown else
                         f"unexpected {surplus[0]!r} after the prompt: put the whole prompt in "
                         f"quotes")
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
    if args.strength is not None and args.init_image is None:
        raise ValueError("argument --strength: expected --init-image FILE with it, got none: "
                         "strength says how much of that picture to repaint")
    return args


def _check_writable(folder: Path) -> None:
    """Raises ValueError where no file could be written later; leaves nothing behind."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"expected a folder that can be written, got {str(folder)!r} "
                         f"({error.strerror}): choose another with -o") from error


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


def paint(argv: list[str]) -> int:
    """A prompt, and maybe a picture, to PNG files; returns the exit status."""
    begun = time.perf_counter()
    args = parse(argv)
    _check_writable(args.output.parent if args.output else images.OUTPUTS)
    start = images.to_rgb(args.init_image) if args.init_image is not None else None

    import minisd

    sd = minisd.load(args.model, device=args.device, dtype=args.dtype)
    if args.steps is None:
        args.steps = TOYWORLD_STEPS if sd.config.name == "toyworld" else STEPS
    if start is not None and args.strength is None:
        args.strength = STRENGTH
    progress = Progress()
    try:
        pictures = _pictures(sd, args, start, progress)
    finally:
        progress.close()
    record = _record(sd, args, start)
    for i, picture in enumerate(pictures):
        seed = args.seed + i
        path = _target(args, i)
        images.save_png(picture, path, {**record, "seed": seed, "height": picture.height,
                                        "width": picture.width})
        _say(str(path))
    count = f"{len(pictures)} pictures" if len(pictures) > 1 else "1 picture"
    _say(f"{count} in {time.perf_counter() - begun:.1f} s: {args.steps} {args.sampler} steps, "
         f"guidance {args.guidance_scale:g}, seed {args.seed}, {record['model']} in "
         f"{record['dtype']}")
    return 0


def _pictures(sd: "StableDiffusion", args: argparse.Namespace, start: Any,
              progress: Progress) -> list[Any]:
    asked = {"negative_prompt": args.negative_prompt, "guidance_scale": args.guidance_scale,
             "steps": args.steps, "sampler": args.sampler, "eta": args.eta, "seed": args.seed,
             "height": args.height, "width": args.width, "num_images": args.num_images,
             "on_step": progress}
    if start is None:
        return sd.text_to_image(args.prompt, **asked)
    return sd.image_to_image(args.prompt, start, strength=args.strength, **asked)


def _record(sd: "StableDiffusion", args: argparse.Namespace, start: Any) -> dict[str, object]:
    """What makes the pictures again; seed and size are each picture's own."""
    import minisd

    names = ("prompt", "negative_prompt", "guidance_scale", "steps", "sampler", "eta")
    record: dict[str, object] = {name: getattr(args, name) for name in names}
    if start is not None:
        record |= {"strength": args.strength, "init_image_sha256": images.pixel_sha256(start)}
    return record | {"dtype": str(sd.dtype).removeprefix("torch."), "model": sd.config.name,
                     "fingerprint": sd.fingerprint, "minisd_version": minisd.__version__}


def _target(args: argparse.Namespace, i: int) -> Path:
    """Where picture i goes."""
    output: Path | None = args.output
    if output is None:
        return images.default_path(args.prompt, args.seed + i)
    return output if args.num_images == 1 else output.with_stem(f"{output.stem}-{i + 1}")


def _say(text: str) -> None:
    """A line on stdout, also where its encoding lacks a letter of the file's name."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _complain(text: str) -> None:
    """Exactly one line on stderr, clear of any progress bar."""
    tqdm.write(f"minisd: {' '.join(text.split())}", file=sys.stderr)


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int,
          file: TextIO | None = None, line: str | None = None) -> None:
    """Stands in for warnings.showwarning, which prints file names and source lines too."""
    _complain(f"warning: {message}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            if argv and argv[0] in SUBCOMMANDS:
                return SUBCOMMANDS[argv[0]].run(argv[1:])
            return paint(argv)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except (ValueError, TypeError, OSError) as error:
        _complain(f"error: {error}")
        return 2
    except (ArithmeticError, MemoryError, RuntimeError) as error:   # not finite, out of memory
        _complain(f"error: {str(error) or type(error).__name__}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
