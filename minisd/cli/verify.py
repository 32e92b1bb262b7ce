"""`python -m minisd verify FILE`: which known file this is, and whether it is whole.

Exit status 0 for a known file and for any other that can be read, with a line that says which;
2 for one that is damaged, empty, no weights at all, or not there.
"""

from minisd.cli import arguments
from minisd.cli.arguments import Parser
from minisd.cli.terminal import say


def run(argv: list[str]) -> int:
    """Read a file and say what it is; returns the exit status."""
    parser = Parser("minisd verify", "Say which known file a file is, and whether it is whole.")
    parser.add_argument("file", type=arguments.file, metavar="FILE",
                        help="a .safetensors, .ckpt, vocab.json or merges.txt; all of it is read")
    file = parser.read(argv).file

    from minisd.checkpoints.registry import verify

    say(verify(file))
    return 0
