"""The guidance lab: one seed at many guidance scales, what the prompt changes, and what it costs.

Classifier-free guidance (Ho & Salimans 2022): eps = eps_uncond + g (eps_cond - eps_uncond). A strip
of pictures fills in while one looks; below each stand toyworld's judge's verdict and how often
pictures of that scale came out right when it was measured. Below the strip: the reference at g = 1,
the picture in hand, the prompt's impact at one step, and the sum at one of its cells in digits.
"""

import json
import re
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from minisd.checkpoints.places import WEIGHTS
from minisd.diffusion import guide
from minisd.figures.pixels import signed
from minisd.figures.style import COLOURS, ERROR, INK, PAPER, typeface
from minisd.observe.preview import preview
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets import knobs
from minisd.widgets.cells import Area
from minisd.widgets.curve import HIGH, WIDE, Point, curve
from minisd.widgets.drawing import GAP, LABEL_HIGH, place, sheet
from minisd.widgets.engine import Frame, KeptRun, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Request, Values, View, small

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0)
STEPS, SEEDS = 12, 50
SIDE = 274                                      # pixels along each picture below the strip
THUMB, LINE = 100, 17                           # of the strip: a picture, a line of text
STRIP = THUMB + 6 * LINE + 8                    # scale, picture and verdict
KEPT = 6                                        # strips that are remembered

Said = tuple[str, str]                          # what the judge reads, and its verdict


class GuidanceLab(Explorer):
    """A strip of guidance scales for one seed; turn the knobs, or click a scale and a cell.

    `history` goes back to what was seen before.
    """

    def __init__(self, sd: StableDiffusion, *, scales: Sequence[float] = SCALES) -> None:
        example, scales = examples(sd.config.name), tuple(sorted({1.0, *scales}))
        self.sd, self.scales, self.strips = sd, scales, Memory(sd, KEPT)
        self.judge, self.measured, self.prompts = about_toyworld(sd)
        self.high = STRIP + HIGH * bool(self.measured)
        self.history = knobs.choice("Go back to", [("now", ())])
        self.history.observe(lambda change: self._turn(**dict(change.new)), "value")
        cells = sd.config.image_size // sd.config.vae.downscale
        own = min(scales, key=lambda g: abs(g - sd.config.guidance_scale))
        board = {
            "prompt": knobs.words("Prompt", example.prompt),
            "seed": knobs.slider("Seed", min(example.seed, SEEDS), 0, SEEDS),
            "scale": ipywidgets.SelectionSlider(
                options=[(f"{g:g}", g) for g in scales], value=own, description="Guidance scale",
                **knobs.COMMON),
            "step": knobs.slider("Step", STEPS // 3, 1, STEPS),
            "channel": knobs.slider("Channel", 0, 0, sd.config.unet.latent_channels - 1),
            "row": knobs.slider("Row", cells // 2, 0, cells - 1),
            "column": knobs.slider("Column", cells // 2, 0, cells - 1)}
        below, many = self.high + GAP + LABEL_HIGH, len(scales)
        areas = [Area(0, 0, WIDE, self.high, 1, many, lambda _, i: self._turn(scale=scales[i])),
                 Area(2 * (SIDE + GAP), below, SIDE, SIDE, cells, cells,
                      lambda row, column: self._turn(row=row, column=column))]
        super().__init__("guidance lab", board, self._frames, width=WIDE, height=below + SIDE,
                         areas=areas, memory=Memory(sd), live=small(sd.unet),
                         about="a strip of guidance scales; the reference at 1, the picture in "
                               "hand, and what the prompt changes")
        self.buttons.children = (*self.buttons.children, self.history)

    def _turn(self, **values: Any) -> None:
        for name, value in values.items():
            self.knobs[name].value = value

    def _show(self, request: Request, frame: Frame) -> None:
        super()._show(request, frame)
        seen = request[:3]                                  # prompt, seed, scale
        if frame.done == frame.total and all(seen != one for _, one in self.history.options):
            label = f"guidance {seen[2][1]:g}, seed {seen[1][1]}, {seen[0][1][:40]}"
            self.history.options = (*self.history.options, (label, seen))

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        """The scale in hand first, then the reference, then the others, the nearest first."""
        prompt, seed, chosen = at["prompt"], at["seed"], at["scale"]
        order = sorted(self.scales, key=lambda g: (g != chosen, g != 1, abs(g - chosen)))
        runs, said = self.strips.get((prompt, seed), lambda: ({g: KeptRun(partial(
            self.sd.steps, prompt, guidance_scale=g, seed=seed, steps=STEPS,
            both_predictions=True)) for g in self.scales}, {}))
        total, done = len(order) * STEPS + 1, 0
        for g in order:
            run = runs[g]
            for frame in run.until(STEPS - 1):
                show = g == chosen or frame.done == STEPS // 2
                yield Frame(done + frame.done, total, self._view(at, runs, said) if show else None,
                            f"Guidance {g:g}, step {frame.done} of {STEPS} ...")
            if STEPS not in run.pictures:
                run.pictures[STEPS], = self.sd.decode(run.steps[-1].x_prev)
                said[g] = self.judge(run.pictures[STEPS], prompt)
                yield Frame(done + STEPS, total, self._view(at, runs, said))
            done += STEPS
        yield Frame(total, total, self._view(at, runs, said))

    def _view(self, at: Values, runs: dict[float, KeptRun], said: dict[float, Said]) -> View:
        g = at["scale"]
        pictures = {scale: run.pictures.get(STEPS) or (
            preview(self.sd, run.steps[-1].x0)[0] if run.steps else None)
            for scale, run in runs.items()}
        step = next(iter(runs[g].steps[at["step"] - 1:at["step"]]), None)
        impact, digits = (None, "") if step is None else the_sum(step, at)
        below = sheet((SIDE, [(pictures[1.0], "reference: guidance 1"),
                              (pictures[g], f"in hand: guidance {g:g}"),
                              (impact, "what the prompt changes: click it")]))
        paper = Image.new("RGB", (WIDE, self.high + GAP + below.height), PAPER)
        paper.paste(self._strip(pictures, said, g), (0, 0))
        paper.paste(below, (0, self.high + GAP))
        lines = [f"Guidance {scale:g}: the judge reads {', which is '.join(filter(None, found))}."
                 for scale in dict.fromkeys((1.0, g)) if any(found := said.get(scale, ("", "")))]
        if g in said:
            values = np.asarray(pictures[g])
            lines.append(f"Guidance {g:g}: contrast {values.std():.0f} of 255; "
                         f"{np.isin(values, (0, 255)).mean():.0%} of the values at an end of the "
                         f"scale.")
        return View(paper, "\n".join([*lines, digits]))

    def _strip(self, pictures: dict[float, Image.Image | None], said: dict[float, Said],
               chosen: float) -> Image.Image:
        """A column for each scale: picture, verdict, and its point on the measured curve."""
        paper, wide = Image.new("RGB", (WIDE, self.high), PAPER), WIDE / len(pictures)
        pen, thumb = ImageDraw.Draw(paper), min(THUMB, int(wide) - 4)
        for i, (g, picture) in enumerate(pictures.items()):
            x, (_, verdict) = (i + 0.5) * wide, said.get(g, ("", ""))
            if picture is not None:
                place(paper, picture, round(x - thumb / 2), LINE + 6, thumb)
            colour = COLOURS["picture"] if verdict == "right" else ERROR
            pen.text((x, 4), f"g = {g:g}", INK, typeface("g", 14), anchor="ma")
            for k, word in enumerate(re.findall(r"\w+", verdict), start=1):
                pen.text((x, THUMB + LINE * k + 10), word, colour, typeface(word, 14), anchor="ma")
        if self.measured:
            paper.paste(curve({f"g = {g:g}": self.measured.get(g) for g in pictures},
                              f"g = {chosen:g}", f"as measured: right, of {self.prompts} other "
                              f"prompts at each scale, with the 95 % interval"), (0, STRIP))
        i = list(pictures).index(chosen)
        pen.rectangle((i * wide + 1, 0, (i + 1) * wide - 1, STRIP - 8), outline=INK, width=2)
        return paper


def the_sum(step: SampleStep, at: Values) -> tuple[Image.Image, str]:
    """What the prompt changes in a channel, a cell of it framed, and the sum there in digits."""
    assert step.eps_uncond is not None and step.eps_cond is not None
    uncond, cond = (eps[0, at["channel"]] for eps in (step.eps_uncond, step.eps_cond))
    impact = Image.new("RGB", (SIDE, SIDE), PAPER)
    place(impact, signed(cond - uncond), 0, 0, SIDE, (at["row"], at["column"]))

    def here(values: Tensor) -> float:
        return float(values[at["row"], at["column"]])

    share = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
    return impact, (
        f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, column {at['column']}: "
        f"eps = {here(uncond):.3f} + {at['scale']:g} * ({here(cond):.3f} - ({here(uncond):.3f})) "
        f"= {here(guide(uncond, cond, at['scale'])):.3f}\nOver all cells and channels the prompt's "
        f"impact is {share:.1%} as large as eps_uncond.")


def about_toyworld(sd: StableDiffusion) -> tuple[Any, dict[float, Point], int]:
    """The judge's verdict; guidance scale -> measured share of right prompts and its interval; of
    how many prompts.

    Other models have neither; nor has toyworld what is not at hand.
    """
    judge: Any = lambda picture, prompt: ("", "")       # noqa: E731
    section: dict[str, Any] = {"rows": [], "n": 0}
    if sd.config.name == "toyworld":
        from minisd.toyworld.evaluation import verdict
        try:
            judge = verdict.shipped()
            file = WEIGHTS / "toyworld" / "evaluation.json"
            section = json.loads(file.read_text(encoding="utf-8"))["sections"]["guidance"]
        except (OSError, ValueError, KeyError):
            pass
    return judge, {row["guidance"]: (row["all"]["share"], row["all"]["low"], row["all"]["high"])
                   for row in section["rows"]}, section["n"]


guidance_lab = GuidanceLab
