"""`python -m minisd.toyworld.train vae|clip|unet|judge|all|export`: the whole recipe.

Every part continues from what the folder holds, so a killed or stopped training is resumed by the
same command. Under `torchrun --nproc_per_node=N -m minisd.toyworld.train ...` each batch is
shared by N processes. `export` writes what is trained so far to the weights that ship.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.load import WEIGHTS
from minisd.clip import CLIPTextTransformer
from minisd.config import TOYWORLD, Config
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
from minisd.toyworld.clip import CLIP
from minisd.toyworld.judge import Judge, save_judge
from minisd.toyworld.recipe import RECIPE, Recipe
from minisd.unet import UNet
from minisd.vae import VAE

PARTS = ("tokenizer", "vae", "clip", "unet", "judge")
STAGES = {"vae": ("vae", "decoder"), "clip": train_clip.STAGES, "unet": ("unet_small", "unet"),
          "judge": ("judge",)}          # the checkpoints of a part, in the order of training
TOKENIZER_CAPTIONS = 20_000
SHIPPED = WEIGHTS / "toyworld"


def learn_tokenizer(recipe: Recipe, folder: Path, share: loop.Share, *,
                    from_shipped: bool = False) -> Tokenizer:
    """The byte-pair merges of the captions, learned once; or those that ship."""
    path = folder / "tokenizer"
    with loop.first_alone(share):
        if from_shipped and not path.exists():
            shutil.copytree(SHIPPED / "tokenizer", path)
        elif not (path / "words.txt").exists():
            seed = recipe.seed
            captions = (caption(data.scene(i, seed=seed), np.random.default_rng([seed, i]))
                        for i in range(TOKENIZER_CAPTIONS))
            train_tokenizer.save(path, train_tokenizer.learn_merges(captions, count=10_000),
                                 vocabulary())
    tokenizer = Tokenizer.from_folder(path)
    assert len(tokenizer.vocab) == TOYWORLD.text.vocab_size, "set config.TOYWORLD.text.vocab_size"
    return tokenizer


def trained(folder: Path, part: str, *, from_shipped: bool = False) -> dict[str, Tensor]:
    """The averaged weights of a part's last stage that has begun in the folder.

    from_shipped: those that ship, where none has. Otherwise raises FileNotFoundError.
    """
    path = last_checkpoint(folder, part)
    if path is not None:
        return torch.load(path, map_location="cpu", weights_only=True)["average"]
    start = shipped(part) if from_shipped else None
    if start is None:
        raise FileNotFoundError(f"{folder} holds no trained {part}: run "
                                f"`python -m minisd.toyworld.train {part} --folder {folder}`")
    return start


def last_checkpoint(folder: Path, part: str) -> Path | None:
    """Of the last of a part's stages that has begun; None where none has."""
    paths = [folder / f"{stage}.pt" for stage in STAGES[part]]
    return next((path for path in reversed(paths) if path.exists()), None)


def trained_clip(config: Config, folder: Path, *, from_shipped: bool = False) -> CLIP:
    assert config.image_tower is not None
    clip = CLIP(config.text, config.image_tower)
    clip.load_state_dict(trained(folder, "clip", from_shipped=from_shipped))
    return clip.eval()


def trained_vae(config: Config, folder: Path, *, from_shipped: bool = False) -> VAE:
    vae = VAE(config.vae)
    vae.load_state_dict(trained(folder, "vae", from_shipped=from_shipped))
    return vae.eval()


def fit_unet(config: Config, recipe: Recipe, folder: Path, vae: VAE, text: CLIPTextTransformer,
             tokenizer: Tokenizer, *, share: loop.Share, minutes: float | None,
             start: dict[str, Tensor] | None) -> None:
    """Encode the scenes with the trained VAE, measure the scale factor, train.

    start: weights to begin with; they know latents by the scale factor of `config`, which stays.
    """
    posteriors = latents.cached(vae.to(loop.device()), folder, recipe.scenes,
                                size=config.image_size, seed=recipe.seed, share=share)
    if start is None:
        scale = latents.measure_scale(posteriors)
        config = replace(config, vae=replace(config.vae, scale_factor=scale))
    if share.rank == 0:
        checkpoint.write_config(folder, config)
    train_unet.train(config, recipe, folder, vae, text, tokenizer, posteriors, share=share,
                     minutes=minutes, start=start)


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights in float16, tokenizer, sizes and thinned curves to `target`.

    Parts that were not trained in the folder stay as `target` has them. The UNet rests on the VAE
    and on CLIP, so theirs are written only beside a UNet that was trained on them. Raises
    FileNotFoundError where there is none.
    """
    parts = [part for part in ("vae", "clip", "unet") if last_checkpoint(folder, part)]
    weights = trained(folder, "unet") if parts else {}
    if last_checkpoint(folder, "judge") is not None:
        judge = Judge()
        judge.load_state_dict(trained(folder, "judge"))
        save_judge(judge, target / "judge.safetensors")
    if parts:
        config = checkpoint.read_config(folder)
        unet = UNet(config.unet)
        unet.load_state_dict(weights)
        if "vae" in parts:
            checkpoint.save(trained_vae(config, folder), target / "vae.safetensors")
        if "clip" in parts:
            clip = trained_clip(config, folder)
            checkpoint.save(clip.text, target / "text_encoder.safetensors")
            clip.text = nn.Identity()       # type: ignore[assignment]  # it has a file of its own
            checkpoint.save(clip, target / "image_tower.safetensors")
        checkpoint.save(unet, target / "unet.safetensors")
        tokenizer = Tokenizer.from_folder(folder / "tokenizer")
        assert tokenizer.known_words is not None
        train_tokenizer.save(target / "tokenizer", tokenizer.merges, tokenizer.known_words)
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
                        help="begin with the weights in weights/toyworld instead of random ones, "
                             "and take parts from there that the folder lacks")
    args = parser.parse_args(argv)
    if args.part == "export":
        export(args.folder, SHIPPED)
        return 0
    share = loop.join_processes()
    known = {"from_shipped": args.from_shipped}
    tokenizer = learn_tokenizer(RECIPE, args.folder, share, **known)
    parts = PARTS if args.part == "all" else (args.part,)
    common = {"share": share, "minutes": args.minutes}
    for part in parts:
        start = shipped(part) if args.from_shipped else None
        if part == "vae":
            train_vae.train(TOYWORLD, RECIPE, args.folder, start=start, **common)
        elif part == "clip":
            train_clip.train(TOYWORLD, RECIPE, args.folder, tokenizer, start=start, **common)
        elif part == "unet":
            fit_unet(TOYWORLD, RECIPE, args.folder, trained_vae(TOYWORLD, args.folder, **known),
                     trained_clip(TOYWORLD, args.folder, **known).text, tokenizer, start=start,
                     **common)
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
