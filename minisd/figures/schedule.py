"""Diffusion in pictures: the noise schedule, what is hard to learn of it, points in the plane."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from minisd.diffusion import Schedule
from minisd.figures.style import COLOURS, HOUSE, INK, Figure, blank, entitle

PANEL = 3.0                     # inches of one cloud of points
PATHS = 60                      # points whose way is drawn


@rc_context(HOUSE)
def schedule_curves(schedule: Schedule) -> Figure:
    """How much of x_t is picture and how much is noise, and their ratio, over the timesteps."""
    t = np.arange(len(schedule))
    signal, noise = schedule.alpha_bar.sqrt().numpy(), (1 - schedule.alpha_bar).sqrt().numpy()
    even, left = crossing(schedule), float(signal[-1])
    figure = blank(11, 4.4)
    shares, ratio = figure.subplots(1, 2)
    shares.plot(t, signal, color=COLOURS["picture"])
    shares.plot(t, noise, color=COLOURS["noise"])
    shares.set(xlabel="timestep t", ylabel="factor (no unit)", ylim=(0, 1.05))
    for height, kind, formula in ((0.7, "noise", "sqrt(1 - alpha_bar)"),
                                  (0.42, "picture", "sqrt(alpha_bar)")):
        shares.text(0.99, height, f"of the {kind}:\n{formula}", color=COLOURS[kind],
                    transform=shares.transAxes, fontweight="bold", ha="right")
    ratio.semilogy(t, schedule.snr().numpy(), color=COLOURS["time"])
    ratio.axhline(1, color=INK, linewidth=1)
    ratio.annotate(f"even at t = {even}", (even, 1), (12, 12), textcoords="offset points")
    ratio.set(xlabel="timestep t", ylabel="signal-to-noise ratio (no unit)")
    entitle(figure, f"Picture and noise weigh the same at t = {even}; at the end "
                    f"the picture still weighs {100 * left:.1f} %")
    return figure


def crossing(schedule: Schedule) -> int:
    """The first timestep at which the noise outweighs the signal; the last where none does."""
    outweighed = (schedule.snr() < 1).nonzero()
    return int(outweighed[0]) if len(outweighed) else len(schedule) - 1


@rc_context(HOUSE)
def loss_by_timestep(timesteps: Sequence[float], losses: Sequence[float], title: str) -> Figure:
    """The mean squared error of the predicted noise at each of several noise levels."""
    figure = blank(8, 4)
    axes = figure.subplots()
    axes.plot(timesteps, losses, color=COLOURS["noise"], marker="o", clip_on=False)
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    axes.text(max(timesteps), 1, "always answering 0", ha="right", va="bottom", fontsize=11)
    axes.set(xlabel="timestep t", ylabel="squared error (no unit)",
             ylim=(0, max(1.15, 1.05 * max(losses))))
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def point_clouds(clouds: Sequence[Tensor], labels: Sequence[str], title: str) -> Figure:
    """Clouds of points (n, 2) side by side on the same axes."""
    figure = blank(PANEL * len(clouds) + 0.4, PANEL + 1.0)
    cells = figure.subplots(1, len(clouds), squeeze=False, sharex=True, sharey=True)[0]
    for axes, cloud, label in zip(cells, clouds, labels, strict=True):
        _points(axes, cloud, COLOURS["picture"])
        axes.set_title(label, loc="center", fontsize=13, fontweight="normal")
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def point_paths(paths: Tensor, title: str) -> Figure:
    """Points (steps, n, 2) on their way from noise to where they end.

    Some of the ways are drawn, each with a mark where half of the steps are done.
    """
    ways = paths.detach().float().cpu()
    figure = blank(7, 6.6)
    axes = figure.subplots()
    _points(axes, ways[0], COLOURS["noise"], "noise, the beginning")
    axes.plot(*ways[:, :PATHS].unbind(-1), color=COLOURS["time"], linewidth=1.2, alpha=0.6)
    _points(axes, ways[-1], COLOURS["picture"], "the end")
    x, y = ways[len(ways) // 2, :PATHS].unbind(-1)
    axes.scatter(x, y, s=14, marker="D", zorder=3, color=COLOURS["time"],
                 label="half of the steps")
    figure.legend(loc="outside lower center", ncols=3, markerscale=2.5, fontsize=12)
    entitle(figure, title)
    return figure


def _points(axes: Axes, cloud: Tensor, colour: str, label: str | None = None) -> None:
    x, y = cloud.detach().float().cpu().unbind(-1)
    axes.scatter(x, y, s=6, color=colour, alpha=0.6, linewidths=0, label=label)
    axes.set(aspect="equal", xlabel="first number", ylabel="second number")
    axes.label_outer()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
