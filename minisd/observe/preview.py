"""Latents as a picture without the VAE: one linear map from a cell's numbers to red, green, blue.

A latent cell stands for 8 x 8 pixels, and most of what it says is their mean colour. Three sums of
its four numbers show it, at no cost, for any step of a run. Blurred, but true in place and colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.config import VAEConfig

if TYPE_CHECKING:                   # replaying a trace needs no network
    from minisd.pipeline import StableDiffusion

Factors = tuple[tuple[float, float, float], ...]

# One row per latent channel, and the constant; red, green, blue in [-1, 1]. A latent space is known
# by its scale factor, which is measured off the latents themselves.
FACTORS: dict[float, Factors] = {
    # v1: in circulation since 2022, fitted by users of the published autoencoder.
    0.18215: ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350),
              (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177), (0.0, 0.0, 0.0)),
    # toyworld: least squares on 256 drawn scenes; nine tenths of the colours' variance.
    0.42577: ((-0.2248, -0.1026, 0.1298), (0.0798, 0.3331, 0.5394),
              (0.6958, 0.6010, 0.3378), (0.7310, 0.7779, 0.5640), (0.4859, 0.5987, 0.3854)),
}


def preview(sd: StableDiffusion, latents: Tensor) -> list[Image.Image]:
    """A model's latents (b, c, h, w) -> b previews of 8h x 8w pixels."""
    return to_pictures(latents, factors_of(sd.config.vae), sd.config.vae.downscale)


def factors_of(config: VAEConfig) -> Tensor | None:
    """The map of a model's latents, (c + 1, 3); None for an unknown latent space."""
    known = FACTORS.get(config.scale_factor, ())
    return (torch.tensor(known, dtype=torch.float32) if len(known) == config.latent_channels + 1
            else None)


def to_pictures(latents: Tensor, factors: Tensor | None, enlarge: int = 8) -> list[Image.Image]:
    """Latents (b, c, h, w) -> b previews of 8h x 8w pixels.

    factors: see `factors_of`; without, the first three channels are shown as red, green and blue.
    """
    if latents.ndim != 4:
        raise ValueError(f"expected latents (b, c, h, w), got {tuple(latents.shape)}")
    channels, height, width = latents.shape[1:]
    if factors is None:
        factors = torch.eye(channels + 1, 3, dtype=torch.float32)
    if factors.shape != (channels + 1, 3):
        raise ValueError(f"the map is of shape {tuple(factors.shape)}, latents of {channels} "
                         f"channels take ({channels + 1}, 3)")
    cells = latents.detach().float().cpu().movedim(1, -1)                       # b h w c
    colours = (cells @ factors[:-1] + factors[-1]).movedim(-1, 1)               # b 3 h w
    size = (width * enlarge, height * enlarge)
    return [small.resize(size, Image.Resampling.BICUBIC) for small in images.to_pil(colours)]
