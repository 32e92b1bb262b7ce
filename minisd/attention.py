"""Attention, the only operation in which positions exchange information.

One class serves CLIP (causal, over tokens), the VAE (one head, over latent cells) and the UNet
(over latent cells, and from them to the prompt's tokens). Around it: the feed-forward with a gated
GELU (Shazeer 2020), and the spatial transformer that reads the prompt (Rombach et al. 2022, 3.3).

Dims: b batch, n positions (queries), m positions of the context (keys), d width, c h w of images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPATIAL_NORM_EPS = 1e-6     # of the spatial transformer's GroupNorm in v1; its ResBlocks have 1e-5


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
        self.listeners: list[Callable[[Tensor], Tensor | None]] = []    # of the softmax

    def forward(self, x: Tensor, context: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """x (b, n, d) attends to context (b, m, d_context), or to itself; returns (b, n, d).

        causal: position i sees positions 0..i only.
        """
        context = x if context is None else context
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in
                   (self.to_q(x), self.to_k(context), self.to_v(context)))  # b heads n|m d_head
        mixed = self.attend(q, k, v, causal)                                # b heads n d_head
        return self.to_out(mixed.transpose(1, 2).flatten(2))                # b n d

    def attend(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """The formula: one fused kernel, or term by term while somebody listens."""
        if not self.listeners:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5              # b heads n m
        if causal:
            future = torch.ones_like(scores, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        weights = scores.softmax(-1)
        for listener in tuple(self.listeners):      # another thread may remove one meanwhile
            replaced = listener(weights)
            weights = weights if replaced is None else replaced
        return weights @ v


class FeedForward(nn.Module):
    """GEGLU: half of the inner values gate the other half through an exact (erf) GELU."""

    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, 2 * mult * dim)
        self.proj_out = nn.Linear(mult * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, n, d), each position by itself."""
        value, gate = self.proj_in(x).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward; each pre-norm and residual."""

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
        cells = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # b h*w c
        cells = self.block(cells, context)
        return x + self.proj_out(cells.transpose(1, 2).unflatten(2, x.shape[-2:]))
