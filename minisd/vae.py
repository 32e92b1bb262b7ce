"""The autoencoder: a picture of 3 x 512 x 512 numbers becomes 4 x 64 x 64, and a picture again.

Kingma & Welling 2014, in the convolutional form of Rombach et al. 2022 (section 3.1, appendix G).
The encoder predicts a Gaussian for every latent value; diffusion happens among its samples.
Here `z` is the VAE's own space; the pipeline's latents are z * config.scale_factor. Pictures are
(b, 3, h, w) in [-1, 1], h and w multiples of 8.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd.attention import Attention
from minisd.config import VAEConfig
from minisd.resblock import Downsample, ResBlock, Upsample

NORM_EPS = 1e-6                     # of every GroupNorm in the VAE; the UNet's ResBlocks have 1e-5
LOGVAR_RANGE = (-30.0, 20.0)        # so that exp() neither vanishes nor overflows


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution; mean and logvar have one shape, logvar is log(std^2)."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + std * noise; the noise is drawn on the generator's CPU in float32."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32)
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL(self || N(0, I)) in nats per picture, (b,) (Kingma & Welling 2014, appendix B)."""
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)


class CellAttention(nn.Module):
    """Self-attention with one head over all cells of a feature map, added to the map."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.self_attn = Attention(channels, heads=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        cells = self.norm(x).flatten(2).transpose(1, 2)                     # b h*w c
        return x + self.self_attn(cells).transpose(1, 2).unflatten(2, x.shape[-2:])


class MidBlock(nn.Module):
    """ResBlock, attention, ResBlock at the smallest size."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(channels, channels, groups=groups, eps=NORM_EPS) for _ in range(2))
        self.attention = CellAttention(channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attention(self.resnets[0](x)))


class Level(nn.Module):
    """The ResBlocks of one size, then the down- or upsampling, if another size follows."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int,
                 resample: nn.Module | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(out_channels if i else in_channels, out_channels, groups=groups, eps=NORM_EPS)
            for i in range(layers))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.resample is None else self.resample(x)


class Encoder(nn.Module):
    """Picture (b, 3, h, w) -> mean and logvar, (b, 2 * latent_channels, h/8, w/8)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.image_channels, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(channels[max(i - 1, 0)], width, config.layers_per_block, config.groups,
                  Downsample(width, symmetric=False) if i < last else None)
            for i, width in enumerate(channels))
        self.mid = MidBlock(channels[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, channels[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """z (b, latent_channels, h, w) -> picture (b, 3, 8h, 8w), about [-1, 1], unclamped."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, last = config.channels[::-1], len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid = MidBlock(channels[0], config.groups)
        self.levels = nn.ModuleList(
            Level(channels[max(i - 1, 0)], width, config.layers_per_block + 1, config.groups,
                  Upsample(width) if i < last else None)
            for i, width in enumerate(channels))
        self.norm_out = nn.GroupNorm(config.groups, channels[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels[-1], config.image_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VAE(nn.Module):
    """Encoder and decoder, each with a 1x1 convolution on its latent side."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(config)

    def encode(self, images: Tensor) -> Gaussian:
        """Pictures (b, 3, h, w) in [-1, 1] -> Gaussian over z, (b, latent_channels, h/8, w/8)."""
        channels, factor = self.config.image_channels, self.config.downscale
        if images.ndim != 4 or images.shape[1] != channels or any(
                side == 0 or side % factor for side in images.shape[2:]):
            raise ValueError(f"expected pictures (b, {channels}, h, w), h and w multiples of "
                             f"{factor}, got {tuple(images.shape)}: convert or resize them first")
        mean, logvar = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, z: Tensor) -> Tensor:
        """z (b, latent_channels, h, w) -> pictures (b, 3, 8h, 8w), about [-1, 1], unclamped."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(f"expected z (b, {self.config.latent_channels}, h, w), got "
                             f"{tuple(z.shape)}: pass encode()'s, or latents / scale_factor")
        return self.decoder(self.post_quant_conv(z))
