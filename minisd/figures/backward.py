"""Runs on their way from noise to a picture: how near they are, where they part; and edits."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image
from torch import Tensor

from minisd.figures.style import COLOURS, HOUSE, INK, Figure, blank, entitle, percent
from minisd.observe.pca import principal_plane
from minisd.observe.trace import Trace

LOOKS = ["-", "--", ":", "-."]          # one per guidance scale
THUMB = 38                              # dots along a picture on a map
AWAY = 1.7                              # of its size, from there to the place it belongs to
ROOM = 0.16                             # of a map's width, left free around it for pictures

Run = tuple[int, float]                 # seed and guidance scale


@rc_context(HOUSE)
def approach_curves(trace: Trace) -> Figure:
    """How far x_t and x0 are from the result after every step (root mean square of latents)."""
    away = {name: [size(state - trace.latents[0]) for state in states]
            for name, states in zip(("x_t", "x0"), ways(trace), strict=True)}
    shares = 100 * np.arange(len(trace) + 1) / len(trace)
    figure = blank(9.5, 4.2)
    axes = figure.subplots()
    for (name, values), colour, style in zip(away.items(), (COLOURS["noise"], COLOURS["picture"]),
                                             ("-", "--"), strict=True):
        axes.plot(shares, values, style, color=colour, label=name)
    axes.set(xlabel="steps done (%)", ylabel="distance to the result (latents)", ylim=(0, None))
    axes.legend(loc="upper right", fontsize=14)
    half = len(trace) // 2
    entitle(figure, f"After {shares[half]:.0f} % of the steps x0 is {away['x0'][half]:.2f} away "
                    f"from the result, x_t {away['x_t'][half]:.2f}")
    return figure


@rc_context(HOUSE)
def trajectory_maps(traces: Mapping[Run, Trace]) -> Figure:
    """Several runs as ways on two maps: of x_t, with the results at the ends, and of x0.

    Each map is the plane in which all points of all runs vary most. One colour per seed (up to
    five), one line style per guidance scale (up to four); a dot marks the beginning.
    """
    seeds, scales = (list(dict.fromkeys(run[i] for run in traces)) for i in (0, 1))
    figure = blank(12, 5.8)
    panels = figure.subplots(1, 2)
    both = {run: ways(trace) for run, trace in traces.items()}
    inks = dict(zip(seeds, COLOURS.values(), strict=False))
    for part, (axes, name) in enumerate(zip(panels, ("x_t", "x0"), strict=True)):
        points = {run: way[part].flatten(1) for run, way in both.items()}
        plane = principal_plane(torch.cat(list(points.values())))
        placed = {run: plane.project(way).numpy() for run, way in points.items()}
        for (seed, scale), at in placed.items():
            axes.plot(*at.T, LOOKS[scales.index(scale)], color=inks[seed], linewidth=2,
                      label=f"seed {seed}, guidance {scale:g}")
            axes.plot(*at[0], "o", color=INK, markersize=6)
            axes.plot(*at[-1], "s", color=inks[seed], markersize=8)
        if name == "x_t":               # on x0's map the ends lie too close, for the ways are long
            ends = np.stack([at[-1] for at in placed.values()])
            for run, end, angle in zip(placed, ends, fanned(ends), strict=True):
                _thumb(axes, end, traces[run], inks[run[0]], angle)
        axes.set(title=f"{name}: this plane holds {percent(float(plane.shares.sum()))} of the "
                       f"variance", xlabel="first axis (latents)", ylabel="second axis (latents)",
                 xmargin=ROOM, ymargin=ROOM)
        axes.set_aspect("equal", adjustable="datalim")
        axes.title.set_fontsize(12)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=len(seeds), fontsize=12)
    entitle(figure, parting(list(both.items())))
    return figure


def ways(trace: Trace) -> tuple[Tensor, Tensor]:
    """x_t and x0 after 0, 1, ... and all steps, (steps + 1, c, h, w); the first of a batch."""
    moments = [trace.at(done) for done in range(len(trace) + 1)]
    return (torch.stack([x_t[0] for _, x_t, _ in moments]),
            torch.stack([x0[0] for _, _, x0 in moments]))


def parting(runs: Sequence[tuple[Run, tuple[Tensor, Tensor]]]) -> str:
    """How far apart the runs of different seeds begin and end."""
    apart = [[size(a[part][end] - b[part][end]) for (one, a), (other, b) in combinations(runs, 2)
              if one[0] != other[0]] for part, end in ((0, 0), (1, 0), (0, -1))]
    if not apart[0]:
        return "One noise, and as many pictures as guidance scales"
    noise, guess, result = (float(np.mean(values)) for values in apart)
    return (f"Between two seeds the noise differs by {noise:.2f}, the first guess x0 by "
            f"{guess:.2f}, the result by {result:.2f}")


@rc_context(HOUSE)
def strength_curve(strengths: Sequence[float], distances: Sequence[float], other: float) -> Figure:
    """How far image-to-image goes from its picture, over the strength.

    distances: root mean square difference to the picture in grey levels. other: that of a picture
    that was painted from the same prompt alone.
    """
    figure = blank(9.5, 4.0)
    axes = figure.subplots()
    axes.plot(strengths, distances, "o-", color=COLOURS["picture"])
    axes.axhline(other, color=INK, linestyle="--", linewidth=1.5)
    axes.annotate("painted without the picture", (0, other), (4, 4), textcoords="offset points",
                  fontsize=12)
    axes.set(xlabel="strength (share of the steps that are run)",
             ylabel="difference (grey levels)", ylim=(0, 1.25 * max(other, *distances)))
    half = next((s for s, d in zip(strengths, distances, strict=True) if d >= other / 2), None)
    entitle(figure, "At no strength is the picture half way to another one" if half is None else
            f"From strength {half:g} on, the picture is at least half way to another one")
    return figure


def size(values: Tensor) -> float:
    """The root mean square."""
    return float(values.float().square().mean().sqrt())


def fanned(places: np.ndarray) -> np.ndarray:
    """Angles (n,) for labels of places (n, 2): in their order around the middle, evenly apart."""
    around = np.arctan2(*(places - places.mean(0)).T[::-1])
    order = np.argsort(around)
    angles = np.empty(len(places))
    angles[order] = around[order[0]] + 2 * np.pi * np.arange(len(places)) / len(places)
    return angles


def _thumb(axes: Axes, at: np.ndarray, trace: Trace, colour: str, angle: float) -> None:
    """A run's result, small, some way off a place on a map, and a line between them."""
    picture = trace.preview(trace.latents[:1]).resize((THUMB, THUMB), Image.Resampling.LANCZOS)
    axes.add_artist(AnnotationBbox(
        OffsetImage(np.asarray(picture)), (float(at[0]), float(at[1])), pad=0.15,
        xybox=(AWAY * THUMB * np.cos(angle), AWAY * THUMB * np.sin(angle)),
        boxcoords="offset points", arrowprops={"arrowstyle": "-", "color": colour},
        bboxprops={"edgecolor": colour, "linewidth": 2}))
