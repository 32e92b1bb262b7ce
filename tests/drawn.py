"""What the tests of figures ask of them: their title, and whether there is something on them."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minisd import figures


def title(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


def ink(figure: Figure, folder: Path) -> float:
    """The share of a drawn figure's pixels that are not white; drawing gives no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure, folder / "drawn.png")
    return float((np.asarray(Image.open(folder / "drawn.png").convert("L")) < 250).mean())


def photo(seed: int = 0, side: int = 16) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
