"""Pictures in and out: files and PIL pictures of any mode to tensors and back, grids, metadata.

Inside the package a picture is a tensor (b, 3, h, w) in [-1, 1]; outside it is a PIL picture or a
PNG file that carries what it was made of. torch is imported only where a tensor is made, so that
the command line can refuse a bad picture without waiting for it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

Picture = Image.Image | str | os.PathLike[str] | np.ndarray

# How to turn a picture upright, by its EXIF orientation (Exif 2.3, tag 0x0112); 1 is upright.
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
           4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
           6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
WHITE_16 = 65535                # white in 16 bits


# Tensors to pictures

def to_pil(images: Tensor) -> list[Image.Image]:
    """(b, 3, h, w), about [-1, 1] -> b RGB pictures; clamped and rounded only here.

    Raises ValueError for another shape, and for NaN, which would turn black without a word.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"expected pictures of shape (b, 3, h, w), got {tuple(images.shape)}")
    pixels = images.detach().float().cpu()
    if pixels.isnan().any():
        raise ValueError("the pictures contain NaN: look for the first step whose latents do, and "
                         "try dtype='float32'")
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(x) for x in levels.permute(0, 2, 3, 1).contiguous().numpy()]


# Pictures to tensors

def from_pil(image: Picture, *, size: tuple[int, int] | None = None) -> Tensor:
    """A picture of any kind -> (1, 3, h, w) float32 in [-1, 1].

    image: PIL picture of any mode, path of a file, or (h, w, 3) uint8 array; see `to_rgb`.
    size: (height, width); the picture is cropped around its centre to that shape, then resized.
    Raises what `to_rgb` raises.
    """
    import torch

    picture = to_rgb(image)
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size is (height, width) in pixels, both positive, got {size}")
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]         # 1 3 h w
    return pixels.float().contiguous() / 127.5 - 1


def to_rgb(image: Picture) -> Image.Image:
    """A picture of any kind as a new RGB picture: upright, on white where it is transparent.

    Of an animated file the first frame is taken; of an open picture, the frame it stands at.
    Raises FileNotFoundError where there is no such file, ValueError for what is no whole picture
    (zero-size, truncated, too large to unpack safely), TypeError for other kinds of objects.
    """
    if isinstance(image, Image.Image):
        return _convert(image, "the picture")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected a picture as a uint8 array of shape (h, w, 3), got "
                             f"{image.dtype} {image.shape}: convert it first")
        return Image.fromarray(image)
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"expected a PIL picture, a path or a uint8 array, got "
                        f"{type(image).__name__}")
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"no picture at {str(path)!r}: check the path")
    if not path.is_file() or path.stat().st_size == 0:
        what = "is an empty file" if path.is_file() else "is not a file"
        raise ValueError(f"{str(path)!r} {what}: expected a picture, such as a PNG or JPEG file")
    with _decoding(repr(str(path))):
        opened = Image.open(path)
    with opened:
        return _convert(opened, repr(str(path)))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises over bytes it cannot read into one ValueError."""
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # "Truncated File Read": the error says more
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except bombs as error:
        raise ValueError(f"{name} is too large to unpack safely ({error}): "
                         f"make it smaller first") from error
    except Exception as error:      # a damaged file can make a decoder raise anything
        reason = ("no known picture format" if isinstance(error, Image.UnidentifiedImageError)
                  else str(error) or type(error).__name__)
        raise ValueError(f"{name} cannot be read ({reason}): expected a whole picture, such as "
                         f"a PNG or JPEG file") from error


def _convert(image: Image.Image, name: str) -> Image.Image:
    """Any mode and orientation -> RGB."""
    if 0 in image.size:
        raise ValueError(f"{name} is {image.width} x {image.height} pixels: expected at least "
                         f"one pixel")
    with _decoding(name):
        image.load()
        orientation = _orientation(image)
    if image.mode.startswith(("I", "F")):
        picture = Image.fromarray(_grey_levels(image)).convert("RGB")
    else:
        with _decoding(name):
            picture = _on_white(image) if image.has_transparency_data else image.convert("RGB")
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    return Image.fromarray(np.asarray(picture))     # drops the tags: nobody turns it twice


def _on_white(image: Image.Image) -> Image.Image:
    """Whatever can be transparent (RGBA, LA, PA, P, premultiplied, a transparent colour)."""
    straight = image.convert("LA") if image.mode == "La" else image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, straight.convert("RGBA")).convert("RGB")


def _grey_levels(image: Image.Image) -> np.ndarray:
    """Modes with more than 8 bits (I;16, I, F) -> (h, w) uint8; Pillow itself would clip at 255.

    I and F do not say which number is white; the smallest usual one that is large enough does:
    1 (F only), 255 or 65535.
    """
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all() or values.max() > WHITE_16:
        raise ValueError(f"a picture of mode {image.mode} with values up to {values.max():g}: "
                         f"expected finite grey levels of at most {WHITE_16}, scale it first")
    if image.mode.startswith("I;16"):
        white = WHITE_16
        if isinstance(transparent := image.info.get("transparency"), int):
            values = np.where(values == transparent, WHITE_16, values)
    else:
        candidates = (1, 255, WHITE_16) if image.mode == "F" else (255, WHITE_16)
        white = next(level for level in candidates if values.max() <= level)
    return (values.clip(min=0) * (255 / white)).round().astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:               # damaged EXIF data is no reason to refuse whole pixels
        return 1


# Files


