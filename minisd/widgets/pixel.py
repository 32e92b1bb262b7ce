"""One number of the guided sum, at a clicked cell: in digits, beside the maps it comes from."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets
from PIL import Image
from torch import Tensor

from minisd.diffusion import guide
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets.cells import Cells
from minisd.widgets.engine import Frame
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.guidance import FULL, LEAST, MOST, STEPS, STYLE, USUAL
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, largest, sheet, signed_picture
from minisd.widgets.recorded import Recorded

MAP, CLICKED = 168, 256         # pixels along one map of the sum, and along the clickable one

Maps = tuple[Tensor, Tensor, Tensor]            # eps_uncond, eps_cond and their guided sum, (h, w)


@dataclass(frozen=True)
class PixelView(View):
    """Beside the four maps the one that is clicked: what the prompt changes, its cell framed."""

    impact: Image.Image = field(kw_only=True)


def guided_pixel(sd: StableDiffusion, *, channel: int = 0, row: int | None = None,
                 column: int | None = None) -> "GuidedPixel":
    """The guided sum at one cell of the latents, chosen by a click on a map or by sliders.

    The x_t are those of one run at the usual guidance, computed as far as they are looked at.
    channel, row, column: the cell to begin with; in the middle where they are None.
    """
    return GuidedPixel(sd, channel, row, column)


class GuidedPixel(Explorer):
    """The widget; `cells` is the map to click."""

    def __init__(self, sd: StableDiffusion, channel: int, row: int | None, column: int | None
                 ) -> None:
        words = examples(sd.config.name)
        side = sd.config.image_size // sd.config.vae.downscale
        row, column = (side // 2 if place is None else place for place in (row, column))
        self.run = Recorded(lambda: sd.steps(words.prompt, seed=words.seed,
                                             guidance_scale=USUAL, steps=STEPS))
        self.cells = Cells(side, CLICKED, self._pick)
        knobs = {
            "guidance": ipywidgets.FloatSlider(
                USUAL, min=LEAST, max=MOST, step=0.5, description="Guidance scale",
                readout_format=".1f", style=STYLE, layout=FULL),
            "step": whole(STEPS // 3, STEPS, "Step of the run", low=1),
            "channel": whole(channel, sd.config.unet.latent_channels - 1, "Channel"),
            "row": whole(row, side - 1, "Row"),
            "column": whole(column, side - 1, "Column")}
        super().__init__("guided pixel", knobs, self._frames, width=4 * MAP + 3 * GAP,
                         about="four maps of predicted noise: unconditional, conditional, their "
                               "difference, and the guided sum")
        beside = ipywidgets.VBox(
            [ipywidgets.Label("Click a cell of the difference, or move the sliders."),
             *knobs.values()], layout={"flex": "1 1 auto", "margin": "0 0 0 12px"})
        self.view.children = (ipywidgets.HBox([self.cells, beside]),
                              *self.view.children[len(knobs):])

    def _pick(self, row: int, column: int) -> None:
        self.knobs["row"].value, self.knobs["column"].value = row, column

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        for frame in self.run.until(at["step"] - 1):
            yield replace(frame, value=shown(self.run.steps[-1], at))
        total = at["step"] + 1
        yield Frame(total, total, shown(self.run.steps[at["step"] - 1], at),
                    " ".join(["Done.", *(f"Note: {note}." for note in self.run.notes)]))

    def _show(self, request: tuple[tuple[str, Any], ...], frame: Frame) -> None:
        super()._show(request, frame)
        self.cells.show(frame.value.impact, "what the prompt changes, a map to be clicked")


def whole(value: int, high: int, name: str, low: int = 0) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value, min=low, max=high, description=name, style=STYLE,
                                layout=FULL)


def shown(step: SampleStep, at: Values) -> PixelView:
    """One step's sum as maps and in digits."""
    maps = predictions(step, at)
    return PixelView(sum_maps(maps, at), sum_in_digits(step, maps, at),
                     impact=impact_map(maps, at))


def impact_map(maps: Maps, at: Values) -> Image.Image:
    """The difference, large, with the chosen cell framed."""
    uncond, cond, _ = maps
    impact = cond - uncond
    panel = Panel(signed_picture(impact, largest(impact)), "", 0, -LABEL_HIGH, CLICKED,
                  mark=(at["row"], at["column"]))
    return sheet(CLICKED, CLICKED, [panel])


def sum_maps(maps: Maps, at: Values) -> Image.Image:
    """eps_uncond, eps_cond, their difference and the guided sum, with the chosen cell framed."""
    uncond, cond, guided = maps
    limit, change = largest(uncond, cond), cond - uncond
    shown = [("eps_uncond", uncond, limit), ("eps_cond", cond, limit),
             (f"difference, {limit / largest(change):.0f} times", change, largest(change)),
             ("eps, guided", guided, limit)]
    panels = [Panel(signed_picture(values, scale), label, i * (MAP + GAP), 0, MAP,
                    mark=(at["row"], at["column"]))
              for i, (label, values, scale) in enumerate(shown)]
    return sheet(4 * MAP + 3 * GAP, MAP + LABEL_HIGH, panels)


def sum_in_digits(step: SampleStep, maps: Maps, at: Values) -> str:
    """The sum at the chosen cell, and how much the prompt matters over the whole of x_t."""
    uncond, cond, guided = (float(values[at["row"], at["column"]]) for values in maps)
    assert step.eps_uncond is not None and step.eps_cond is not None
    share = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
    return (f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, column {at['column']}\n"
            f"impact of the prompt = {cond:.3f} - ({uncond:.3f}) = {cond - uncond:+.3f}\n"
            f"eps = {uncond:.3f} + {at['guidance']:g} * ({cond - uncond:+.3f}) = {guided:.3f}\n"
            f"Over all cells and channels the impact is {share:.1%} as large as eps_uncond.")


def predictions(step: SampleStep, at: Values) -> Maps:
    """eps_uncond, eps_cond and the guided sum, of the chosen channel, (h, w) each."""
    assert step.eps_uncond is not None and step.eps_cond is not None
    guided = guide(step.eps_uncond, step.eps_cond, at["guidance"])
    uncond, cond, eps = (eps[0, at["channel"]] for eps in (step.eps_uncond, step.eps_cond, guided))
    return uncond, cond, eps
