"""Every training scene through the frozen encoder once, so that the UNet never waits for it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
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
    """Posteriors of training scenes 0 .. count - 1 (see `encode`), kept for this encoder's weights.

    Every process encodes its share, and the first one puts them together.
    """
    encoder = checkpoint.fingerprint(nn.ModuleList([vae.encoder, vae.quant_conv]))
    path = folder / f"latents-{seed}-{count}-{size}-{encoder}.pt"
    if not path.exists():
        with loop.first_alone(share):
            images = data.cached_pictures(folder, count, size=size, seed=seed)
        parts = [path.with_suffix(f".{rank}-of-{share.world}") for rank in range(share.world)]
        torch.save(encode(vae, images[share.rank::share.world]), parts[share.rank])
        loop.wait_for_all(share)
        with loop.first_alone(share):
            if share.rank == 0:
                _interleave(parts, path)
    return torch.load(path, weights_only=True, mmap=True)


def _interleave(parts: list[Path], path: Path) -> None:
    """Sample i comes from part i % len(parts); the parts go once the whole is on disk."""
    found = [torch.load(part, weights_only=True) for part in parts]
    whole = torch.empty(sum(map(len, found)), *found[0].shape[1:], dtype=found[0].dtype)
    for rank, share in enumerate(found):
        whole[rank::len(parts)] = share
    unfinished = path.with_suffix(".part")
    torch.save(whole, unfinished)
    unfinished.replace(path)
    for part in parts:
        part.unlink()


def measure_scale(posteriors: Tensor) -> float:
    """1 / std of samples of the posteriors: the factor that gives latents unit variance.

    Rombach et al. 2022, appendix G: one number for all channels, rounded to 5 digits.
    """
    mean, std = posteriors.float().unbind(1)
    return round(float((mean.var() + std.square().mean()).rsqrt()), 5)
