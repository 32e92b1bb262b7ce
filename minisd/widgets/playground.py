"""The playground: a sentence and six knobs at the left, the picture they make at the right."""

import itertools
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import ipywidgets
from PIL import Image

from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS
from minisd.widgets.engine import Engine, Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.pictures import card, mimebundle, picture_html

SMALL = 100_000_000             # parameters of a UNet that paints in about a second without a GPU
PREVIEW_SHARE = 0.25            # of a run's time may go into previews
STEPS, LARGEST_STEPS = 25, 100
LARGEST_GUIDANCE = 20.0
LARGEST_SEED = 2 ** 31 - 1      # what a number field holds exactly in every browser
SMALLEST_VIEW, LARGEST_VIEW = 384, 512      # CSS pixels along the picture's width
FIRST_PICTURE = 60.0            # seconds a cell waits for it, to have something to show on paper


@dataclass(frozen=True)
class Settings:
    """Where the knobs stand."""

    prompt: str
    negative_prompt: str
    guidance_scale: float
    steps: int
    sampler: str
    seed: int

    def __str__(self) -> str:
        return (f"seed {self.seed}, guidance {self.guidance_scale:g}, {self.steps} steps of "
                f"{self.sampler}")


def playground(sd: StableDiffusion, *, live: bool | None = None) -> "Playground":
    """Knobs for `sd`; the last line of a notebook's cell shows them.

    live: paint at every change (True) or only when Generate is pressed (False); by default True
    for small models. The reader can switch it in the playground.
    """
    return Playground(sd, live=live)


class Painter:
    """A run as frames: now and then the decoded x0 of the running step, at last the picture."""

    def __init__(self, sd: StableDiffusion) -> None:
        self.sd = sd
        self.seconds_per_step: float | None = None      # measured in the last run

    def __call__(self, settings: Settings) -> Generator[Frame, None, None]:
        began = time.perf_counter()
        run, early = heard(lambda: self.sd.steps(
            settings.prompt, negative_prompt=settings.negative_prompt,
            guidance_scale=settings.guidance_scale, steps=settings.steps,
            sampler=settings.sampler, seed=settings.seed))
        first, warned = heard(lambda: next(run))        # reads the prompts
        decoding = 0.0                                  # seconds spent on previews so far
        for step in itertools.chain([first], run):
            now = time.perf_counter()
            preview = None
            if step.index < step.total - 1 and decoding <= PREVIEW_SHARE * (now - began):
                preview = self.sd.decode(step.x0)[0]
                decoding += time.perf_counter() - now
            yield Frame(step.index + 1, step.total, preview)
        picture = self.sd.decode(step.x_prev)[0]
        seconds = time.perf_counter() - began
        self.seconds_per_step = seconds / step.total
        notes = dict.fromkeys(early + warned)           # each once, in order
        yield Frame(step.total, step.total, picture,
                    " ".join([f"Painted in {seconds:.1f} s: {settings}.",
                              *(f"Note: {note}." for note in notes)]))


class Playground:
    """The widget; `settings` says where its knobs stand, `image` is the last finished picture."""

    def __init__(self, sd: StableDiffusion, *, live: bool | None = None) -> None:
        small = sum(p.numel() for p in sd.unet.parameters()) < SMALL
        self.sd = sd
        self.image: Image.Image | None = None
        self.painted: Settings | None = None            # what `image` was made of
        self.painter = Painter(sd)
        self.engine = Engine(self.painter, self._show)
        self._make_controls(live=small if live is None else live)
        self.picture = ipywidgets.HTML()
        self.view = self._arrange()
        self.engine.follow(self.view)
        self._connect()
        if self.live.value:
            self.paint()
        else:
            self.engine.say("Press Generate to paint.")

    @property
    def settings(self) -> Settings:
        return Settings(self.prompt.value, self.negative_prompt.value, self.guidance.value,
                        self.steps.value, self.sampler.value, self.seed.value)

    def paint(self) -> None:
        """What the knobs say, in the background; what was under way ends."""
        self.engine.submit(self.settings, f"Painting{self._estimate()} ...")

    def _make_controls(self, *, live: bool) -> None:
        words = examples(self.sd.config.name)
        common = {"style": {"description_width": "10em"}, "layout": {"width": "auto"}}
        self.prompt = ipywidgets.Text(words.prompt, description="Prompt",
                                      continuous_update=False, **common)
        self.negative_prompt = ipywidgets.Text("", description="Negative prompt",
                                               placeholder="what you do not want to see",
                                               continuous_update=False, **common)
        self.guidance = ipywidgets.FloatSlider(7.5, min=0, max=LARGEST_GUIDANCE, step=0.5,
                                               description="Guidance scale",
                                               readout_format=".1f", continuous_update=live,
                                               **common)
        self.steps = ipywidgets.IntSlider(STEPS, min=1, max=LARGEST_STEPS, description="Steps",
                                          continuous_update=live, **common)
        self.seed = ipywidgets.BoundedIntText(words.seed, min=0, max=LARGEST_SEED,
                                              description="Seed", **common)
        self.sampler = ipywidgets.Dropdown(options=list(SAMPLERS), value="ddim",
                                           description="Sampler", **common)
        self.live = ipywidgets.Checkbox(live, description="Paint at every change", indent=False)
        narrow = {"width": "auto", "flex": "1 1 0"}
        self.generate = ipywidgets.Button(description="Generate", button_style="primary",
                                          layout=narrow)
        self.next_seed = ipywidgets.Button(description="Next seed", layout=narrow)
        self.stop = ipywidgets.Button(description="Stop", layout=narrow)

    def _arrange(self) -> ipywidgets.Box:
        buttons = ipywidgets.HBox([self.generate, self.next_seed, self.stop])
        knobs = ipywidgets.VBox(
            [self.prompt, self.negative_prompt, self.guidance, self.steps, self.seed,
             self.sampler, self.live, buttons], layout={"flex": "1 1 22em", "min_width": "18em"})
        width = f"{self._view_width + 8}px"
        seen = ipywidgets.VBox(
            [self.picture, self.engine.progress, self.engine.status],
            layout={"flex": f"0 1 {width}", "width": width, "margin": "0 0 0 16px"})
        for name in ("prompt", "negative_prompt", "guidance", "steps", "seed", "sampler", "live",
                     "generate", "next_seed", "stop", "picture"):
            getattr(self, name).add_class(f"minisd-{name.replace('_', '-')}")
        self.engine.status.add_class("minisd-status")
        view = ipywidgets.Box([knobs, seen], layout={"flex_flow": "row wrap"})
        view.add_class("minisd-playground")
        return view

    @property
    def _view_width(self) -> int:
        return min(max(self.sd.config.image_size, SMALLEST_VIEW), LARGEST_VIEW)

    # What happens when

    def _connect(self) -> None:
        for knob in (self.prompt, self.negative_prompt, self.guidance, self.steps, self.seed,
                     self.sampler):
            knob.observe(self._changed, "value")
        self.live.observe(self._switched, "value")
        self.generate.on_click(lambda _: self.paint())
        self.next_seed.on_click(self._take_next_seed)
        self.stop.on_click(lambda _: self.engine.cancel())

    def _changed(self, _: Any) -> None:
        if self.live.value:
            self.paint()
        else:
            self.engine.say(f"Changed: press Generate to paint{self._estimate()}.")

    def _switched(self, change: Any) -> None:
        self.guidance.continuous_update = self.steps.continuous_update = change.new
        if change.new:
            self.paint()

    def _take_next_seed(self, _: Any) -> None:
        self.seed.value = (self.seed.value + 1) % (LARGEST_SEED + 1)
        self.paint()

    def _estimate(self) -> str:
        pace = self.painter.seconds_per_step
        return "" if pace is None else f", about {pace * self.steps.value:.1f} s"

    def _show(self, settings: Settings, frame: Frame) -> None:
        finished = frame.done == frame.total
        if finished:
            self.image, self.painted = frame.value, settings
        what = "" if finished else f"step {frame.done} of {frame.total} towards "
        self.picture.value = picture_html(
            frame.value, alt=f'{what}"{settings.prompt}", {settings}', width=self._view_width)

    # On paper

    def __repr__(self) -> str:
        shown = self.painted or self.settings
        return f"Playground: {shown.prompt!r}, {shown}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None
                          ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live playground, and a card with the same picture for pages without a kernel."""
        if self.live.value:
            self.engine.wait(FIRST_PICTURE)
        shown = self.painted or self.settings
        lines = {"Prompt": shown.prompt, "Negative prompt": shown.negative_prompt or "(none)",
                 "Guidance scale": f"{shown.guidance_scale:g}", "Steps": str(shown.steps),
                 "Sampler": shown.sampler, "Seed": str(shown.seed)}
        footer = "A still picture: run this cell, and every line becomes a knob."
        return mimebundle(self.view, card(self.image, lines, footer), repr(self))
