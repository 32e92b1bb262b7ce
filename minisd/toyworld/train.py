"""`python -m minisd.toyworld.train vae|clip|unet|polish|judge|all|export`: the whole recipe.

Every part continues from what the folder holds, so a killed or stopped training is resumed by the
same command. Under `torchrun --nproc_per_node=N -m minisd.toyworld.train ...` each batch is
shared by N processes. `export` writes what is trained so far to the weights that ship, or beside
them.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
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

# The stages of each part, in the order of training: their names in the recipe and as files.
STAGES: dict[str, tuple[str, ...]] = {
    "tokenizer": (), "vae": ("vae", "decoder"),
    "clip": ("clip", "clip_words", "clip_foils", "clip_search"),
    "unet": ("unet_small", "unet", "unet_soft"), "polish": ("polish",), "judge": ("judge",)}
# Those that begin with the weights that ship: the UNet's are softened, which needs a plain teacher.
FROM_SHIPPED = {part: names[-2 if part == "unet" else -1:] for part, names in STAGES.items()}
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


# The networks of the parts

def untrained(part: str, config: Config) -> Any:
    if part == "clip":
        assert config.image_tower is not None
        return CLIP(config.text, config.image_tower)
    return VAE(config.vae) if part == "vae" else UNet(config.unet) if part == "unet" else Judge()


def shipped(part: str) -> dict[str, Tensor] | None:
    """The shipped weights of a part, to start from; None for what starts anew."""
    files = {"vae": {"vae": ""}, "unet": {"unet": ""},
             "clip": {"text_encoder": "text.", "image_tower": ""}}.get(part)
    return {prefix + name: value.float() for file, prefix in files.items() for name, value in
            load_file(SHIPPED / f"{file}.safetensors").items()} if files else None


def last_checkpoint(folder: Path, part: str) -> Path | None:
    """Of the last of a part's stages that has begun; None where none has."""
    stages = STAGES[part] + (STAGES["polish"] if part == "vae" else ())
    paths = [folder / f"{stage}.pt" for stage in stages]
    return next((path for path in reversed(paths) if path.exists()), None)


def trained(part: str, config: Config, folder: Path, *, from_shipped: bool = False) -> Any:
    """A network with the averaged weights of its last stage that has begun in the folder.

    from_shipped: with those that ship, where none has. Otherwise raises FileNotFoundError.
    """
    path = last_checkpoint(folder, part)
    if path is None and not from_shipped:
        raise FileNotFoundError(f"{folder} holds no trained {part}: run "
                                f"`python -m minisd.toyworld.train {part} --folder {folder}`")
    network = untrained(part, config)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"]
                            if path else shipped(part))
    return network.eval()


def config_of(folder: Path, otherwise: Config) -> Config:
    """The sizes and the scale factor of the UNet that was trained in the folder, if one was."""
    path = folder / "config.json"
    return read_own_config(path) if path.exists() else otherwise


# Training

def fit(part: str, config: Config, recipe: Recipe, folder: Path, words: Tokenizer, *,
        minutes: float | None = None, from_shipped: bool = False) -> None:
    """Train a part, or go on with it, stage after stage, each from the average of the one before.

    minutes: for a stage; where they end one, the next does not begin.
    from_shipped: begin a stage of `FROM_SHIPPED` with the weights that ship, and take parts that
        the folder lacks from there. They know latents by the scale factor of `config`, which stays.
    """
    start, names = (shipped(part), FROM_SHIPPED[part]) if from_shipped else (None, STAGES[part])
    network: Any
    if part in ("unet", "polish"):
        sd, posteriors = pipeline(part, config, recipe, folder, words, from_shipped=from_shipped)
        network = sd.unet if part == "unet" else sd.vae
    else:
        torch.manual_seed(recipe.seed)
        network = untrained(part, config).to(loop.device())
    stage: Callable[[str], Any] = {
        "vae": lambda name: vae.Stage(name, network, config, recipe, folder),
        "clip": lambda name: clip.Stage(name, network, recipe, words, config.image_size),
        "unet": lambda name: unet.Stage(name, sd, posteriors, recipe),
        "polish": lambda name: polish.Stage(name, sd, posteriors, recipe, folder),
        "judge": lambda name: judge.Stage(name, network, recipe)}[part]
    for name in names:
        if start is not None:
            network.load_state_dict(start)
        this = stage(name)
        trainer = loop.Fit(name, network, getattr(recipe, name), this.loss, folder,
                           seed=recipe.seed, sheet=this.sheet)
        start = trainer.run(minutes).state_dict()
        if trainer.step < trainer.part.steps:
            break


def pipeline(part: str, config: Config, recipe: Recipe, folder: Path, words: Tokenizer, *,
             from_shipped: bool) -> tuple[StableDiffusion, Tensor]:
    """The trained networks that a part is trained with, frozen, and the scenes' posteriors.

    part: "unet", which is new and whose sizes and scale factor are written to the folder; "polish".
    """
    if part == "polish":
        config = config_of(folder, config)
    autoencoder, towers = (trained(name, config, folder, from_shipped=from_shipped)
                           for name in ("vae", "clip"))
    torch.manual_seed(recipe.seed)
    sd = StableDiffusion(config, words)
    sd.vae, sd.text_encoder = autoencoder, towers.text
    if part == "polish":
        sd.unet = trained("unet", config, folder, from_shipped=from_shipped)
    sd.requires_grad_(False).to(loop.device())
    posteriors = cache.posteriors(sd.vae, folder, recipe.scenes, size=config.image_size,
                                  seed=recipe.seed)
    if part == "unet":
        if not from_shipped:
            scale = cache.measure_scale(posteriors)
            sd.config = replace(config, vae=replace(config.vae, scale_factor=scale))
        if loop.rank() == 0:
            checkpoint.write_config(folder, sd.config)
    return sd, posteriors


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights in float16, tokenizer, sizes and thinned curves to `target`.

    Parts that were not trained in the folder stay as `target` has them. The UNet rests on the VAE
    and on CLIP, so theirs are written only beside a UNet that was trained on them; a decoder that
    was only polished there changes no latents. Raises FileNotFoundError where there is none.
    """
    parts = {part for part in ("vae", "clip", "unet", "judge") if last_checkpoint(folder, part)}
    if not parts:
        raise FileNotFoundError(f"{folder} holds nothing that was trained: name the folder that "
                                f"`python -m minisd.toyworld.train` was given")
    if "clip" in parts or any((folder / f"{stage}.pt").exists() for stage in STAGES["vae"]):
        parts.add("unet")
    config = config_of(folder, TOYWORLD)
    networks = {part: trained(part, config, folder) for part in parts}
    if "clip" in networks:
        towers = networks.pop("clip")
        networks["text_encoder"], towers.text = towers.text, nn.Identity()
        networks["image_tower"] = towers                # without the text tower
    for name, network in networks.items():
        checkpoint.save(network, target / f"{name}.safetensors")
    if parts != {"judge"}:
        copy_files(folder / "tokenizer", target / "tokenizer")
        checkpoint.write_config(target, config)
    curves.export(folder, RECIPE, target)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minisd.toyworld.train", description=__doc__)
    parser.add_argument("part", choices=[*STAGES, "all", "export"])
    parser.add_argument("--folder", type=Path, default=Path("runs/toyworld"),
                        help="checkpoints, logs, sample sheets (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop each stage after so long (vae has two "
                        "stages, unet three, clip four); the same command continues")
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
            loop.join_processes()
            words = learn_tokenizer(RECIPE, args.folder, from_shipped=args.from_shipped)
            for part in STAGES if args.part == "all" else [args.part]:
                if STAGES[part]:
                    fit(part, TOYWORLD, RECIPE, args.folder, words, minutes=args.minutes,
                        from_shipped=args.from_shipped)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"train: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
