"""The UNet: given noisy latents, the time and the prompt, predict the noise.

Ronneberger et al. 2015 in the form of Ho et al. 2020 (ResBlocks that are told the time) and
Rombach et al. 2022 (spatial transformers that read the prompt). On the way down every layer
leaves its result on a stack of skips; on the way up every ResBlock takes one off again, so fine
detail never has to pass through the smallest size. `UNet.forward` shows this stack, row by row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd.attention import SpatialTransformer
from minisd.config import UNetConfig
from minisd.resblock import Downsample, ResBlock, TimeEmbedding, Upsample

NORM_EPS = 1e-5             # of the ResBlocks and the output head; SpatialTransformer has its own


class Layer(nn.Module):
    """One ResBlock and, where the level looks at the text, one spatial transformer."""

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
    """The layers of one size on the way down, then the halving (not at the last level)."""

    def __init__(self, in_channels: int, level: int, config: UNetConfig) -> None:
        super().__init__()
        width, last = config.channels[level], level == len(config.channels) - 1
        self.layers = nn.ModuleList(
            Layer(in_channels if i == 0 else width, width, config,
                  attention=config.attention[level])
            for i in range(config.layers_per_block))
        self.downsample = None if last else Downsample(width, symmetric=True)


class UpLevel(nn.Module):
    """The layers of one size on the way up, each fed one skip, then the doubling (not at last)."""

    def __init__(self, in_channels: int, skip_channels: list[int], level: int,
                 config: UNetConfig) -> None:
        super().__init__()
        width = config.channels[level]
        self.layers = nn.ModuleList(
            Layer((in_channels if i == 0 else width) + skip, width, config,
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
        self.time_embedding = TimeEmbedding(channels[0])
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(DownLevel(channels[max(i - 1, 0)], i, config) for i in levels)
        self.mid = MidBlock(config)

        # The widths that the way down leaves on the stack, in order: conv_in, every layer, every
        # halving. The way up takes them from the end, one more per level than it has ResBlocks.
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
        """Predict the noise in `latents`.

        latents: (b, latent_channels, h, w), any h and w; variance about 1.
        timesteps: (b,) or a scalar tensor, 0..999, fractions allowed.
        context: (b, n, context_dim), the text encoder's last hidden state; or (1, n, context_dim).
        Returns eps, of the shape of latents. Raises ValueError for inputs of other shapes.
        """
        self._check(latents, timesteps, context)
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

    def _check(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> None:
        if context.ndim != 3 or context.shape[-1] != self.config.context_dim:
            raise ValueError(
                f"context has shape {tuple(context.shape)}, this UNet expects (b, n, "
                f"{self.config.context_dim}): encode the prompt with the matching text encoder")
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}, this UNet expects (b, "
                f"{self.config.latent_channels}, h, w): encode pictures with the VAE first")
        b = len(latents)
        if len(context) not in (1, b) or timesteps.shape not in ((), (1,), (b,)):
            raise ValueError(
                f"{b} latents came with {len(context)} contexts and timesteps of shape "
                f"{tuple(timesteps.shape)}: this UNet expects {b} or one of each")
