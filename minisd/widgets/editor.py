"""The editor: a picture to begin from, how far into noise it goes, and a mask to stay inside."""

from collections.abc import Generator
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageChops, ImageDraw

from minisd import images
from minisd.pipeline import StableDiffusion
from minisd.widgets.cells import Drawn, DrawnMask
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.guidance import FEW_STEPS, FULL, SMALL, STEPS, STYLE
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet
from minisd.widgets.pictures import COLOURS

SIDE = 320                      # pixels along each of the two pictures
WIDE, HIGH = 2 * SIDE + GAP, SIDE + LABEL_HIGH
WHOLE, BOX, DRAWN = "the whole picture", "a box", "clicked cells"
DIMMED = 0.35                   # of the light of what a drawn mask leaves alone
MOVED = 32                      # grey levels from which on a pixel counts as changed


def editor(sd: StableDiffusion, picture: Image.Image) -> "Editor":
    """Repaint a picture, or what a box or a drawn mask holds, under a prompt: strength, seed.

    picture: of any kind and size; it is cropped to a square of the model's own size.
    """
    return Editor(sd, picture)


class Editor(Explorer):
    """The widget; the box is set in cells of the latents, `drawing` is the picture to click.

    The box's sliders hide without it, and so does the drawing.
    """

    def __init__(self, sd: StableDiffusion, picture: Image.Image) -> None:
        self.sd, words = sd, examples(sd.config.name)
        factor, side = sd.config.vae.downscale, sd.config.image_size
        self.original, = images.to_pil(images.from_pil(picture, size=(side, side)))
        self.cells, self.factor = side // factor, factor
        small = sum(p.numel() for p in sd.unet.parameters()) < SMALL
        self.steps, self.guidance = STEPS if small else FEW_STEPS, words.guidance
        cells = self.cells

        def whole(name: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
            return ipywidgets.IntSlider(value, min=low, max=high, description=name,
                                        continuous_update=small, style=STYLE, layout=dict(FULL))

        self.box = {"left": whole("Left", cells // 4, 0, cells - 1),
                    "top": whole("Top", 0, 0, cells - 1),
                    "wide": whole("Width", cells // 2, 1, cells),
                    "high": whole("Height", cells // 2, 1, cells)}
        self.drawing = DrawnMask(cells, SIDE)
        self.shown: Drawn | None = None                 # under the drawing's buttons
        knobs = {
            "prompt": ipywidgets.Text(words.repainted_prompt, description="Prompt",
                                      continuous_update=False, style=STYLE, layout=FULL),
            "repaint": ipywidgets.ToggleButtons(options=[WHOLE, BOX, DRAWN], value=BOX,
                                                description="Repaint", style=STYLE),
            "strength": ipywidgets.FloatSlider(
                1.0, min=0, max=1, step=0.05, description="Strength", readout_format=".2f",
                continuous_update=small, style=STYLE, layout=FULL),
            "seed": whole("Seed", min(words.seed, 50), 0, 50), **self.box,
            "cells": self.drawing}
        super().__init__("editor", knobs, self._frames, width=WIDE,
                         about="the original with the mask, and the repainted picture")
        knobs["repaint"].observe(lambda _: self._hide(), "value")
        self._hide()

    def _hide(self) -> None:
        chosen = self.knobs["repaint"].value
        for knob in self.box.values():
            knob.layout.display = None if chosen == BOX else "none"
        self.drawing.layout.display = None if chosen == DRAWN else "none"

    def _show(self, request: tuple[tuple[str, Any], ...], frame: Frame) -> None:
        super()._show(request, frame)
        drawn = dict(request)["cells"]
        if drawn != self.shown:
            self.shown = drawn
            self.drawing.show(self.lit(self.drawing.mask(drawn, self.original.size)),
                              f"the original, a picture to click: {drawn}")

    def lit(self, mask: Image.Image) -> Image.Image:
        """The original, dimmed where the mask leaves it alone."""
        light = mask.point(lambda level: 255 if level else round(255 * DIMMED))
        return Image.composite(self.original, Image.new("RGB", self.original.size), light)

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        mask = self.mask(at)
        if mask is not None and mask.getbbox() is None:
            asked = "Click the cells that are to be repainted."
            yield Frame(1, 1, View(self._sheet(self.lit(mask), self.original), asked))
            return
        run, early = heard(lambda: self.sd.steps(
            at["prompt"], image=self.original, mask=mask, strength=at["strength"],
            guidance_scale=self.guidance, seed=at["seed"], steps=self.steps))
        step, late = heard(lambda: next(run, None))             # reads the prompt
        done, last, start = 0, step, 0.0 if step is None else step.t
        while step is not None:
            last, done = step, step.index + 1
            if done < step.total:
                yield Frame(done, step.total + 1,
                            self._view(at, self.sd.preview(step.x0)[0], mask, start, done))
            step = next(run, None)
        painted = self.sd.decode(self.sd.encode_image(self.original) if last is None
                                 else last.x_prev)[0]
        notes = [f"Note: {note}." for note in dict.fromkeys(early + late)]
        yield Frame(done + 1, done + 1, self._view(at, painted, mask, start, done),
                    " ".join(["Done.", *notes]))

    def mask(self, at: Values) -> Image.Image | None:
        """White in the box, cut off at the picture's edges, or in the cells; None for all."""
        if at["repaint"] == WHOLE:
            return None
        if at["repaint"] == DRAWN:
            return self.drawing.mask(at["cells"], self.original.size)
        mask = Image.new("L", self.original.size, 0)
        ImageDraw.Draw(mask).rectangle(self._corners(at), fill=255)
        return mask

    def _corners(self, at: Values) -> tuple[int, int, int, int]:
        """The box's first and last pixels."""
        right, bottom = min(at["left"] + at["wide"], self.cells), min(at["top"] + at["high"],
                                                                      self.cells)
        left, top, right, bottom = (self.factor * n for n in (at["left"], at["top"], right, bottom))
        return left, top, right - 1, bottom - 1

    def _view(self, at: Values, painted: Image.Image, mask: Image.Image | None, t: float, done: int
              ) -> View:
        before = self.original.copy()
        if at["repaint"] == BOX:
            ImageDraw.Draw(before).rectangle(self._corners(at), outline=COLOURS["ink"], width=2)
        elif mask is not None:
            before = self.lit(mask)
        moved = np.asarray(ImageChops.difference(painted, self.original)).max(2) > MOVED
        lines = [f"{done} of {self.steps} steps, from t = {t:.0f} on." if done else
                 "No step is run: the picture comes back as the autoencoder has it.",
                 f"{moved.mean():.0%} of the pixels change by more than {MOVED} levels"]
        if mask is not None:
            inside = np.asarray(mask) > 0
            outside = f"{moved[~inside].mean():.0%}" if (~inside).any() else "none there"
            lines[-1] += (f": {moved[inside].mean():.0%} in the mask, which holds "
                          f"{inside.mean():.0%} of them, and outside it {outside}")
        return View(self._sheet(before, painted), "\n".join(lines))

    def _sheet(self, before: Image.Image, painted: Image.Image) -> Image.Image:
        return sheet(WIDE, HIGH, [Panel(before, "original", 0, 0, SIDE),
                                  Panel(painted, "repainted", SIDE + GAP, 0, SIDE)])
