"""Pictures beside each other, compared, counted and made small."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:                   # a command that refuses its input need not wait for torch
    from torch import Tensor

DRAWN = 4096                    # colours at most in a drawing; pictures have more


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (b,), for pictures in [-1, 1]."""
    mse = (a.clamp(-1, 1) - b).square().flatten(1).mean(1) / 4
    return -10 * mse.clamp_min(1e-10).log10()


def grid(images: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures of one size, row by row on white, `gap` pixels apart."""
    sizes = {image.size for image in images}
    if len(sizes) != 1 or columns < 1:
        raise ValueError(f"a grid takes pictures of one size and at least one column, got "
                         f"{columns} column(s) and the sizes {sorted(sizes)}")
    width, height = sizes.pop()
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def few_colours(image: Image.Image) -> Image.Image:
    """In 256 colours, for half of a PNG file's bytes or less, and hardly to be seen.

    Pictures are dithered; drawings, most of whose colours are the soft edges of lines, are not.
    """
    picture = image.convert("RGB")
    if picture.getcolors(DRAWN) is not None:
        return picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette = picture.quantize(256, Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def pixel_sha256(image: Image.Image) -> str:
    """SHA-256 of the RGB bytes, row by row: names a picture whatever file it came from."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
