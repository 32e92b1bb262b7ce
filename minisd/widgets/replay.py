"""Recorded runs on a slider, without a model: the step scrubber, and the trajectory map."""

from collections.abc import Generator, Mapping

import ipywidgets

from minisd.figures.pixels import magnitude, size
from minisd.figures.runs import NAMES, trajectory_maps
from minisd.figures.style import as_picture
from minisd.observe.trace import Trace
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View

SIDE = 256                      # pixels along each of the scrubber's three pictures
PACE = 250                      # milliseconds from step to step while it plays
WIDE = 960                      # pixels, of the map


class StepScrubber(Explorer):
    """The steps of a recorded run: what is there, and what it will be.

    `play` runs through them in the browser.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        knob = knobs.slider("Steps done", len(trace) // 4, 0, len(trace))
        super().__init__("step scrubber", {"done": knob}, self._frames, width=3 * SIDE + 2 * GAP,
                         about="x_t, x0 and how far x0 is from the result")
        self.play = ipywidgets.Play(min=0, max=len(trace), value=knob.value, interval=PACE,
                                    description="Play").add_class("minisd-play")
        self.link = ipywidgets.jslink((self.play, "value"), (knob, "value"))
        self.buttons.children = (self.play,)

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        yield Frame(1, 1, self._view(at["done"]), "Replayed from the recording.")

    def _view(self, done: int) -> View:
        t, x_t, x0 = self.trace.at(done)
        decoded = self.trace.pictures.get(done)
        pictures = ([pair[0] for pair in decoded] if decoded
                    else [self.trace.preview(state[:1]) for state in (x_t, x0)])
        result = self.trace.latents
        still = (x0 - result)[0].float().square().mean(0).sqrt()            # h w
        shown = zip((*pictures, magnitude(still, "gray")), ("x_t", "x0", "x0: what still changes"),
                    strict=True)
        return View(sheet((SIDE, list(shown))), "\n".join([
            f"{done} of {len(self.trace)} steps done ({done / len(self.trace):.0%}), t = {t:.0f}. "
            f"The pictures are {'decoded' if decoded else 'linear previews'}.",
            f"To the result: x_t {size(x_t - result):.3f}, x0 {size(x0 - result):.3f} "
            f"(root mean square of latents). The brightest cell will still change by "
            f"{float(still.max()):.3f}."]))


step_scrubber = StepScrubber


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
