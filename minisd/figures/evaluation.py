"""What an evaluation rests on: intervals of counted rates, and the Frechet distance of clouds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from minisd.figures.style import COLOURS, HOUSE, INK, Figure, blank, entitle

PANEL = 3.2                     # inches along each side of a cloud's panel

Row = Mapping[str, Any]


@rc_context(HOUSE)
def rate_intervals(rates: Mapping[str, Row], title: str) -> Figure:
    """Counted shares with their 95 % intervals, one below another, each with its count.

    rates: {"right", "of", "share", "low", "high"} by what was counted; a name that begins with a
    space is a part of the one above it, which is then bold.
    """
    figure = blank(10.5, 0.5 * len(rates) + 1.7)
    axes = figure.subplots()
    for y, rate in enumerate(rates.values()):
        axes.plot([rate["low"], rate["high"]], [y, y], color=COLOURS["text"], linewidth=5,
                  alpha=0.45, solid_capstyle="butt")
        axes.plot([rate["share"]], [y], "o", color=COLOURS["text"])
        axes.text(1.02, y, f"{rate['right']:,} of {rate['of']:,}", va="center", fontsize=12,
                  transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rates)), list(rates))
    parts = any(name.startswith(" ") for name in rates)
    for label, name in zip(axes.get_yticklabels(), rates, strict=True):
        label.set_fontweight("bold" if parts and not name.startswith(" ") else "normal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_xlabel("right, in % of prompts, with the 95 % interval")
    axes.grid(axis="y", visible=False)
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def cloud_pairs(pairs: Mapping[str, tuple[Tensor, Tensor]], title: str) -> Figure:
    """Two clouds of points (n, 2) in each panel, on the same axes; the first is the reference."""
    figure = blank(PANEL * len(pairs) + 0.4, PANEL + 1.2)
    cells = figure.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (label, clouds) in zip(cells, pairs.items(), strict=True):
        for cloud, kind, marker in zip(clouds, ("noise", "picture"), "ox", strict=True):
            x, y = cloud.detach().float().cpu().unbind(-1)
            axes.scatter(x, y, s=16, color=COLOURS[kind], marker=marker, alpha=0.6,
                         linewidths=0 if marker == "o" else 1,
                         label="reference" if kind == "noise" else "compared")
        axes.set(aspect="equal")
        axes.set_title(label, loc="center", fontsize=13, fontweight="normal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
    figure.legend(*cells[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def floor_curve(counts: Sequence[int], distances: Sequence[float], title: str) -> Figure:
    """The Frechet distance of two samples of the same distribution, over their size."""
    figure = blank(8.8, 4.2)
    axes = figure.subplots()
    axes.plot(counts, distances, "o-", color=COLOURS["picture"])
    for count, distance in zip(counts, distances, strict=True):
        axes.annotate(f"{distance:.3g}", (count, distance), xytext=(4, 8), fontsize=12,
                      textcoords="offset points")
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.12 * max(distances))
    axes.set(xlabel="pictures in each sample (log scale)", ylabel="Fréchet distance")
    entitle(figure, title)
    return figure
