"""Text in pictures: tokens as chips, the 77 places of a prompt, vectors, attention, likeness."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.image import AxesImage
from matplotlib.patches import FancyBboxPatch, Patch
from PIL import Image
from torch import Tensor

from minisd.figures.style import COLOURS, HOUSE, INK, MAGNITUDE, SIGNED, Figure, blank, entitle
from minisd.observe.tokens import readable
from minisd.tokenizer import Encoded

STRETCH = 3.0                   # standard deviations at either end of that scale
# The places of a prompt by what stands there: words have the colour of text.
KINDS = {"start": "#10264F", "word": COLOURS["text"], "end": "#10264F", "padding": "#C9CDD6"}
LEGEND = {"start, end": KINDS["start"], "word": KINDS["word"], "padding": KINDS["padding"]}
FONT_HAS = 0x2000               # and below: what matplotlib's own font is sure to have
CORNER = "NW"                   # of cells that keep their shape: else the layout cuts labels off
UPRIGHT = 2                     # letters of a column's label that need not be slanted
LETTER, MARGIN, CHIP, LINE = 0.125, 0.2, 0.62, 0.8     # inches, of chips of tokens


def kinds(encoded: Encoded) -> list[str]:
    """What stands at each place: "start", "word", "end" or "padding"."""
    words = encoded.length - 2
    return ["start", *["word"] * words, "end", *["padding"] * (len(encoded.ids) - words - 2)]


# Tokens

@rc_context(HOUSE)
def token_chips(prompts: Mapping[str, Encoded], title: str, *, width: float = 11) -> Figure:
    """Each prompt's tokens from start to end, with their ids; the keys are the rows' labels.

    A label that has letters which matplotlib's font lacks is shown without them.
    """
    label = min(0.3 * width, max(0.11 * len(name) for name in prompts) + 0.2)
    lines = [(name if first else "", line) for name, one in prompts.items()
             for first, line in _lines(one, width - label)]
    figure = blank(width, LINE * len(lines) + 0.6)
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(-LINE * len(lines), 0))
    axes.axis("off")
    for row, (name, line) in enumerate(lines):
        y = -LINE * (row + 0.5)
        axes.text(0, y, name, va="center", fontweight="bold")
        x = label
        for text, number, kind in line:
            x = _chip(axes, x, y, text, number, kind)
    entitle(figure, title)
    return figure


def _lines(encoded: Encoded, room: float) -> list[tuple[bool, list[tuple[str, int, str]]]]:
    """The chips (text, id, kind) of one prompt, as many to a line as fit; whether it is first."""
    lines: list[tuple[bool, list[tuple[str, int, str]]]] = [(True, [])]
    left = room
    places = list(zip(encoded.tokens, encoded.ids, kinds(encoded), strict=True))
    for token, number, kind in places[:encoded.length]:
        chip = (readable(token, below=FONT_HAS), number, kind)
        need = _width(chip[0], number) + 0.06
        if need > left and lines[-1][1]:
            lines.append((False, []))
            left = room
        lines[-1][1].append(chip)
        left -= need
    return lines


def _width(text: str, number: int) -> float:
    return MARGIN + LETTER * max(len(text), 0.8 * len(str(number)), 2)


def _chip(axes: Axes, x: float, y: float, text: str, number: int, kind: str) -> float:
    """One token and its id; returns where the next chip begins."""
    wide = _width(text, number)
    axes.add_patch(FancyBboxPatch((x, y - CHIP / 2), wide, CHIP, facecolor=KINDS[kind],
                                  edgecolor="none",
                                  boxstyle="round,pad=0,rounding_size=0.1"))
    axes.text(x + wide / 2, y + 0.12, text, ha="center", va="center", color="white",
              fontweight="bold", fontsize=12)
    axes.text(x + wide / 2, y - 0.15, str(number), ha="center", va="center", color="white",
              fontsize=10)
    return x + wide + 0.06


@rc_context(HOUSE)
def token_places(prompts: Mapping[str, Encoded]) -> Figure:
    """What stands at each of the 77 places, one row for a prompt."""
    figure = blank(12, 0.5 * len(prompts) + 1.7)
    axes = figure.subplots()
    colours = np.array([[to_rgb(KINDS[kind]) for kind in kinds(one)] for one in prompts.values()])
    count = colours.shape[1]
    axes.imshow(colours, aspect="auto", interpolation="nearest",
                extent=(-0.5, count - 0.5, len(prompts) - 0.5, -0.5))
    axes.set_xticks(np.arange(count) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(prompts)) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(True, which="minor", color="white", linewidth=2, alpha=1)
    axes.tick_params(which="minor", length=0)
    axes.set_xticks([*range(0, count - 5, 10), count - 1])
    axes.set_yticks(range(len(prompts)), list(prompts), fontweight="bold")
    axes.set_xlabel("place")
    axes.spines[:].set_visible(False)
    _legend(figure)
    used = [one.length - 2 for one in prompts.values()]
    entitle(figure, f"{min(used)} tokens or {max(used)}: every prompt fills {count} places")
    return figure


def _legend(figure: Figure) -> None:
    figure.legend(handles=[Patch(facecolor=colour, label=kind) for kind, colour in LEGEND.items()],
                  loc="outside lower center", ncols=len(LEGEND))


# Vectors

@rc_context(HOUSE)
def vector_maps(maps: Mapping[str, Tensor], title: str) -> Figure:
    """Vectors (n, d), one row for a place, side by side; white is 0, red above, blue below."""
    figure = blank(3.9 * len(maps) + 0.8, 4.6)
    cells = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    for axes, (name, vectors) in zip(cells, maps.items(), strict=True):
        values = vectors.detach().float().cpu().numpy()
        top = STRETCH * float(values.std()) or 1.0
        shown = axes.imshow(values, cmap=SIGNED, vmin=-top, vmax=top, aspect="auto",
                            interpolation="nearest")
        axes.grid(False)
        axes.set(xlabel=f"component (d = {values.shape[1]})")
        axes.set_title(f"{name}, {values.shape[0]} x {values.shape[1]}", fontsize=13)
        figure.colorbar(shown, ax=axes, shrink=0.7)
    cells[0].set_ylabel("place")
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def place_bars(encoded: Encoded, values: Mapping[str, Tensor], ylabel: str, title: str) -> Figure:
    """One number for each of the 77 places, coloured by what stands there; a panel per key."""
    figure = blank(12, 1.9 * len(values) + 1.3)
    cells = figure.subplots(len(values), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    colours = [KINDS[kind] for kind in kinds(encoded)]
    for axes, (name, heights) in zip(cells, values.items(), strict=True):
        axes.bar(range(len(colours)), heights.detach().float().cpu().numpy(), color=colours)
        axes.set_title(name, fontsize=13, fontweight="normal")
        axes.set_xlim(-0.7, len(colours) - 0.3)
        axes.grid(axis="x", visible=False)
    cells[-1].set_xlabel("place")
    figure.supylabel(ylabel, fontsize=13)
    _legend(figure)
    entitle(figure, title)
    return figure


# Attention and likeness

@rc_context(HOUSE)
def labelled_matrix(values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, *,
           side: float = 0.52, digits: int | None = None, signed: bool = False,
           axes_labels: tuple[str, str] = ("", ""), ceiling: float | None = None) -> Figure:
    """A matrix (n, m) with its labels, `side` inches a cell; NaN is left white.

    digits: write each value with so many. signed: white at 0, red above, blue below. ceiling: the
    value with the strongest colour, by default the largest.
    """
    found = values.detach().float().cpu().numpy()
    if found.shape != (len(rows), len(columns)):
        raise ValueError(f"a matrix {found.shape} takes as many labels, got {len(rows)} and "
                         f"{len(columns)}")
    wide = side * len(columns) + 0.1 * max(map(len, rows)) + (1.4 if digits is None else 0.6)
    figure = blank(max(7.0, wide), side * len(rows) + 0.09 * max(map(len, columns)) + 1.2)
    axes = figure.subplots()
    top = ceiling or float(np.nanmax(np.abs(found)))
    shown = axes.imshow(found, cmap=SIGNED if signed else MAGNITUDE, vmin=-top if signed else 0,
                        vmax=top, interpolation="nearest")
    _numbers(axes, found, digits, shown)
    axes.grid(False)
    axes.set_yticks(range(len(rows)), rows)
    if max(map(len, columns)) > UPRIGHT:
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left")
    else:
        axes.set_xticks(range(len(columns)), columns)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(ylabel=axes_labels[0], xlabel=axes_labels[1], anchor=CORNER)
    figure.set_layout_engine("compressed")
    axes.spines[:].set_visible(False)
    if digits is None:
        figure.colorbar(shown, ax=axes, shrink=0.7)
    entitle(figure, title)
    return figure


def _numbers(axes: Axes, found: np.ndarray, digits: int | None, shown: AxesImage) -> None:
    """Each value in its cell, in the ink that can be read on it."""
    if digits is None:
        return
    for (row, column), value in np.ndenumerate(found):
        if np.isfinite(value):
            light = np.dot(shown.to_rgba(value)[:3], (0.2126, 0.7152, 0.0722))
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=10,
                      color=INK if light > 0.5 else "white")


@rc_context(HOUSE)
def likeness(values: Tensor, prompts: Sequence[str], pictures: Sequence[Image.Image]) -> Figure:
    """Cosine similarities (prompts, pictures), the pictures on top; row i belongs to picture i.

    The best picture of each row is framed.
    """
    found = values.detach().float().cpu().numpy()
    label = 0.09 * max(map(len, prompts))                   # inches
    figure = blank(0.95 * len(pictures) + label + 0.5, 0.6 * len(prompts) + 2.0)
    axes = figure.subplots()
    shown = axes.imshow(found, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest",
                        aspect=0.62)
    _numbers(axes, found, 2, shown)
    axes.grid(False)
    axes.set_yticks(range(len(prompts)), prompts, fontsize=10.5)
    axes.set(xticks=[], anchor=CORNER)
    figure.set_layout_engine("compressed")
    axes.spines[:].set_visible(False)
    for column, picture in enumerate(pictures):
        place = axes.inset_axes((column / len(pictures) + 0.005, 1.02, 0.99 / len(pictures),
                                 1.6 / len(prompts)))
        place.imshow(np.asarray(picture.convert("RGB")))
        place.axis("off")
    best = found.argmax(axis=1)
    for row, column in enumerate(best):
        axes.add_patch(FancyBboxPatch((column - 0.46, row - 0.46), 0.92, 0.92, fill=False,
                                      edgecolor=INK, linewidth=2.5, boxstyle="square,pad=0"))
    right = int((best == np.arange(len(best))).sum())
    entitle(figure, f"{right} of {len(prompts)} sentences are closest to their own picture")
    return figure


@rc_context(HOUSE)
def ranking(names: Sequence[str], values: Sequence[float], title: str, *,
            xlabel: str = "cosine similarity") -> Figure:
    """Horizontal bars, in the order given, with their values."""
    figure = blank(10.5, 0.42 * len(names) + 1.4)
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=COLOURS["text"])
    digits = 3 if max(values) < 10 else 1
    for y, value in enumerate(values):
        axes.text(max(value, 0), y, f" {value:.{digits}f}", va="center", fontsize=11.5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=xlabel, xlim=(1.05 * min(0.0, *values), 1.12 * max(values)))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    entitle(figure, title)
    return figure


# The activation

@rc_context(HOUSE)
def activations(x: Tensor, curves: Mapping[str, Tensor]) -> Figure:
    """Two functions of x, (n,), and how far the first is from the second."""
    (first, a), (second, b) = curves.items()
    figure = blank(11, 3.9)
    left, right = figure.subplots(1, 2)
    left.plot(x, a, color=COLOURS["text"], label=first)
    left.plot(x, b, color=INK, linestyle="--", label=second)
    left.set(xlabel="x", ylabel="activation")
    left.legend()
    gap = (a - b).detach()
    right.plot(x, gap, color=COLOURS["noise"])
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(xlabel="x", ylabel=f"{first} - {second}")
    worst = int(gap.abs().argmax())
    entitle(figure, f"{first} is never more than {gap.abs().max():.3f} away from {second} "
                    f"(at x = {x[worst]:.2f})")
    return figure
