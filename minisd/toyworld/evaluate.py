"""`python -m minisd.toyworld.evaluate [vae|guidance|adherence|search|sheet|all|export]`.

Measures a toyworld model. Everything that takes long is kept prompt by prompt in the folder, so a
killed evaluation continues by the same command, and
`torchrun --nproc_per_node=N -m minisd.toyworld.evaluate ...` shares it between N processes.
Results go to summary.json in the folder and to the terminal. `export` writes what was measured on
the model, and what it got wrong, to evaluation.json beside the shipped weights.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from minisd.checkpoints.load import load
from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.samplers import SAMPLERS
from minisd.toyworld.evaluation import rates, results
from minisd.toyworld.evaluation.bench import Bench, read_summary, write_json
from minisd.toyworld.evaluation.judge import load_judge
from minisd.toyworld.evaluation.sections import SECTIONS
from minisd.toyworld.training import loop


def run(args: argparse.Namespace) -> None:
    """What the command line asks for."""
    loop.join_processes()
    sd = load(args.model, device=str(loop.device()), dtype=args.dtype)
    on = Bench(sd, load_judge(args.judge).to(sd.device), args.folder,
               args.figures or args.folder / "figures", args.batch,
               sd.config.steps if args.steps is None else args.steps, args.prompts,
               sd.config.guidance_scale if args.guidance is None else args.guidance,
               args.samplers)
    if args.section == "export":
        if loop.rank() == 0:
            identity = on.identity()
            print(results.export(on.folder, args.target, identity["model"], identity["judge"]))
        return
    every = [name for name in SECTIONS          # the image tower is toyworld's
             if name != "search" or sd.config == TOYWORLD]
    for name in every if args.section == "all" else [args.section]:
        if name != "sheet" or loop.rank() == 0:     # the sheet is not shared
            values, tables = SECTIONS[name](on)
            plain = [f"{key} {value}" for key, value in values.items()
                     if isinstance(value, str | int | float)]
            if loop.rank() == 0:
                print("", name, *(rates.table(*one) for one in tables.items() if one[1]),
                      ", ".join(plain), "", sep="\n", flush=True)
                summary = {**read_summary(on.folder), name: {**values, **hardware()}}
                write_json(on.folder / "summary.json", summary, indent=2)
        loop.wait_for_all()             # the next section reads the summary


def hardware() -> dict[str, str | int]:
    """What the numbers were measured on."""
    name = (torch.cuda.get_device_name() if torch.cuda.is_available()
            else torch.cpu.get_capabilities().get("cpu_name", "CPU"))
    return {"hardware": f"{name}, {os.cpu_count()} CPU cores", "torch": torch.__version__,
            "threads": torch.get_num_threads(), "processes": loop.world_size()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.evaluate",
                                     description=__doc__)
    parser.add_argument("section", nargs="?", default="all", choices=[*SECTIONS, "all", "export"])
    parser.add_argument("--model", default="toyworld", help="as minisd.load takes it")
    parser.add_argument("--judge", type=Path, default=SHIPPED / "judge.safetensors")
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluation"),
                        help="rows and summary.json (default: %(default)s)")
    parser.add_argument("--figures", type=Path, help="(default: figures in that folder)")
    parser.add_argument("--target", type=Path, default=SHIPPED,
                        help="folder that export writes evaluation.json to")
    parser.add_argument("--prompts", type=int, help="of each kind (default: 500, guidance 300)")
    parser.add_argument("--guidance", type=float, help="(default: the model's own)")
    parser.add_argument("--samplers", nargs="+", default=["ddim"], choices=SAMPLERS,
                        metavar="NAME", help="of the curves against guidance (default: ddim)")
    parser.add_argument("--steps", type=int, help="(default: the model's own)")
    parser.add_argument("--batch", type=int, default=32, help="at once (default: %(default)s)")
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args(argv)
    if (args.prompts is not None and args.prompts < 2) or args.batch < 1:
        parser.error(f"--prompts takes at least 2 and --batch at least 1, got {args.prompts} and "
                     f"{args.batch}")
    try:
        run(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"evaluate: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
