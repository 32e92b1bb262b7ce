"""Pictures of any kind, as a run takes them: files, PIL pictures of any mode, arrays, masks.

The book works on tensors (1, 3, h, w) in [-1, 1]; here everything else becomes one. PIL's many
modes become RGB, upright, on a background where they are transparent.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from minisd.config import Config
from minisd.images import from_pil
from minisd.settings import Run
from minisd.tokenizer import warn

Picture = Image.Image | str | os.PathLike[str] | np.ndarray

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # no programs
MOST_PIXELS = 50_000_000        # of a picture that is opened; a small file can hold many more
WHITE_16 = 65535                # white in 16 bits
LARGEST_REFERENCE = 2           # reference pictures keep their size up to twice the model's


def to_tensor(image: Picture, *, size: Sequence[int] | None = None) -> Tensor:
    """A picture of any kind (see `to_rgb`) -> (1, 3, h, w) float32 in [-1, 1].

    size: (height, width); the picture is cropped around its centre to that shape, then resized.
    """
    picture = to_rgb(image)
    if size is not None:
        height, width = size
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return from_pil(picture)


def read(run: Run, config: Config) -> Run:
    """The run with its picture and mask as tensors, (1, 3, h, w) and (1, 1, h, w) bool.

    Their size is the run's; else the picture's own, up to twice the model's. The mask has the
    picture's size; grey counts as the nearer of black and white. Raises what `to_rgb` raises, and
    ValueError for a mask of another size.
    """
    picture, factor = to_rgb(run.image), config.vae.downscale
    shrink = min(1.0, LARGEST_REFERENCE * config.image_size / max(picture.size))
    own = [max(factor, int(side * shrink) // factor * factor) for side in picture.size]
    size = run.height or own[1], run.width or own[0]
    run = replace(run, image=to_tensor(picture, size=size), height=size[0], width=size[1])
    if run.mask is None:
        return run
    drawn = read_mask(run.mask)
    if drawn.size != picture.size:
        raise ValueError(f"the mask is {drawn.width} x {drawn.height} pixels and the picture "
                         f"{picture.width} x {picture.height}: draw the mask in the picture's size")
    inside = to_tensor(drawn, size=size).mean(1, keepdim=True) > 0
    if inside.all() or not inside.any():
        warn("the mask repaints " + ("everything" if inside.all() else "nothing, it has no white"))
    return replace(run, mask=inside)


def read_mask(mask: Picture) -> Image.Image:
    """A mask as an RGB picture: a picture of any kind, or an array (h, w) of bool or uint8."""
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype in (np.uint8, bool):
        if mask.dtype == np.uint8 and mask.max(initial=0) == 1:
            raise ValueError("the mask's values are 0 and 1, and white is 255: give it as an array "
                             "of bool, or multiply it by 255")
        mask = Image.fromarray(mask.astype(np.uint8) * (255 if mask.dtype == bool else 1))
    return to_rgb(mask, background="black")


def paste(painted: Image.Image, image: Picture, mask: Picture) -> Image.Image:
    """What was painted under the mask, and outside it the picture's own pixels."""
    fitted, inside = (ImageOps.fit(one, painted.size, Image.Resampling.LANCZOS)
                      for one in (to_rgb(image), read_mask(mask)))
    return Image.composite(painted, fitted, inside.convert("L").point(lambda v: 255 * (v > 127)))


def to_rgb(image: Picture, *, background: str = "white") -> Image.Image:
    """A picture of any kind as a new RGB picture: upright, on the background where transparent.

    image: PIL picture of any mode, path of a file, or (h, w, 3) uint8 array. Of an animated file
    the first frame is taken. Raises FileNotFoundError where there is no such file, TypeError for
    other objects, ValueError for what is no whole picture.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected a picture as a uint8 array of shape (h, w, 3), got "
                             f"{image.dtype} {image.shape}: convert it first")
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return _convert(image, background)
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"expected a PIL picture, path or array, got {type(image).__name__}")
    if not os.path.isfile(image):
        raise FileNotFoundError(f"no picture at {os.fspath(image)!r}: check the path")
    try:
        with Image.open(image, formats=FORMATS) as opened:
            return _convert(opened, background)
    except Exception as error:                              # a damaged file can raise anything
        raise ValueError(f"{os.fspath(image)!r} cannot be read ({error}): expected a whole "
                         f"picture, such as a PNG or JPEG file") from error


def _convert(image: Image.Image, background: str) -> Image.Image:
    """Any mode and orientation -> RGB, without tags."""
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise ValueError(f"the picture is {image.width} x {image.height} pixels: expected at least "
                         f"one, and at most {MOST_PIXELS:,} in all")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_grey_levels(np.asarray(image).astype(np.float32), image.mode))
    elif image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        behind = Image.new("RGBA", image.size, background)
        image = Image.alpha_composite(behind, straight.convert("RGBA"))
    return Image.fromarray(np.asarray(image.convert("RGB")))


def _grey_levels(values: np.ndarray, mode: str) -> np.ndarray:
    """Modes with more than 8 bits -> uint8; white is the smallest usual number that is enough."""
    whites = [white for white in ((WHITE_16,) if mode.startswith("I;16") else (1, 255, WHITE_16))
              if values.max() <= white and (white > 1 or mode == "F")]
    if not np.isfinite(values).all() or not whites:
        raise ValueError(f"a picture of mode {mode} with values up to {values.max():g}: expected "
                         f"finite grey levels of at most {WHITE_16}, scale it first")
    return (values.clip(min=0) * (255 / whites[0])).round().astype(np.uint8)
