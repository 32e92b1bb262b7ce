"""Attention, the one way in which positions exchange information.

The same `Attention` serves CLIP (causal, over tokens), the VAE (one head, over latent cells) and
the UNet (over latent cells, and from latent cells to the prompt's tokens). Around it: the
feed-forward with a gated GELU (Shazeer 2020, "GLU Variants", GEGLU), and the spatial transformer
through which the UNet reads the prompt (Rombach et al. 2022, section 3.3).

Dims: b batch, n positions (queries), m positions of the context (keys), d width, c h w of images.
"""

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPATIAL_NORM_EPS = 1e-6     # of the spatial transformer's GroupNorm in v1; its ResBlocks have 1e-5
SLICE = 256                 # queries at a time in Attention._sliced
ROWS = 1024                 # positions at a time in FeedForward: a CPU's caches hold no more

Listener = Callable[[Tensor], Tensor | None]


class AttentionTap(nn.Module):
    """Where the softmax of one attention can be read, or replaced.

    It has no parameters. While `listeners` is empty the attention runs its fused kernel and the
    weights never exist in memory; with a listener it computes them in full, (b, heads, n, m), and
    hands them to each listener in turn. What a listener returns, if anything, takes their place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []

    def forward(self, weights: Tensor) -> Tensor:
        for listener in tuple(self.listeners):      # another thread may take one off meanwhile
            replaced = listener(weights)
            weights = weights if replaced is None else replaced
        return weights


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v (Vaswani et al. 2017, eq. 1), in `heads` parallel parts."""

    def __init__(self, dim: int, context_dim: int | None = None, *, heads: int,
                 bias: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} cannot be split into {heads} heads: choose a divisor")
        context_dim = context_dim or dim
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim, dim, bias=bias)
        self.to_out = nn.Linear(dim, dim)
        self.tap = AttentionTap()

    def forward(self, x: Tensor, context: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """x (b, n, d) looks at context (b, m, d_context), or at itself; returns (b, n, d).

        causal: position i sees positions 0..i only.
        """
        context = x if context is None else context
        q, k, v = (self._split(part) for part in
                   (self.to_q(x), self.to_k(context), self.to_v(context)))  # b heads n|m d_head
        if self.tap.listeners:
            mixed = self._explicit(q, k, v, causal)
        elif self._slices_are_faster(q, causal):
            mixed = self._sliced(q, k, v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.to_out(mixed.transpose(1, 2).flatten(2))                # b n d

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """The formula as it is written, with the weights laid open to the tap."""
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5              # b heads n m
        if causal:
            future = torch.ones_like(scores, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        return self.tap(scores.softmax(-1)) @ v                             # b heads n d_head

    def _slices_are_faster(self, q: Tensor, causal: bool) -> bool:
        """In bfloat16 on a CPU: the fused kernel takes 1.5 times as long there at 4,096 cells."""
        return (q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= SLICE
                and not causal and not q.requires_grad)

    def _sliced(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The formula for a few queries of one head at a time: the scores stay in the cache."""
        scaled = (k * k.shape[-1] ** -0.5).transpose(-1, -2)                # b heads d_head m
        mixed = torch.empty_like(q)
        for i, head in product(*map(range, q.shape[:2])):
            for rows in (slice(start, start + SLICE) for start in range(0, q.shape[2], SLICE)):
                weights = (q[i, head, rows] @ scaled[i, head]).softmax(-1)
                mixed[i, head, rows] = weights @ v[i, head]
        return mixed


class FeedForward(nn.Module):
    """GEGLU: half of the inner values gate the other half through an exact (erf) GELU."""

    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, 2 * mult * dim)
        self.proj_out = nn.Linear(mult * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d). Each position is computed alone, so any number at a time."""
        if x.requires_grad or x.device.type != "cpu":
            return self._gated(x)
        return torch.cat([self._gated(rows) for rows in x.flatten(0, -2).split(ROWS)]).view_as(x)

    def _gated(self, x: Tensor) -> Tensor:
        value, gate = self.proj_in(x).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Latent cells look at each other, then at the prompt, then each thinks for itself."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, context_dim, heads=heads)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (b, n, d), context (b, m, d_context) -> (b, n, d)."""
        x = x + self.self_attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the cells of a feature map, added to the map."""

    def __init__(self, channels: int, context_dim: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=SPATIAL_NORM_EPS)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.block = TransformerBlock(channels, context_dim, heads)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (b, c, h, w), context (b, m, d_context) -> (b, c, h, w)."""
        height, width = x.shape[-2:]
        cells = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # b h*w c
        cells = self.block(cells, context)
        return x + self.proj_out(cells.transpose(1, 2).unflatten(2, (height, width)))
