"""The editor: a picture to begin from, how far into noise it goes, and a mask to stay inside."""

import re
from collections.abc import Generator
from itertools import chain

import numpy as np
from PIL import Image, ImageDraw

from minisd import images
from minisd.figures.style import INK
from minisd.observe.reading import to_tensor
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets import knobs
from minisd.widgets.cells import Area
from minisd.widgets.drawing import GAP, LABEL_HIGH, MOVED, moved, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View, painting, small

SIDE = 320                      # pixels along each of the two pictures
STEPS = 12
WHOLE, BOX, CLICKED = "the whole picture", "a box", "clicked cells"
DIMMED = 0.35                   # of the light of what a mask leaves alone


class Editor(Explorer):
    """Repaint a picture, or what a box or clicked cells hold, under a prompt: strength, seed.

    picture: of any kind and size; it is cropped to a square of the model's own size. Box and cells
    are those of the latents; knobs of what is not chosen hide.
    """

    def __init__(self, sd: StableDiffusion, picture: Image.Image) -> None:
        self.sd, example = sd, examples(sd.config.name)
        self.factor, side = sd.config.vae.downscale, sd.config.image_size
        self.original, = images.to_pil(to_tensor(picture, size=(side, side)))
        self.cells = cells = side // self.factor
        self.hidden = {
            BOX: {"left": knobs.slider("Left", cells // 4, 0, cells - 1),
                  "top": knobs.slider("Top", 0, 0, cells - 1),
                  "wide": knobs.slider("Width", cells // 2, 1, cells),
                  "high": knobs.slider("Height", cells // 2, 1, cells)},
            CLICKED: {"cells": knobs.words("Cells", "")}}
        self.hidden[CLICKED]["cells"].placeholder = "click the original, or type: row,column ..."
        board = {
            "prompt": knobs.words("Prompt", example.repainted_prompt),
            "repaint": knobs.buttons("Repaint", [WHOLE, BOX, CLICKED], BOX),
            "strength": knobs.slider("Strength", 1.0, 0.0, 1.0, 0.05),
            "seed": knobs.slider("Seed", min(example.seed, 50), 0, 50),
            **self.hidden[BOX], **self.hidden[CLICKED]}
        board["repaint"].observe(lambda _: self._hide(), "value")
        super().__init__("editor", board, self._frames, width=2 * SIDE + GAP,
                         height=LABEL_HIGH + SIDE, memory=Memory(sd), live=small(sd.unet),
                         areas=[Area(0, LABEL_HIGH, SIDE, SIDE, cells, cells, self._click)],
                         about="the original with the mask, and the repainted picture")
        self._hide()

    def _hide(self) -> None:
        for kind, some in self.hidden.items():
            for knob in some.values():
                chosen = kind == self.knobs["repaint"].value
                knob.layout = {"width": "auto", "display": None if chosen else "none"}

    def _click(self, row: int, column: int) -> None:
        """A click takes a cell into the mask, or out of it."""
        text = self.knobs["cells"]
        text.value = " ".join(f"{y},{x}" for y, x in sorted(in_text(text.value) ^ {(row, column)}))
        self.knobs["repaint"].value = CLICKED

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        mask = self.mask(at)
        if mask is not None and mask.getbbox() is None:
            yield Frame(1, 1, View(self._sheet(at, mask, self.original),
                                   "Click the cells that are to be repainted."))
            return
        run = self.sd.steps(at["prompt"], image=self.original, mask=mask, seed=at["seed"],
                            strength=at["strength"], steps=STEPS)
        first = next(run, None)
        if first is None:                               # no step is run
            back = self.sd.decode(self.sd.encode_image(self.original))[0]
            yield Frame(1, 1, self._view(at, back, mask, None, 0.0))
        else:
            yield from painting(self.sd, chain([first], run), lambda pictures, step: self._view(
                at, pictures[0], mask, step, first.t))

    def mask(self, at: Values) -> Image.Image | None:
        """White in the box, cut off at the picture's edges, or in the cells; None for all."""
        if at["repaint"] == WHOLE:
            return None
        small = np.zeros((self.cells, self.cells), np.uint8)
        if at["repaint"] == BOX:
            small[at["top"]:at["top"] + at["high"], at["left"]:at["left"] + at["wide"]] = 255
        for row, column in in_text(at["cells"]) if at["repaint"] == CLICKED else ():
            small[min(row, self.cells - 1), min(column, self.cells - 1)] = 255
        return Image.fromarray(small).resize(self.original.size, Image.Resampling.NEAREST)

    def _view(self, at: Values, painted: Image.Image, mask: Image.Image | None,
              step: SampleStep | None, t: float) -> View:
        changed = moved(painted, self.original) > MOVED
        lines = [f"{step.index + 1} of {STEPS} steps, from t = {t:.0f} on." if step else
                 "No step is run: the picture comes back as the autoencoder has it.",
                 f"{changed.mean():.0%} of the pixels change by more than {MOVED} levels"]
        if mask is not None:
            inside = np.asarray(mask) > 0
            outside = f"{changed[~inside].mean():.0%}" if (~inside).any() else "none there"
            lines[-1] += (f": {changed[inside].mean():.0%} in the mask, which holds "
                          f"{inside.mean():.0%} of them, and outside it {outside}")
        return View(self._sheet(at, mask, painted), "\n".join(lines))

    def _sheet(self, at: Values, mask: Image.Image | None, painted: Image.Image) -> Image.Image:
        """The original, its box framed, or dimmed where the mask leaves it alone; the result."""
        before = self.original.copy()
        if mask is not None and at["repaint"] == BOX:
            left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
            ImageDraw.Draw(before).rectangle((left, top, right - 1, bottom - 1), outline=INK,
                                             width=2)
        elif mask is not None:
            light = mask.point(lambda level: level or round(255 * DIMMED))
            before = Image.composite(before, Image.new("RGB", before.size), light)
        return sheet((SIDE, [(before, "original"), (painted, "repainted")]))


def in_text(text: str) -> set[tuple[int, int]]:
    """Cells as they are typed: "0,1 2,3" -> {(0, 1), (2, 3)}."""
    return {(int(row), int(column)) for row, column in re.findall(r"(\d+) *, *(\d+)", text)}


editor = Editor
