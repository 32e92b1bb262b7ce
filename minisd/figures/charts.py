"""Lines, bars, points and matrices: the charts that a few lines of a cell describe.

Colours follow the order of `COLOURS`, or `kinds` names them; what differs in colour differs in
marker or hatching too. A chart may have several panels side by side: a mapping of mappings.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from minisd.figures import style
from minisd.figures.pixels import array
from minisd.figures.style import COLOURS, INK, SMALL, WIDE, Figure, house, titled

Line = tuple[Sequence[float], Sequence[float]]      # x and y
MARKERS, STYLES, HATCHES = "osD^vP", ("-", "--", "-.", ":"), ("", "//", "..", "xx", "\\\\")
FEW = 30                        # points that have markers
ACROSS = 3                      # panels in a row
LABEL, HEAD = 60, 30            # letters of a bar's or a row's label, and of a column's
CELL, UPRIGHT = 0.6, 2          # inches of a matrix's cell; letters of a label not to be slanted


def shade(i: int, kinds: Sequence[str] = ()) -> str:
    """The colour of the i-th of several."""
    order = [*(COLOURS.get(kind, INK) for kind in kinds), *COLOURS.values(), INK]
    return order[i % len(order)]


@house()
def lines(series: Mapping[str, Line] | Mapping[str, Mapping[str, Line]], title: str, *,
          xlabel: str = "", ylabel: str = "", kinds: Sequence[str] = (), log: str = "",
          height: float = 3.6) -> Figure:
    """Curves by name, (x, y) each; several panels where the values are such mappings again.

    log: "x", "y" or "xy". kinds: what the curves show, for their colours.
    """
    panels: Any = series if isinstance(next(iter(series.values())), Mapping) else {"": series}
    figure, cells = panelled(panels, title, height)
    names: dict[str, int] = {}
    for axes, curves in zip(cells, panels.values(), strict=True):
        for name, (x, y) in curves.items():
            i = names.setdefault(name, len(names))
            x, y = np.asarray(x, float), np.asarray(y, float)
            axes.plot(x, y, STYLES[i % len(STYLES)], color=shade(i, kinds),
                      label=style.printable(name),
                      marker=MARKERS[i % len(MARKERS)] if len(x) <= FEW else "")
        axes.set(xlabel=xlabel, xscale="log" if "x" in log else "linear",
                 yscale="log" if "y" in log else "linear")
    for axes in cells[::ACROSS]:
        axes.set_ylabel(ylabel)
    legend(figure, cells)
    return figure


@house()
def bars(values: Mapping[str, float] | Mapping[str, Mapping[str, float]], title: str, *,
         xlabel: str = "", kinds: Sequence[str] = (), digits: int | None = None) -> Figure:
    """Horizontal bars by name, with their values; groups of them where the values are mappings.

    digits: behind the point; three significant ones in all where it is None.
    """
    several = isinstance(next(iter(values.values())), Mapping)
    groups: Any = values if several else {"": values}
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    thick = 0.8 / len(groups)
    figure = titled(title, max(0.42, 0.3 * len(groups)) * len(names) + 1.1)
    axes, places = figure.subplots(), np.arange(len(names))
    for i, (label, group) in enumerate(groups.items()):
        sizes = [float(group.get(name, 0.0)) for name in names]
        drawn = axes.barh(places + (i - (len(groups) - 1) / 2) * thick, sizes, 0.92 * thick,
                          color=shade(i, kinds or ("text",)), label=style.printable(label),
                          hatch=HATCHES[i % len(HATCHES)], edgecolor="white")
        axes.bar_label(drawn, [f"{v:,.3g}" if digits is None else f"{v:.{digits}f}" for v in sizes],
                       padding=5, fontsize=SMALL)
    axes.set_yticks(places, [style.printable(name, LABEL) for name in names])
    axes.set_xlabel(style.printable(xlabel))
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.invert_yaxis()
    legend(figure, [axes] * several)
    return figure


@house()
def points(panels: Mapping[str, Mapping[str, Tensor]], title: str, *, kinds: Sequence[str] = ()
           ) -> Figure:
    """Clouds (n, 2) by name in each panel, all on the same axes."""
    figure, cells = panelled(panels, title, 3.8, share=True)
    names: dict[str, int] = {}
    for axes, clouds in zip(cells, panels.values(), strict=True):
        for name, cloud in clouds.items():
            i = names.setdefault(name, len(names))
            x, y = array(cloud).T
            axes.scatter(x, y, s=14, marker=MARKERS[i % len(MARKERS)], alpha=0.6,
                         color=shade(i, kinds or ("picture", "noise", "text")), linewidths=0,
                         label=style.printable(name))
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
    legend(figure, cells)
    return figure


@house()
def matrix(values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, *,
           digits: int, signed: bool = False, ceiling: float | None = None, xlabel: str = "",
           ylabel: str = "") -> Figure:
    """A matrix (n, m) with its labels, and each value in its cell; NaN is left white.

    signed: white at 0, red above, blue below. ceiling: the value with the strongest colour, by
    default the largest.
    """
    found = array(values)
    rows = [style.printable(name, LABEL) for name in rows]
    columns = [style.printable(name, HEAD) for name in columns]
    letter = style.EM * SMALL / 72
    beside = letter * max(map(len, rows)) + 0.6
    side = min(CELL, (WIDE - beside) / len(columns))
    slanted = max(map(len, columns)) > UPRIGHT
    above = 0.75 * letter * max(map(len, columns)) if slanted else 0.2
    wide = max(7.0, beside + side * len(columns) + 0.4, (beside + above) * slanted)
    figure = titled(title, side * len(rows) + above + 0.8, wide)
    axes = figure.subplots()
    top = ceiling or float(np.nanmax(np.abs(found))) or 1.0
    shown = axes.imshow(found, cmap=style.SIGNED if signed else style.MAGNITUDE, vmax=top,
                        vmin=-top if signed else 0, interpolation="nearest")
    style.bare(axes)
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL)
    axes.set_xticks(range(len(columns)), columns, fontsize=SMALL, rotation=45 * slanted,
                    ha="left" if slanted else "center")
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(ylabel=ylabel, xlabel=xlabel, anchor="NW")     # else the layout cuts labels off
    figure.set_layout_engine("compressed")
    for (row, column), value in np.ndenumerate(found):
        if np.isfinite(value):
            light = np.dot(shown.to_rgba(value)[:3], (0.2126, 0.7152, 0.0722))
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=10.5,
                      color=INK if light > 0.5 else "white")
    return figure


# What they share

def panelled(heads: Collection[str], title: str, height: float, *, share: bool = False
             ) -> tuple[Figure, list[Axes]]:
    """A titled figure with a panel under each head, three in a row; the rest of a row is empty."""
    count, across = len(heads), min(len(heads), ACROSS)
    rows = -(-count // across)
    figure = titled(title, height * rows + 0.3)
    cells = figure.subplots(rows, across, squeeze=False, sharex=share, sharey=share).ravel()
    for axes, head in zip(cells, heads, strict=False):
        axes.set_title(style.wrapped(head, WIDE / across - 1, style.HEAD))
    for axes in cells[count:]:
        axes.axis("off")
    return figure, list(cells[:count])


def legend(figure: Figure, cells: Sequence[Axes]) -> None:
    """One for all panels, below them, unless there is nothing to tell apart."""
    handles = {label: handle for axes in cells
               for handle, label in zip(*axes.get_legend_handles_labels(), strict=True) if label}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                      ncols=min(len(handles), max(1, 80 // max(map(len, handles)))))
