"""Grids of pictures with their words."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from PIL import Image

from minisd.figures.style import HOUSE, Figure, blank, entitle, wrapped

HEAD = 1.3                      # letters of a column's label to those of a bold title
TITLE_LINE, HEAD_LINE, EDGE = 0.3, 0.22, 0.15       # inches of height


@rc_context(HOUSE)
def picture_grid(images: Sequence[Sequence[Image.Image]], row_labels: Sequence[str],
                 column_labels: Sequence[str], title: str, *, side: float = 1.5) -> Figure:
    """Rows of pictures, about `side` inches each, with labels at the left and on top."""
    rows, columns = len(images), max(len(row) for row in images)
    if len(row_labels) != rows or len(column_labels) not in (0, columns):
        raise ValueError(f"{rows} rows of {columns} pictures take as many labels, got "
                         f"{len(row_labels)} and {len(column_labels)}")
    width = side * columns + 0.8
    heads = [wrapped(label, HEAD * side) for label in column_labels]
    lines = 1 + wrapped(title, width).count("\n")
    over = max((1 + head.count("\n") for head in heads), default=0)
    figure = blank(width, side * rows + TITLE_LINE * lines + HEAD_LINE * over + EDGE)
    cells = figure.subplots(rows, columns, squeeze=False)
    for r, row in enumerate(images):
        for c in range(columns):
            _picture(cells[r, c], row[c] if c < len(row) else None)
        cells[r, 0].set_ylabel(row_labels[r], fontweight="bold")
    for axes, head in zip(cells[0], heads, strict=False):
        axes.set_title(head, loc="center", fontsize=12, fontweight="normal")
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def sample_sheet(images: Sequence[Image.Image], captions: Sequence[str], title: str, *,
                 columns: int = 8, side: float = 1.6) -> Figure:
    """Pictures, `side` inches each, with their captions below."""
    rows = -(-len(images) // columns)
    figure = blank(side * columns, (side + 0.5) * rows + 0.5)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    pictures = [*images, *[None] * (len(cells) - len(images))]
    for cell, image in zip(cells, pictures, strict=True):
        _picture(cell, image)
    for cell, caption in zip(cells, captions, strict=False):
        cell.set_xlabel(wrapped(caption, 1.8 * side), fontsize=8, labelpad=2)
    entitle(figure, title)
    return figure


def _picture(axes: Axes, image: Image.Image | None) -> None:
    """One picture without axes; an empty place for None."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if image is not None:
        axes.imshow(np.asarray(image.convert("RGB")), interpolation="lanczos")
