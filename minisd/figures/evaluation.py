"""What an evaluation says: counted rates with their intervals, and what guidance gives and costs.

A rate is counted answers with their 95 % confidence interval, as toyworld's evaluation gives it:
{"right": 9, "of": 10, "share": 0.9, "low": 0.596, "high": 0.982}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter

from minisd.figures import style
from minisd.figures.charts import legend, written_out
from minisd.figures.style import COLOURS, INK, Figure, blank, entitle, house, percent

Row = Mapping[str, Any]
TEXT = COLOURS["text"]


@house()
def rate_intervals(rates: Mapping[str, Row], title: str) -> Figure:
    """Counted shares with their 95 % intervals, one below another, each with its count.

    rates: by what was counted, such as {"pairs seen": ..., "  of one thing": ...}.
    """
    figure = blank(0.5 * len(rates) + 0.9 + 0.3 * style.title_lines(title))
    axes = figure.subplots()
    for y, rate in enumerate(rates.values()):
        axes.plot([rate["low"], rate["high"]], [y, y], color=TEXT, linewidth=6, alpha=0.45,
                  solid_capstyle="butt")
        axes.plot([rate["share"]], [y], "o", color=TEXT)
        axes.text(1.02, y, f"{rate['right']:,} of {rate['of']:,}", va="center",
                  transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rates)), [style.printable(name) for name in rates])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rates) - 0.5, -0.5))
    in_percent(axes.xaxis)
    axes.set_xlabel("right, in % of prompts, with the 95 % interval")
    axes.grid(axis="y", visible=False)
    entitle(figure, title)
    return figure


def adherence_bars(rows: Sequence[Row]) -> Figure:
    """How often each attribute of a prompt comes out right.

    rows: {"group": what the prompts are, "rates": {attribute: rate}}, the attributes alike.
    """
    attributes = list(rows[0]["rates"])
    whole = {row["group"]: row["rates"][attributes[-1]] for row in rows}
    return grouped({f"{row['group']} (n = {whole[row['group']]['of']:,})":
                    [row["rates"][name] for name in attributes] for row in rows},
                   attributes, "what has to be right", "Everything is right for " + ", ".join(
                       f"{100 * rate['share']:.1f} % ({name})" for name, rate in whole.items()))


def stages(rows: Sequence[Row]) -> Figure:
    """Adherence of earlier stages of training, in the order of training.

    rows: {"name", "seen": rate, "held_out": rate}.
    """
    groups = {"pairs seen in training": [row["seen"] for row in rows],
              "pairs held out": [row["held_out"] for row in rows]}
    ways = ", ".join(f"from {percent(rates[0]['share'])} to {percent(rates[-1]['share'])} for "
                     f"{name}" for name, rates in groups.items())
    return grouped(groups, [str(row["name"]) for row in rows], "stage of training",
                   f"Adherence goes {ways}")


@house()
def grouped(groups: Mapping[str, Sequence[Row]], names: Sequence[str], xlabel: str, title: str
            ) -> Figure:
    """Rates as bars with their intervals, at each name one of every group."""
    figure, width = blank(5.5), 0.8 / len(groups)
    axes, places = figure.subplots(), np.arange(len(names))
    for i, (label, rates) in enumerate(groups.items()):
        shares = [rate["share"] for rate in rates]
        drawn = axes.bar(places + (i - (len(groups) - 1) / 2) * width, shares, 0.92 * width,
                         yerr=reach(rates), capsize=4, ecolor=INK, label=label, color=TEXT,
                         alpha=style.PALE if i else 1, hatch="//" if i else "")
        axes.bar_label(drawn, [f"{100 * share:.1f}" for share in shares], padding=3,
                       fontsize=style.SMALL)
    axes.set_xticks(places, [style.wrapped(name, 8 / len(names), style.HEAD) for name in names])
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", visible=False)
    in_percent(axes.yaxis)
    legend(figure, [axes])
    entitle(figure, title)
    return figure


@house()
def guidance_curve(rows: Sequence[Row]) -> Figure:
    """What guidance gives and what it costs, as on the model card of Stable Diffusion v1.

    rows: {"guidance", "all": rate, "frechet"}, by rising guidance.
    """
    figure = blank(6)
    parts = figure.subplot_mosaic([["adherence", "trade"], ["distance", "trade"]])
    adherence, distance, trade = (parts[part] for part in ("adherence", "distance", "trade"))
    scales, distances, rates = ([row[key] for row in rows] for key in ("guidance", "frechet",
                                                                       "all"))
    distance.plot(scales, distances, "o-", color=TEXT)
    for axes, x in ((adherence, scales), (trade, distances)):
        axes.errorbar(x, [rate["share"] for rate in rates], yerr=reach(rates), fmt="o-",
                      capsize=4, color=TEXT, elinewidth=1.5)
        in_percent(axes.yaxis)
    best = max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))
    closest = min(rows, key=lambda row: row["frechet"])
    for row in rows:
        rising = row["guidance"] < best["guidance"]     # labels stand outside of the curve
        trade.annotate(f"{row['guidance']:g}", (row["frechet"], row["all"]["share"]),
                       xytext=(-7, 3) if rising else (7, 7), textcoords="offset points",
                       ha="right" if rising else "left")
    distance.set(xlabel="guidance scale (no unit)", ylabel="Fréchet distance\n(judge's features)")
    distance.set_yscale("log")
    trade.set_xscale("log")
    for axis in (distance.yaxis, trade.xaxis):
        written_out(axis)
    distance.sharex(adherence)
    adherence.tick_params(labelbottom=False)
    trade.margins(x=0.1)
    trade.set(xlabel="Fréchet distance to drawn scenes (left is better)",
              title="each point a guidance scale")
    entitle(figure, f"Guidance {best['guidance']:g} follows the prompt best "
                    f"({percent(best['all']['share'])}); at {closest['guidance']:g} the pictures "
                    f"are closest to drawn ones")
    return figure


def reach(rates: Sequence[Row]) -> np.ndarray:
    """How far each interval reaches below and above its share, (2, n)."""
    return np.array([[max(0.0, rate["share"] - rate["low"]) for rate in rates],
                     [max(0.0, rate["high"] - rate["share"]) for rate in rates]])


def in_percent(axis: Axis) -> None:
    """Shares on the axis, as the percentages that they are."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axis.set_label_text("right, in % of prompts")
