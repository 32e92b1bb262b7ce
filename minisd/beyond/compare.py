"""`python -m minisd.beyond.compare`: what every objective has learned, read by one judge.

Each run that `minisd.beyond.train` left in a folder paints the same captions of unseen close-ups
from the same seeds, in 1 to 50 Euler steps and with the same guidance. The judge reads the
pictures; a Frechet distance compares them with drawings of the very scenes ("paired"). All goes to
comparison.json in the folder; what that holds for the same weights is not painted again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minisd.beyond import train
from minisd.beyond.painter import Painter
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.load import load as load_model
from minisd.checkpoints.places import SHIPPED
from minisd.config import Config
from minisd.toyworld import data
from minisd.toyworld.captions import full_caption
from minisd.toyworld.evaluation.bench import SPLITS, Row, answers, as_tensor, measured, write_json
from minisd.toyworld.evaluation.judge import Judge, load_judge
from minisd.toyworld.evaluation.rates import table
from minisd.toyworld.scenes import is_held_out
from minisd.toyworld.training.crops import Crop, close_ups, cut

STEPS, HELD_OUT_STEPS = (1, 2, 4, 8, 25, 50), 25
PROMPTS, BATCH = 128, 64
FRAME = 8           # pixels around a close-up, so that a thing is as large as the judge expects


def unseen(split: str, count: int, cells: int) -> list[Crop]:
    """Close-ups of scenes that no part was trained on; of "held_out", only such coloured things.

    cells: along each side of a whole scene's latents.
    """
    crops = close_ups(range(16 * count), cells, split=SPLITS[split])
    return [crop for crop in crops if crop.scene.things[0].kind in train.KINDS
            and is_held_out(crop.scene) == (split == "held_out")][:count]


def drawn(split: str, crops: Sequence[Crop], config: Config) -> Tensor:
    """The true close-ups, (n, 3, h, w) in [-1, 1]: windows of the drawn scenes."""
    scale = config.vae.downscale
    whole = data.drawn((data.scene(crop.number, split=SPLITS[split]) for crop in crops),
                       config.image_size)
    return cut(whole, [replace(crop, number=i, top=scale * crop.top, left=scale * crop.left,
                               side=scale * crop.side) for i, crop in enumerate(crops)])


def framed(images: Tensor) -> Tensor:
    """Close-ups (n, 3, h, w) with their edges repeated outwards."""
    return F.pad(images, (FRAME,) * 4, mode="replicate")


def measure(made: Painter, judge: Judge, crops: Sequence[Crop], truth: Tensor, steps: int) -> Row:
    """How many pictures show what their captions say, and how far they are from the drawn ones.

    truth: the judge's features of those, (n, f).
    """
    rows: list[Row] = []
    for start in range(0, len(crops), BATCH):
        some = crops[start:start + BATCH]
        side = some[0].side * made.config.vae.downscale
        painted = framed(as_tensor(made.text_to_image(
            [full_caption(crop.scene) for crop in some], seed=[*range(start, start + len(some))],
            steps=steps, sampler="euler", guidance_scale=train.GUIDANCE, height=side, width=side)))
        rows += [{"answers": answers(reading, crop.scene), "features": features}
                 for reading, crop, features in zip(
                     judge.read(painted), some, judge.features(painted).tolist(), strict=True)]
    return {"steps": steps, **measured(rows, truth)}


def flop(made: Painter) -> int:
    """Floating point operations of one evaluation of the network for one close-up."""
    config = made.config
    side = config.image_size // config.vae.downscale // 2
    latents = torch.zeros(1, config.unet.latent_channels, side, side)
    context = torch.zeros(1, config.text.max_length, config.text.width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made.unet(latents, torch.tensor(500.0), context)
    return counter.get_total_flops()


def compare(made: Painter, judge: Judge, prompts: int, steps: int) -> Row:
    """All that is measured of one run, trained for so many steps."""
    cells = made.config.image_size // made.config.vae.downscale
    asked = {split: unseen(split, prompts, cells) for split in SPLITS}
    truth = {split: judge.features(framed(drawn(split, crops, made.config)))
             for split, crops in asked.items()}

    def row(split: str, steps: int) -> Row:
        return measure(made, judge, asked[split], truth[split], steps)

    return {"model": checkpoint.fingerprint(made.unet), "n": prompts, "guidance": train.GUIDANCE,
            "samples": steps * train.COMPARISON.unet_small.batch,
            "parameters": sum(p.numel() for p in made.unet.parameters()), "flop": flop(made),
            "seen": [row("seen", count) for count in STEPS],
            "held_out": row("held_out", HELD_OUT_STEPS)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m minisd.beyond.compare", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/beyond"),
                        help="of the trained runs (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=PROMPTS,
                        help="of each kind (default: %(default)s)")
    args = parser.parse_args(argv)
    sd = load_model("toyworld", dtype="float32")
    judge = load_judge(SHIPPED / "judge.safetensors")
    path = args.folder / "comparison.json"
    found: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    for name in train.RUNS:
        trained = args.folder / name / f"{train.STAGE}.pt"
        if not trained.exists():
            continue
        made = train.load(name, sd, args.folder)
        known = found.get(name, {})
        if (known.get("model"), known.get("n")) != (checkpoint.fingerprint(made.unet),
                                                    args.prompts):
            steps = torch.load(trained, weights_only=True)["step"]
            found[name] = compare(made, judge, args.prompts, steps)
            write_json(path, found, indent=1)
        print(name, table("steps", {str(row["steps"]): row for row in found[name]["seen"]}),
              sep="\n")
    if not found:
        parser.error(f"no run in {args.folder}: train some by `python -m minisd.beyond.train`")


if __name__ == "__main__":
    main()
