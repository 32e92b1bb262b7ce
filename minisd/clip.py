"""CLIP's text transformer, which turns a prompt into the UNet's context (Radford et al. 2021).

A pre-norm transformer in which a token sees only those before it. Stable Diffusion reads its whole
last hidden state, a vector for each token. Dims: b batch, n tokens (77), d width.
"""

import torch
from torch import Tensor, nn

from minisd.attention import Attention
from minisd.config import TextConfig

QUICK_GELU = 1.702          # x * sigmoid(1.702 x), CLIP's approximation of GELU


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
    """Token ids to one vector for each token; padding is not masked, only the future is."""

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
            raise ValueError(f"expected token ids (b, n), n at most {self.config.max_length}, got "
                             f"{tuple(token_ids.shape)}: encode prompts with the model's tokenizer")
        x = self.token_embedding(token_ids)                                 # b n d
        x = x + self.position_embedding.weight[:token_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, causal=True)
        return self.final_norm(x)
