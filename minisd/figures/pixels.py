"""Numbers as pixels: maps in colours, pictures that are lit where a map is large."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minisd.figures.style import MAGNITUDE, SIGNED

DARK = 0.15                     # what is left of the light where a map is 0


def array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def largest(*maps: Tensor) -> float:
    """The largest size of a number in any of the maps; 1 if all are zero."""
    return max(float(values.abs().max()) for values in maps) or 1.0


def size(values: Tensor) -> float:
    """The root mean square."""
    return float(values.float().square().mean().sqrt())


def signed(values: Tensor, limit: float = 0.0) -> Image.Image:
    """A map (h, w), a pixel per cell: white at 0, red above, blue below, darkest at the limit.

    limit: the largest size of a value where it is 0.
    """
    return _coloured(array(values) / (2 * (limit or largest(values))) + 0.5, SIGNED)


def magnitude(values: Tensor, colours: str = MAGNITUDE) -> Image.Image:
    """A map (h, w) of numbers from 0 to its largest, a pixel per cell."""
    return _coloured(array(values) / largest(values), colours)


def _coloured(shares: np.ndarray, colours: str) -> Image.Image:
    levels = matplotlib.colormaps[colours](shares.clip(0, 1), bytes=True)
    return Image.fromarray(np.ascontiguousarray(levels[..., :3]))


def lit(picture: Image.Image, heat: Tensor) -> Image.Image:
    """The picture, as bright as the map (h, w) says, relative to its maximum."""
    light = F.interpolate((heat.float().cpu() / largest(heat)).clamp(0, 1)[None, None],
                          (picture.height, picture.width), mode="bilinear")[0, 0, ..., None]
    pixels = np.asarray(picture.convert("RGB"), float) * (DARK + (1 - DARK) * light.numpy())
    return Image.fromarray(pixels.round().astype(np.uint8))


def mosaic(channels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """(c, h, w) -> its channels in a near-square grid, one blank line (NaN) between them."""
    channels = np.asarray(channels)
    count, high, wide = channels.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (high + 1) - 1, columns * (wide + 1) - 1), np.nan)
    for i, channel in enumerate(channels):
        y, x = i // columns * (high + 1), i % columns * (wide + 1)
        sheet[y:y + high, x:x + wide] = channel
    return sheet
