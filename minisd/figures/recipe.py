"""What a model was trained on and in which order, its curves, and what came of silent prompts."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

from minisd.figures.style import COLOURS, HOUSE, INK, PALE, Figure, blank, entitle
from minisd.figures.training import SHOWS, running_mean

MILLION = 1e6
LETTERS = 16                    # in a line of words on a bar
SMOOTHING = 20                  # a running mean spans one of so many parts of a curve
COLUMNS = 3                     # of small pictures in a row
NARROW = 0.09                   # share of the axis below which a bar has no room for words


@dataclass(frozen=True)
class Stretch:
    """A stretch of training: so many gradient steps on one data set at one size of picture."""

    version: str                # of the model that it belongs to
    follows: str                # the version that it goes on from; "" for random weights
    steps: int
    size: int                   # pixels along each side
    data: str
    dropped: float = 0.0        # the share of captions replaced by ""


@rc_context(HOUSE)
def lineage(stretches: Sequence[Stretch], batch: int) -> Figure:
    """Each version's training as a bar that begins where the version before it ended.

    Raises ValueError for a version that follows one that is not there yet.
    """
    ends: dict[str, int] = {"": 0}
    rows: dict[str, int] = {}
    figure = blank(12, 5)
    axes = figure.subplots()
    sizes = [one.size for one in stretches]
    smallest, largest = min(sizes), max(sizes)
    starts = []
    for one in stretches:
        if one.follows not in ends:
            raise ValueError(f"{one.version} follows {one.follows!r}, which is not there yet: "
                             f"name the stretches in the order of training")
        starts.append(ends[one.follows])
        ends[one.version] = starts[-1] + one.steps
    longest = max(ends.values())
    for one, start in zip(stretches, starts, strict=True):
        y = rows.setdefault(one.version, len(rows))
        axes.barh(y, one.steps, left=start, height=0.6, color=COLOURS["picture"],
                  alpha=PALE if one.size == smallest else 0.75, edgecolor="white",
                  hatch="//" if one.dropped else "")
        if one.steps > NARROW * longest:
            axes.text(start + one.steps / 2, y, textwrap.fill(one.data, LETTERS),
                      ha="center", va="center", fontsize=11, color=INK, linespacing=0.95,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85})
        if one.follows and rows[one.follows] != y:
            axes.plot([start, start], [rows[one.follows], y], color=INK, linewidth=1.2)
    axes.set_yticks(list(rows.values()), list(rows), fontweight="bold")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.set_xlabel(f"gradient steps of {batch:,} pictures each")
    axes.grid(axis="y", visible=False)
    axes.legend(handles=[
        Patch(facecolor=COLOURS["picture"], alpha=PALE, label=f"{smallest} x {smallest} pixels"),
        Patch(facecolor=COLOURS["picture"], alpha=0.75, label=f"{largest} x {largest} pixels"),
        Patch(facecolor="white", edgecolor=INK, hatch="//", label="some captions dropped")],
        loc="upper right")
    most = max((name for name in ends if name), key=lambda name: ends[name])
    entitle(figure, f"{most} went through {ends[most] * batch / MILLION:,.0f} million pictures in "
                    f"{ends[most]:,} steps")
    return figure


@rc_context(HOUSE)
def share_bars(groups: Mapping[str, Mapping[str, float]], title: str, *, what: str) -> Figure:
    """Shares of one whole, side by side for each group; groups name the same things.

    what: the shares are of, for the axis.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure = blank(max(7.0, 1.25 * len(names) + 1), 4.2)
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for i, (label, group) in enumerate(groups.items()):
        x = np.arange(len(names)) + (i - (len(groups) - 1) / 2) * width
        axes.bar(x, [group.get(name, 0.0) for name in names], 0.92 * width, label=label,
                 color=COLOURS["picture"] if i == 0 else COLOURS["noise"],
                 alpha=1 if i == 0 else PALE, hatch="" if i == 0 else "//")
    axes.set_xticks(np.arange(len(names)), names)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_ylabel(what)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(groups))
    entitle(figure, title)
    return figure


@rc_context(HOUSE)
def training_curves(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, *,
                    what: str = "loss (no unit, log scale)", log: bool = True,
                    noisy: bool = True) -> Figure:
    """A small picture for each run: what was measured, pale, over the steps, and its running mean.

    runs: by the network's name, (steps, values); each panel says where the mean begins and ends.
    noisy: False for what was set, not measured, such as the learning rate: without a mean.
    Raises ValueError for a run without steps, or with values that are not one for each step.
    """
    columns = min(COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    figure = blank(max(7.0, 4.3 * columns), 3.2 * rows + 0.6)
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.flat[len(runs):]:
        axes.axis("off")
    for axes, (name, (steps, values)) in zip(cells.flat, runs.items(), strict=False):
        if not len(steps) or len(steps) != len(values):
            raise ValueError(f"{name}: expected a value for each of some steps, got {len(steps)} "
                             f"steps and {len(values)} values")
        window = max(1, len(values) // SMOOTHING) if noisy else 1
        smooth = running_mean(np.asarray(values, float), window)
        colour = COLOURS[SHOWS.get(name.split()[-1].split("_")[0], "latent")]
        axes.plot(steps, values, color=colour, alpha=PALE, linewidth=1)
        axes.plot(steps, smooth, color=colour)
        axes.set_title(f"{name}: {smooth[0]:.2g} to {smooth[-1]:.2g}", fontsize=13)
        axes.set(yscale="log" if log else "linear", xlabel="gradient steps")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        if log:
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatted(StrMethodFormatter("{x:g}"))
    for line in cells:
        line[0].set_ylabel(what, fontsize=11.5)
    entitle(figure, title)
    return figure
