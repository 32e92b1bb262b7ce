"""The book's layers, computed in an order that suits a CPU; each has the name of its original.

They serve inference alone: where gradients are wanted, on another device, and while somebody
listens to an attention, the book's own formula runs. The results agree up to rounding.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd import attention, resblock

SLICE = 256                 # queries at a time, and the fewest for which it pays
ROWS = 1024                 # positions at a time in the feed-forward: a CPU's caches hold no more
MANY_CELLS = 256            # height * width from which on four small convolutions pay


def suits(module: nn.Module, x: Tensor) -> bool:
    """On a CPU, and where nobody wants gradients."""
    return x.device.type == "cpu" and not (torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())))


class Attention(attention.Attention):
    """In slices in bfloat16, whose fused kernel takes 1.5 times as long at 4,096 cells."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        sliced = (q.dtype == torch.bfloat16 and q.shape[2] >= SLICE and not causal
                  and not self.listeners and suits(self, q))
        return attend_in_slices(q, k, v) if sliced else super().attend(q, k, v, causal)


def attend_in_slices(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula for a few queries of one head at a time, so that their scores stay in a cache.

    q (b, heads, n, d_head), k and v (b, heads, m, d_head) -> (b, heads, n, d_head).
    """
    scaled = (k * k.shape[-1] ** -0.5).transpose(-1, -2)                    # b heads d_head m
    mixed = torch.empty_like(q)
    for i, head in product(*map(range, q.shape[:2])):
        for start in range(0, q.shape[2], SLICE):
            rows = slice(start, start + SLICE)
            weights = (q[i, head, rows] @ scaled[i, head]).softmax(-1)
            mixed[i, head, rows] = weights @ v[i, head]
    return mixed


class FeedForward(attention.FeedForward):
    """Some positions at a time: each is computed by itself."""

    def forward(self, x: Tensor) -> Tensor:
        if not suits(self, x):
            return super().forward(x)
        parts = [super(FeedForward, self).forward(rows) for rows in x.flatten(0, -2).split(ROWS)]
        return torch.cat(parts).view_as(x)


class Upsample(resblock.Upsample):
    """Large maps are doubled in 16 multiplications instead of 36."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        h, w = x.shape[-2:]
        if size not in (None, (2 * h, 2 * w)) or h * w < MANY_CELLS or not suits(self, x):
            return super().forward(x, size)
        return double(x, self.conv)


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
