"""The trajectory map: recorded runs as ways across the plane in which they vary most."""

from collections.abc import Generator, Mapping

from minisd.figures.pixels import size
from minisd.figures.runs import NAMES, trajectory_maps
from minisd.figures.style import as_picture
from minisd.observe.trace import Trace
from minisd.widgets import knobs
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View

WIDE = 960


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

    def frames(at: Values) -> Generator[Frame, None, None]:
        done, chosen = at["done"], runs[at["run"]]
        picture = as_picture(trajectory_maps(runs, done, chosen=at["run"]))
        t, *states = chosen.at(done)
        away = ", ".join(f"{name} {size(state - chosen.latents):.3f}"
                         for name, state in zip(NAMES, states, strict=True))
        yield Frame(1, 1, View(picture, f"{done} of {steps} steps done, t = {t:.0f}. From its "
                                        f"result the chosen run is: {away} (latents)."),
                    "Replayed from the recordings.")

    board = {"done": knobs.slider("Steps done", steps // 2, 0, steps),
             "run": knobs.choice("Chosen run", list(runs))}
    return Explorer("trajectory map", board, frames, width=WIDE,
                    about="the ways of several runs on two planes, with their present pictures")
