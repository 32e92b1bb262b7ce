"""`python -m minisd info MODEL`: what a model is made of, and what each of its blocks costs.

Nothing is loaded: sizes come from the names and shapes in the files, and from nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minisd.cli import arguments
from minisd.cli.arguments import Parser
from minisd.cli.terminal import say
from minisd.config import TOYWORLD, V1, Config

if TYPE_CHECKING:
    from minisd.checkpoints.sources import Source

SIZES = "v1"                    # a name for the sizes alone, wherever the weights are


def make_parser() -> Parser:
    parser = Parser("minisd info", "Say what a model is made of: its parts and layers, the "
                                   "parameters of each, and what each block computes.")
    parser.add_argument("model", nargs="?", type=_model, default="auto", metavar="MODEL",
                        help=f"{', '.join(arguments.MODELS)}, {SIZES} (the sizes alone), or the "
                             f"path of a model (default: auto)")
    parser.add_argument("--arrays", action="store_true", help="list every single array as well")
    return parser


def _model(value: str) -> str:
    return value if value == SIZES else arguments.model(value)


def run(argv: list[str]) -> int:
    """Say all about a model; returns the exit status."""
    args = make_parser().read(argv)
    config, origin = look_at(args.model)

    from minisd.observe import summary as anatomy

    say(f"{origin}\n\n{anatomy.info(config, arrays=args.arrays)}")
    return 0


def look_at(name: str) -> tuple[Config, str]:
    """A model's sizes, and a line about where they come from.

    Raises ValueError for files that are no whole network of Stable Diffusion v1.
    """
    if name == SIZES:
        return V1, "Stable Diffusion v1, by its sizes; no file was looked at"

    from minisd.checkpoints.registry import find, models
    from minisd.checkpoints.sources import config_of, open_model

    known = {model.name: model for model in models()}
    if name in known and known[name].path is None:
        preset = TOYWORLD if name == TOYWORLD.name else V1
        return preset, f"{name}, by its sizes; not at hand: {known[name].advice}"
    source = open_model(find(name))
    config = config_of(source)
    check(source, config)
    return config, str(source)


def check(source: Source, config: Config) -> None:
    """Raises ValueError where names or shapes of what the source holds are not the model's."""
    import torch

    from minisd.checkpoints.weights import match
    from minisd.pipeline import StableDiffusion

    with torch.device("meta"):
        sd = StableDiffusion(config)
    match(sd, source, only=tuple(f"{part}." for part in source.parts))
