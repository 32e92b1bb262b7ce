"""`python -m minisd.toyworld.train vae|clip|unet|judge|all|export`: the whole recipe.

Every part continues from what the folder holds, so a killed or stopped training is resumed by the
same command. Under `torchrun --nproc_per_node=N -m minisd.toyworld.train ...` each batch is
shared by N processes. `export` writes what is trained so far to the weights that ship.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minisd import checkpoint
from minisd.clip import CLIP
from minisd.config import TOYWORLD, Config
from minisd.loading import WEIGHTS
from minisd.tokenizer import Tokenizer
from minisd.toyworld import (
    curves,
    data,
    latents,
    loop,
    train_clip,
    train_judge,
    train_tokenizer,
    train_unet,
    train_vae,
)
from minisd.toyworld.captions import caption, vocabulary
from minisd.toyworld.judge import Judge, save_judge
from minisd.toyworld.recipe import RECIPE, Recipe
from minisd.unet import UNet
from minisd.vae import VAE

PARTS = ("tokenizer", "vae", "clip", "unet", "judge")
TOKENIZER_CAPTIONS = 20_000
SHIPPED = WEIGHTS / "toyworld"


def learn_tokenizer(recipe: Recipe, folder: Path, share: loop.Share) -> Tokenizer:
    """The byte-pair merges of the captions, learned once."""
    path = folder / "tokenizer"
    with loop.first_alone(share):
        if not (path / "words.txt").exists():
            seed = recipe.seed
            captions = (caption(data.scene(i, seed=seed), np.random.default_rng([seed, i]))
                        for i in range(TOKENIZER_CAPTIONS))
            train_tokenizer.save(path, train_tokenizer.learn_merges(captions, count=10_000),
                                 vocabulary())
    tokenizer = Tokenizer.from_folder(path)
    assert len(tokenizer.vocab) == TOYWORLD.text.vocab_size, "set config.TOYWORLD.text.vocab_size"
    return tokenizer


def average(folder: Path, name: str) -> dict[str, Tensor]:
    """The averaged weights of a part. Raises FileNotFoundError if it was never trained."""
    path = folder / f"{name}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m minisd.toyworld.train {name}`")
    return torch.load(path, map_location="cpu", weights_only=True)["average"]


def last_stage(folder: Path, *names: str) -> str:
    """The last of a part's stages that has begun; the first one where none has."""
    return next((name for name in reversed(names) if (folder / f"{name}.pt").exists()), names[0])


def trained_clip(config: Config, folder: Path) -> CLIP:
    assert config.image_tower is not None
    clip = CLIP(config.text, config.image_tower)
    clip.load_state_dict(average(folder, last_stage(folder, *train_clip.STAGES)))
    return clip.eval()


def trained_vae(config: Config, folder: Path) -> VAE:
    vae = VAE(config.vae)
    vae.load_state_dict(average(folder, last_stage(folder, "vae", "decoder")))
    return vae.eval()


def fit_unet(config: Config, recipe: Recipe, folder: Path, tokenizer: Tokenizer, *,
             share: loop.Share, minutes: float | None, start: dict[str, Tensor] | None) -> None:
    """Encode the scenes, measure the scale factor, train."""
    vae = trained_vae(config, folder).to(loop.device())
    posteriors = latents.cached(vae, folder, recipe.scenes, size=config.image_size,
                                seed=recipe.seed, share=share)
    scale = latents.measure_scale(posteriors)
    config = replace(config, vae=replace(config.vae, scale_factor=scale))
    if share.rank == 0:
        checkpoint.write_config(folder, config)
    train_unet.train(config, recipe, folder, vae, trained_clip(config, folder).text, tokenizer,
                     posteriors, share=share, minutes=minutes, start=start)


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights in float16, tokenizer, sizes and thinned curves to `target`."""
    config = checkpoint.read_config(folder)
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    assert tokenizer.known_words is not None
    train_tokenizer.save(target / "tokenizer", tokenizer.merges, tokenizer.known_words)
    clip = trained_clip(config, folder)
    checkpoint.save(clip.text, target / "text_encoder.safetensors")
    clip.text = nn.Identity()       # type: ignore[assignment]  # it has a file of its own
    checkpoint.save(clip, target / "image_tower.safetensors")
    checkpoint.save(trained_vae(config, folder), target / "vae.safetensors")
    unet = UNet(config.unet)
    unet.load_state_dict(average(folder, last_stage(folder, "unet_small", "unet")))
    checkpoint.save(unet, target / "unet.safetensors")
    if (folder / "judge.pt").exists():
        judge = Judge()
        judge.load_state_dict(average(folder, "judge"))
        save_judge(judge, target / "judge.safetensors")
    checkpoint.write_config(target, config)
    export_curves(folder, target)


def export_curves(folder: Path, target: Path) -> None:
    """Write what the losses did; parts that were trained elsewhere keep the curves they had."""
    path = target / curves.FILE
    known = curves.read(path) if path.exists() else {}
    curves.write(path, {**known, **curves.collect(folder, RECIPE)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.train", description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all", "export"])
    parser.add_argument("--folder", type=Path, default=Path("runs/toyworld"),
                        help="checkpoints, logs, sample sheets (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop each part after so long; resumable")
    parser.add_argument("--from-shipped", action="store_true",
                        help="begin with the weights in weights/toyworld instead of random ones")
    args = parser.parse_args(argv)
    if args.part == "export":
        export(args.folder, SHIPPED)
        return 0
    share = loop.join_processes()
    tokenizer = learn_tokenizer(RECIPE, args.folder, share)
    parts = PARTS if args.part == "all" else (args.part,)
    common = {"share": share, "minutes": args.minutes}
    for part in parts:
        start = shipped(part) if args.from_shipped else None
        if part == "vae":
            train_vae.train(TOYWORLD, RECIPE, args.folder, start=start, **common)
        elif part == "clip":
            train_clip.train(TOYWORLD, RECIPE, args.folder, tokenizer, start=start, **common)
        elif part == "unet":
            fit_unet(TOYWORLD, RECIPE, args.folder, tokenizer, start=start, **common)
        elif part == "judge":
            train_judge.train(RECIPE, args.folder, **common)
    return 0


def shipped(part: str) -> dict[str, Tensor] | None:
    """The shipped weights of a part, to start from; None for what starts anew."""
    if part in ("tokenizer", "judge"):
        return None
    if part == "clip":
        text = load_file(SHIPPED / "text_encoder.safetensors")
        tensors = {f"text.{name}": value for name, value in text.items()}
        tensors |= load_file(SHIPPED / "image_tower.safetensors")
    else:
        tensors = load_file(SHIPPED / f"{part}.safetensors")
    return {name: value.float() for name, value in tensors.items()}


if __name__ == "__main__":
    raise SystemExit(main())
