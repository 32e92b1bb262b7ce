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

from minisd.checkpoints.vocabulary import ModelTokenizer, clip_vocabulary
from minisd.config import Config
from minisd.toyworld import data, train
from minisd.toyworld.captions import caption, vocabulary
from minisd.toyworld.training import loop, tokenizer
from minisd.toyworld.training.recipe import Part, Recipe

RECIPE = Recipe(
    seed=3, scenes=10, crop=24, hard_negatives=0.5, early_share=0.25,
    vae=Part(steps=3, batch=6, lr=1e-3, accumulate=2, warmup=2),
    decoder=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip=Part(steps=3, batch=6, lr=1e-3, warmup=2, cooldown=1),
    clip_words=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip_foils=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip_search=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet_small=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet=Part(steps=2, batch=4, lr=1e-3, accumulate=2, warmup=2),
    unet_soft=Part(steps=2, batch=4, lr=1e-3, warmup=2),
    polish=Part(steps=2, batch=6, lr=1e-3, warmup=2), repainted=7)
DYING_STEP = 2                  # of the VAE


@cache
def words() -> ModelTokenizer:
    """Learned from a few hundred captions: enough that no caption is cut off."""
    captions = [caption(data.scene(i), np.random.default_rng(i)) for i in range(300)]
    merges = tokenizer.learn_merges(captions, 10_000)
    return ModelTokenizer(clip_vocabulary(merges), merges, known_words=vocabulary())


def config() -> Config:
    """The tiny networks, in sizes that fit together; pictures of 48 and 24 pixels."""
    assert TINY.image_tower is not None
    return replace(TINY, text=replace(TINY.text, vocab_size=len(words().vocab), max_length=77),
                   image_tower=replace(TINY.image_tower, image_size=48, patch_size=16))


def fit(folder: Path, part: str, *, minutes: float | None = None, recipe: Recipe = RECIPE) -> None:
    """Train one part in a folder, as the training command does; they need those before them."""
    train.fit(part, config(), recipe, folder, words(), minutes=minutes)


def plain(replace_with: Callable[[object, str, object], None] = setattr) -> None:
    """Train on the CPU, without bfloat16 where it has that, and draw no figures, which takes longer
    than all the rest.
    """
    replace_with(loop, "device", lambda: torch.device("cpu"))
    replace_with(loop, "choose_dtype", lambda name, device: torch.float32)
    replace_with(loop.figures, "save", lambda figure, path: None)


def in_float64(replace_with: Callable[[object, str, object], None] = setattr) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    plain(replace_with)


def be_killed(folder: Path) -> None:
    """Train the VAE, saving after every step, until the process ends in the midst of a save."""
    in_float64()
    loop.CHECKPOINT_SECONDS = -1.0
    save = torch.save

    def dying_save(state: dict, path: Path) -> None:
        save(state, path)
        if state["step"] == DYING_STEP:
            os.truncate(path, path.stat().st_size // 2)
            os._exit(9)

    torch.save = dying_save
    fit(folder, "vae")


if __name__ == "__main__":
    in_float64()
    loop.join_processes()
    for where, part in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        fit(Path(where), part, minutes=float(loop.rank()))      # the first process stops first
        fit(Path(where), part)
    torch.distributed.destroy_process_group()
