"""CLIP with both towers: pictures and sentences in one space (Radford et al. 2021).

Stable Diffusion needs the text tower alone (minisd/clip.py). toyworld trains both, and keeps the
image tower to search pictures with words. Dims: b batch, n tokens or patches, d width.
"""

import torch
from torch import Tensor, nn

from minisd.checkpoints.places import SHIPPED
from minisd.checkpoints.weights import load_into
from minisd.clip import CLIPTextTransformer, TransformerLayer
from minisd.config import ImageTowerConfig, TextConfig
from minisd.pipeline import StableDiffusion

START_TEMPERATURE = 0.07    # of the contrastive loss, learned from there on
MAX_LOGIT_SCALE = 100.0


class PatchEmbedding(nn.Sequential):
    """A convolutional stem: 3x3 convolutions of stride 2 in place of one as large as a patch.

    It makes a vision transformer easier to train (Xiao et al. 2021, who use batch norm and ReLU).
    (b, 3, size, size) -> (b, width, size / patch_size, size / patch_size).
    """

    def __init__(self, width: int, patch_size: int) -> None:
        """patch_size: pixels along each side. Raises ValueError where the stem does not fit it."""
        if patch_size.bit_count() != 1 or width % 32:
            raise ValueError(f"patch_size must be a power of two and width a multiple of 32, got "
                             f"{patch_size} and {width}")
        channels, layers = 3, []
        for i in range(patch_size.bit_length() - 1):
            more = min(width, width // 4 * 2 ** i)
            layers += [nn.Conv2d(channels, more, 3, stride=2, padding=1), nn.GroupNorm(8, more),
                       nn.GELU()]
            channels = more
        super().__init__(*layers, nn.Conv2d(channels, width, 1))


class CLIPImageTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021): patches from a stem, and one class token."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.config = config
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = PatchEmbedding(config.width, config.patch_size)
        self.class_embedding = nn.Parameter(torch.randn(config.width) * config.width ** -0.5)
        self.position_embedding = nn.Embedding(patches + 1, config.width)
        self.pre_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (b, 3, size, size) in [-1, 1] -> what the class token gathered, (b, d)."""
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)         # b patches d
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)   # b 1+patches d
        x = self.pre_norm(x + self.position_embedding.weight)
        for layer in self.layers:
            x = layer(x, causal=False)
        return self.post_norm(x[:, 0])


class CLIP(nn.Module):
    """Both towers and the space in which they are compared."""

    def __init__(self, text: TextConfig, image: ImageTowerConfig) -> None:
        super().__init__()
        self.config = text
        self.text = CLIPTextTransformer(text)
        self.image = CLIPImageTransformer(image)
        self.text_projection = nn.Linear(text.width, image.projection_dim, bias=False)
        self.image_projection = nn.Linear(image.width, image.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(-torch.tensor(START_TEMPERATURE).log())

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """(b, n) ids -> unit vectors (b, p): the state at the first end token, projected."""
        hidden = self.text(token_ids)
        ends = (token_ids == self.config.vocab_size - 1).int().argmax(1)
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        return nn.functional.normalize(self.text_projection(pooled), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (b, 3, size, size) in [-1, 1] -> unit vectors (b, p)."""
        return nn.functional.normalize(self.image_projection(self.image(images)), dim=-1)

    def scale(self) -> Tensor:
        """What cosine similarities are multiplied by before the softmax: 1 / temperature."""
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)


def load_clip(sd: StableDiffusion) -> CLIP:
    """Both towers of toyworld's CLIP around sd's text encoder, to compare pictures and prompts.

    Raises ValueError for a model whose image tower does not ship (v1's).
    """
    if sd.config.image_tower is None:
        raise ValueError(f"{sd.config.name} has no image tower at hand: only toyworld ships one")
    clip = CLIP(sd.config.text, sd.config.image_tower)
    clip.text = nn.Identity()                   # type: ignore[assignment]  # sd has its weights
    load_into(clip, SHIPPED / "image_tower.safetensors")
    clip.to(sd.device, sd.dtype).eval().requires_grad_(False)
    clip.text = sd.text_encoder
    return clip
