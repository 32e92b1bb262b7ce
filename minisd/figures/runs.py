"""Runs on their way from noise to a picture, as ways across the plane in which they vary most."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image
from torch import Tensor

from minisd.figures import style
from minisd.figures.charts import STYLES, legend, shade
from minisd.figures.pixels import size
from minisd.figures.style import INK, Figure, blank, entitle, house
from minisd.observe.pca import principal_plane
from minisd.observe.trace import Trace

THUMB = 40                              # dots along a picture on a map
AWAY = 1.7                              # of its size, from there to the place it belongs to
NAMES = ("x_t", "x0")


@house()
def trajectory_maps(traces: Mapping[str, Trace], done: int | None = None, *, chosen: str = ""
                    ) -> Figure:
    """Several runs as ways on two maps, of x_t and of x0, and what each shows after `done` steps.

    A dot marks the beginning; the way is bold as far as it is done, by default to the end. chosen:
    the run that stands out.
    """
    done = len(next(iter(traces.values()))) if done is None else done
    figure = blank(6.0)
    panels = list(figure.subplots(1, 2))
    both = {run: ways(trace) for run, trace in traces.items()}
    for part, (axes, name) in enumerate(zip(panels, NAMES, strict=True)):
        points = {run: way[part].flatten(1) for run, way in both.items()}
        plane = principal_plane(torch.cat(list(points.values())))
        placed = {run: plane.project(way).numpy() for run, way in points.items()}
        ends = fanned(np.stack([at[done] for at in placed.values()]))
        for i, ((run, at), angle) in enumerate(zip(placed.items(), ends, strict=True)):
            axes.plot(*at.T, color=shade(i), linewidth=1, alpha=2 * style.PALE)
            axes.plot(*at[:done + 1].T, STYLES[i % len(STYLES)], color=shade(i),
                      linewidth=4 if run == chosen else 2.2, label=style.printable(run))
            axes.plot(*at[0], "o", color=INK, markersize=5)
            _thumb(axes, at[done], traces[run].preview(both[run][part][done:done + 1]),
                   shade(i), angle, run == chosen)
        axes.set(title=f"{name}: the plane holds {style.percent(float(plane.shares.sum()))} of the "
                       f"variance", xlabel="first axis (latents)", xmargin=0.2, ymargin=0.2)
        axes.set_aspect("equal", adjustable="datalim")
    panels[0].set_ylabel("second axis (latents)")
    legend(figure, panels)
    entitle(figure, parting(list(both.values())))
    return figure


def ways(trace: Trace) -> tuple[Tensor, Tensor]:
    """x_t and x0 after 0, 1, ... and all steps, (steps + 1, c, h, w); the first of a batch."""
    moments = [trace.at(done) for done in range(len(trace) + 1)]
    return (torch.stack([x_t[0] for _, x_t, _ in moments]),
            torch.stack([x0[0] for _, _, x0 in moments]))


def parting(runs: Sequence[tuple[Tensor, Tensor]]) -> str:
    """How far apart runs begin and end."""
    if len(runs) < 2:
        return "One run, from noise to its result"
    noise, first, result = (
        float(np.mean([size(a[part][end] - b[part][end]) for a, b in combinations(runs, 2)]))
        for part, end in ((0, 0), (1, 0), (0, -1)))
    return (f"Between two runs the noise differs by {noise:.2f}, the first prediction x0 by "
            f"{first:.2f}, the result by {result:.2f}")


def fanned(places: np.ndarray) -> np.ndarray:
    """Angles (n,) for labels of places (n, 2): in their order around the middle, evenly apart."""
    around = np.arctan2(*(places - places.mean(0)).T[::-1])
    ranks = around.argsort().argsort()
    return around.min() + 2 * np.pi * ranks / len(places)


def _thumb(axes: Axes, at: np.ndarray, picture: Image.Image, colour: str, angle: float,
           bold: bool) -> None:
    """A picture, small, some way off a place on a map, and a line between them."""
    small = picture.resize((THUMB, THUMB), Image.Resampling.LANCZOS)
    axes.add_artist(AnnotationBbox(
        OffsetImage(np.asarray(small)), (float(at[0]), float(at[1])), pad=0.15,
        xybox=(AWAY * THUMB * np.cos(angle), AWAY * THUMB * np.sin(angle)),
        boxcoords="offset points", arrowprops={"arrowstyle": "-", "color": colour},
        bboxprops={"edgecolor": colour, "linewidth": 4 if bold else 2}))
