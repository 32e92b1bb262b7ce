"""Every training scene through the frozen encoder once, so that the UNet never waits for it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd import checkpoint
from minisd.toyworld import data, loop
from minisd.vae import VAE

BATCH = 64


@torch.no_grad()
def encode(vae: VAE, images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) -> posterior means and stds, float16 (n, 2, c, h/8, w/8), unscaled."""
    found = []
    for start in range(0, len(images), BATCH):
        with loop.autocast():
            posterior = vae.encode(data.to_tensor(images[start:start + BATCH]).to(loop.device()))
        found.append(torch.stack([posterior.mean, posterior.std], 1).half().cpu())
    return torch.cat(found)


def cached(vae: VAE, folder: Path, count: int, *, size: int, seed: int, share: loop.Share
           ) -> Tensor:
    """Posteriors of training scenes 0 .. count - 1 (see `encode`), kept for these VAE weights."""
    path = folder / f"latents-{seed}-{count}-{size}-{checkpoint.fingerprint(vae)}.pt"
    with loop.first_alone(share):
        if not path.exists():
            images = data.cached_pictures(folder, count, size=size, seed=seed)
            part = path.with_suffix(".part")
            torch.save(encode(vae, images), part)
            part.replace(path)
    return torch.load(path, weights_only=True, mmap=True)


def measure_scale(posteriors: Tensor) -> float:
    """1 / std of samples of the posteriors: the factor that gives latents unit variance.

    Rombach et al. 2022, appendix G: one number for all channels, rounded to 5 digits.
    """
    mean, std = posteriors.float().unbind(1)
    return round(float((mean.var() + std.square().mean()).rsqrt()), 5)
