"""Every size of every network, as data.

Stable Diffusion v1 and the toy world that ships with this repository run through the same
classes; these dataclasses are all that differs between them. The sizes of `V1` are those of
`v1-inference.yaml` (CompVis, 2022) and of CLIP ViT-L/14 (Radford et al. 2021).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextConfig:
    """The CLIP text transformer."""

    vocab_size: int             # ids run from 0 to vocab_size - 1; the last two are start and end
    width: int                  # d, the length of a token's vector
    layers: int
    heads: int
    max_length: int = 77        # n, tokens of every prompt after padding
    projection_dim: int = 0     # width of the space shared with the image tower; 0: no projection


@dataclass(frozen=True)
class ImageTowerConfig:
    """CLIP's vision transformer, which v1 does not use; toyworld trains one (toyworld/clip.py)."""

    image_size: int             # pixels along each side
    patch_size: int             # pixels along each side of a patch
    width: int
    layers: int
    heads: int
    projection_dim: int


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder between pictures (3, H, W) and latents (latent_channels, H/8, W/8)."""

    channels: tuple[int, ...]   # width of each level; every level but the last halves the size
    layers_per_block: int       # ResBlocks per level of the encoder; the decoder has one more
    groups: int                 # of every GroupNorm
    scale_factor: float         # latents = z * scale_factor, so that latents have unit variance
    latent_channels: int = 4
    image_channels: int = 3

    @property
    def downscale(self) -> int:
        """Pixels along each side of one latent cell: 8 in v1."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class UNetConfig:
    """The noise predictor."""

    channels: tuple[int, ...]       # width of each level
    attention: tuple[bool, ...]     # which levels have spatial transformers
    layers_per_block: int           # ResBlocks per level going down; going up there is one more
    heads: int                      # of every attention, at every level
    context_dim: int                # d of the text encoder
    groups: int                     # of every GroupNorm
    latent_channels: int = 4


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule: betas linear in their square root."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    timesteps: int = 1000           # T


@dataclass(frozen=True)
class Config:
    """A whole text-to-image system."""

    name: str
    text: TextConfig
    vae: VAEConfig
    unet: UNetConfig
    image_size: int                 # pixels along each side of a default picture
    schedule: ScheduleConfig = ScheduleConfig()
    image_tower: ImageTowerConfig | None = None
    guidance_scale: float = 7.5     # the model's own, used where none is given
    steps: int = 50                 # the same


V1 = Config(
    name="v1",
    text=TextConfig(vocab_size=49408, width=768, layers=12, heads=12),
    vae=VAEConfig(channels=(128, 256, 512, 512), layers_per_block=2, groups=32,
                  scale_factor=0.18215),
    unet=UNetConfig(channels=(320, 640, 1280, 1280), attention=(True, True, True, False),
                    layers_per_block=2, heads=8, context_dim=768, groups=32),
    image_size=512,
)

TOYWORLD = Config(
    name="toyworld",
    text=TextConfig(vocab_size=703, width=128, layers=4, heads=4, projection_dim=128),
    vae=VAEConfig(channels=(24, 48, 96, 128), layers_per_block=1, groups=8,
                  scale_factor=0.42577),
    unet=UNetConfig(channels=(64, 128, 224), attention=(False, True, True), layers_per_block=1,
                    heads=4, context_dim=128, groups=16),
    image_size=128,
    image_tower=ImageTowerConfig(image_size=128, patch_size=16, width=128, layers=4, heads=4,
                                 projection_dim=128),
    steps=25,
)
