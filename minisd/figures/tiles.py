"""Sheets of pictures, maps and words in rows and columns, each as large as the page allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from minisd.figures import style
from minisd.figures.pixels import array, mosaic
from minisd.figures.style import COLOURS, INK, SMALL, WIDE, Figure, blank, house, wrapped

LARGEST = 3.2                   # inches of one picture, where the page would allow more
STRETCH = 3.0                   # standard deviations at either end of a station's colours
STRIP = 15                      # ids that are shown; the others are counted
LABEL, CAPTION = 40, 200        # letters of a row's label, of a tile's
ACROSS = 8                      # pictures in a row of a sheet of samples


@dataclass(frozen=True)
class Tile:
    """One place of a sheet."""

    value: Tensor | Image.Image | str | None    # None: empty
    label: str = ""             # above
    note: str = ""              # below
    kind: str = ""              # "text", "latent", "noise", "picture" or "time": its frame's colour
    mark: tuple[int, int] | None = None         # row and column of a cell that is framed


Cells = Sequence[Tile]


def picture_grid(images: Sequence[Sequence[Image.Image | None]], row_labels: Sequence[str],
                 column_labels: Sequence[str], title: str, *, side: float = LARGEST) -> Figure:
    """Rows of pictures of at most `side` inches, with labels at the left and on top."""
    return tiles([(name, [Tile(image) for image in row]) for name, row in
                  zip(row_labels, images, strict=True)], title, heads=column_labels, side=side)


def sample_sheet(images: Sequence[Image.Image], captions: Sequence[str], title: str) -> Figure:
    """Pictures in rows, with their captions below."""
    every = [Tile(image, note=text) for image, text in zip(images, captions, strict=True)]
    return tiles([("", every[i:i + ACROSS]) for i in range(0, len(every), ACROSS)], title)


def maps(rows: Mapping[str, Sequence[Tensor | Image.Image | Tile | None]], columns: Sequence[str],
         title: str, *, signed: bool = False, scale: str = "each", unit: str = "",
         side: float = LARGEST) -> Figure:
    """Maps (h, w), or channels (c, h, w), and pictures in labelled rows and columns.

    signed: white at 0, red above, blue below; else from 0 upwards. scale: "each" map its own, with
    the largest value below it; "row" or "all" share one, with a bar of colours for the unit.
    Raises ValueError for rows that are longer than the labels, or another scale.
    """
    if scale not in ("each", "row", "all") or any(len(row) > len(columns) for row in rows.values()):
        raise ValueError(f"expected scale 'each', 'row' or 'all' and at most {len(columns)} maps "
                         f"in a row, got {scale!r} and {[len(row) for row in rows.values()]}")
    return tiles([(name, [cell if isinstance(cell, Tile) else Tile(cell) for cell in row])
                  for name, row in rows.items()], title, heads=columns, signed=signed, scale=scale,
                 unit=unit, side=side)


def stations(rows: Mapping[str, Cells], title: str) -> Figure:
    """Real values on the way from prompt to picture, numbered in the order they are made.

    A tensor (1, n) of ids is shown as numbers, (1, n, d) a map, (1, c, h, w) its c channels;
    maps are white at 0, red above, blue below. rows: by what the row shows.
    """
    number = count(1)
    return tiles([(name, [replace(
        tile, label=f"{next(number)}  {tile.label}", note=tile.note or (
            " x ".join(map(str, tile.value.shape)) if isinstance(tile.value, Tensor) else ""))
        for tile in row]) for name, row in rows.items()], title, signed=True, scale="spread")


@house()
def tiles(rows: Sequence[tuple[str, Cells]], title: str, *, heads: Sequence[str] = (),
          signed: bool = False, scale: str = "each", unit: str = "", side: float = LARGEST
          ) -> Figure:
    """The sheet under all of these; each tile is as large as the page's width allows."""
    most = max(len(row) for _, row in rows)
    if heads:                   # over the first row
        (name, first), *others = rows
        rows = [(name, [replace(tile, label=tile.label or head) for tile, head in
                        zip(first, heads, strict=False)]), *others]
    names = ["\n".join(wrapped(name, 1.6, style.HEAD, LABEL).split("\n")[:4]) for name, _ in rows]
    letter = style.EM * style.HEAD / 72
    beside = letter * max(len(line) for name in names for line in name.split("\n"))
    bar = 1.0 if scale in ("row", "all") else 0.0
    side = min(side, (WIDE - beside - bar - 0.4) / most)
    heights = [side + 0.12 + 0.21 * (_lines([tile.label for tile in row], side) + max(
        _lines([tile.note for tile in row], side), scale == "each" and any(map(_is_map, row))))
               for _, row in rows]
    width = max(beside + bar + 0.4 + side * most, min(7.0, 1.5 * letter * len(title)))
    figure = blank(sum(heights) + 0.29 * style.title_lines(title, width) + 0.15, width)
    cells = figure.subplots(len(rows), most, squeeze=False, height_ratios=heights)
    every = [tile for _, row in rows for tile in row]
    for r, (line, (_, row), name) in enumerate(zip(cells, rows, names, strict=True), start=1):
        share = {"row": list(row), "all": every}.get(scale, [])
        drawn = None
        for axes, tile in zip(line, [*row, *[Tile(None)] * (most - len(row))], strict=True):
            drawn = _draw(axes, tile, side, signed, scale, share) or drawn
        style.embolden(line[0].set_ylabel(name, rotation=0, ha="right", va="center"))
        if bar and drawn is not None and (scale == "row" or r == len(rows)):
            beside_it = line if scale == "row" else cells
            figure.colorbar(drawn, ax=list(beside_it.flat), label=style.printable(unit), shrink=0.8,
                            aspect=14 * len(beside_it) if scale == "all" else 14,
                            format="{x:.3g}").outline.set(visible=False)
    style.entitle(figure, title)
    return figure


def _lines(texts: Sequence[str], side: float) -> int:
    """How many lines the longest of these texts takes above or below a tile."""
    return max((1 + wrapped(text, side, SMALL, CAPTION).count("\n") for text in texts if text),
               default=0)


def _draw(axes: Axes, tile: Tile, side: float, signed: bool, scale: str, shared: Cells
          ) -> AxesImage | None:
    """One tile; returns what a bar of colours belongs to."""
    value, note, image = tile.value, tile.note, None
    style.bare(axes)
    axes.set_title(wrapped(tile.label, side, SMALL, CAPTION), loc="center", fontsize=SMALL, pad=4)
    if isinstance(value, Image.Image):
        axes.imshow(np.asarray(value.convert("RGB")), interpolation="lanczos")
    elif isinstance(value, Tensor) and _is_map(tile):
        values = _flat(value)
        limit = max(float(np.nanmax(np.abs(_flat(other.value)))) for other in shared or [tile]
                    if isinstance(other.value, Tensor) and _is_map(other)) or 1.0
        if scale == "each":
            share = not signed and limit <= 1           # of attention
            note = note or f"at most {style.percent(limit) if share else f'{limit:.3g}'}"
        if scale == "spread":
            limit = STRETCH * float(np.nanstd(values)) or 1.0
        image = axes.imshow(values, cmap=style.SIGNED if signed else style.MAGNITUDE, vmax=limit,
                            vmin=-limit if signed else 0, interpolation="nearest",
                            aspect="auto" if scale == "spread" else "equal")
        if tile.mark is not None:
            axes.add_patch(Rectangle((tile.mark[1] - 0.5, tile.mark[0] - 0.5), 1, 1, fill=False,
                                     edgecolor=INK, linewidth=2))
    elif value is not None:
        text = value if isinstance(value, str) else (
            f"{', '.join(map(str, value[0, :STRIP].tolist()))}, ...\n{value.shape[1]} in all")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.text(0.5, 0.5, wrapped(text, side - 0.2, SMALL + 1), ha="center", va="center",
                  fontsize=SMALL + 1, linespacing=1.45)
    if tile.kind:
        axes.set(box_aspect=1)
        axes.spines[:].set(visible=True, color=COLOURS[tile.kind], linewidth=2.5)
        axes.title.set_color(COLOURS[tile.kind])
    axes.set_xlabel(wrapped(note, side, SMALL, CAPTION), fontsize=SMALL, labelpad=3)
    return image


def _is_map(tile: Tile) -> bool:
    """Numbers, but for a strip of ids."""
    value = tile.value
    return isinstance(value, Tensor) and (value.is_floating_point() or len(value) > 1)


def _flat(value: Tensor) -> np.ndarray:
    """A map: channels side by side, without the batch."""
    values = array(value)
    if values.ndim == 4 or (values.ndim == 3 and len(values) == 1):
        values = values[0]
    return mosaic(values) if values.ndim == 3 else values
