"""The UNet: given noisy latents, the timestep and the prompt, predict the noise.

Ronneberger et al. 2015 in the form of Ho et al. 2020 (ResBlocks with a timestep embedding) and
Rombach et al. 2022 (spatial transformers that read the prompt). Every layer of the downsampling
path pushes its result onto a stack of skips, every layer of the upsampling path pops one, so fine
detail need not pass through the smallest size: see `UNet.forward`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd.attention import SpatialTransformer
from minisd.config import UNetConfig
from minisd.resblock import Downsample, ResBlock, TimestepEmbedding, Upsample

NORM_EPS = 1e-5             # of the ResBlocks and the output head; SpatialTransformer has its own


class Layer(nn.Module):
    """One ResBlock and, where the level has attention, one spatial transformer."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig, *,
                 attention: bool) -> None:
        super().__init__()
        self.resnet = ResBlock(in_channels, out_channels, groups=config.groups, eps=NORM_EPS,
                               time_dim=4 * config.channels[0])
        self.attention = (SpatialTransformer(out_channels, config.context_dim, heads=config.heads,
                                             groups=config.groups) if attention else None)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.resnet(x, time)
        return x if self.attention is None else self.attention(x, context)


class DownLevel(nn.Module):
    """The layers of one size of the downsampling path, then the halving (not at the last level)."""

    def __init__(self, in_channels: int, level: int, config: UNetConfig) -> None:
        super().__init__()
        width, last = config.channels[level], level == len(config.channels) - 1
        self.layers = nn.ModuleList(
            Layer(width if i else in_channels, width, config, attention=config.attention[level])
            for i in range(config.layers_per_block))
        self.downsample = None if last else Downsample(width, symmetric=True)


class UpLevel(nn.Module):
    """The layers of one size of the upsampling path, each with one skip, then the doubling."""

    def __init__(self, in_channels: int, skip_channels: list[int], level: int,
                 config: UNetConfig) -> None:
        super().__init__()
        width = config.channels[level]
        self.layers = nn.ModuleList(
            Layer((width if i else in_channels) + skip, width, config,
                  attention=config.attention[level])
            for i, skip in enumerate(skip_channels))
        self.upsample = None if level == 0 else Upsample(width)


class MidBlock(nn.Module):
    """ResBlock, spatial transformer, ResBlock at the smallest size."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.layers = nn.ModuleList(
            Layer(width, width, config, attention=attention) for attention in (True, False))

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, time, context)
        return x


class UNet(nn.Module):
    """eps = UNet(x_t, t, prompt)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, levels = config.channels, range(len(config.channels))
        self.time_embedding = TimestepEmbedding(channels[0])
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(DownLevel(channels[max(i - 1, 0)], i, config) for i in levels)
        self.mid = MidBlock(config)

        # The widths on the stack of skips, in order: conv_in, every layer, every halving. The
        # upsampling path pops them, at each level one more than the downsampling path has layers.
        skips = [channels[0]]
        for i in levels:
            skips += [channels[i]] * config.layers_per_block + [channels[i]] * (i < levels[-1])
        self.up = nn.ModuleList()
        for i in reversed(levels):
            taken = [skips.pop() for _ in range(config.layers_per_block + 1)]
            self.up.append(UpLevel(channels[min(i + 1, levels[-1])], taken, i, config))
        assert not skips

        self.norm_out = nn.GroupNorm(config.groups, channels[0], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels[0], config.latent_channels, 3, padding=1)

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Predict the noise in latents (b, c, h, w) of variance about 1; eps has their shape.

        timesteps: (b,) or a scalar tensor, 0..999, fractions allowed. context: (b, n, context_dim)
        or (1, n, context_dim), the text encoder's last hidden state. Raises ValueError for inputs
        of other shapes.
        """
        channels, width, b = self.config.latent_channels, self.config.context_dim, len(latents)
        if latents.ndim != 4 or latents.shape[1] != channels or timesteps.shape not in (
                (), (1,), (b,)):
            raise ValueError(f"latents {tuple(latents.shape)}, timesteps {tuple(timesteps.shape)}: "
                             f"this UNet expects (b, {channels}, h, w) and (b,)")
        if context.ndim != 3 or context.shape[-1] != width or len(context) not in (1, b):
            raise ValueError(f"context has shape {tuple(context.shape)}, this UNet expects ({b}, "
                             f"n, {width}): encode the prompt with the matching text encoder")
        context = context.expand(len(latents), -1, -1)
        time = self.time_embedding(timesteps.expand(len(latents)))          # b 4c0
        x = self.conv_in(latents)
        skips = [x]
        for level in self.down:
            for layer in level.layers:
                x = layer(x, time, context)
                skips.append(x)
            if level.downsample is not None:
                x = level.downsample(x)
                skips.append(x)
        x = self.mid(x, time, context)
        for level in self.up:
            for layer in level.layers:
                x = layer(torch.cat([x, skips.pop()], dim=1), time, context)
            if level.upsample is not None:
                x = level.upsample(x, size=skips[-1].shape[-2:])
        return self.conv_out(F.silu(self.norm_out(x)))
