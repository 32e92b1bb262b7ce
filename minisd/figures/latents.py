"""The latent space in pictures: its channels, what the decoder gives back, and where it errs."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.figures.style import HOUSE, MAGNITUDE, SIGNED, Figure, blank, entitle, wrapped

SIDE = 2.1                                  # inches of one map
LEVELS = 127.5                              # grey levels per unit of a picture in [-1, 1]


@rc_context(HOUSE)
def posterior_maps(mean: Tensor, std: Tensor) -> Figure:
    """Both halves of an encoder's answer, (c, h, w) each: what it says, how sure it is of it.

    All channels of a row share one scale.
    """
    rows = [_arrays(mean), _arrays(std)]
    figure = blank(SIDE * len(mean) + 1.6, 2 * SIDE + 1.1)
    cells = figure.subplots(2, len(mean), squeeze=False)
    drawn = [[_map(axes, values, _limit(row), signed=signed)
              for axes, values in zip(cells[r], row, strict=True)]
             for r, (row, signed) in enumerate(zip(rows, (True, False), strict=True))]
    for c, axes in enumerate(cells[0]):
        axes.set_title(f"channel {c}", loc="center", fontsize=12, fontweight="normal")
    for row, axes, name in zip(drawn, cells, ("mean", "std"), strict=True):
        axes[0].set_ylabel(name, fontweight="bold")
        figure.colorbar(row[-1], ax=list(axes), shrink=0.85, label="z, no unit")
    spread = float(mean.float().std() / std.float().square().mean().sqrt())
    entitle(figure, f"The means differ {spread:.0f} times as much as the encoder is unsure of one "
                    f"of them" if spread >= 1.5 else
            f"The encoder is about as unsure of a mean as the means differ ({spread:.1f} : 1)")
    return figure


@rc_context(HOUSE)
def signed_maps(maps: Sequence[Tensor], labels: Sequence[str], title: str, *,
                unit: str = "no unit") -> Figure:
    """Maps (h, w) in a row on one scale with 0 in the middle: latents, noise, differences."""
    rows = _arrays(maps)
    figure = blank(SIDE * len(rows) + 1.6, SIDE + 1.1)
    cells = figure.subplots(1, len(rows), squeeze=False)[0]
    for axes, values, label in zip(cells, rows, labels, strict=True):
        drawn = _map(axes, values, _limit(rows), signed=True)
        axes.set_title(wrapped(label, SIDE), loc="center", fontsize=12, fontweight="normal")
    figure.colorbar(drawn, ax=list(cells), shrink=0.85, label=unit)
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def reconstruction(original: Tensor, decoded: Tensor) -> Figure:
    """A picture (1, 3, h, w) in [-1, 1], what came back of it, and the error of each pixel."""
    decoded = decoded.detach().float().cpu().clamp(-1, 1)
    original = original.detach().float().cpu()
    error = (decoded - original)[0].square().mean(0).sqrt() * LEVELS            # h w
    figure = blank(3 * 3 + 0.8, 4.2)
    cells = figure.subplots(1, 3)
    pictures = [images.to_pil(picture)[0] for picture in (original, decoded)]
    for axes, picture, label in zip(cells, pictures, ("original", "decoded"), strict=False):
        _picture(axes, picture)
        axes.set_title(label, loc="center", fontsize=13, fontweight="normal")
    drawn = _map(cells[2], error.numpy(), float(error.max()), signed=False)
    cells[2].set_title("difference", loc="center", fontsize=13, fontweight="normal")
    figure.colorbar(drawn, ax=cells[2], shrink=0.8, label="grey levels (0 to 255)")
    entitle(figure, f"{float(pictures.psnr(decoded, original)):.1f} dB: half of the squared error "
                    f"is in {100 * concentration(error):.1f} % of the pixels")
    return figure


def concentration(error: Tensor) -> float:
    """The smallest share of the pixels that holds half of the squared error; 1 without error."""
    squared = error.flatten().double().square().sort(descending=True).values
    if not squared.sum() > 0:
        return 1.0
    count = int((squared.cumsum(0) < squared.sum() / 2).sum()) + 1
    return count / len(squared)


def _arrays(maps: Sequence[Tensor] | Tensor) -> list[np.ndarray]:
    return [values.detach().float().cpu().numpy() for values in maps]


def _limit(maps: Sequence[np.ndarray]) -> float:
    """The end of the scale that they share; for maps of nothing but zeros, 1."""
    return max(float(np.abs(values).max()) for values in maps) or 1.0


def _map(axes: Axes, values: np.ndarray, limit: float, *, signed: bool) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    return axes.imshow(values, cmap=SIGNED if signed else MAGNITUDE, interpolation="nearest",
                       vmin=-limit if signed else 0, vmax=limit)


def _picture(axes: Axes, image: Image.Image) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.imshow(np.asarray(image), interpolation="lanczos")
