"""Pictures to tensors and back.

Inside the book a picture is a tensor (b, 3, h, w) in [-1, 1]; outside it is a PIL picture. Files,
and pictures in other modes than RGB, are read in observe/reading.py.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pil(images: Tensor) -> list[Image.Image]:
    """(b, 3, h, w), about [-1, 1] -> b RGB pictures; clamped and rounded only here.

    Raises ValueError for another shape, and for NaN, which would turn black without a word.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"expected pictures of shape (b, 3, h, w), got {tuple(images.shape)}")
    pixels = images.detach().float().cpu()
    if pixels.isnan().any():
        raise ValueError("the pictures contain NaN: look for the first step whose latents do")
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(x) for x in levels.permute(0, 2, 3, 1).contiguous().numpy()]


def from_pil(picture: Image.Image) -> Tensor:
    """An RGB picture -> (1, 3, h, w) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]
    return pixels.to(torch.float32).contiguous() / 127.5 - 1
