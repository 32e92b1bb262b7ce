"""The guidance lab: one seed at many guidance scales, what the prompt changes, and what it costs.

Classifier-free guidance (Ho & Salimans 2022): eps = eps_uncond + g (eps_cond - eps_uncond). A strip
of pictures fills in while one looks; below each stand what toyworld's judge reads in it and how
often pictures of that scale were right when it was measured. Below the strip: the reference at
g = 1, the picture in hand, the prompt's impact at one step, and the sum at one cell in digits.
"""

import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from minisd import images
from minisd.checkpoints.places import WEIGHTS
from minisd.diffusion import guide
from minisd.figures.pixels import signed
from minisd.figures.style import COLOURS, ERROR, FAINT, INK, PAPER, typeface
from minisd.observe.preview import preview
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets import knobs
from minisd.widgets.cells import Cells
from minisd.widgets.drawing import GAP, Panel, picture_html, place, row, sheet
from minisd.widgets.engine import Frame, Memory, Recorded
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Request, Values, View, described, small

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0)
STEPS, SEEDS = 12, 50
WIDE, SIDE = 960, 312                           # pixels: the strip, and each picture below it
THUMB, CURVE, HEAD, LINE = 112, 110, 24, 17     # of the strip: picture, curve, label, verdict
HIGH = HEAD + THUMB + 4 * LINE + CURVE
KEPT, PATIENCE = 6, 10.0                        # strips; seconds that the cell waits for the first

Said = tuple[str, str]                                      # what is read, and the verdict
Judge = Callable[[Image.Image, str], Said]                  # of a picture and its prompt


@dataclass(frozen=True)
class LabView(View):
    """`picture` is all of it, for paper; on the page its parts are apart, two of them to click."""

    strip: Image.Image = field(kw_only=True)
    pair: Image.Image = field(kw_only=True)     # the reference and the picture in hand
    impact: Image.Image = field(kw_only=True)


def guidance_lab(sd: StableDiffusion, *, scales: Sequence[float] = SCALES) -> "GuidanceLab":
    """A strip of guidance scales for one seed; turn the knobs, or click a scale and a cell."""
    return GuidanceLab(sd, tuple(sorted({1.0, *scales})))


class GuidanceLab(Explorer):
    """The widget; `history` goes back to what was seen before."""

    def __init__(self, sd: StableDiffusion, scales: tuple[float, ...]) -> None:
        example, live = examples(sd.config.name), small(sd.unet)
        self.sd, self.scales, self.strips = sd, scales, Memory(sd, KEPT)
        self.judge, self.measured = judge_of(sd), measured(sd)
        cells = sd.config.image_size // sd.config.vae.downscale
        own = min(scales, key=lambda g: abs(g - sd.config.guidance_scale))
        board = {
            "prompt": knobs.words("Prompt", example.prompt),
            "seed": knobs.slider("Seed", min(example.seed, SEEDS), 0, SEEDS, live=live),
            "scale": ipywidgets.SelectionSlider(
                options=[(f"{g:g}", g) for g in scales], value=own, description="Guidance scale",
                **knobs.COMMON),
            "step": knobs.slider("Step", STEPS // 3, 1, STEPS),
            "channel": knobs.slider("Channel", 0, 0, sd.config.unet.latent_channels - 1),
            "row": knobs.slider("Row", cells // 2, 0, cells - 1),
            "column": knobs.slider("Column", cells // 2, 0, cells - 1)}
        self.strip = Cells(1, len(scales), (WIDE, HIGH), self._pick_scale)
        self.cells = Cells(cells, cells, (SIDE, SIDE), self._pick_cell)
        self.history = knobs.choice("Go back to", [("now", None)])
        self.history.observe(self._go_back, "value")
        super().__init__("guidance lab", board, self._frames, width=2 * SIDE + GAP,
                         memory=Memory(sd), live=live, patience=PATIENCE,
                         about="the reference at guidance 1, and the picture in hand")

    def arrange(self, board: Sequence[ipywidgets.Widget], shown: Sequence[ipywidgets.Widget]
                ) -> ipywidgets.Box:
        above, digits = board[:3], board[3:-1]
        columns = [ipywidgets.VBox([*some], layout={"flex": "1 1 24em"}) for some in
                   ((*above, self.history, board[-1]), digits)]
        picture, text = shown
        heading = ipywidgets.HTML("What the prompt changes: click a cell")
        return ipywidgets.VBox([
            ipywidgets.HBox(columns, layout={"flex_flow": "row wrap"}), self.strip,
            ipywidgets.HBox([picture, ipywidgets.VBox([heading, self.cells])]), text,
            self.engine.progress, self.engine.status], layout={"max_width": f"{WIDE + 24}px"})

    # What happens when

    def _pick_scale(self, _: int, column: int) -> None:
        self.knobs["scale"].value = self.scales[column]

    def _pick_cell(self, row: int, column: int) -> None:
        self.knobs["row"].value, self.knobs["column"].value = row, column

    def _go_back(self, change: Any) -> None:
        for name, value in zip(("prompt", "seed", "scale"), change.new or (), strict=False):
            self.knobs[name].value = value

    def _show(self, request: Request, frame: Frame) -> None:
        super()._show(request, frame)
        at, view = dict(request), frame.value
        alt = f"{self.about}: {described(at)}. {view.text}"
        self.picture.value = picture_html(view.pair, alt=alt, width=self.width)
        self.strip.show(view.strip, f"pictures at guidance {self.scales}: {view.text}")
        self.cells.show(view.impact, "what the prompt changes, a map to be clicked")
        seen = (at["prompt"], at["seed"], at["scale"])
        known = [value for _, value in self.history.options]
        if frame.done == frame.total and seen not in known:
            label = f"guidance {at['scale']:g}, seed {at['seed']}, {at['prompt'][:40]}"
            self.history.options = (*self.history.options, (label, seen))

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        """The scale in hand first, then the reference, then the others, the nearest first."""
        chosen = at["scale"]
        order = sorted(self.scales, key=lambda g: (g != chosen, g != 1, abs(g - chosen)))
        prompt, seed, total, done = at["prompt"], at["seed"], len(order) * STEPS + 1, 0
        runs, said = self.strips.get((prompt, seed), lambda: ({g: Recorded(partial(
            self.sd.steps, prompt, guidance_scale=g, seed=seed, steps=STEPS,
            both_predictions=True)) for g in self.scales}, {}))
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

    def _view(self, at: Values, runs: dict[float, Recorded], said: dict[float, Said]) -> LabView:
        pictures = {g: self._picture(run) for g, run in runs.items()}
        strip = self._strip(pictures, said, at["scale"])
        pair = row([(pictures[1.0], "reference: guidance 1"),
                    (pictures[at["scale"]], f"in hand: guidance {at['scale']:g}")], SIDE)
        step = next(iter(runs[at["scale"]].steps[at["step"] - 1:at["step"]]), None)
        impact, digits = (Image.new("RGB", (SIDE, SIDE), PAPER), "") if step is None else (
            impact_map(step, at), sum_in_digits(step, at))
        below = sheet([*pair, Panel(impact, "what the prompt changes", 2 * (SIDE + GAP), 0, SIDE)])
        paper = Image.new("RGB", (WIDE, HIGH + GAP + below.height), PAPER)
        paper.paste(strip, (0, 0))
        paper.paste(below, (0, HIGH + GAP))
        lines = [f"Guidance {g:g}: {reading} {verdict}".strip() for g, (reading, verdict) in
                 said.items() if g in (1.0, at["scale"]) and (reading or verdict)]
        lines += [levels(pictures[at["scale"]], at["scale"])] * (at["scale"] in said)
        return LabView(paper, "\n".join([*lines, digits]), strip=strip, pair=sheet(pair),
                       impact=impact)

    def _picture(self, run: Recorded) -> Image.Image | None:
        """The finished picture, or a preview of where the run is."""
        if STEPS in run.pictures or not run.steps:
            return run.pictures.get(STEPS)
        return preview(self.sd, run.steps[-1].x0)[0]

    def _strip(self, pictures: dict[float, Image.Image | None], said: dict[float, Said],
               chosen: float) -> Image.Image:
        """A column for each scale: picture, verdict, and its point on the measured curve."""
        paper = Image.new("RGB", (WIDE, HIGH), PAPER)
        pen, wide = ImageDraw.Draw(paper), WIDE / len(pictures)
        thumb = min(THUMB, int(wide) - 4)

        def write(x: float, y: float, text: str, colour: str = INK, size: int = 14) -> None:
            pen.text((x, y), text, colour, typeface(text, size), anchor="ma")

        def height(share: float) -> float:
            return HIGH - 6 - share * (CURVE - 16)

        points = []
        for i, (g, picture) in enumerate(pictures.items()):
            x, (_, verdict) = (i + 0.5) * wide, said.get(g, ("", ""))
            if g == chosen:
                pen.rectangle((i * wide + 1, 0, (i + 1) * wide - 1, HIGH - 1), outline=INK, width=2)
            write(x, 4, f"g = {g:g}")
            if picture is not None:
                place(paper, picture, round(x - thumb / 2), HEAD, thumb)
            for k, word in enumerate(verdict.replace(":", "").replace(",", "").split()):
                write(x, HEAD + THUMB + 4 + LINE * k, word,
                      COLOURS["picture"] if verdict == "right" else ERROR)
            if g in self.measured:
                share, low, high = self.measured[g]
                pen.line((x, height(low), x, height(high)), COLOURS["text"], 2)
                points.append((x, height(share), share, g == chosen))
        if points:
            for share in (0.0, 0.5, 1.0):
                pen.line((0, height(share), WIDE, height(share)), FAINT)
            write(WIDE / 2, HIGH - 22, "measured: prompts of 100 that come out right", INK, 12)
            pen.line([point[:2] for point in points], COLOURS["text"], 3)
        for x, y, share, here in points:
            r = 7 if here else 4
            pen.ellipse((x - r, y - r, x + r, y + r), COLOURS["time" if here else "text"])
            write(x + (18 if x < WIDE - 30 else -18), y - 6, f"{100 * share:.0f}", INK, 12)
        return paper


# The sum

def impact_map(step: SampleStep, at: Values) -> Image.Image:
    """What the prompt changes in the chosen channel, with the chosen cell framed."""
    uncond, cond, _ = predictions(step, at)
    paper = Image.new("RGB", (SIDE, SIDE), PAPER)
    place(paper, signed(cond - uncond), 0, 0, SIDE, (at["row"], at["column"]))
    return paper


def sum_in_digits(step: SampleStep, at: Values) -> str:
    """The sum at the chosen cell, and how much the prompt matters over the whole of x_t."""
    uncond, cond, eps = (float(values[at["row"], at["column"]]) for values in predictions(step, at))
    assert step.eps_uncond is not None and step.eps_cond is not None
    share = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
    return (f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, column {at['column']}: "
            f"eps = {uncond:.3f} + {at['scale']:g} * ({cond:.3f} - ({uncond:.3f})) = {eps:.3f}\n"
            f"Over all cells and channels the prompt's impact is {share:.1%} as large as "
            f"eps_uncond.")


def predictions(step: SampleStep, at: Values) -> tuple[Tensor, Tensor, Tensor]:
    """eps_uncond, eps_cond and the guided sum, of the chosen channel, (h, w) each."""
    assert step.eps_uncond is not None and step.eps_cond is not None
    uncond, cond = (eps[0, at["channel"]] for eps in (step.eps_uncond, step.eps_cond))
    return uncond, cond, guide(uncond, cond, at["scale"])


def levels(picture: Image.Image | None, g: float) -> str:
    """The cost of a run, and what became of the picture's levels."""
    values = np.asarray(picture)
    return (f"Guidance {g:g}: contrast {values.std():.0f} of 255; "
            f"{np.isin(values, (0, 255)).mean():.0%} of the values at an end of the scale")


# What is known of toyworld

@cache
def _measured() -> dict[str, Any]:
    """The section on guidance in toyworld's evaluation; {} where there is none."""
    try:
        text = (WEIGHTS / "toyworld" / "evaluation.json").read_text(encoding="utf-8")
        return json.loads(text)["sections"]["guidance"]
    except (OSError, ValueError, KeyError):
        return {}


def measured(sd: StableDiffusion) -> dict[float, tuple[float, float, float]]:
    """Guidance scale -> share of prompts that come out right, and its interval; toyworld's."""
    if sd.config.name != "toyworld":
        return {}
    rows = _measured().get("curves", {}).get("ddim", _measured().get("rows", []))
    return {row["guidance"]: tuple(row["all"][key] for key in ("share", "low", "high"))
            for row in rows}


def judge_of(sd: StableDiffusion) -> Judge:
    """What toyworld's judge says of a picture; nothing for other models."""
    file = WEIGHTS / "toyworld" / "judge.safetensors"
    if sd.config.name != "toyworld" or not file.is_file():
        return lambda picture, prompt: ("", "")
    from minisd.toyworld.evaluation import judge
    reader = judge.load_judge(file)

    def say(picture: Image.Image, prompt: str) -> tuple[str, str]:
        reading = reader.read(images.from_pil(picture))[0]
        things = " and ".join(f"{seen.colour} {seen.kind}" for seen in reading.things) or "nothing"
        scene = scene_of(prompt)
        found = {} if scene is None else judge.agrees(reading, scene)
        unsaid = {"all"} if scene and scene.background else {"all", "background"}
        wrong = [name for name, right in found.items() if not right and name not in unsaid]
        verdict = f"wrong: {', '.join(wrong)}" if wrong else "right" if found else ""
        return f"the judge reads {things}, {reading.background or 'unclear'}.", verdict

    return say


def scene_of(prompt: str) -> Any:
    """What a prompt of toyworld asks for; None where it is not said in toyworld's way.

    The background is "" where the prompt leaves it open.
    """
    from minisd.toyworld.captions import BACKGROUND_PHRASES, RELATION_PHRASES
    from minisd.toyworld.scenes import COLOURS as NAMES
    from minisd.toyworld.scenes import KINDS, Scene, Thing
    text = f" {' '.join(prompt.lower().split())}"
    found = list(re.finditer(rf"\b({'|'.join(NAMES)}) ({'|'.join(KINDS)})\b", text))
    if not 1 <= len(found) <= 2:
        return None
    between = text[found[0].end():found[1].start()] if len(found) == 2 else ""
    relation = next((name for name, phrases in RELATION_PHRASES.items()
                     if any(between == f" {phrase} {article} " for phrase in phrases
                            for article in ("a", "an"))), None)
    background = next((name for name, phrases in BACKGROUND_PHRASES.items()
                       if text.endswith(tuple(phrases))), "")
    things = tuple(Thing(one[2], one[1], 0.5, 0.5, 0.5) for one in found)
    return None if len(found) == 2 and relation is None else Scene(things, background, relation, 0)
