"""The editor: a picture to begin from, how far into noise it goes, and a mask to stay inside."""

from collections.abc import Generator, Iterator

import numpy as np
from PIL import Image, ImageDraw

from minisd import images
from minisd.figures.style import INK
from minisd.observe.reading import to_tensor
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets import knobs
from minisd.widgets.cells import Drawn, DrawnMask
from minisd.widgets.drawing import GAP, MOVED, moved, row, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Request, Values, View, painting, small

SIDE = 320                      # pixels along each of the two pictures
STEPS = 12
WHOLE, BOX, DRAWN = "the whole picture", "a box", "clicked cells"
DIMMED = 0.35                   # of the light of what a mask leaves alone


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
        self.sd, example, live = sd, examples(sd.config.name), small(sd.unet)
        self.factor, side = sd.config.vae.downscale, sd.config.image_size
        self.original, = images.to_pil(to_tensor(picture, size=(side, side)))
        self.cells = cells = side // self.factor
        self.box = {"left": knobs.slider("Left", cells // 4, 0, cells - 1, live=live),
                    "top": knobs.slider("Top", 0, 0, cells - 1, live=live),
                    "wide": knobs.slider("Width", cells // 2, 1, cells, live=live),
                    "high": knobs.slider("Height", cells // 2, 1, cells, live=live)}
        self.drawing = DrawnMask(cells, SIDE)
        self.shown: Drawn | None = None                 # under the drawing's buttons
        board = {
            "prompt": knobs.words("Prompt", example.repainted_prompt),
            "repaint": knobs.buttons("Repaint", [WHOLE, BOX, DRAWN], BOX),
            "strength": knobs.slider("Strength", 1.0, 0.0, 1.0, 0.05, live=live),
            "seed": knobs.slider("Seed", min(example.seed, 50), 0, 50, live=live), **self.box,
            "cells": self.drawing}
        for knob in self.box.values():
            knob.layout = {"width": "auto"}             # of its own, to be hidden
        board["repaint"].observe(lambda _: self._hide(), "value")
        super().__init__("editor", board, self._frames, width=2 * SIDE + GAP,
                         memory=Memory(sd), live=live,
                         about="the original with the mask, and the repainted picture")
        self._hide()

    def _hide(self) -> None:
        chosen = self.knobs["repaint"].value
        for knob in self.box.values():
            knob.layout.display = None if chosen == BOX else "none"
        self.drawing.layout.display = None if chosen == DRAWN else "none"

    def _show(self, request: Request, frame: Frame) -> None:
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
        run = self.sd.steps(at["prompt"], image=self.original, mask=mask, seed=at["seed"],
                            strength=at["strength"], steps=STEPS)
        first = next(run, None)
        if first is None:                               # no step is run
            back = self.sd.decode(self.sd.encode_image(self.original))[0]
            yield Frame(1, 1, self._view(at, back, mask, None, 0.0))
            return

        def whole() -> Iterator[SampleStep]:
            yield first
            yield from run

        yield from painting(self.sd, whole(), lambda pictures, step: self._view(
            at, pictures[0], mask, step, first.t))

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
        right, bottom = (min(at[a] + at[b], self.cells) for a, b in
                         (("left", "wide"), ("top", "high")))
        left, top, right, bottom = (self.factor * n for n in (at["left"], at["top"], right, bottom))
        return left, top, right - 1, bottom - 1

    def _view(self, at: Values, painted: Image.Image, mask: Image.Image | None,
              step: SampleStep | None, t: float) -> View:
        before = self.original.copy()
        if at["repaint"] == BOX:
            ImageDraw.Draw(before).rectangle(self._corners(at), outline=INK, width=2)
        elif mask is not None:
            before = self.lit(mask)
        changed = moved(painted, self.original) > MOVED
        lines = [f"{step.index + 1} of {STEPS} steps, from t = {t:.0f} on." if step else
                 "No step is run: the picture comes back as the autoencoder has it.",
                 f"{changed.mean():.0%} of the pixels change by more than {MOVED} levels"]
        if mask is not None:
            inside = np.asarray(mask) > 0
            outside = f"{changed[~inside].mean():.0%}" if (~inside).any() else "none there"
            lines[-1] += (f": {changed[inside].mean():.0%} in the mask, which holds "
                          f"{inside.mean():.0%} of them, and outside it {outside}")
        return View(self._sheet(before, painted), "\n".join(lines))

    def _sheet(self, before: Image.Image, painted: Image.Image) -> Image.Image:
        return sheet(row([(before, "original"), (painted, "repainted")], SIDE))
