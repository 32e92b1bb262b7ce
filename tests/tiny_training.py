"""Trainings of seconds, on one process or many: `torchrun tests/tiny_training.py FOLDER PART ...`.

The networks are tiny and everything is in float64, so that two ways to the same weights agree to
many digits on every machine.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from torch import Tensor, nn

from minisd.checkpoints.vocabulary import ModelTokenizer, clip_vocabulary
from minisd.config import Config
from minisd.toyworld import data, train
from minisd.toyworld.captions import caption, vocabulary
from minisd.toyworld.training import clip, loop, tokenizer, vae
from minisd.toyworld.training.recipe import Part, Recipe

RECIPE = Recipe(
    seed=3, scenes=10, crop=24, hard_negatives=0.5, early_share=0.25,
    vae=Part(steps=3, batch=6, lr=1e-3, accumulate=2, warmup=2),
    decoder=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip=Part(steps=3, batch=6, lr=1e-3, warmup=2, cooldown=1),
    clip_words=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip_foils=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet_small=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet=Part(steps=2, batch=4, lr=1e-3, accumulate=2, warmup=2),
    polish=Part(steps=2, batch=6, lr=1e-3, warmup=2), repainted=7)


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """Of a few hundred captions: enough that no caption is cut off."""
    captions = [caption(data.scene(i), np.random.default_rng(i)) for i in range(300)]
    return tuple(tokenizer.learn_merges(captions, 10_000))


@cache
def words() -> ModelTokenizer:
    return ModelTokenizer(clip_vocabulary(list(merges())), merges(), known_words=vocabulary())


def config() -> Config:
    """The tiny networks, in sizes that fit together; pictures of 48 and 24 pixels."""
    assert TINY.image_tower is not None
    return replace(TINY, text=replace(TINY.text, vocab_size=len(words().vocab), max_length=77),
                   image_tower=replace(TINY.image_tower, image_size=48, patch_size=12))


def fit(folder: Path, part: str, *, minutes: float | None = None,
        start: dict[str, Tensor] | None = None, recipe: Recipe = RECIPE) -> None:
    """Train one part in a folder, as the training command does; they need those before them."""
    if part == "vae":
        vae.train(config(), recipe, folder, minutes=minutes, start=start)
    elif part == "clip":
        clip.train(config(), recipe, folder, words(), minutes=minutes, start=start)
    elif part == "polish":
        train.fit_polish(config(), recipe, folder, words(), minutes=minutes)
    else:
        train.fit_unet(config(), recipe, folder, words(), minutes=minutes, start=start)


def plain(replace_with: Callable[[object, str, object], None] = setattr) -> None:
    """Train on the CPU, and draw no figures, which takes longer than all the rest."""
    replace_with(loop, "device", lambda: torch.device("cpu"))
    replace_with(loop.figures, "save", lambda figure, path: None)


# A network of no meaning, to be killed

TOY = Part(steps=12, batch=4, lr=1e-2, warmup=5, cooldown=4)
DYING_STEP = 7


def toy(folder: Path) -> loop.Fit:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))

    def loss(g: torch.Generator) -> dict[str, Tensor]:
        x = torch.randn(4, 8, generator=g)
        return {"loss": (model(x) - x.flip(1)).square().mean()}

    return loop.Fit("toy", model, TOY, loss, folder, seed=1)


def run_toy(folder: Path) -> None:
    """Train it, saving after every step, until the process ends at once in the midst of a save."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    plain()
    loop.CHECKPOINT_SECONDS = -1.0
    fit, save = toy(folder), torch.save

    def dying_save(state: object, path: Path) -> None:
        save(state, path)
        if fit.step == DYING_STEP:
            os.truncate(path, path.stat().st_size // 2)
            os._exit(9)

    torch.save = dying_save
    fit.run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    plain()
    loop.join_processes()
    for where, part in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        fit(Path(where), part, minutes=float(loop.rank()))      # the first process stops first
        fit(Path(where), part)
    torch.distributed.destroy_process_group()
