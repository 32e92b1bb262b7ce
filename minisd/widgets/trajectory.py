"""The trajectory map: recorded runs as ways across the plane in which they vary most."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minisd.observe.pca import principal_plane
from minisd.observe.trace import Trace
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL, LABEL_HIGH, Panel, sheet
from minisd.widgets.pictures import COLOURS

MAP, SIDE, THUMB = 460, 224, 40         # pixels: the map, the chosen run's pictures, small ones
WIDE, HIGH = MAP + GAP + SIDE, MAP + LABEL_HIGH + GAP
MARGIN = 36                             # pixels of the map left free for small pictures
INKS = ["#0356DC", "#9B4899", "#484848", "#0BA669", "#D05B13", "#1A1A1A"]  # of figures/style.py
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


@dataclass(frozen=True)
class Map:
    """The ways of all runs on the plane in which their points vary most."""

    ways: dict[str, Tensor]     # run -> (steps + 1, 2)
    share: float                # of the variance that the plane holds


def trajectory_map(traces: Mapping[str, Trace]) -> Explorer:
    """Recorded runs by name, all of one length and size: where they are after so many steps.

    Raises ValueError where there are none, or they differ in length or size.
    """
    runs = dict(traces)
    lengths, shapes = {len(trace) for trace in runs.values()}, {
        tuple(trace.latents.shape) for trace in runs.values()}
    if len(lengths) != 1 or len(shapes) != 1:
        raise ValueError(f"expected runs of one length and one size, got {len(runs)} run(s) of "
                         f"{sorted(lengths)} steps and latents {sorted(shapes)}")
    steps, = lengths
    maps = {name: map_of(runs, name) for name in ("x_t", "x0")}

    def frames(at: Values) -> Generator[Frame, None, None]:
        yield Frame(1, 1, view(runs, maps[at["map_of"]], at), "Replayed from the recordings.")

    knobs = {
        "done": ipywidgets.IntSlider(steps // 2, min=0, max=steps, description="Steps done",
                                     style=STYLE, layout=FULL),
        "map_of": ipywidgets.ToggleButtons(options=list(maps), value="x0", description="Map of",
                                           style=STYLE),
        "run": ipywidgets.Dropdown(options=list(runs), description="Chosen run", style=STYLE,
                                   layout=FULL)}
    return Explorer("trajectory map", knobs, frames, width=WIDE,
                    about="the ways of several runs on a plane, and two pictures of one of them")


def map_of(runs: Mapping[str, Trace], name: str) -> Map:
    """name: "x_t" or "x0"."""
    states = {run: torch.cat([state(trace, done, name).flatten(1)
                              for done in range(len(trace) + 1)]) for run, trace in runs.items()}
    plane = principal_plane(torch.cat(list(states.values())))
    return Map({run: plane.project(way) for run, way in states.items()}, float(plane.shares.sum()))


def state(trace: Trace, done: int, name: str) -> Tensor:
    """x_t or x0 after `done` steps, (1, c, h, w); of a batch the first picture counts."""
    _, x_t, x0 = trace.at(done)
    return (x_t if name == "x_t" else x0)[:1]


def view(runs: Mapping[str, Trace], on: Map, at: Values) -> View:
    """The map, each run's present picture on it; at the right x_t and x0 of the chosen one."""
    done, chosen = at["done"], runs[at["run"]]
    t, *_ = chosen.at(done)
    small = {run: trace.preview(state(trace, done, at["map_of"])) for run, trace in runs.items()}
    panels = [Panel(draw_map(on.ways, small, done, at["run"]), f"map of {at['map_of']}", 0, 0, MAP)]
    panels += [Panel(chosen.preview(state(chosen, done, name)), f"{name} of the chosen run",
                     MAP + GAP, i * (SIDE + LABEL_HIGH), SIDE)
               for i, name in enumerate(("x_t", "x0"))]
    places = torch.stack([way[done] for way in on.ways.values()])
    spread = float((places - places.mean(0)).square().sum(1).mean().sqrt())
    return View(sheet(WIDE, HIGH, panels), "\n".join([
        f"{done} of {len(chosen)} steps done, t = {t:.0f}. The plane holds {on.share:.0%} of the "
        f"variance of {chosen.latents[0].numel():,} numbers.",
        f"On the map the {len(runs)} runs are now {spread:.1f} away from their middle."]))


def draw_map(ways: Mapping[str, Tensor], shown: Mapping[str, Image.Image], done: int, chosen: str
             ) -> Image.Image:
    """Ways (steps + 1, 2) on one scale, bold as far as they are done; each run's picture there.

    The runs' names stand in the corner, in their colours.
    """
    everything = torch.cat(list(ways.values()))
    low, high = everything.min(0).values, everything.max(0).values
    scale = (MAP - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    centre = (low + high) / 2

    def placed(way: Tensor) -> Sequence[tuple[float, float]]:
        """Pixels, with the second axis upwards."""
        x, y = ((way - centre) * scale).T.tolist()
        return [(MAP / 2 + a, MAP / 2 - b) for a, b in zip(x, y, strict=True)]

    paper = Image.new("RGB", (MAP, MAP), COLOURS["paper"])
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(LABEL)
    inks = {run: INKS[i % len(INKS)] for i, run in enumerate(ways)}
    for run, way in ways.items():
        at, ink = placed(way), inks[run]
        pen.line(at, fill=ink, width=1)
        pen.line(at[:done + 1], fill=ink, width=5 if run == chosen else 3)
        x, y = at[0]
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=COLOURS["ink"])
    last = [run for run in ways if run != chosen] + [chosen]            # the chosen one on top
    for run in last:
        x, y = placed(ways[run])[done]
        small = shown[run].resize((THUMB, THUMB), Image.Resampling.LANCZOS)
        paper.paste(small, (round(x) - THUMB // 2, round(y) - THUMB // 2))
        pen.rectangle((x - THUMB // 2 - 2, y - THUMB // 2 - 2, x + THUMB // 2 + 1,
                       y + THUMB // 2 + 1), outline=inks[run], width=4 if run == chosen else 2)
    pen.rectangle((0, 0, MAP - 1, MAP - 1), outline=COLOURS["noise"])
    pen.text((6, MAP - LABEL_HIGH), "dots: where the runs begin", COLOURS["ink"], font)
    for i, run in enumerate(ways):
        pen.text((6, LABEL_HIGH * i), run, inks[run], font)
    return paper
