"""Attention in pictures: where the cells of a picture read a word, and what that reading does."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from minisd.figures.style import (
    COLOURS,
    HOUSE,
    INK,
    Figure,
    blank,
    entitle,
    percent,
    wrapped,
)

HEAT = "viridis"
DARK = 0.15                     # what is left of the light where a word is not read at all
MOST = 0.25                     # the share of cells that counts as "reads it most"
MARK = "#FFFFFF"


# Where a word is read

@rc_context(HOUSE)
def word_maps_sheet(picture: Image.Image, maps: Mapping[str, Tensor], title: str, *,
                    columns: int = 7, side: float = 1.35) -> Figure:
    """The picture, and beside it each map (h, w) of shares, on its own scale from 0 on."""
    rows = -(-(len(maps) + 1) // columns)
    figure = blank(side * columns + 0.2, (side + 0.5) * rows + 0.7)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.axis("off")
    _labelled(cells[0], np.asarray(picture.convert("RGB")), "the picture", side)
    for axes, (word, heat) in zip(cells[1:], maps.items(), strict=False):
        _labelled(axes, heat.float().cpu().numpy(), word, side, heat)
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def lit_pictures(picture: Image.Image, maps: Mapping[str, Tensor], title: str, *,
                 side: float = 1.7, marks: Sequence[tuple[int, int]] = ()) -> Figure:
    """The picture under each map (h, w) of shares, bright where the share is large.

    The brightest cell of every map is fully lit; below it stands what share that is. marks: one
    (row, column) for each map, framed.
    """
    if marks and len(marks) != len(maps):
        raise ValueError(f"{len(maps)} maps take as many marks or none, got {len(marks)}")
    figure = blank(side * len(maps) + 0.2, side + 1.3)
    cells = figure.subplots(1, len(maps), squeeze=False)[0]
    for i, (axes, (word, heat)) in enumerate(zip(cells, maps.items(), strict=True)):
        _labelled(axes, lit(picture, heat), word, side, heat)
        if marks:
            _frame(axes, marks[i], heat.shape, picture)
    entitle(figure, title)
    return figure


def _labelled(axes: Axes, pixels: np.ndarray, label: str, side: float,
              heat: Tensor | None = None) -> None:
    """A picture or a map, its label above, and below it the largest share."""
    axes.axis("on")
    _bare(axes)
    axes.imshow(pixels, cmap=HEAT, vmin=0, interpolation=None if pixels.ndim == 3 else "nearest")
    axes.set_title(wrapped(label, 1.4 * side), loc="center", fontsize=12)
    if heat is not None:
        axes.set_xlabel(f"at most {_share(float(heat.max()))}", fontsize=10, labelpad=2)


def lit(picture: Image.Image, heat: Tensor) -> np.ndarray:
    """The picture (h, w, 3), uint8, as bright as the map (h, w) says, relative to its maximum."""
    top = float(heat.max()) or 1.0
    light = F.interpolate((heat.float().cpu() / top).clamp(0, 1)[None, None],
                          (picture.height, picture.width), mode="bilinear")[0, 0]
    pixels = np.asarray(picture.convert("RGB"), float)
    return (pixels * (DARK + (1 - DARK) * light.numpy()[..., None])).round().astype(np.uint8)


def _frame(axes: Axes, mark: tuple[int, int], cells: Sequence[int], picture: Image.Image) -> None:
    high, wide = picture.height / cells[0], picture.width / cells[1]
    axes.add_patch(Rectangle((mark[1] * wide - 0.5, mark[0] * high - 0.5), wide, high, fill=False,
                             edgecolor=MARK, linewidth=2.5))


@rc_context(HOUSE)
def heat_grid(rows: Mapping[str, Sequence[Tensor]], columns: Sequence[str], title: str, *,
              side: float = 1.05) -> Figure:
    """Maps (h, w) in labelled rows and columns, each on its own scale from 0 to its maximum."""
    if any(len(maps) != len(columns) for maps in rows.values()):
        raise ValueError(f"every row needs {len(columns)} maps, one for a column, got "
                         f"{[len(maps) for maps in rows.values()]}")
    longest = max(map(len, rows))
    figure = blank(side * len(columns) + 0.11 * longest + 0.3, side * len(rows) + 0.9)
    cells = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (name, maps) in zip(cells, rows.items(), strict=True):
        for axes, heat in zip(line, maps, strict=True):
            _bare(axes)
            axes.imshow(heat.float().cpu().numpy(), cmap=HEAT, vmin=0, interpolation="nearest")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    for axes, name in zip(cells[0], columns, strict=True):
        axes.set_title(name, loc="center", fontsize=11.5, fontweight="normal")
    entitle(figure, title)
    return figure


# What the reading does

def change(before: Image.Image, after: Image.Image, size: tuple[int, int]) -> Tensor:
    """How far two pictures differ in each of (h, w) cells: the mean over pixels, grey levels."""
    a, b = (torch.from_numpy(np.asarray(p.convert("RGB"), np.float32)) for p in (before, after))
    return F.adaptive_avg_pool2d((a - b).abs().mean(-1)[None, None], size)[0, 0]


def inside_and_outside(values: Tensor, heat: Tensor) -> tuple[float, float]:
    """The mean of `values` in the quarter of the cells that has the most heat, and in the rest."""
    order = heat.flatten().argsort(descending=True)
    inside, outside = order.tensor_split([round(MOST * len(order))])
    flat = values.flatten().float()
    return float(flat[inside].mean()), float(flat[outside].mean())


@rc_context(HOUSE)
def removal(before: Image.Image, after: Image.Image, heat: Tensor, word: str) -> Figure:
    """A picture, where it reads a word, the same seed without that reading, the change.

    heat: (h, w), of the picture before.
    """
    moved = change(before, after, (heat.shape[0], heat.shape[1]))
    inside, outside = inside_and_outside(moved, heat)
    figure = blank(9.5, 3.3)
    panels = figure.subplots(1, 4)
    for axes, shown, label in zip(panels, (before, lit(before, heat), after, None), (
            "as it was", f"where “{word}” is read", f"“{word}” not read",
            "change, grey levels"), strict=True):
        _bare(axes)
        axes.set_title(label, loc="center", fontsize=12, fontweight="normal")
        if shown is not None:
            axes.imshow(np.asarray(shown))
    image = panels[-1].imshow(moved.numpy(), cmap="gray", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=panels[-1], shrink=0.75)
    entitle(figure, f"Without “{word}”, the quarter that reads it most changes by {inside:.1f} "
                    f"grey levels, the rest by {outside:.1f}")
    return figure


@rc_context(HOUSE)
def word_effects(words: Sequence[str], shares: Sequence[float], effects: Sequence[float]
                 ) -> Figure:
    """What each word takes of the attention, and how far the prediction moves without it.

    shares: 0 .. 1. effects: in units of all that the prompt changes in the prediction.
    """
    figure = blank(9, 0.3 * len(words) + 1.8)
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(range(len(words)), [100 * share for share in shares], color=COLOURS["text"])
    left.set_yticks(range(len(words)), words)
    left.invert_yaxis()
    left.set(xlabel="share of the attention, %")
    right.barh(range(len(words)), effects, color=COLOURS["noise"])
    right.axvline(1, color=INK, linewidth=1, linestyle=":")
    for axes in (left, right):
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    right.set(xlabel="change of eps without it\n(1: all that the prompt changes)")
    read, felt = int(np.argmax(shares)), int(np.argmax(effects))
    then = " and" if read == felt else f"; “{words[felt]}”"
    entitle(figure, f"“{words[read]}” is read most ({percent(shares[read])}){then} changes the "
                    f"prediction most ({effects[felt]:.2f})")
    return figure


@rc_context(HOUSE)
def scale_needed(widths: Sequence[int], plain: Sequence[float], scaled: Sequence[float],
                 keys: int) -> Figure:
    """The largest of a query's weights, on average, without the scale and with it."""
    figure = blank(7.5, 3.5)
    axes = figure.subplots()
    axes.plot(widths, [100 * w for w in plain], "o-", color=COLOURS["noise"],
              label="softmax(q k)")
    axes.plot(widths, [100 * w for w in scaled], "s-", color=COLOURS["text"],
              label="softmax(q k / √d)")
    axes.axhline(100 / keys, color=INK, linewidth=1, linestyle=":",
                 label=f"all {keys} keys alike")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(widths), [f"{width}" for width in widths])
    axes.set(xlabel="d, numbers in a query", ylabel="largest weight, %", ylim=(0, 105))
    axes.legend(fontsize=11)
    entitle(figure, f"At d = {widths[-1]}, one of {keys} random keys takes {percent(plain[-1])} "
                    f"without the scale, {percent(scaled[-1])} with it")
    return figure


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _share(value: float) -> str:
    """With a digit behind the point where it would be lost otherwise."""
    return percent(value) if value >= 0.1 else f"{100 * value:.1f} %"
