"""The step scrubber: a recorded run on a slider, x_t beside predicted x0; no model is needed."""

from collections.abc import Generator

import ipywidgets
from PIL import Image
from torch import Tensor

from minisd.observe.trace import Trace
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet

SIDE = 256                      # pixels along each of the three pictures
WIDE, HIGH = 3 * SIDE + 2 * GAP, SIDE + LABEL_HIGH
PACE = 250                      # milliseconds from step to step while it plays
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


def step_scrubber(trace: Trace) -> "StepScrubber":
    """Turn the steps of a recorded run, or let them play: what is there, and what it will be."""
    return StepScrubber(trace)


class StepScrubber(Explorer):
    """The widget; `play` runs through the steps in the browser."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        knob = ipywidgets.IntSlider(len(trace) // 4, min=0, max=len(trace),
                                    description="Steps done", style=STYLE, layout=FULL)
        super().__init__("step scrubber", {"done": knob}, self._frames, width=WIDE,
                         about="x_t, x0 and how far x0 is from the result")
        self.play = ipywidgets.Play(min=0, max=len(trace), value=knob.value, interval=PACE,
                                    description="Play").add_class("minisd-play")
        self.link = ipywidgets.jslink((self.play, "value"), (knob, "value"))
        self.view.children = (self.view.children[0], self.play, *self.view.children[1:])

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        yield Frame(1, 1, self._view(at["done"]), "Replayed from the recording.")

    def _view(self, done: int) -> View:
        t, x_t, x0 = self.trace.at(done)
        decoded = self.trace.pictures.get(done)
        pictures = ([row[0] for row in decoded] if decoded
                    else [self.trace.preview(state[:1]) for state in (x_t, x0)])
        still = _open(x0, self.trace)
        pictures.append(_grey(still))
        panels = [Panel(picture, label, i * (SIDE + GAP), 0, SIDE) for i, (picture, label) in
                  enumerate(zip(pictures, ("x_t", "x0", "x0: what still changes"), strict=True))]
        result = self.trace.latents
        return View(sheet(WIDE, HIGH, panels), "\n".join([
            f"{done} of {len(self.trace)} steps done ({done / len(self.trace):.0%}), t = {t:.0f}. "
            f"The pictures are {'decoded' if decoded else 'linear previews'}.",
            f"To the result: x_t {_size(x_t - result):.3f}, x0 {_size(x0 - result):.3f} "
            f"(root mean square of latents). The brightest cell will still change by "
            f"{float(still.max()):.3f}."]))


def _open(x0: Tensor, trace: Trace) -> Tensor:
    """How far each cell of the first picture is from the result, (h, w)."""
    return (x0 - trace.latents)[0].float().square().mean(0).sqrt()


def _grey(values: Tensor) -> Image.Image:
    """Magnitudes (h, w) from black, 0, to white, the largest."""
    shares = values / max(float(values.max()), 1e-9)
    return Image.fromarray((shares * 255).round().byte().numpy()).convert("RGB")


def _size(values: Tensor) -> float:
    return float(values.float().square().mean().sqrt())
