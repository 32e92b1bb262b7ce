"""Pictures of any kind, as a run takes them: files, PIL pictures of any mode, arrays, masks.

The book works on tensors (1, 3, h, w) in [-1, 1]; here everything else becomes one. PIL's many
modes become RGB, upright, on a background where they are transparent. torch is imported only where
tensors are made: a command that refuses its input need not wait for it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps

from minisd.config import Config
from minisd.settings import Run

if TYPE_CHECKING:
    from torch import Tensor

Picture = Image.Image | str | os.PathLike[str] | np.ndarray

# What Pillow decodes by itself; an EPS under another name would be handed to Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
MOST_PIXELS = 7168 * 7168       # of a picture that is unpacked; a small file can claim many more
WHITE_16 = 65535                # white in 16 bits
LARGEST_REFERENCE = 2           # reference pictures keep their size up to twice the model's


# For a run

def read(run: Run, config: Config) -> Run:
    """The run with its picture and mask as tensors, (1, 3, h, w) and (1, 1, h, w) bool.

    Their size is the run's; else the picture's own, up to twice the model's. The mask has the
    picture's size; grey counts as the nearer of black and white. Raises what `to_rgb` raises, and
    ValueError for a mask of another size.
    """
    import torch

    from minisd.tokenizer import warn

    if isinstance(run.image, torch.Tensor):
        height, width = size = tuple(run.image.shape[-2:])
    else:
        picture, factor = to_rgb(run.image), config.vae.downscale
        width, height = picture.size
        shrink = min(1.0, LARGEST_REFERENCE * config.image_size / max(height, width))
        own = [max(factor, int(side * shrink) // factor * factor) for side in (height, width)]
        size = run.height or own[0], run.width or own[1]
        run = replace(run, image=to_tensor(picture, size=size), height=size[0], width=size[1])
    if run.mask is None or isinstance(run.mask, torch.Tensor):
        return run
    drawn = read_mask(run.mask)
    if drawn.size != (width, height):
        raise ValueError(f"the mask is {drawn.width} x {drawn.height} pixels and the picture "
                         f"{width} x {height}: draw the mask in the picture's size")
    white = is_white(drawn, size)
    if white.all() or not white.any():
        warn("the mask repaints everything, all of it is white" if white.all() else
             "the mask repaints nothing, it has no white")
    return replace(run, mask=torch.from_numpy(white)[None, None])


def to_tensor(image: Picture, *, size: Sequence[int] | None = None) -> Tensor:
    """A picture of any kind (see `to_rgb`) -> (1, 3, h, w) float32 in [-1, 1].

    size: (height, width); the picture is cropped around its centre to that shape, then resized.
    """
    from minisd.images import from_pil

    picture = to_rgb(image)
    return from_pil(picture if size is None else _fitted(picture, size))


def read_mask(mask: Picture) -> Image.Image:
    """A mask as an RGB picture: a picture of any kind, or an array (h, w) of bool or uint8.

    What is transparent is black, not repainted. Raises ValueError for the values 0 and 1.
    """
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype in (np.uint8, bool):
        mask = Image.fromarray(mask.astype(np.uint8) * (255 if mask.dtype == bool else 1))
    drawn = to_rgb(mask, background="black")
    if max(high for _, high in drawn.getextrema()) == 1:        # type: ignore[misc]
        raise ValueError("the mask's values are 0 and 1, and white is 255: give it as an array of "
                         "bool, or multiply it by 255")
    return drawn


def is_white(drawn: Image.Image, size: Sequence[int] | None = None) -> np.ndarray:
    """Where a mask is nearer to white than to black, (h, w) bool; fitted to (height, width)."""
    return np.asarray(drawn if size is None else _fitted(drawn, size)).mean(-1) > 255 / 2


def paste(painted: Image.Image, image: Picture | Tensor, mask: Picture | Tensor) -> Image.Image:
    """What was painted where the mask is white, and elsewhere the picture's own pixels.

    The result has the picture's size: if a run fitted it to another one, what was painted is
    resized back. A border that was cropped stays as it was, with a warning where it is masked.
    """
    from torch import Tensor

    from minisd.images import to_pil
    from minisd.tokenizer import warn

    picture = to_pil(image)[0] if isinstance(image, Tensor) else to_rgb(image)
    white = mask[0, 0].bool().numpy() if isinstance(mask, Tensor) else is_white(read_mask(mask))
    if painted.size != picture.size:
        everywhere = Image.new("L", painted.size, "white")
        painted, reached = (ImageOps.pad(one, picture.size, Image.Resampling.LANCZOS)
                            for one in (painted, everywhere))
        if (white & ~(reached := np.asarray(reached) == 255)).any():
            warn(f"the picture of {picture.width} x {picture.height} pixels was cropped to be "
                 f"painted in {everywhere.width} x {everywhere.height}: its border was not painted")
        white = white & reached
    return Image.composite(painted, picture, Image.fromarray(white))


def _fitted(picture: Image.Image, size: Sequence[int]) -> Image.Image:
    """Cropped around the centre to the shape of (height, width), then resized."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is (height, width) in pixels, both positive, got {size}")
    return ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)


# From files, modes and arrays

def to_rgb(image: Picture, *, background: str = "white") -> Image.Image:
    """A picture of any kind as a new RGB picture: upright, on the background where transparent.

    image: PIL picture of any mode, path of a file, or (h, w, 3) uint8 array. Of an animated file
    the first frame is taken; of an open one, the frame it stands at. Raises FileNotFoundError
    where there is no such file, TypeError for other objects, ValueError for what is no whole
    picture, or too large.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected a picture as a uint8 array of shape (h, w, 3), got "
                             f"{image.dtype} {image.shape}: convert it first")
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return _convert(image, "the picture", background)
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"expected a PIL picture, a path or a uint8 array, got "
                        f"{type(image).__name__}")
    with opened(image) as file:
        return _convert(file, repr(os.fspath(image)), background)


def opened(path: str | os.PathLike[str]) -> Image.Image:
    """A picture file, opened and not unpacked yet. Raises what `to_rgb` raises for files."""
    name = repr(os.fspath(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"no picture at {name}: check the path")
    if not os.path.isfile(path):
        raise ValueError(f"{name} is not a file: expected a picture, such as a PNG or JPEG file")
    Image.init()                        # some formats come with later versions of Pillow only
    with _decoding(name):
        return Image.open(path, formats=[format for format in FORMATS if format in Image.OPEN])


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises over bytes it cannot read into one ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # "Truncated File Read": the error says more
            yield
    except Exception as error:
        reason = ("no known picture format" if isinstance(error, Image.UnidentifiedImageError)
                  else str(error) or type(error).__name__)
        raise ValueError(f"{name} cannot be read ({reason}): expected a whole picture, such as a "
                         f"PNG or JPEG file") from error


def _convert(image: Image.Image, name: str, background: str) -> Image.Image:
    """Any mode and orientation -> RGB, without tags: nobody turns it twice."""
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise ValueError(f"{name} is {image.width} x {image.height} pixels: expected at least one "
                         f"pixel, and at most {MOST_PIXELS:,}")
    with _decoding(name):
        image.load()
    with suppress(Exception):           # damaged tags are no reason to refuse whole pixels
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_grey_levels(image, 0 if background == "black" else WHITE_16))
    with _decoding(name):
        if image.has_transparency_data:
            straight = image.convert("LA") if image.mode == "La" else image
            behind = Image.new("RGBA", image.size, background)
            image = Image.alpha_composite(behind, straight.convert("RGBA"))
        picture = image.convert("RGB")
    picture.info = {}
    return picture


def _grey_levels(image: Image.Image, background: int) -> np.ndarray:
    """Modes with more than 8 bits (I;16, I, F) -> (h, w) uint8; Pillow itself would clip at 255.

    White is the smallest usual number that is enough: 1 (F only), 255 or 65535.
    """
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I;16"):
        usual: tuple[int, ...] = (WHITE_16,)
        if isinstance(transparent := image.info.get("transparency"), int):
            values[values == transparent] = background
    else:
        usual = (1, 255, WHITE_16) if image.mode == "F" else (255, WHITE_16)
    white = next((level for level in usual if values.max() <= level), None)
    if white is None or not np.isfinite(values).all():
        raise ValueError(f"a picture of mode {image.mode} with values up to {values.max():g}: "
                         f"expected finite grey levels of at most {WHITE_16}, scale it first")
    return (values.clip(min=0) * (255 / white)).round().astype(np.uint8)
