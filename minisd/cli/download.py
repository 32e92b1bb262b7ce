"""`python -m minisd download NAME`: fetches real weights, or the vocabulary, into weights/.

What is there already is checked and kept, and a download that was interrupted goes on where it
stopped. Failures of the network end in exit status 1, for the same command may work later.
"""

from minisd.checkpoints.places import WEIGHTS
from minisd.cli import arguments
from minisd.cli.arguments import Parser
from minisd.cli.terminal import say

EPILOG = """\
example:
  python -m minisd download v1-5 --half

The weights have a licence of their own. You are asked once whether you accept it; a script, which
nobody can ask, says --accept-licence.
"""


def run(argv: list[str]) -> int:
    """Fetch what is missing, and say where it is; returns the exit status."""
    from minisd.checkpoints import download

    parser = Parser("minisd download",
                    "Fetch Stable Diffusion v1 weights, or CLIP's vocabulary alone.", EPILOG)
    add = parser.add_argument
    add("name", choices=list(download.KNOWN), metavar="|".join(download.KNOWN),
        help="what to fetch")
    add("--half", action="store_true", help="the float16 files, half the size")
    add("--endpoint", default="", metavar="URL",
        help="another hub (default: HF_ENDPOINT, else huggingface.co)")
    add("--token", default="",
        help="of an account there, where the hub asks for one (better: HF_TOKEN)")
    add("--accept-licence", action="store_true", help="accept the licence of the weights")
    add("--folder", type=arguments.place, default=WEIGHTS, metavar="DIR",
        help="where the model's folder goes (default: weights/, which `models` names)")
    args = parser.read(argv)
    arguments.check_writable([args.folder / "x"], "--folder")
    folder = download.fetch(args.name, args.folder, half=args.half, endpoint=args.endpoint,
                            token=args.token, accept_licence=args.accept_licence, say=say)
    if args.name == "tokenizer":
        say(f"the vocabulary is in {folder}")
        return 0
    model = args.name if args.folder.resolve() == WEIGHTS.resolve() else folder
    say(f"ready: python -m minisd \"a photograph of an astronaut riding a horse\" -m {model}")
    return 0
