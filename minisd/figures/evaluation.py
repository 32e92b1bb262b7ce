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
from minisd.figures.charts import written_out
from minisd.figures.style import COLOURS, Figure, blank, entitle, house, percent, titled

Row = Mapping[str, Any]
TEXT = COLOURS["text"]


@house()
def rate_intervals(rates: Mapping[str, Row], title: str) -> Figure:
    """Counted shares with their 95 % intervals, one below another, each with its count.

    rates: by what was counted, such as {"pairs seen": ..., "  of one thing": ...}.
    """
    figure = titled(title, 0.5 * len(rates) + 0.9)
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
