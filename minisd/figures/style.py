"""How every figure looks: colours, letters, titles; and how one is shown and saved.

One colour for one kind of thing (`COLOURS`), here, in the README and in the widgets. Figures are
plain `Figure` objects and never pyplot's, so drawing one in a callback or in the middle of a
training touches nothing global. A title states the finding, computed from the numbers shown.
"""

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.figure
from PIL import Image

from minisd.observe.files import written_whole
from minisd.observe.pictures import few_colours

# At least 3:1 on white, and told apart in every kind of colour blindness; a test computes both.
COLOURS = {"text": "#0356DC", "latent": "#9B4899", "noise": "#484848", "picture": "#0BA669",
           "time": "#D05B13"}

SIGNED, MAGNITUDE = "RdBu_r", "viridis"     # of maps: with 0 in the middle, from 0 upwards
INK, PALE = "#1A1A1A", 0.35     # of words and axes; the opacity of what lies behind
DPI = 100
LETTERS_PER_INCH = 7.2          # of a bold title; a caption has room for twice as many
HOUSE: dict[Any, Any] = {
    "font.size": 13, "axes.titlesize": 15, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "figure.titlesize": 16, "figure.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 2.5, "lines.markersize": 8, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False}


class Figure(matplotlib.figure.Figure):
    """A figure that Jupyter shows as it is, without pyplot and its backends."""

    def _repr_png_(self) -> bytes:
        """In few colours, so that a notebook full of pictures stays small."""
        drawn, file = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png")
        few_colours(Image.open(drawn)).save(file, "PNG", optimize=True)
        return file.getvalue()


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
    """Write a figure whole or not at all, in the format that the file's name says."""
    kind = path.suffix.lstrip(".")
    # Without the version that matplotlib adds, the same numbers give the same bytes.
    with written_whole(path) as part:
        figure.savefig(part, format=kind, metadata={"Software": None} if kind == "png" else None)


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def entitle(figure: Figure, title: str) -> None:
    """A title over the whole figure, in as many lines as its width asks for."""
    figure.suptitle(wrapped(title, figure.get_figwidth()), x=0.01, ha="left")


def wrapped(text: str, inches: float) -> str:
    """The text in even lines of at most that width; its own line breaks stay."""
    return "\n".join(_even(line, int(inches * LETTERS_PER_INCH)) for line in text.split("\n"))


def _even(line: str, letters: int) -> str:
    """As few lines as that width allows, and none of them much shorter than the others."""
    count, longest = len(textwrap.wrap(line, letters)), max(map(len, line.split()), default=1)
    while letters > longest and len(textwrap.wrap(line, letters - 1)) == count:
        letters -= 1
    return textwrap.fill(line, letters)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
