"""CLIP: the text transformer that turns a prompt into the UNet's context, and its image twin.

Radford et al. 2021. Both towers are the same pre-norm transformer; text may only look back
(causal), image patches look everywhere. Stable Diffusion reads the text tower's whole last hidden
state, one vector per token, not the single pooled vector that CLIP was trained to compare.

Dims: b batch, n tokens (77) or patches, d width.
"""

import torch
from torch import Tensor, nn

from minisd.attention import Attention
from minisd.config import ImageTowerConfig, TextConfig

QUICK_GELU = 1.702          # x * sigmoid(1.702 x), CLIP's stand-in for GELU
START_TEMPERATURE = 0.07    # of the contrastive loss, learned from there on
MAX_LOGIT_SCALE = 100.0


class MLP(nn.Module):
    """Four times wider inside, with QuickGELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(QUICK_GELU * h))


class TransformerLayer(nn.Module):
    """Attention, then the MLP, each behind a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads=heads, bias=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """(b, n, d) -> (b, n, d)."""
        x = x + self.self_attn(self.norm1(x), causal=causal)
        return x + self.mlp(self.norm2(x))


class CLIPTextTransformer(nn.Module):
    """Token ids to one vector per token; there is no mask for padding, only the causal one."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(b, n) integers, n <= 77 -> the last hidden state after the final norm, (b, n, d)."""
        if token_ids.ndim != 2 or token_ids.shape[1] > self.config.max_length:
            raise ValueError(
                f"token ids have shape {tuple(token_ids.shape)}, expected (b, n) with n up to "
                f"{self.config.max_length}: encode prompts with the model's tokenizer")
        x = self.token_embedding(token_ids)                                 # b n d
        x = x + self.position_embedding.weight[:token_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, causal=True)
        return self.final_norm(x)


class CLIPImageTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021): square patches, and one class token."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.config = config
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size,
                                         stride=config.patch_size, bias=False)
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
        ends = (token_ids == self.config.end_id).int().argmax(1)
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        return nn.functional.normalize(self.text_projection(pooled), dim=-1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures (b, 3, size, size) in [-1, 1] -> unit vectors (b, p)."""
        return nn.functional.normalize(self.image_projection(self.image(images)), dim=-1)

    def scale(self) -> Tensor:
        """What cosine similarities are multiplied by before the softmax: 1 / temperature."""
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
