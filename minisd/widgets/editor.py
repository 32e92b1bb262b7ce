"""The editor: a picture to begin from, how far into noise it goes, and a box to stay inside."""

from collections.abc import Generator
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageChops, ImageDraw

from minisd.pipeline import StableDiffusion
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.guidance import FEW_STEPS, FULL, SMALL, STEPS, STYLE
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet
from minisd.widgets.pictures import COLOURS

SIDE = 320                      # pixels along each of the two pictures
WIDE, HIGH = 2 * SIDE + GAP, SIDE + LABEL_HIGH
WHOLE, BOX = "the whole picture", "the box only"
MOVED = 32                      # grey levels from which on a pixel counts as changed


def editor(sd: StableDiffusion, picture: Image.Image) -> "Editor":
    """Repaint a picture, or the part of it in a box, under a prompt: strength, box, seed."""
    return Editor(sd, picture)


class Editor(Explorer):
    """The widget; the box is set in cells of the latents, and its sliders hide without one."""

    def __init__(self, sd: StableDiffusion, picture: Image.Image) -> None:
        self.sd, words = sd, examples(sd.config.name)
        factor, side = sd.config.vae.downscale, sd.config.image_size
        self.original = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        self.cells, self.factor = side // factor, factor
        small = sum(p.numel() for p in sd.unet.parameters()) < SMALL
        self.steps = STEPS if small else FEW_STEPS
        cells = self.cells

        def whole(name: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
            return ipywidgets.IntSlider(value, min=low, max=high, description=name,
                                        continuous_update=small, style=STYLE, layout=dict(FULL))

        self.box = {"left": whole("Left", cells // 4, 0, cells - 1),
                    "top": whole("Top", 0, 0, cells - 1),
                    "wide": whole("Width", cells // 2, 1, cells),
                    "high": whole("Height", cells // 2, 1, cells)}
        knobs = {
            "prompt": ipywidgets.Text(words.repainted_prompt, description="Prompt",
                                      continuous_update=False, style=STYLE, layout=FULL),
            "repaint": ipywidgets.ToggleButtons(options=[WHOLE, BOX], value=BOX,
                                                description="Repaint", style=STYLE),
            "strength": ipywidgets.FloatSlider(
                1.0, min=0, max=1, step=0.05, description="Strength", readout_format=".2f",
                continuous_update=small, style=STYLE, layout=FULL),
            "seed": whole("Seed", min(words.seed, 50), 0, 50), **self.box}
        super().__init__("editor", knobs, self._frames, width=WIDE,
                         about="the original with the box, and the repainted picture")
        knobs["repaint"].observe(self._hide, "value")

    def _hide(self, _: Any) -> None:
        for knob in self.box.values():
            knob.layout.display = None if self.knobs["repaint"].value == BOX else "none"

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        mask = self.mask(at) if at["repaint"] == BOX else None
        run, early = heard(lambda: self.sd.steps(
            at["prompt"], image=self.original, mask=mask, strength=at["strength"],
            seed=at["seed"], steps=self.steps))
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

    def mask(self, at: Values) -> Image.Image:
        """White in the box, cut off at the picture's edges."""
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
        framed = self.original.copy()
        if mask is not None:
            ImageDraw.Draw(framed).rectangle(self._corners(at), outline=COLOURS["ink"], width=2)
        panels = [Panel(framed, "original", 0, 0, SIDE),
                  Panel(painted, "repainted", SIDE + GAP, 0, SIDE)]
        moved = np.asarray(ImageChops.difference(painted, self.original)).max(2) > MOVED
        lines = [f"{done} of {self.steps} steps, from t = {t:.0f} on." if done else
                 "No step is run: the picture comes back as the autoencoder has it.",
                 f"{moved.mean():.0%} of the pixels change by more than {MOVED} levels"]
        if mask is not None:
            inside = np.asarray(mask) > 0
            outside = f"{moved[~inside].mean():.0%}" if (~inside).any() else "none there"
            lines[-1] += (f": {moved[inside].mean():.0%} in the box, which holds "
                          f"{inside.mean():.0%} of them, and outside it {outside}")
        return View(sheet(WIDE, HIGH, panels), "\n".join(lines))
