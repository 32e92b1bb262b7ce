"""Scenes as training data: drawn once, kept on disk, found again by their number."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.toyworld.scenes import Scene, draw, sample_scene

TRAIN, UNSEEN, HELD_OUT = 0, 1, 2       # the splits: their scenes share no random stream
CHUNK = 500                             # scenes drawn by a worker at a time


def scene(index: int, *, split: int = TRAIN, seed: int = 0) -> Scene:
    """Scene number `index` of a split; HELD_OUT scenes hold a combination never trained on."""
    return sample_scene(np.random.default_rng([seed, split, index]), held_out=split == HELD_OUT)


def random_scene(rng: np.random.Generator) -> Scene:
    """A training scene that has no number."""
    return sample_scene(rng)


def pictures(indices: range, *, size: int, split: int = TRAIN, seed: int = 0) -> np.ndarray:
    """The drawn scenes, uint8 (len(indices), size, size, 3)."""
    return np.stack([draw(scene(i, split=split, seed=seed), size) for i in indices])


def cached_pictures(folder: Path, count: int, *, size: int, seed: int = 0) -> np.ndarray:
    """Training scenes 0 .. count - 1, drawn on every core once and then mapped from disk.

    The file appears under its name only when it is whole; a killed drawing starts again.
    """
    path = folder / f"scenes-{seed}-{count}-{size}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        images = np.lib.format.open_memmap(part, "w+", np.uint8, (count, size, size, 3))
        starts = range(0, count, CHUNK)
        with ProcessPoolExecutor() as pool:
            chunks = pool.map(_draw_chunk, [(s, min(s + CHUNK, count), size, seed) for s in starts])
            for start, chunk in zip(starts, chunks, strict=True):
                images[start:start + len(chunk)] = chunk
        images.flush()
        part.replace(path)
    return np.load(path, mmap_mode="r")


def _draw_chunk(job: tuple[int, int, int, int]) -> np.ndarray:
    start, stop, size, seed = job
    return pictures(range(start, stop), size=size, seed=seed)


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
