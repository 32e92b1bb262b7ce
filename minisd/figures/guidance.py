"""Guidance in pictures: two predictions of the noise, what the prompt changes, and how far to go.

Classifier-free guidance (Ho & Salimans 2022): eps = eps_uncond + g (eps_cond - eps_uncond).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from minisd.diffusion import guide
from minisd.figures.style import (
    COLOURS,
    HOUSE,
    INK,
    PALE,
    SIGNED,
    Figure,
    blank,
    entitle,
    percent,
)

SIDE = 2.7                      # inches of one map
FINE = 0.1                      # below this scale digits are given in thousandths
REACH = 2                       # cells on each side of the chosen one that are shown in digits
DARK = 0.6                      # share of the scale from which on digits are white
MARKERS = "osD^v"


@rc_context(HOUSE)
def noise_maps(eps_uncond: Tensor, eps_cond: Tensor, at: tuple[int, int]) -> Figure:
    """Both predictions of one channel, (h, w) each, and their difference: as maps, and in digits.

    at: row and column of the cell whose surroundings are shown in digits. The predictions share
    one scale; the difference has its own.
    """
    uncond, cond = _array(eps_uncond), _array(eps_cond)
    maps = {"eps_uncond": uncond, "eps_cond": cond, "the prompt's impact": cond - uncond}
    common = _limit(uncond, cond)
    limits = [common, common, _limit(cond - uncond)]
    figure = blank(3 * SIDE + 1.9, 2 * SIDE + 0.7)
    cells = figure.subplots(2, 3)
    window = _window(uncond.shape, at)
    for upper, lower, (name, values), limit in zip(*cells, maps.items(), limits, strict=True):
        drawn = _map(upper, values, limit)
        figure.colorbar(drawn, ax=upper, shrink=0.8, ticks=[-limit, 0, limit],
                        format=lambda x, _: f"{x:.2g}")
        upper.set_title(name, loc="center", fontsize=13)
        rows, columns = window
        upper.add_patch(Rectangle((columns.start - 0.5, rows.start - 0.5),
                                  columns.stop - columns.start, rows.stop - rows.start,
                                  fill=False, edgecolor=INK, linewidth=2.5))
        _digits(lower, values[rows, columns], limit,
                at=(at[0] - rows.start, at[1] - columns.start))
    share = np.linalg.norm(cond - uncond) / (np.linalg.norm(uncond) or 1.0)
    entitle(figure, f"In this channel the prompt's impact is {percent(float(share))} as large as "
                    f"the noise predicted without it")
    return figure


def _window(shape: tuple[int, ...], at: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns around a cell, moved inwards at the rim."""
    def around(centre: int, size: int) -> slice:
        span = min(2 * REACH + 1, size)
        first = min(max(centre - REACH, 0), size - span)
        return slice(first, first + span)

    return around(at[0], shape[0]), around(at[1], shape[1])


def _digits(axes: Axes, values: np.ndarray, limit: float, *, at: tuple[int, int]) -> None:
    """A small map with its numbers in it; the chosen cell is framed."""
    _map(axes, values, limit)
    fine = limit < FINE
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{1000 * value:.0f}" if fine else f"{value:.2f}", ha="center",
                  va="center", fontsize=11, color="white" if abs(value) > DARK * limit else INK,
                  fontweight="bold" if (row, column) == at else "normal")
    axes.set_xlabel("in thousandths" if fine else "", fontsize=12)
    axes.add_patch(Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, fill=False, edgecolor=INK,
                             linewidth=2.5))


@rc_context(HOUSE)
def guided_values(eps_uncond: Tensor, eps_cond: Tensor, cells: Sequence[tuple[int, int, int]],
                  scales: Sequence[float]) -> Figure:
    """The guided sum at a few cells over the guidance scale, with points at `scales`.

    eps_uncond, eps_cond: (c, h, w). cells: up to five (channel, row, column).
    """
    uncond, cond = eps_uncond.float().cpu(), eps_cond.float().cpu()
    figure = blank(9.5, 4.8)
    axes = figure.subplots()
    for cell, colour, marker in zip(cells, COLOURS.values(), MARKERS, strict=False):
        values = [float(guide(uncond[cell], cond[cell], g)) for g in scales]
        axes.plot(scales, values, color=colour, marker=marker,
                  label="channel {}, row {}, column {}".format(*cell))
    for g, name in ((0, "eps_uncond"), (1, "eps_cond")):
        axes.axvline(g, color=INK, linewidth=1, linestyle="--", alpha=2 * PALE, zorder=0)
        axes.annotate(name, (g, 1), (3 if g == 0 else -3, 3), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="right" if g == 0 else "left", va="bottom",
                      fontsize=11)
    axes.set(xlabel="guidance scale (no unit)", ylabel="eps at one cell (no unit)")
    axes.legend(fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    most = max(scales)
    entitle(figure, f"Every cell moves along a straight line: from guidance 1 to {most:g} the "
                    f"guided noise grows from {_size(cond):.2f} to "
                    f"{_size(guide(uncond, cond, most)):.2f}")
    return figure


@rc_context(HOUSE)
def impact_curves(timesteps: Sequence[float], shares: Mapping[str, Sequence[float]],
                  moves: Mapping[str, Sequence[float]]) -> Figure:
    """The prompt's impact over a run: beside eps_uncond, and on the picture it stands for.

    shares, moves: prompt -> one number for each of the timesteps, which fall: the size of the
    impact as a share of eps_uncond, and how far it moves x0 (root mean square, in latents).
    """
    figure = blank(12, 4.4)
    panels = figure.subplots(1, 2)
    _lines(panels[0], timesteps, {label: [100 * share for share in values]
                                  for label, values in shares.items()})
    panels[0].set_ylabel("impact (% of eps_uncond)")
    _lines(panels[1], timesteps, moves)
    panels[1].set_ylabel("it moves x0 by (latents)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=len(shares), fontsize=12)
    by_share, by_move = (timesteps[int(np.argmax(next(iter(of.values()))))]
                         for of in (shares, moves))
    entitle(figure, f"As a share of the noise the prompt's impact peaks at t = {by_share:.0f}; "
                    f"the picture moves most at t = {by_move:.0f}")
    return figure


def _lines(axes: Axes, timesteps: Sequence[float], of: Mapping[str, Sequence[float]]) -> None:
    for (label, values), colour, marker in zip(of.items(), COLOURS.values(), MARKERS,
                                               strict=False):
        axes.plot(timesteps, values, color=colour, marker=marker, markersize=5, label=label)
    axes.set(xlabel="timestep t (noise left, picture right)", ylim=(0, None))
    axes.invert_xaxis()


def _map(axes: Axes, values: np.ndarray, limit: float) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    return axes.imshow(values, cmap=SIGNED, interpolation="nearest", vmin=-limit, vmax=limit)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _limit(*maps: np.ndarray) -> float:
    """The end of the scale that they share; 1 for maps of nothing but zeros."""
    return max(float(np.abs(values).max()) for values in maps) or 1.0


def _size(values: Tensor) -> float:
    """The root mean square."""
    return float(values.square().mean().sqrt())
