"""What an evaluation says: counted rates with their intervals, and what guidance gives and costs.

A rate is counted answers with their 95 % confidence interval, as toyworld's evaluation gives it:
{"right": 9, "of": 10, "share": 0.9, "low": 0.596, "high": 0.982}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from minisd.figures import style
from minisd.figures.charts import MARKERS, STYLES, legend, shade
from minisd.figures.style import COLOURS, INK, Figure, blank, entitle, house, percent

Row = Mapping[str, Any]


@house()
def rate_intervals(rates: Mapping[str, Row], title: str) -> Figure:
    """Counted shares with their 95 % intervals, one below another, each with its count.

    rates: by what was counted, such as {"pairs seen": ..., "  of one thing": ...}.
    """
    figure = blank(0.5 * len(rates) + 0.9 + 0.3 * style.title_lines(title))
    axes = figure.subplots()
    for y, rate in enumerate(rates.values()):
        axes.plot([rate["low"], rate["high"]], [y, y], color=COLOURS["text"], linewidth=6,
                  alpha=0.45, solid_capstyle="butt")
        axes.plot([rate["share"]], [y], "o", color=COLOURS["text"])
        axes.text(1.02, y, f"{rate['right']:,} of {rate['of']:,}", va="center",
                  transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rates)), [style.printable(name) for name in rates])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rates) - 0.5, -0.5),
             xlabel="right, in % of prompts, with the 95 % interval")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(axis="y", visible=False)
    entitle(figure, title)
    return figure


@house()
def adherence_bars(rows: Sequence[Row]) -> Figure:
    """How often each attribute of a prompt comes out right.

    rows: {"group": what the prompts are, "rates": {attribute: rate}}, the attributes alike.
    """
    attributes = list(rows[0]["rates"])
    figure = blank(5.5)
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        rates = [row["rates"][name] for name in attributes]
        x = np.arange(len(attributes)) + (i - (len(rows) - 1) / 2) * width
        shares = [rate["share"] for rate in rates]
        bars = axes.bar(x, shares, 0.92 * width, yerr=_reach(rates), capsize=4, ecolor=INK,
                        label=f"{row['group']} (n = {rates[-1]['of']:,})", color=COLOURS["text"],
                        alpha=1 if i == 0 else style.PALE, hatch="" if i == 0 else "//")
        axes.bar_label(bars, [f"{100 * share:.1f}" for share in shares], padding=3,
                       fontsize=style.SMALL)
    axes.set_xticks(np.arange(len(attributes)), attributes)
    axes.set_xlabel("what has to be right")
    axes.grid(axis="x", visible=False)
    _as_adherence(axes)
    legend(figure, [axes])
    entitle(figure, "Everything is right for " + ", ".join(
        f"{100 * row['rates'][attributes[-1]]['share']:.1f} % ({row['group']})" for row in rows))
    return figure


@house()
def stages(rows: Sequence[Row]) -> Figure:
    """Adherence of earlier stages of training, in the order of training.

    rows: {"name", "seen": rate, "held_out": rate}.
    """
    figure = blank(4.8)
    axes = figure.subplots()
    places = np.arange(len(rows))
    for i, (key, label) in enumerate((("seen", "pairs seen in training"),
                                      ("held_out", "pairs held out"))):
        _rates(axes, places, [row[key] for row in rows], label, i, COLOURS["text"])
    axes.set_xticks(places, [style.wrapped(str(row["name"]), 8 / len(rows), style.HEAD)
                             for row in rows])
    axes.set_xlabel("stage of training")
    _as_adherence(axes)
    legend(figure, [axes])
    ends = [[percent(rows[i][key]["share"]) for i in (0, -1)] for key in ("seen", "held_out")]
    entitle(figure, f"Adherence goes from {ends[0][0]} to {ends[0][1]} for pairs seen in training, "
                    f"from {ends[1][0]} to {ends[1][1]} for pairs held out")
    return figure


@house()
def guidance_curve(rows: Sequence[Row], others: Mapping[str, Sequence[Row]] | None = None, *,
                   name: str = "ddim") -> Figure:
    """What guidance gives and what it costs, as on the model card of Stable Diffusion v1.

    rows: {"guidance", "all": rate, "frechet"}, by rising guidance, of the sampler `name`; others:
    those of other samplers, drawn beside the first, of which the title speaks.
    """
    figure = blank(6)
    parts = figure.subplot_mosaic([["adherence", "trade"], ["distance", "trade"]])
    adherence, distance, trade = (parts[part] for part in ("adherence", "distance", "trade"))
    for i, (sampler, own) in enumerate({name: rows, **(others or {})}.items()):
        scales, distances = ([row[key] for row in own] for key in ("guidance", "frechet"))
        rates, colour = [row["all"] for row in own], shade(i, ("text", "time"))
        _rates(adherence, scales, rates, sampler, i, colour)
        distance.plot(scales, distances, MARKERS[i] + STYLES[i], color=colour)
        trade.errorbar(distances, [rate["share"] for rate in rates], yerr=_reach(rates),
                       fmt=MARKERS[i] + STYLES[i], capsize=4, color=colour, elinewidth=1.5)
    best = max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))
    closest = min(rows, key=lambda row: row["frechet"])
    for row in rows:
        rising = row["guidance"] < best["guidance"]     # labels stand outside of the curve
        trade.annotate(f"{row['guidance']:g}", (row["frechet"], row["all"]["share"]),
                       xytext=(-7, 3) if rising else (7, 7), textcoords="offset points",
                       ha="right" if rising else "left")
    distance.set(xlabel="guidance scale (no unit)", ylabel="Fréchet distance\n(judge's features)")
    distance.sharex(adherence)
    adherence.tick_params(labelbottom=False)
    trade.margins(x=0.1)
    trade.set(xlabel="Fréchet distance to drawn scenes (left is better)",
              title="each point a guidance scale")
    for axes in (adherence, trade):
        _as_adherence(axes)
    legend(figure, [adherence])
    entitle(figure, f"Guidance {best['guidance']:g} follows the prompt best "
                    f"({percent(best['all']['share'])}); at {closest['guidance']:g} the pictures "
                    f"are closest to drawn ones")
    return figure


def _rates(axes: Axes, x: Sequence[float] | np.ndarray, rates: Sequence[Row], label: str, i: int,
           colour: str) -> None:
    """Rates as a line with their intervals; all lines but the first have hollow markers."""
    axes.errorbar(x, [rate["share"] for rate in rates], yerr=_reach(rates), capsize=4,
                  fmt=MARKERS[i] + STYLES[i], color=colour, elinewidth=1.5, label=label,
                  markerfacecolor="white" if i else colour)


def _reach(rates: Sequence[Row]) -> np.ndarray:
    """How far each interval reaches below and above its share, (2, n)."""
    below = [max(0.0, rate["share"] - rate["low"]) for rate in rates]
    above = [max(0.0, rate["high"] - rate["share"]) for rate in rates]
    return np.array([below, above])


def _as_adherence(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_ylabel("right, in % of prompts")
