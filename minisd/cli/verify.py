"""`python -m minisd verify FILE`: which known file this is, and whether it is whole.

Exit status 0 for a known file and for any other that can be read, with a line that says which;
2 for one that is damaged, empty, no weights at all, or not there.
"""

from minisd.checkpoints.untrusted import Refused, read_json, read_text
from minisd.cli import arguments
from minisd.cli.arguments import Parser
from minisd.cli.terminal import say


def run(argv: list[str]) -> int:
    """Read a file and say what it is; returns the exit status."""
    parser = Parser("minisd verify", "Say which known file a file is, and whether it is whole.")
    parser.add_argument("file", type=arguments.file, metavar="FILE",
                        help="a .safetensors, .ckpt, vocab.json or merges.txt; all of it is read")
    file = parser.read(argv).file

    from minisd.checkpoints import known
    from minisd.checkpoints.formats import open_weights

    size, digest = file.stat().st_size, known.sha256(file)
    about = f"({size:,} bytes, SHA-256 {digest})"
    name, published = known.NAMES.get(digest, ""), known.SINGLE_SIZES.get(file.name, 0)
    if published not in (0, size) and not name:
        about += f": the published {file.name} has {published:,} bytes"
    try:
        {".json": read_json, ".txt": read_text}.get(file.suffix, open_weights)(file)
    except Refused as error:
        raise Refused(f"{error} {about}") from error
    say(f"{file} is {name or 'readable, but none of the files known here'} {about}")
    return 0
