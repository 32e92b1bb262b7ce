"""`python -m minisd models`: the known models, what they are made of, and which are at hand."""

from minisd.cli.arguments import Parser
from minisd.cli.terminal import say


def run(argv: list[str]) -> int:
    """Say what `minisd.models()` holds, and which one "auto" takes; returns the exit status."""
    Parser("minisd models", "List the known models, their sizes, and which are at hand.").read(argv)

    import minisd
    from minisd.checkpoints.places import WEIGHTS
    from minisd.checkpoints.registry import find

    say(f"{minisd.models()}\n\nweights/ is {WEIGHTS}")
    say(f"auto, which is taken where none is named: {find('auto')}")
    return 0
