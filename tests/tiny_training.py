"""Trainings of seconds, on one process or many: `torchrun tests/tiny_training.py FOLDER PART ...`.

The networks are tiny and mixed precision is off, so that two ways to the same weights agree to
float32's rounding.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.config import Config
from minisd.tokenizer import Tokenizer
from minisd.toyworld import data, loop, train, train_clip, train_tokenizer, train_vae
from minisd.toyworld.captions import caption, vocabulary
from minisd.toyworld.recipe import Part, Recipe

RECIPE = Recipe(
    seed=3, scenes=10, crop=24, hard_negatives=0.5, early_share=0.25,
    vae=Part(steps=3, batch=6, lr=1e-3, accumulate=2, warmup=2),
    decoder=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip=Part(steps=3, batch=6, lr=1e-3, warmup=2, cooldown=1),
    clip_words=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    clip_foils=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet_small=Part(steps=2, batch=6, lr=1e-3, warmup=2),
    unet=Part(steps=2, batch=4, lr=1e-3, accumulate=2, warmup=2))


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """Of a few hundred captions: enough that no caption is cut off."""
    captions = [caption(data.scene(i), np.random.default_rng(i)) for i in range(300)]
    return tuple(train_tokenizer.learn_merges(captions, 10_000))


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer.clip_vocabulary(list(merges())), merges(),
                     known_words=vocabulary())


def config() -> Config:
    """The tiny networks, in sizes that fit together; pictures of 48 and 24 pixels."""
    assert TINY.image_tower is not None
    return replace(TINY, text=replace(TINY.text, vocab_size=len(tokenizer().vocab), max_length=77),
                   image_tower=replace(TINY.image_tower, image_size=48, patch_size=12))


def fit(folder: Path, part: str, *, share: loop.Share | None = None,
        minutes: float | None = None, start: dict[str, Tensor] | None = None) -> None:
    """Train one part in a folder, as the training command does; the UNet needs vae and clip."""
    share = share or loop.Share()
    if part == "vae":
        train_vae.train(config(), RECIPE, folder, share=share, minutes=minutes, start=start)
    elif part == "clip":
        train_clip.train(config(), RECIPE, folder, tokenizer(), share=share, minutes=minutes,
                         start=start)
    else:
        train.fit_unet(config(), RECIPE, folder, train.trained_vae(config(), folder),
                       train.trained_clip(config(), folder).text, tokenizer(), share=share,
                       minutes=minutes, start=start)


def write_shipped(folder: Path) -> None:
    """What `export` needs beside the trained parts."""
    train_tokenizer.save(folder / "tokenizer", list(merges()), vocabulary())
    checkpoint.write_config(folder, config())


def plain(replace_with: Callable[[object, str, object], None] = setattr) -> None:
    """Train in float32 on the CPU, and draw no figures, which takes longer than all the rest."""
    replace_with(loop, "autocast", lambda: torch.autocast("cpu", enabled=False))
    replace_with(loop, "device", lambda: torch.device("cpu"))
    replace_with(loop.Fit, "_draw_losses", lambda fit: None)


# A network of no meaning, to be killed

TOY = Part(steps=60, batch=4, lr=1e-2, warmup=5, cooldown=10)
DYING_STEP = 7


def toy(folder: Path) -> loop.Fit:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))

    def loss(g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        x = torch.randn(4, 8, generator=g)
        return {"loss": (model(x) - x.flip(1)).square().mean()}

    return loop.Fit("toy", model, TOY, loss, folder, seed=1)


def run_toy(folder: Path, die_at: str = "") -> None:
    """Train it, saving after every step.

    die_at: where in one save the process kills itself: "half", "written" or "replaced".
    """
    torch.set_num_threads(1)
    plain()
    loop.CHECKPOINT_SECONDS = -1.0
    fit = toy(folder)
    save, rename = torch.save, Path.replace

    def dies(moment: str) -> bool:
        return fit.step == DYING_STEP and moment == die_at

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_save(state, file) -> None:
        save(state, file)
        if dies("half"):
            file.truncate(file.tell() // 2)
            die()

    def dying_rename(part: Path, target: Path) -> Path:
        if dies("written"):
            die()
        renamed = rename(part, target)
        if dies("replaced"):
            die()
        return renamed

    torch.save, Path.replace = dying_save, dying_rename
    fit.run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    plain()
    mine = loop.join_processes()
    for where, part in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        fit(Path(where), part, share=mine, minutes=float(mine.rank))    # the first one stops first
        fit(Path(where), part, share=mine)
    torch.distributed.destroy_process_group()
