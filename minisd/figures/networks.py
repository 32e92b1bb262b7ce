"""The three networks and what passes between them: real tensors, parameters, layers.

A part has the colour of what it works on: words, noise, latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from minisd.figures.style import COLOURS, HOUSE, INK, SIGNED, Figure, blank, entitle, percent
from minisd.observe.summary import HALVES, Summary

SHOWS = {"text_encoder": "text", "unet": "noise", "encoder": "latent", "decoder": "latent"}
PALE_PART = "encoder"           # told apart from the decoder, whose colour it has
STRETCH = 3.0                   # standard deviations at either end of that scale
STRIP = (6, 4)                  # rows and columns of a strip of ids; the others are counted
SHARE_SHOWN = 0.075             # a part with less of the parameters has no room for its number


# What passes by

@dataclass(frozen=True)
class Station:
    """One thing on the way from prompt to picture."""

    name: str
    kind: str                   # "text", "latent", "noise", "picture" or "time": its colour
    value: Tensor | Image.Image | str
    note: str = ""              # below; the shape, where this is a tensor and the note is empty


@rc_context(HOUSE)
def stations(rows: Mapping[str, Sequence[Station]], title: str, *, side: float = 2.4) -> Figure:
    """Real values at each station, numbered in the order in which they are made.

    A tensor (1, n) of ids is a strip of numbers, (1, n, d) a map, (1, c, h, w) its c channels;
    maps are white at 0, red above, blue below. rows: by what the row shows.
    """
    columns = max(map(len, rows.values()))
    figure = blank(side * columns + 0.4, (side + 0.65) * len(rows) + 0.5)
    cells, number = figure.subplots(len(rows), columns, squeeze=False), 0
    for line, (label, row) in zip(cells, rows.items(), strict=True):
        for cell, station in zip(line, row, strict=False):
            number += 1
            _station(cell, number, station)
        for cell in line[len(row):]:
            cell.axis("off")
        line[0].set_ylabel(label, fontweight="bold", fontsize=13)
    entitle(figure, title)
    return figure


def _station(axes: Axes, number: int, station: Station) -> None:
    value, note = station.value, station.note
    axes.set(xticks=[], yticks=[], box_aspect=1)
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(COLOURS[station.kind])
    axes.spines[:].set_linewidth(2.5)
    axes.set_title(f"{number}  {station.name}", fontsize=13, color=COLOURS[station.kind])
    if isinstance(value, Tensor):
        note = note or " x ".join(map(str, value.shape))
        _values(axes, value.detach().float().cpu().numpy())
    elif isinstance(value, Image.Image):
        axes.imshow(np.asarray(value.convert("RGB")), interpolation="lanczos")
    else:
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.text(0.5, 0.5, value, ha="center", va="center", fontsize=12.5, linespacing=1.5)
    axes.set_xlabel(note, fontsize=12)


def _values(axes: Axes, value: np.ndarray) -> None:
    """A batch of one: ids, vectors or channels."""
    if value.ndim == 2:
        _strip(axes, value[0])
        return
    shown = value[0] if value.ndim == 3 else mosaic(value[0])
    top = STRETCH * float(np.nanstd(shown)) or 1.0
    axes.imshow(shown, cmap=SIGNED, vmin=-top, vmax=top, interpolation="nearest", aspect="auto")


def _strip(axes: Axes, ids: np.ndarray) -> None:
    """The first ids as digits in rows, as many as can be read."""
    wide, shown = STRIP[1], ids[:STRIP[0] * STRIP[1]]
    digits = len(str(int(ids.max())))
    rows = [" ".join(f"{int(i):>{digits}}" for i in shown[at:at + wide])
            for at in range(0, len(shown), wide)]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.5, 0.5, "\n".join([*rows, f"... {len(ids)} in all"]), ha="center", va="center",
              fontsize=10, family="monospace", linespacing=1.45)


def mosaic(channels: np.ndarray) -> np.ndarray:
    """(c, h, w) -> its channels in a near-square grid, one blank line (NaN) between them."""
    count, high, wide = channels.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (high + 1) - 1, columns * (wide + 1) - 1), np.nan)
    for i, channel in enumerate(channels):
        y, x = i // columns * (high + 1), i % columns * (wide + 1)
        sheet[y:y + high, x:x + wide] = channel
    return sheet


# What the networks are made of

@rc_context(HOUSE)
def parameter_bars(models: Mapping[str, Summary]) -> Figure:
    """How each model's parameters are shared out between its parts, one bar for a model."""
    figure = blank(11, 1.1 * len(models) + 2.1)
    axes = figure.subplots()
    for y, content in enumerate(models.values()):
        left = 0.0
        for name, count in _apart(content).items():
            share = count / content.parameters
            axes.barh(y, share, left=left, height=0.62, edgecolor="white", **_look(name),
                      label=name if y == 0 else None)
            if share >= SHARE_SHOWN:
                axes.text(left + share / 2, y, _short(count).replace(" ", "\n"), ha="center",
                          va="center", fontsize=11.5, fontweight="bold",
                          color=INK if name == PALE_PART else "white")
            left += share
    axes.set_yticks(range(len(models)), [f"{name}\n{_short(content.parameters)}"
                                         for name, content in models.items()], fontweight="bold")
    axes.set(xlim=(0, 1), xlabel="share of the parameters")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=4)
    entitle(figure, "The UNet holds " + " and ".join(
        f"{percent(content.parts['unet'].parameters / content.parameters)} of {name}"
        for name, content in models.items()))
    return figure


@rc_context(HOUSE)
def array_sizes(content: Summary) -> Figure:
    """Every single array of a model as a bar, in the order of the model; the largest is named."""
    figure = blank(11, 4.2)
    axes = figure.subplots()
    sizes = [array.parameters for array in content.arrays]
    names = [_part(content, array.name) for array in content.arrays]
    for part in dict.fromkeys(names):
        at = [i for i, name in enumerate(names) if name == part]
        axes.bar(at, [sizes[i] for i in at], width=1.0, label=f"{part} ({len(at):,} arrays)",
                 **_look(part))
    largest = content.arrays[int(np.argmax(sizes))]
    axes.set(yscale="log", ylim=(1, 6 * max(sizes)), xlim=(-1, len(sizes)),
             xlabel="arrays, in the order of the model", ylabel="parameters (log scale)")
    figure.legend(loc="outside lower center", ncols=4, fontsize=11)
    rest = len(sizes) - sum(np.cumsum(sorted(sizes, reverse=True)) < 0.5 * sum(sizes)) - 1
    entitle(figure, f"The largest of {len(sizes):,} arrays is {largest.name} with "
                    f"{largest.parameters:,}; the {rest:,} smallest together hold less than half")
    return figure


@rc_context(HOUSE)
def layer_counts(content: Summary) -> Figure:
    """How many layers of each type each part has."""
    parts = [name for name in content.parts if name in _apart(content)]
    kinds = list(content.layers)
    figure = blank(11, 0.36 * len(kinds) + 1.6)
    axes = figure.subplots()
    left = np.zeros(len(kinds))
    for name in parts:
        counts = np.array([content.parts[name].layers.get(kind, 0) for kind in kinds])
        axes.barh(kinds, counts, left=left, label=name, edgecolor="white", **_look(name))
        left += counts
    for y, total in enumerate(left):
        axes.text(total, y, f" {total:.0f}", va="center", fontsize=11.5)
    axes.invert_yaxis()
    axes.set(xlabel="layers", xlim=(0, 1.08 * left.max()))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right")
    most = kinds[int(left.argmax())]
    entitle(figure, f"{most} is the most frequent of {len(kinds)} kinds of layer: "
                    f"{left.max():.0f} of them")
    return figure


def _look(part: str) -> dict[str, Any]:
    """The colour of a part; the VAE's encoder is a paler decoder."""
    return {"color": COLOURS[SHOWS.get(part, "time")], "alpha": 0.55 if part == PALE_PART else 1}


def _apart(content: Summary) -> dict[str, int]:
    """Parameters of the parts that are not split further."""
    split = {part.inside for part in content.parts.values()}
    return {name: part.parameters for name, part in content.parts.items() if name not in split}


def _part(content: Summary, array: str) -> str:
    """The part that an array belongs to, by its name; the VAE's half by the second word of it."""
    first, second, *_ = f"{array}.".split(".")
    if first != "vae":
        return first
    return HALVES.get(second, second)


def _short(count: int) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,}"
