"""What a training reads again and again, made once and kept in its folder: pictures and latents."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.observe.files import written_whole
from minisd.toyworld import data
from minisd.toyworld.training import loop
from minisd.vae import VAE

CHUNK = 500                     # scenes drawn by a worker at a time
BATCH = 64                      # pictures encoded at once


def pictures(folder: Path, count: int, *, size: int, seed: int = 0) -> np.ndarray:
    """Training scenes 0 .. count - 1, drawn on every core; uint8 (count, size, size, 3)."""
    path, shape = folder / f"scenes-{seed}-{count}-{size}.npy", (count, size, size, 3)
    with loop.first_alone():
        if not path.exists():
            print(f"drawing {count:,} scenes, {np.prod(shape) / 1e6:,.0f} MB, into {path}")
            chunks = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
            with written_whole(path) as part, ProcessPoolExecutor() as pool:
                images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
                drawn = pool.map(partial(data.pictures, size=size, seed=seed), chunks)
                for chunk, some in zip(chunks, drawn, strict=True):
                    images[chunk.start:chunk.stop] = some
                images.flush()
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def encode(vae: VAE, images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) -> posterior means and stds, float16 (n, 2, c, h/8, w/8), unscaled."""
    found = []
    for start in range(0, len(images), BATCH):
        some = data.to_tensor(images[start:start + BATCH])
        with loop.autocast():
            posterior = vae.encode(some.to(loop.device(), torch.get_default_dtype()))
        found.append(torch.stack([posterior.mean, posterior.std], 1).half().cpu())
    return torch.cat(found)


def posteriors(vae: VAE, folder: Path, count: int, *, size: int, seed: int) -> Tensor:
    """Of training scenes 0 .. count - 1 (see `encode`), kept for this encoder's weights."""
    encoder = checkpoint.fingerprint(nn.ModuleList([vae.encoder, vae.quant_conv]))
    images = pictures(folder, count, size=size, seed=seed)
    return kept(folder / f"latents-{seed}-{count}-{size}-{encoder}.pt", lambda: encode(vae, images))


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor in a file, which the first process makes where there is none."""
    with loop.first_alone():
        if not path.exists():
            with written_whole(path) as part:
                torch.save(make(), part)
    return torch.load(path, weights_only=True, mmap=True)


def measure_scale(posteriors: Tensor) -> float:
    """1 / std of samples of the posteriors: the factor that gives latents unit variance.

    Rombach et al. 2022, appendix G: one number for all channels, rounded to 5 digits.
    """
    mean, std = posteriors.float().unbind(1)
    return round(float((mean.var() + std.square().mean()).rsqrt()), 5)
