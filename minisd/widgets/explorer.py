"""The form that all widgets share: knobs, one picture and a line of text, and the way to work.

    def frames(at: Values) -> Generator[Frame, None, None]:
        yield Frame(1, 1, View(picture, "what the numbers say"))

    Explorer("noise slider", {"t": knobs.slider("Timestep t", 500, 0, 999)}, frames)

A turned knob leaves its values with the engine, which runs `frames` on the worker thread. Models
that take seconds for a picture wait until Paint is pressed. On paper, where there is no kernel, the
same picture stands beside its knobs; under MINISD_GRADING=1 only that is shown.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
from PIL import Image
from torch import nn

from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets.cells import Area, clickable
from minisd.widgets.drawing import mimebundle, picture_html
from minisd.widgets.engine import Engine, Frame, Memory
from minisd.widgets.stills import still

FIRST_VIEW = 60.0               # seconds a cell waits for it, to have something to show on paper
WIDTH = 512                     # CSS pixels of the picture, unless a widget says otherwise
PAINTS_AT_ONCE = 20_000_000     # parameters of a network that works while one looks, without a GPU
DECODING = 0.25                 # of a run's time may go into previews
GRADING = "MINISD_GRADING"      # set to 1 where a machine runs the notebook to mark it

Values = Mapping[str, Any]      # the knobs' names and where they stand
Frames = Callable[[Values], Generator[Frame, None, None]]
Request = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class View:
    """What one frame shows."""

    picture: Image.Image
    text: str = ""              # below the picture, plain; may have several lines


class Explorer:
    """A widget; `values` says where its knobs stand, `seen` is what it shows."""

    def __init__(self, name: str, knobs: Mapping[str, ipywidgets.Widget], frames: Frames, *,
                 width: int = WIDTH, height: int = 0, areas: Sequence[Area] = (), about: str = "",
                 memory: Memory | None = None, live: bool | None = None) -> None:
        """name: for readers and screen readers; with dashes, the CSS class of the whole.

        knobs: any widgets that have a hashable `value`; each gets its name as a CSS class.
        frames: the work, whose frames hold a `View`. It runs on the worker thread.
        width: of the picture in CSS pixels. about: what the picture shows, for its alt text.
        areas: of a picture `height` pixels high, that can be clicked.
        memory: of what is shown, and so of the model whose weights decide it.
        live: work at every change (True), or when Paint is pressed (False); the reader can switch.
            None: there is nothing to wait for, and so no buttons.
        """
        self.name, self.knobs, self.frames, self.width = name, dict(knobs), frames, width
        self.about, self.memory = about or name, memory or Memory()
        self.seen: View | None = None                   # the last one
        self.seen_at: dict[str, Any] = {}               # what `seen` was made of
        self.engine = Engine(lambda request: frames(dict(request)), self._show, self.memory)
        self.picture = ipywidgets.HTML().add_class("minisd-picture")
        self.text = ipywidgets.HTML().add_class("minisd-text")
        self.live = ipywidgets.Checkbox(live is not False, description="at every change",
                                        indent=False).add_class("minisd-live")
        self.paint, self.stop = (
            ipywidgets.Button(description=word, button_style=style).add_class(
                f"minisd-{word.lower()}") for word, style in (("Paint", "primary"), ("Stop", "")))
        self.buttons = ipywidgets.HBox([self.paint, self.stop, self.live] * (live is not None))
        self.inert = os.environ.get(GRADING, "0") not in ("", "0")
        for key, knob in self.knobs.items():
            knob.add_class(f"minisd-{key.replace('_', '-')}")
            if live is False and hasattr(knob, "readout"):
                knob.continuous_update = False      # a slider that is heard when it is let go
            if not self.inert:
                knob.observe(lambda _: self.changed(), "value")
        self.paint.on_click(lambda _: self.refresh())
        self.stop.on_click(lambda _: self.engine.cancel())
        self.live.observe(lambda change: self.refresh() if change.new else None, "value")
        shown = clickable(self.picture, (width, height), areas) if areas else self.picture
        self.view = ipywidgets.Box(
            [ipywidgets.VBox([*self.knobs.values(), self.buttons],
                             layout={"flex": "1 1 22em", "min_width": "20em"}),
             ipywidgets.VBox([shown, self.text, *[self.engine.progress] * (live is not None),
                              self.engine.status],
                             layout={"flex": f"0 1 {width + 8}px", "width": f"{width + 8}px"})],
            layout={"flex_flow": "row wrap", "grid_gap": "16px"})
        self.view.add_class(f"minisd-{name.replace(' ', '-')}")
        self.engine.follow(self.view)
        if self.live.value:
            self.refresh()
        else:
            self.engine.say("Press Paint to begin: this model takes its time.")

    @property
    def values(self) -> dict[str, Any]:
        return {key: knob.value for key, knob in self.knobs.items()}

    def refresh(self) -> None:
        """Show what the knobs say; what was under way ends."""
        self.engine.submit(tuple(self.values.items()), f"Working{self._estimate()} ...")

    def changed(self) -> None:
        """A knob was turned."""
        if self.live.value:
            self.refresh()
        else:
            self.engine.say(f"Changed: press Paint{self._estimate()}.")

    def _estimate(self) -> str:
        seconds = self.engine.seconds
        return "" if seconds is None or seconds < 1 else f", about {seconds:.0f} s"

    def _show(self, request: Request, frame: Frame) -> None:
        view, at = frame.value, dict(request)
        self.seen, self.seen_at = view, at
        alt = f"{self.about}: {described(at)}"
        self.picture.value = picture_html(
            view.picture, width=self.width,
            alt=self._aloud(alt) if frame.done == frame.total else alt)
        self.text.value = f'<div style="white-space: pre-wrap">{escape(view.text)}</div>'

    def _aloud(self, text: str) -> str:
        """A text about what is seen, and what toyworld's judge reads from its pictures."""
        from minisd.toyworld.evaluation.verdict import aloud
        picture = self.seen.picture if self.seen else None
        return aloud(text, picture.info.get("pictures", [picture])) if picture else text

    # On paper

    def __repr__(self) -> str:
        return f"{self.name}: {described(self.seen_at or self.values)}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None
                          ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and a still of it for pages without a kernel."""
        if self.live.value:
            self.engine.wait(FIRST_VIEW)
        at = self.seen_at or self.values
        visible = [(knob, at[key]) for key, knob in self.knobs.items()
                   if knob.layout.display != "none"]
        picture = still(self.seen.picture if self.seen else None, self.width, visible,
                        self.seen.text if self.seen else "")
        return mimebundle(None if self.inert else self.view, picture, repr(self),
                          self._aloud(repr(self)))


def described(values: Values) -> str:
    """The knobs in one line of words."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())


def small(network: nn.Module) -> bool:
    """Whether it works while one looks."""
    return sum(p.numel() for p in network.parameters()) < PAINTS_AT_ONCE


def painting(sd: StableDiffusion, steps: Iterator[SampleStep],
             show: Callable[[list[Image.Image], SampleStep], Any]) -> Generator[Frame, None, None]:
    """A run as frames: now and then the decoded x0 of the present step, at last the pictures.

    show: pictures and their step -> what a frame shows. At most a quarter of the time is spent on
    decoding on the way.
    """
    began, decoding = time.perf_counter(), 0.0
    for step in steps:
        now, value = time.perf_counter(), None
        if step.index + 1 < step.total and decoding <= DECODING * (now - began):
            value = show(sd.decode(step.x0), step)
            decoding += time.perf_counter() - now
        yield Frame(step.index + 1, step.total + 1, value)
    yield Frame(step.total + 1, step.total + 1, show(sd.decode(step.x_prev), step))
