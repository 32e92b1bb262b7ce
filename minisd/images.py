"""Pictures in and out: PIL pictures of any mode to tensors in [-1, 1] and back, grids, files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pil(images: Tensor) -> list[Image.Image]:
    """(b, 3, h, w), about [-1, 1] -> PIL pictures; clamped and rounded only here."""
    levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(x) for x in levels.permute(0, 2, 3, 1).cpu().numpy()]


def grid(images: list[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures of one size, row by row on white."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    grid(to_pil(images), columns).save(path)
