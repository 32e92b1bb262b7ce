"""The book's layers, computed in an order that suits a CPU; each has the name of its original.

They serve inference alone: where gradients are wanted, and on another device, the book's own
formula runs. The results agree up to rounding.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd import attention, resblock

ROWS = 1024                 # positions at a time in the feed-forward: a CPU's caches hold no more
MANY_CELLS = 1024           # height * width from which on four small convolutions pay,
MANY_CHANNELS = 256         # and for how many of them


def suits(module: nn.Module, x: Tensor) -> bool:
    """On a CPU, and where nobody wants gradients."""
    return x.device.type == "cpu" and not (torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())))


class FeedForward(attention.FeedForward):
    """Some positions at a time: each is computed by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d)."""
        if x.shape[:-1].numel() <= ROWS or not suits(self, x):
            return super().forward(x)
        whole = super().forward
        return torch.cat([whole(rows) for rows in x.flatten(0, -2).split(ROWS)]).view_as(x)


class Upsample(resblock.Upsample):
    """Large maps are doubled in 16 multiplications instead of 36, where those are the cost.

    In bfloat16 they are not: its products are fast, and four results that have to be interleaved
    take longer.
    """

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """As in the book; the choice does not depend on the batch, so a picture neither."""
        c, h, w = x.shape[1:]
        large = c >= MANY_CHANNELS and h * w >= MANY_CELLS and x.dtype == torch.float32
        if large and size in (None, (2 * h, 2 * w)) and suits(self, x):
            return double(x, self.conv)
        return super().forward(x, size)


def double(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv (3x3) of x with every pixel repeated twice by twice: (b, c, h, w) -> (b, c, 2h, 2w).

    Among repeated pixels two of three taps always meet the same value. So each of the four pixels
    that come of one is a 2x2 convolution of x, whose taps are sums of the 3x3.
    """
    (b, _, h, w), padded = x.shape, F.pad(x, (1, 1, 1, 1))
    doubled = x.new_empty(b, conv.out_channels, h, 2, w, 2)
    for row, column in product(range(2), repeat=2):
        taps = _add_taps(_add_taps(conv.weight, 2, row), 3, column)
        near = padded[:, :, row:row + h + 1, column:column + w + 1]
        doubled[:, :, :, row, :, column] = F.conv2d(near, taps, conv.bias)
    return doubled.flatten(4).flatten(2, 3)


def _add_taps(weight: Tensor, dim: int, phase: int) -> Tensor:
    """Three taps (a, b, c) along a dimension -> (a, b + c) for phase 0, (a + b, c) for phase 1."""
    a, b, c = weight.unbind(dim)
    return torch.stack((a + b, c) if phase else (a, b + c), dim)
