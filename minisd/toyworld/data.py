"""Numbered scenes: the splits, and their pictures as tensors."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from minisd.toyworld.scenes import Scene, draw, sample_scene

TRAIN, UNSEEN, HELD_OUT = 0, 1, 2       # the splits: their scenes share no random stream


def scene(index: int, *, split: int = TRAIN, seed: int = 0) -> Scene:
    """Scene number `index` of a split; HELD_OUT scenes hold a combination never trained on."""
    return sample_scene(np.random.default_rng([seed, split, index]), held_out=split == HELD_OUT)


def random_scene(rng: np.random.Generator) -> Scene:
    """A training scene that has no number."""
    return sample_scene(rng)


def pictures(indices: range, *, size: int, split: int = TRAIN, seed: int = 0) -> np.ndarray:
    """The drawn scenes, uint8 (len(indices), size, size, 3)."""
    return np.stack([draw(scene(i, split=split, seed=seed), size) for i in indices])


def drawn(scenes: Iterable[Scene], size: int) -> Tensor:
    """The true pictures of scenes, (n, 3, size, size) in [-1, 1]."""
    return to_tensor(np.stack([draw(one, size) for one in scenes]))


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
