"""The convolutional half of the networks: time embedding, ResBlock, halving and doubling.

The VAE and the UNet are built of the same residual block (He et al. 2016, with GroupNorm and
SiLU as in Ho et al. 2020); only the UNet's is told the time. Dims: b c h w.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PERIOD = 10_000         # of the slowest wave of the timestep embedding
MANY_CELLS = 256            # h * w from which on Upsample._doubled pays


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Waves of dim/2 frequencies, cosines first (Vaswani et al. 2017, section 3.5).

    timesteps (b,), 0..999, fractions allowed -> (b, dim) float32.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(MAX_PERIOD) * index / half)
    angles = timesteps.float()[:, None] * frequencies                       # b dim/2
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """A timestep as a vector that every ResBlock of the UNet is told."""

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
    """Two 3x3 convolutions added to their input; the time enters between them."""

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
        """x (b, c_in, h, w), time (b, time_dim) if the block is told it -> (b, c_out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_proj is not None:
            assert time is not None, "this block was built with time_dim and needs the time"
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
        doubled = (2 * x.shape[-2], 2 * x.shape[-1])
        size = size or doubled
        if size == doubled and x.device.type == "cpu" and x[0, 0].numel() >= MANY_CELLS:
            return self._doubled(x)
        return self.conv(F.interpolate(x, size=size, mode="nearest"))

    def _doubled(self, x: Tensor) -> Tensor:
        """The same sum in 16 multiplications instead of 36.

        Among repeated pixels two of three taps always meet the same value. So each of the four
        pixels that come of one is a 2x2 convolution of the input, whose taps are sums of the 3x3.
        """
        (b, _, h, w), padded = x.shape, F.pad(x, (1, 1, 1, 1))
        found = x.new_empty(b, self.conv.out_channels, h, 2, w, 2)
        for row, column in product(range(2), repeat=2):
            taps = _add_taps(_add_taps(self.conv.weight, 2, row), 3, column)
            seen = padded[:, :, row:row + h + 1, column:column + w + 1]
            found[:, :, :, row, :, column] = F.conv2d(seen, taps, self.conv.bias)
        return found.flatten(4).flatten(2, 3)


def _add_taps(weight: Tensor, dim: int, phase: int) -> Tensor:
    """Three taps (a, b, c) along a dimension -> (a, b + c) for phase 0, (a + b, c) for phase 1."""
    a, b, c = weight.unbind(dim)
    return torch.stack((a + b, c) if phase else (a, b + c), dim)
