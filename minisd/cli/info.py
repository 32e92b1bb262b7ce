"""`python -m minisd info MODEL`: what a model is made of, and what each of its blocks costs.

Nothing is loaded: sizes come from the names and shapes in the files, and from nowhere else.
"""

from minisd.cli.arguments import MODELS, Parser
from minisd.cli.terminal import say
from minisd.config import V1, Config

SIZES = "v1"                    # a name for the sizes alone, wherever the weights are


def run(argv: list[str]) -> int:
    """Say all about a model; returns the exit status."""
    parser = Parser("minisd info", "Say what a model is made of: its parts and layers, the "
                                   "parameters of each, and what each block computes.")
    parser.add_argument("model", nargs="?", default="auto", metavar="MODEL",
                        help=f"{', '.join(MODELS)}, {SIZES} (the sizes alone, which needs no "
                             f"weights), or the path of a model (default: auto)")
    parser.add_argument("--arrays", action="store_true", help="list every single array as well")
    args = parser.read(argv)
    config, origin = look_at(args.model)

    from minisd.observe import summary

    say(f"{origin}\n\n{summary.info(config, arrays=args.arrays)}")
    return 0


def look_at(name: str) -> tuple[Config, str]:
    """A model's sizes, and a line about where they come from.

    Raises ValueError for files that are no whole network of Stable Diffusion v1.
    """
    if name == SIZES:
        return V1, "Stable Diffusion v1, by its sizes; no file was looked at"

    from minisd.checkpoints.known import VERSIONS
    from minisd.checkpoints.registry import find, whole_model

    try:
        place = find(name)
    except ValueError as error:
        if name not in VERSIONS:
            raise
        return V1, f"{name}, by its sizes; {error}"
    source, sd = whole_model(place, parts=())
    return sd.config, str(source)
