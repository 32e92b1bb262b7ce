"""What a training did: its losses over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from minisd.figures.charts import panelled, written_out
from minisd.figures.style import COLOURS, PALE, Figure, house
from minisd.toyworld.training.curves import read_metrics

# What each network's training is about.
SHOWS = {"clip": "text", "vae": "latent", "unet": "noise", "judge": "picture"}
SMOOTHING = 30                  # the running mean of a curve spans one of so many parts of it


def losses(csv_path: Path) -> Figure:
    """The loss of a training over its steps, raw and smoothed, from the CSV of `loop.Fit`."""
    metrics = read_metrics(csv_path)
    if "loss" not in metrics:
        raise ValueError(f"{csv_path} has no losses yet: expected columns step and loss")
    steps, loss = metrics["step"], metrics["loss"]
    smooth = running_mean(loss, max(1, len(loss) // SMOOTHING))
    verb = "falls" if smooth[-1] <= loss[0] else "rises"
    return training_curves({csv_path.stem: (steps.tolist(), loss.tolist())},
                           f"{csv_path.stem}: the loss {verb} from {loss[0]:.3g} to "
                           f"{smooth[-1]:.3g} in {steps[-1]:,.0f} steps")


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
        if log:
            written_out(axes.yaxis)
    for axes in cells[::3]:
        axes.set_ylabel(what)
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value, (n,), and of up to window // 2 neighbours on either side."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at, reach = np.arange(len(values)), window // 2
    first, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (sums[end] - sums[first]) / (end - first)
