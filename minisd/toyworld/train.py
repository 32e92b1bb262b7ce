"""`python -m minisd.toyworld.train vae|clip|unet|polish|judge|all|export`: the whole recipe.

Every part continues from what the folder holds, so a killed or stopped training is resumed by the
same command. Under `torchrun --nproc_per_node=N -m minisd.toyworld.train ...` each batch is
shared by N processes. `export` writes what is trained so far to the weights that ship, or beside
them.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.config_file import read_own_config
from minisd.checkpoints.places import SHIPPED
from minisd.checkpoints.vocabulary import read_tokenizer
from minisd.config import TOYWORLD, Config
from minisd.observe.files import written_whole
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import Tokenizer
from minisd.toyworld import captions, data
from minisd.toyworld.clip import CLIP
from minisd.toyworld.evaluation.judge import Judge
from minisd.toyworld.training import cache, clip, curves, judge, loop, polish, tokenizer, unet, vae
from minisd.toyworld.training.recipe import RECIPE, Recipe
from minisd.unet import UNet
from minisd.vae import VAE

# The checkpoints of a part, in the order of training.
STAGES = {"tokenizer": (), "vae": (*vae.STAGES, *polish.STAGES), "clip": clip.STAGES,
          "unet": unet.STAGES, "polish": polish.STAGES, "judge": judge.STAGES}
TOKENIZER_CAPTIONS = 20_000


def learn_tokenizer(recipe: Recipe, folder: Path, *, from_shipped: bool = False) -> Tokenizer:
    """The byte-pair merges of the captions, learned once; or those that ship."""
    path = folder / "tokenizer"
    with loop.first_alone():
        if from_shipped and not path.exists():
            copy_files(SHIPPED / "tokenizer", path)
        elif not (path / "words.txt").exists():
            said = (captions.caption(data.scene(i, seed=recipe.seed),
                                     np.random.default_rng([recipe.seed, i]))
                    for i in range(TOKENIZER_CAPTIONS))
            tokenizer.save(path, tokenizer.learn_merges(said, 10_000), captions.vocabulary())
    learned = read_tokenizer(path)
    assert len(learned.vocab) == TOYWORLD.text.vocab_size, "set config.TOYWORLD.text.vocab_size"
    return learned


def copy_files(folder: Path, target: Path) -> None:
    for file in sorted(folder.iterdir()):
        with written_whole(target / file.name) as part:
            shutil.copyfile(file, part)


def last_checkpoint(folder: Path, part: str) -> Path | None:
    """Of the last of a part's stages that has begun; None where none has."""
    paths = [folder / f"{stage}.pt" for stage in STAGES[part]]
    return next((path for path in reversed(paths) if path.exists()), None)


def shipped(part: str) -> dict[str, Tensor] | None:
    """The shipped weights of a part, to start from; None for what starts anew."""
    files = {"vae": {"vae": ""}, "unet": {"unet": ""},
             "clip": {"text_encoder": "text.", "image_tower": ""}}.get(part)
    return {prefix + name: value.float() for file, prefix in files.items() for name, value in
            load_file(SHIPPED / f"{file}.safetensors").items()} if files else None


def trained(part: str, config: Config, folder: Path, *, from_shipped: bool = False) -> Any:
    """A network with the averaged weights of its last stage that has begun in the folder.

    from_shipped: with those that ship, where none has. Otherwise raises FileNotFoundError.
    """
    path = last_checkpoint(folder, part)
    if path is None and not from_shipped:
        raise FileNotFoundError(f"{folder} holds no trained {part}: run "
                                f"`python -m minisd.toyworld.train {part} --folder {folder}`")
    assert config.image_tower is not None
    network: nn.Module = (
        VAE(config.vae) if part == "vae" else UNet(config.unet) if part == "unet" else
        CLIP(config.text, config.image_tower) if part == "clip" else Judge())
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"]
                            if path else shipped(part) or {})
    return network.eval()


def fit_unet(config: Config, recipe: Recipe, folder: Path, words: Tokenizer, *,
             minutes: float | None = None, start: dict[str, Tensor] | None = None,
             from_shipped: bool = False) -> None:
    """Encode the scenes with the trained VAE, measure the scale factor, train.

    start: weights to begin with; they know latents by the scale factor of `config`, which stays.
    """
    autoencoder, towers = (trained(part, config, folder, from_shipped=from_shipped)
                           for part in ("vae", "clip"))
    posteriors = cache.posteriors(autoencoder.to(loop.device()), folder, recipe.scenes,
                                  size=config.image_size, seed=recipe.seed)
    if start is None:
        scale = cache.measure_scale(posteriors)
        config = replace(config, vae=replace(config.vae, scale_factor=scale))
    if loop.rank() == 0:
        checkpoint.write_config(folder, config)
    unet.train(config, recipe, folder, autoencoder, towers.text, words, posteriors,
               minutes=minutes, start=start)


def fit_polish(config: Config, recipe: Recipe, folder: Path, words: Tokenizer, *,
               minutes: float | None = None, from_shipped: bool = False) -> None:
    """Train the decoder on latents that the trained UNet repaints."""
    if (folder / "config.json").exists():
        config = read_own_config(folder / "config.json")
    sd = StableDiffusion(config, words)
    sd.vae, towers, sd.unet = (trained(part, config, folder, from_shipped=from_shipped)
                               for part in ("vae", "clip", "unet"))
    sd.text_encoder = towers.text
    posteriors = cache.posteriors(sd.vae.to(loop.device()), folder, recipe.scenes,
                                  size=config.image_size, seed=recipe.seed)
    polish.train(sd, recipe, folder, posteriors, minutes=minutes)


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights in float16, tokenizer, sizes and thinned curves to `target`.

    Parts that were not trained in the folder stay as `target` has them. The UNet rests on the VAE
    and on CLIP, so theirs are written only beside a UNet that was trained on them; a decoder that
    was only polished there changes no latents. Raises FileNotFoundError where there is none.
    """
    parts = [part for part in STAGES if last_checkpoint(folder, part)]
    if not parts:
        raise FileNotFoundError(f"{folder} holds nothing that was trained: name the folder that "
                                f"`python -m minisd.toyworld.train` was given")
    wanted = {*parts} - {"judge", "polish"}
    same_latents = not any((folder / f"{stage}.pt").exists() for stage in vae.STAGES)
    if wanted:
        config = read_own_config(folder / "config.json") if "unet" in parts else TOYWORLD
        networks = {part: trained(part, config, folder) for part in
                    (wanted if wanted == {"vae"} and same_latents else {*wanted, "unet"})}
        if "clip" in parts:
            towers = networks.pop("clip")
            networks["text_encoder"], towers.text = towers.text, nn.Identity()
            networks["image_tower"] = towers                # without the text tower
        for name, network in networks.items():
            checkpoint.save(network, target / f"{name}.safetensors")
        copy_files(folder / "tokenizer", target / "tokenizer")
        checkpoint.write_config(target, config)
    if "judge" in parts:
        checkpoint.save(trained("judge", TOYWORLD, folder), target / "judge.safetensors")
    curves.export(folder, RECIPE, target)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.train", description=__doc__)
    parser.add_argument("part", choices=[*STAGES, "all", "export"])
    parser.add_argument("--folder", type=Path, default=Path("runs/toyworld"),
                        help="checkpoints, logs, sample sheets (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop each stage after so long (vae and unet "
                        "have two stages, clip has three); the same command continues")
    parser.add_argument("--from-shipped", action="store_true",
                        help="begin with the weights that ship instead of random ones, and take "
                             "parts from there that the folder lacks")
    parser.add_argument("--target", type=Path, default=SHIPPED,
                        help="folder that export writes to (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.minutes is not None and not args.minutes >= 0:
        parser.error(f"--minutes counts for each stage and is 0 or more, got {args.minutes:g}")
    try:
        if args.part == "export":
            export(args.folder, args.target)
        else:
            run(args.part, args.folder, args.minutes, args.from_shipped)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"train: {error}")
    return 0


def run(part: str, folder: Path, minutes: float | None, from_shipped: bool) -> None:
    """Train one part, or all of them one after another."""
    loop.join_processes()
    words = learn_tokenizer(RECIPE, folder, from_shipped=from_shipped)
    for one in STAGES if part == "all" else [part]:
        start = shipped(one) if from_shipped else None
        if one == "vae":
            vae.train(TOYWORLD, RECIPE, folder, minutes=minutes, start=start)
        elif one == "clip":
            clip.train(TOYWORLD, RECIPE, folder, words, minutes=minutes, start=start)
        elif one == "unet":
            fit_unet(TOYWORLD, RECIPE, folder, words, minutes=minutes, start=start,
                     from_shipped=from_shipped)
        elif one == "polish":
            fit_polish(TOYWORLD, RECIPE, folder, words, minutes=minutes, from_shipped=from_shipped)
        elif one == "judge":
            judge.train(RECIPE, folder, minutes=minutes)


if __name__ == "__main__":
    sys.exit(main())
