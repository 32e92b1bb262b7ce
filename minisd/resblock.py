"""The convolutional half of the networks: timestep embedding, ResBlock, down- and upsampling.

The VAE and the UNet are built of the same residual block (He et al. 2016, with GroupNorm and SiLU
as in Ho et al. 2020); only the UNet's takes the timestep embedding. Dims: b c h w.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PERIOD = 10_000         # of the slowest wave of the timestep embedding


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Waves of dim/2 frequencies, cosines first (Vaswani et al. 2017, section 3.5).

    timesteps (b,), 0..999, fractions allowed -> (b, dim) float32.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(MAX_PERIOD) * index / half)
    angles = timesteps.float()[:, None] * frequencies                       # b dim/2
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """A timestep as the vector that every ResBlock of the UNet takes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, 4 * dim)

    def forward(self, timesteps: Tensor) -> Tensor:
        """(b,) -> (b, 4 * dim)."""
        waves = timestep_embedding(timesteps, self.dim).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(waves)))


class ResBlock(nn.Module):
    """Two 3x3 convolutions added to their input; the timestep embedding enters between them."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, eps: float,
                 time_dim: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_proj = nn.Linear(time_dim, out_channels) if time_dim else None
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (nn.Conv2d(in_channels, out_channels, 1)
                         if in_channels != out_channels else nn.Identity())

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x (b, c_in, h, w), time (b, time_dim) where the block takes it -> (b, c_out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_proj is not None:
            assert time is not None
            h = h + self.time_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class Downsample(nn.Module):
    """Halves height and width. The UNet pads every side by one, the VAE only right and bottom."""

    def __init__(self, channels: int, *, symmetric: bool) -> None:
        super().__init__()
        self.pad = (1, 1, 1, 1) if symmetric else (0, 1, 0, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class Upsample(nn.Module):
    """Repeats every pixel to the wanted size, then smooths with a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """size (h, w) of the result; twice the input's unless given."""
        size = size or (2 * x.shape[-2], 2 * x.shape[-1])
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
