"""Samplers in pictures: what a step takes of what, how points travel, how fast errors shrink."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor

from minisd.figures.style import COLOURS, HOUSE, INK, PALE, Figure, blank, entitle
from minisd.samplers import SampleStep

COLUMNS = 4                     # of a sheet of samplers
LOOKS = [(COLOURS["text"], "o"), (COLOURS["noise"], "s"), (COLOURS["time"], "D"),
         (COLOURS["latent"], "^"), (COLOURS["picture"], "v"), (INK, "P")]
WAYS = 20                       # of points on their way, that are drawn
NEAR, ROOM = 100, 1.25          # spans below this are labelled plainly; ticks may be so far outside
ALIKE = 0.05                    # two orders that differ by less are the same in a title


# Coefficients

@rc_context(HOUSE)
def coefficient_curves(runs: Mapping[str, Sequence[SampleStep]]) -> Figure:
    """What every step of each sampler takes of x_t, of eps, and of whatever else it uses."""
    rows = -(-len(runs) // COLUMNS)
    figure = blank(11.5, 2.5 * rows + 1.0)
    cells = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes in cells.ravel()[len(runs):]:
        axes.axis("off")
    for axes, (name, steps) in zip(cells.ravel(), runs.items(), strict=False):
        for label, values, colour, style in curves(steps):
            axes.plot([step.t for step in steps], values, style, color=colour, label=label,
                      markersize=4, linewidth=1.8)
        axes.axhline(0, color=INK, linewidth=1, zorder=0)
        axes.set_title(name, fontsize=13)
    cells[0, 0].invert_xaxis()
    cells[0, 0].set_xticks([1000, 500, 0])
    for axes in cells[-1]:
        axes.set_xlabel("timestep t", fontsize=12)
    for axes in cells[:, 0]:
        axes.set_ylabel("coefficient", fontsize=12)
    handles = {label: handle for axes in cells.ravel()
               for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                  ncols=len(handles), fontsize=12)
    entitle(figure, coefficient_finding(runs))
    return figure


def curves(steps: Sequence[SampleStep]) -> list[tuple[str, list[float], str, str]]:
    """Label, one value per step, colour and line style of each coefficient the sampler uses.

    A look ahead or a memory that a step does not use is nan, which leaves a gap.
    """
    taken = [step.coefficients for step in steps]
    every = [("x_t", [c.x_t for c in taken], COLOURS["latent"], "o-"),
             ("eps", [c.eps for c in taken], COLOURS["noise"], "s-"),
             ("fresh noise", [c.noise for c in taken], COLOURS["time"], "^--"),
             ("eps one step ahead", [c.ahead or math.nan for c in taken], COLOURS["picture"],
              "D:")]
    for k in range(max(len(c.past) for c in taken)):    # legends skip what begins with _
        every.append(("memory, newest first" if k == 0 else f"_memory {k}",
                      [c.past[k] if k < len(c.past) else math.nan for c in taken],
                      COLOURS["text"], "v:"))
    return [entry for entry in every if any(value and value == value for value in entry[1])]


def coefficient_finding(runs: Mapping[str, Sequence[SampleStep]]) -> str:
    """How many samplers take away predicted noise at every step, and enlarge x_t meanwhile."""
    away = [all(step.coefficients.eps < 0 for step in steps) for steps in runs.values()]
    grown = [100 * float(np.mean([step.coefficients.x_t - 1 for step in steps]))
             for steps in runs.values()]
    return (f"{sum(away)} of {len(runs)} samplers always take predicted noise away; x_t is "
            f"enlarged by {min(grown):.0f} to {max(grown):.0f} % a step")


# Points on their way

@rc_context(HOUSE)
def point_travels(paths: Mapping[str, Tensor], timesteps: Mapping[str, Sequence[float]],
                  density: tuple[Tensor, Tensor], title: str) -> Figure:
    """How numbers travel from noise to where a known mixture has them, one panel per sampler.

    paths: name -> (steps + 1, n). timesteps: name -> one for each of the steps; the end is at 0.
    density: places (k,) and the true density there. A few ways are drawn, and all arrivals.
    """
    figure = blank(4.2 * len(paths) + 0.4, 4.0)
    cells = figure.subplots(1, 2 * len(paths), sharey=True, squeeze=False,
                            width_ratios=[4, 1] * len(paths))[0]
    at, true = (values.cpu().numpy() for values in density)
    for i, (name, path) in enumerate(paths.items()):
        travel, arrival = cells[2 * i], cells[2 * i + 1]
        ways = path.detach().cpu().numpy()
        every = max(1, ways.shape[1] // WAYS)
        travel.plot([*timesteps[name], 0], ways[:, every // 2::every], color=COLOURS["time"],
                    linewidth=0.9, alpha=2 * PALE)
        travel.invert_xaxis()
        travel.set(title=name, xlabel="timestep t")
        arrival.hist(ways[-1], bins=np.linspace(at[0], at[-1], 40).tolist(), density=True,
                     orientation="horizontal", color=COLOURS["picture"], alpha=2 * PALE)
        arrival.plot(true, at, color=INK, linewidth=1.5)
        arrival.set(xticks=[])
        arrival.spines[:].set_visible(False)
    cells[0].set_ylabel("x_t (no unit)")
    entitle(figure, title)
    return figure


# The order of convergence

@rc_context(HOUSE)
def convergence(errors: Mapping[str, Mapping[int, float]]) -> Figure:
    """Errors over the number of steps in log-log, where an order is a slope; at most six samplers.

    errors: sampler -> {steps: error}, from few to many.
    """
    orders = {name: fitted_order(of) for name, of in errors.items()}
    figure = _log_log(errors, {name: f"{name}: order {p:.1f}" for name, p in orders.items()})
    figure.axes[0].set(xlabel="steps (log scale)", ylabel="error (no unit, log scale)")
    entitle(figure, convergence_finding(orders))
    return figure


@rc_context(HOUSE)
def distance_curves(distances: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """How far each sampler's result is from a reference, over how often it asked the UNet."""
    figure = _log_log(distances, {name: name for name in distances})
    figure.axes[0].set(xlabel="UNet evaluations (log scale)",
                       ylabel="distance of latents (log scale)")
    entitle(figure, title)
    return figure


def _log_log(lines: Mapping[str, Mapping[int, float]], labels: Mapping[str, str]) -> Figure:
    figure = blank(8.8, 4.5)
    axes = figure.subplots()
    for (name, of), (colour, marker) in zip(lines.items(), LOOKS, strict=False):
        axes.loglog(list(of), list(of.values()), color=colour, marker=marker, label=labels[name])
    counts = [count for of in lines.values() for count in of]
    values = [value for of in lines.values() for value in of.values()]
    _written_out(axes.xaxis, min(counts), max(counts))
    if max(values) < NEAR * min(values):
        _written_out(axes.yaxis, min(values), max(values))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _written_out(axis: Axis, low: float, high: float) -> None:
    """Ticks at powers of ten times 1, 2 and 5, as plain numbers."""
    nice = [m * 10.0 ** e for e in range(-6, 6) for m in (1, 2, 5)]
    axis.set_ticks([value for value in nice if low / ROOM <= value <= high * ROOM])
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_ticks([], minor=True)


def fitted_order(errors: Mapping[int, float]) -> float:
    """p of error = c / number^p, by least squares in the logarithms."""
    slope, _ = np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)
    return -float(slope)


def convergence_finding(orders: Mapping[str, float]) -> str:
    """What twice as many steps are worth to the steepest and to the flattest of them."""
    flat, steep = min(orders, key=orders.__getitem__), max(orders, key=orders.__getitem__)
    if orders[steep] - orders[flat] < ALIKE:
        return f"Twice the steps divide every error by {2 ** orders[steep]:.1f}"
    return (f"Twice the steps divide {flat}'s error by {2 ** orders[flat]:.1f}, {steep}'s by "
            f"{2 ** orders[steep]:.1f}")
