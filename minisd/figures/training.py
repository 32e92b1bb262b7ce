"""What a training did: its losses, and what the evaluation says of the result.

A rate is counted answers with their 95 % confidence interval, as toyworld's evaluation gives it:
{"right": 9, "of": 10, "share": 0.9, "low": 0.596, "high": 0.982}.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, StrMethodFormatter

from minisd.figures.style import (
    COLOURS,
    HOUSE,
    INK,
    PALE,
    Figure,
    blank,
    entitle,
    percent,
    wrapped,
)

# What each network's training is about.
SHOWS = {"clip": "text", "vae": "latent", "unet": "noise", "judge": "picture"}

SMOOTHING = 50                  # the running mean of a loss spans one of so many parts of the run
STAGE = 1.6                     # inches for each stage of training

Row = Mapping[str, Any]


# Training

@rc_context(HOUSE)
def losses(csv_path: Path) -> Figure:
    """The loss of a training over its steps, raw and smoothed, from the CSV of `loop.Fit`."""
    name = csv_path.stem
    steps, loss = read_losses(csv_path)
    if not len(steps):
        raise ValueError(f"{csv_path} has no losses yet: expected columns step and loss")
    smooth = running_mean(loss, max(1, len(loss) // SMOOTHING))
    colour = COLOURS[SHOWS.get(name.split("_")[0], "noise")]
    figure = blank(9, 5)
    axes = figure.subplots()
    axes.plot(steps, loss, color=colour, alpha=PALE, linewidth=0.8, label="of each step")
    axes.plot(steps, smooth, color=colour, label="running mean")
    axes.set(yscale="log", xlabel="gradient steps", ylabel="training loss (no unit, log scale)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))       # 0.1, 0.2, 0.5, 1 ...
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    verb = "falls" if smooth[-1] <= loss[0] else "rises"
    entitle(figure, f"{name}: the loss {verb} from {loss[0]:.3g} to {smooth[-1]:.3g} "
                    f"in {steps[-1]:,} steps")
    axes.legend()
    return figure


def read_losses(csv_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses, each (n,), as they count in the end.

    A training that went back to an earlier checkpoint repeats steps: what follows replaces every
    later row. Lines that a kill cut short are skipped.
    """
    kept: list[tuple[int, float]] = []
    with csv_path.open(newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if not {"step", "loss"} <= set(header):
            return np.empty(0, int), np.empty(0)
        at_step, at_loss = header.index("step"), header.index("loss")
        for line in lines:
            try:
                step, loss = int(line[at_step]), float(line[at_loss])
            except (ValueError, IndexError):
                continue
            while kept and kept[-1][0] >= step:
                kept.pop()
            kept.append((step, loss))
    return np.array([step for step, _ in kept], int), np.array([loss for _, loss in kept])


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value, (n,), and of up to window // 2 neighbours on either side."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at, reach = np.arange(len(values)), window // 2
    first, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (sums[end] - sums[first]) / (end - first)


@rc_context(HOUSE)
def stages(rows: Sequence[Row]) -> Figure:
    """Adherence of earlier stages of training, in the order of training.

    rows: {"name", "seen": rate, "held_out": rate}.
    """
    figure = blank(max(7.0, STAGE * len(rows)), 5)
    axes = figure.subplots()
    places = np.arange(len(rows))
    for key, label, style in (("seen", "pairs seen in training", "o-"),
                              ("held_out", "pairs held out", "s--")):
        _rates(axes, places, [row[key] for row in rows], label, style, COLOURS["text"],
               hollow=key == "held_out")
    axes.set_xticks(places, [wrapped(str(row["name"]), STAGE) for row in rows])
    axes.set_xlabel("stage of training")
    _as_adherence(axes)
    entitle(figure, f"Adherence goes from {percent(rows[0]['seen']['share'])} to "
                    f"{percent(rows[-1]['seen']['share'])} for pairs seen in training, from "
                    f"{percent(rows[0]['held_out']['share'])} to "
                    f"{percent(rows[-1]['held_out']['share'])} for pairs held out")
    axes.legend()
    return figure


# Adherence

def _rates(axes: Axes, x: Sequence[float] | np.ndarray, rates: Sequence[Row], label: str,
           style: str, colour: str, *, hollow: bool = False) -> None:
    """Rates as a line with their intervals."""
    axes.errorbar(x, [rate["share"] for rate in rates], yerr=_reach(rates), fmt=style,
                  color=colour, capsize=4, elinewidth=1.5, label=label,
                  markerfacecolor="white" if hollow else colour)


def _reach(rates: Sequence[Row]) -> np.ndarray:
    """How far each interval reaches below and above its share, (2, n)."""
    below = [max(0.0, rate["share"] - rate["low"]) for rate in rates]
    above = [max(0.0, rate["high"] - rate["share"]) for rate in rates]
    return np.array([below, above])


def _as_adherence(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_ylabel("right, in % of prompts")


@rc_context(HOUSE)
def adherence_bars(rows: Sequence[Row]) -> Figure:
    """How often each attribute of a prompt comes out right.

    rows: {"group": what the prompts are, "rates": {attribute: rate}}, the attributes alike.
    """
    attributes = list(rows[0]["rates"])
    figure = blank(2.2 * len(attributes) + 1, 5.5)
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        rates = [row["rates"][name] for name in attributes]
        x = np.arange(len(attributes)) + (i - (len(rows) - 1) / 2) * width
        shares = [rate["share"] for rate in rates]
        bars = axes.bar(x, shares, 0.92 * width, yerr=_reach(rates), capsize=4,
                        label=f"{row['group']} (n = {rates[-1]['of']:,})", color=COLOURS["text"],
                        alpha=1 if i == 0 else PALE, hatch="" if i == 0 else "//",
                        ecolor=INK)
        axes.bar_label(bars, [f"{100 * share:.1f}" for share in shares], padding=3)
    axes.set_xticks(np.arange(len(attributes)), attributes)
    axes.set_xlabel("what has to be right")
    axes.grid(axis="x", visible=False)
    _as_adherence(axes)
    entitle(figure, "Everything is right for " + ", ".join(
        f"{100 * row['rates'][attributes[-1]]['share']:.1f} % ({row['group']})" for row in rows))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(rows))
    return figure


@rc_context(HOUSE)
def guidance_curve(rows: Sequence[Row]) -> Figure:
    """What guidance gives and what it costs, as on the model card of Stable Diffusion v1.

    rows: {"guidance", "all": rate, "frechet"}, by rising guidance.
    """
    scales = [row["guidance"] for row in rows]
    distances = [row["frechet"] for row in rows]
    best = max(rows, key=lambda row: (row["all"]["share"], -row["frechet"]))
    closest = min(rows, key=lambda row: row["frechet"])
    figure = blank(13, 6)
    parts = figure.subplot_mosaic([["adherence", "trade"], ["distance", "trade"]])
    adherence, distance, trade = (parts[name] for name in ("adherence", "distance", "trade"))
    _rates(adherence, scales, [row["all"] for row in rows], "", "o-", COLOURS["text"])
    distance.plot(scales, distances, "s-", color=COLOURS["picture"])
    distance.set(xlabel="guidance scale (no unit)", ylabel="Fréchet distance\n(judge's features)")
    distance.sharex(adherence)
    adherence.tick_params(labelbottom=False)
    trade.errorbar(distances, [row["all"]["share"] for row in rows],
                   yerr=_reach([row["all"] for row in rows]), fmt="o-", capsize=4,
                   color=INK, elinewidth=1.5)
    for row in rows:
        rising = row["guidance"] < best["guidance"]     # labels stand outside of the curve
        trade.annotate(f"{row['guidance']:g}", (row["frechet"], row["all"]["share"]),
                       xytext=(-7, 3) if rising else (7, 7), textcoords="offset points",
                       ha="right" if rising else "left", fontweight="bold")
    trade.margins(x=0.1)
    trade.set_xlabel("Fréchet distance to drawn scenes (left is better)")
    for axes in (adherence, trade):
        _as_adherence(axes)
    trade.set_title("each point a guidance scale", fontweight="normal", fontsize=13)
    entitle(figure, f"Guidance {best['guidance']:g} follows the prompt best "
                    f"({percent(best['all']['share'])}); at {closest['guidance']:g} the pictures "
                    f"are closest to drawn ones")
    return figure
