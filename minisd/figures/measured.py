"""What a training and an evaluation measured: losses, counted rates, what guidance gives and costs.

A rate is counted answers with their 95 % confidence interval, as toyworld's evaluation gives it:
{"right": 9, "of": 10, "share": 0.9, "low": 0.596, "high": 0.982}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from minisd.figures import style
from minisd.figures.charts import panelled
from minisd.figures.style import COLOURS, PALE, Figure, blank, entitle, house, percent, titled

Row = Mapping[str, Any]
TEXT = COLOURS["text"]
# What each network's training is about.
SHOWS = {"clip": "text", "vae": "latent", "unet": "noise", "judge": "picture"}
SMOOTHING = 30                  # the running mean of a curve spans one of so many parts of it


# A training

@house()
def training_curves(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, *,
                    what: str = "loss (no unit, log scale)", log: bool = True,
                    noisy: bool = True) -> Figure:
    """A panel for each run: what was measured, pale, over the steps, and its running mean.

    runs: by the network's name, (steps, values); each panel says where the mean begins and ends.
    noisy: False for what was set, not measured, such as the learning rate: without a mean.
    """
    figure, cells = panelled(runs, title, 3.4 if len(runs) > 1 else 4.4)
    for axes, (name, (steps, values)) in zip(cells, runs.items(), strict=True):
        window = max(1, len(values) // SMOOTHING) if noisy else 1
        smooth = running_mean(np.asarray(values, float), window)
        colour = COLOURS[SHOWS.get(name.split()[-1].split("_")[0], "latent")]
        axes.plot(steps, values, color=colour, alpha=PALE, linewidth=1)
        axes.plot(steps, smooth, color=colour)
        axes.set(title=f"{name}: {smooth[0]:.2g} to {smooth[-1]:.2g}", xlabel="gradient steps",
                 yscale="log" if log else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for axes in cells[::3]:
        axes.set_ylabel(what)
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value, (n,), and of up to window // 2 neighbours on either side."""
    reach = window // 2
    sums, counts = (np.convolve(x, np.ones(2 * reach + 1))[reach:reach + len(values)]
                    for x in (values, np.ones(len(values))))
    return sums / counts


# An evaluation

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
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
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
    reach = np.abs([[rate[end] - rate["share"] for rate in rates] for end in ("low", "high")])
    for axes, x in ((adherence, scales), (trade, distances)):
        axes.errorbar(x, [rate["share"] for rate in rates], yerr=reach, fmt="o-", capsize=4,
                      color=TEXT, elinewidth=1.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_ylabel("right, in % of prompts")
    best = best_guidance(rows)
    closest = min(rows, key=lambda row: row["frechet"])
    for row in rows:
        rising = row["guidance"] < best["guidance"]     # labels stand outside of the curve
        trade.annotate(f"{row['guidance']:g}", (row["frechet"], row["all"]["share"]),
                       xytext=(-7, 3) if rising else (7, 7), textcoords="offset points",
                       ha="right" if rising else "left")
    distance.set(xlabel="guidance scale (no unit)", ylabel="Fréchet distance\n(judge's features)")
    distance.set_yscale("log")
    trade.set_xscale("log")
    distance.sharex(adherence)
    adherence.tick_params(labelbottom=False)
    trade.margins(x=0.1)
    trade.set(xlabel="Fréchet distance to drawn scenes (left is better)",
              title="each point a guidance scale")
    entitle(figure, f"Guidance {best['guidance']:g} follows the prompt best "
                    f"({percent(best['all']['share'])}); at {closest['guidance']:g} the pictures "
                    f"are closest to drawn ones")
    return figure


def best_guidance(rows: Sequence[Row]) -> Row:
    """The row most often right; of several, the one that is closest to drawn scenes."""
    return max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))
