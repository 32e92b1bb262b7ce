"""A masked diffusion transformer, MDT (Gao et al. 2023), that reads a caption.

A transformer over patches of latents, conditioned by adaLN-Zero (DiT, Peebles & Xie 2023). In
training each batch is seen twice: whole, and with some of its patches hidden. The encoder sees the
kept patches alone, a side interpolater predicts what it would have said of the hidden ones, and the
decoder predicts the noise of all. So the network must learn how the parts of a picture belong
together. In sampling nothing is hidden, and the interpolater rests. Mask ratio 0 is a plain DiT.

This is version 1 of the paper. Version 2 draws the mask ratio from 0.3 to 0.5 for every batch
(`mask_ratio=(0.3, 0.5)`); it also adds skips between the encoder's halves and from the input to
every decoder block, the optimiser Adan, and min-SNR weights: these four are not here. The paper
knows class labels; here a pooled text state joins the timestep, and every block attends to the
prompt's tokens.

Dims: b pictures, n patches, k of them kept, m tokens of the prompt, d width, g cells of the grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minisd.attention import Attention, FeedForward
from minisd.resblock import TimestepEmbedding, timestep_embedding


@dataclass(frozen=True)
class MDTConfig:
    """Sizes. The paper's S/2 has width 384, 6 heads, 10 + 2 blocks; XL/2 1152, 16, 26 + 2."""

    side: int                   # latent cells along each side of the largest picture
    context_dim: int            # d of the text encoder
    width: int = 192            # a multiple of 8 and of heads
    heads: int = 6
    encoder_blocks: int = 5
    decoder_blocks: int = 2
    patch: int = 2              # latent cells along each side of a patch
    latent_channels: int = 4
    mask_ratio: tuple[float, float] = (0.3, 0.3)    # of the patches, its limits; (0, 0): no masking

    def __post_init__(self) -> None:
        if self.side % self.patch or self.width % 8 or self.width % self.heads:
            raise ValueError(f"side {self.side} must be a multiple of patch {self.patch}, width "
                             f"{self.width} one of 8 and of heads {self.heads}")
        if not 0 <= self.mask_ratio[0] <= self.mask_ratio[1] < 1:
            raise ValueError(f"mask_ratio must be two rising shares from 0 to below 1, got "
                             f"{self.mask_ratio}")


class RelativeAttention(nn.Module):
    """softmax(q k^T / sqrt(d_head) + bias) v; the bias depends on how far apart two patches are."""

    def __init__(self, dim: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros((2 * grid - 1) ** 2, heads))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """x (b, n, d), places (b or 1, n, 2) rows and columns in the grid -> (b, n, d)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5              # b heads n n
        weights = (scores + self.relative(places)).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))

    def relative(self, places: Tensor) -> Tensor:
        """The bias of every pair of patches, (b, heads, n, n): a function of their difference."""
        apart = places[:, :, None] - places[:, None] + self.grid - 1        # b n n 2
        index = apart[..., 0] * (2 * self.grid - 1) + apart[..., 1]
        return self.bias[index].permute(0, 3, 1, 2)


class Block(nn.Module):
    """Attention over patches, over the prompt, feed-forward; each shifted, scaled and gated.

    adaLN-Zero: the nine vectors that do so come from the condition by a layer that begins as zero.
    So every gate is closed at first, and the block is the identity.
    """

    def __init__(self, config: MDTConfig) -> None:
        super().__init__()
        dim = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(dim, elementwise_affine=False) for _ in range(3))
        self.self_attn = RelativeAttention(dim, config.heads, config.side // config.patch)
        self.cross_attn = Attention(dim, config.context_dim, heads=config.heads)
        self.ff = FeedForward(dim)
        self.modulation = zero(nn.Linear(dim, 9 * dim))

    def forward(self, x: Tensor, condition: Tensor, context: Tensor, places: Tensor) -> Tensor:
        """x (b, n, d), condition (b, d), context (b, m, d_context), places (b or 1, n, 2)."""
        vectors = self.modulation(nn.functional.silu(condition))[:, None].chunk(9, dim=-1)
        parts: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda h: self.self_attn(h, places), lambda h: self.cross_attn(h, context), self.ff)
        for i, (norm, part) in enumerate(zip(self.norms, parts, strict=True)):
            shift, scale, gate = vectors[3 * i:3 * i + 3]                   # b 1 d
            x = x + gate * part(norm(x) * (1 + scale) + shift)
        return x


class MDT(nn.Module):
    """eps = MDT(x_t, t, prompt), called as the UNet is."""

    def __init__(self, config: MDTConfig) -> None:
        super().__init__()
        self.config = config
        dim, grid = config.width, config.side // config.patch
        values = config.patch ** 2 * config.latent_channels
        self.embed = nn.Linear(values, dim)
        self.time_embedding = TimestepEmbedding(dim // 4)
        self.pooled = nn.Linear(config.context_dim, dim)
        self.encoder_places = nn.Parameter(waves(grid, dim))
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.encoder_blocks))
        self.interpolater = Block(config) if config.mask_ratio[1] else None
        self.mask_token = nn.Parameter(torch.zeros(dim)) if config.mask_ratio[1] else None
        self.decoder_places = nn.Parameter(waves(grid, dim))
        self.decoder = nn.ModuleList(Block(config) for _ in range(config.decoder_blocks))
        self.norm_out = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation_out = zero(nn.Linear(dim, 2 * dim))
        self.out = zero(nn.Linear(dim, values))

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor,
                kept: Tensor | None = None) -> Tensor:
        """The noise in latents (b, c, h, w), of their shape, h and w at most `side`.

        timesteps (b,) or one, 0..999; context (b or 1, m, d_context), the text encoder's last
        hidden state, whose last position has seen the whole prompt. kept (b, k): numbers of the
        patches that the encoder sees (`draw_kept`); None: all. Raises ValueError for other shapes.
        """
        check(self.config, latents, context, kept)
        b, patch = len(latents), self.config.patch
        rows, columns = (side // patch for side in latents.shape[2:])
        grid = torch.arange(rows), torch.arange(columns)
        places = torch.cartesian_prod(*grid)[None].to(latents.device)       # 1 n 2
        context = context.expand(b, -1, -1)                                 # b m d_context
        condition = self.time_embedding(timesteps.expand(b)) + self.pooled(context[:, -1])  # b d
        x = self.embed(patches(latents, patch))                             # b n d
        x, seen = x + self.encoder_places[:rows, :columns].flatten(0, 1), places
        if kept is not None:                                                # b k d, b k 2
            x, seen = pick(x, kept), pick(places.expand(len(x), -1, -1), kept)
        for block in self.encoder:
            x = block(x, condition, context, seen)
        positions = self.decoder_places[:rows, :columns].flatten(0, 1)      # n d
        x = (x + positions if kept is None else
             self.fill(x, kept, condition, context, places, positions))     # b n d
        for block in self.decoder:
            x = block(x, condition, context, places)
        shift, scale = self.modulation_out(nn.functional.silu(condition))[:, None].chunk(2, dim=-1)
        x = self.out(self.norm_out(x) * (1 + scale) + shift)                # b n patch*patch*c
        return pictures(x, rows, columns, patch)

    def fill(self, x: Tensor, kept: Tensor, condition: Tensor, context: Tensor, places: Tensor,
             positions: Tensor) -> Tensor:
        """x (b, k, d) of the kept patches -> (b, n, d) of all, with their positions.

        The side interpolater sees mask tokens among the kept ones; only what it makes of the mask
        tokens is taken.
        """
        assert self.interpolater is not None and self.mask_token is not None
        index = kept[..., None].expand_as(x)                                # b k d
        full = self.mask_token.expand(len(x), len(positions), -1).to(x).scatter(1, index, x)
        full = full + positions                                             # b n d
        filled = self.interpolater(full, condition, context, places)
        return filled.scatter(1, index, full.gather(1, index))


def check(config: MDTConfig, latents: Tensor, context: Tensor, kept: Tensor | None) -> None:
    """Raises ValueError for what `MDT.forward` cannot take."""
    c, patch, side = config.latent_channels, config.patch, config.side
    if latents.ndim != 4 or latents.shape[1] != c or max(latents.shape[2:]) > side or any(
            s % patch for s in latents.shape[2:]):
        raise ValueError(f"latents {tuple(latents.shape)}: expected (b, {c}, h, w), sides "
                         f"multiples of {patch} and at most {side}")
    if context.ndim != 3 or context.shape[-1] != config.context_dim:
        raise ValueError(f"context {tuple(context.shape)}: expected ({len(latents)}, m, "
                         f"{config.context_dim})")
    if kept is not None and not config.mask_ratio[1]:
        raise ValueError("this network was made without masking: mask_ratio is 0")


def draw_kept(count: int, patches: int, mask_ratio: tuple[float, float],
              generator: torch.Generator) -> Tensor:
    """Which patches stay visible, (count, k): the same number in every picture, others each time.

    The ratio is uniform between its limits, one for the batch.
    """
    low, high = mask_ratio
    ratio = low + (high - low) * float(torch.rand((), generator=generator))
    kept = max(1, round(patches * (1 - ratio)))
    return torch.rand(count, patches, generator=generator).argsort(1)[:, :kept]


def patches(latents: Tensor, patch: int) -> Tensor:
    """(b, c, h, w) -> (b, n, patch * patch * c), row by row."""
    cut = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))       # b c rows p columns p
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def pictures(x: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """The inverse: (b, n, patch * patch * c) -> (b, c, h, w)."""
    cut = x.unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))  # b rows columns p p c
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def pick(x: Tensor, kept: Tensor) -> Tensor:
    """(b, n, d) and (b, k) -> (b, k, d)."""
    return x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))


def waves(grid: int, dim: int) -> Tensor:
    """Sines and cosines of row and column, (grid, grid, dim): where learned positions begin."""
    along = timestep_embedding(torch.arange(grid), dim // 2)                # grid dim/2
    return torch.cat([along[:, None].expand(-1, grid, -1), along.expand(grid, -1, -1)], -1)


def zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def power_cosine(scale: float, progress: float, power: float = 4.0) -> float:
    """Guidance that grows from 1 to `scale` with the progress of a run, 0 to 1 (MDT).

    Little at first, where it would cost variety, and all of it at the end.
    """
    return 1 + (scale - 1) * (1 - math.cos(math.pi * progress ** power)) / 2
