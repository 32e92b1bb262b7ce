"""The step scrubber: a recorded run on a slider, x_t beside predicted x0; no model is needed."""

from collections.abc import Generator

import ipywidgets

from minisd.figures.pixels import magnitude, size
from minisd.observe.trace import Trace
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View

SIDE = 256                      # pixels along each of the three pictures
PACE = 250                      # milliseconds from step to step while it plays


def step_scrubber(trace: Trace) -> "StepScrubber":
    """Turn the steps of a recorded run, or let them play: what is there, and what it will be."""
    return StepScrubber(trace)


class StepScrubber(Explorer):
    """The widget; `play` runs through the steps in the browser."""

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
