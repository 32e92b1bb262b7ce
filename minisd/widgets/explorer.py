"""The form that most widgets share: knobs on top, one picture and a line of text below.

    def frames(at: Values) -> Generator[Frame, None, None]:
        yield Frame(1, 1, View(picture, "what the numbers say"))

    Explorer("noise slider", {"t": ipywidgets.IntSlider(500, min=0, max=999)}, frames)

A turned knob leaves its values with the engine, which runs `frames` on the worker thread. On
paper, where there is no kernel, the same picture stands on a card beside the knobs' values.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
from PIL import Image

from minisd.widgets.engine import Engine, Frame
from minisd.widgets.pictures import card, mimebundle, picture_html

FIRST_VIEW = 60.0               # seconds a cell waits for it, to have something to show on paper
WIDTH = 512                     # CSS pixels of the picture, unless a widget says otherwise
FOOTER = "A still picture: run this cell, and every line becomes a knob."

Values = Mapping[str, Any]      # the knobs' names and where they stand
Frames = Callable[[Values], Generator[Frame, None, None]]


@dataclass(frozen=True)
class View:
    """What one frame shows."""

    picture: Image.Image
    text: str = ""              # below the picture, plain; may have several lines


class Explorer:
    """A widget; `values` says where its knobs stand, `seen` is the last finished view."""

    def __init__(self, name: str, knobs: Mapping[str, ipywidgets.Widget], frames: Frames, *,
                 width: int = WIDTH, about: str = "") -> None:
        """name: for readers and screen readers; with dashes, the CSS class of the whole.

        knobs: any widgets that have a hashable `value`; each gets its name as a CSS class.
        frames: the work, whose frames hold a `View`. It runs on the worker thread.
        width: of the picture in CSS pixels. about: what the picture shows, for its alt text.
        """
        self.name, self.knobs, self.frames, self.width = name, dict(knobs), frames, width
        self.about = about or name
        self.seen: View | None = None
        self.seen_at: dict[str, Any] = {}               # what `seen` was made of
        self.engine = Engine(lambda request: frames(dict(request)), self._show)
        self.picture = ipywidgets.HTML().add_class("minisd-picture")
        self.text = ipywidgets.HTML().add_class("minisd-text")
        self.engine.status.add_class("minisd-status")
        for key, knob in self.knobs.items():
            knob.add_class(f"minisd-{key.replace('_', '-')}")
            knob.observe(lambda _: self.refresh(), "value")
        self.view = ipywidgets.VBox(
            [*self.knobs.values(), self.picture, self.text, self.engine.progress,
             self.engine.status], layout={"max_width": f"{max(width, WIDTH) + 24}px"})
        self.view.add_class(f"minisd-{name.replace(' ', '-')}")
        self.engine.follow(self.view)
        self.refresh()

    @property
    def values(self) -> dict[str, Any]:
        return {key: knob.value for key, knob in self.knobs.items()}

    def refresh(self) -> None:
        """Show what the knobs say; what was under way ends."""
        self.engine.submit(tuple(self.values.items()))

    def _show(self, request: tuple[tuple[str, Any], ...], frame: Frame) -> None:
        view, at = frame.value, dict(request)
        if frame.done == frame.total:
            self.seen, self.seen_at = view, at
        self.picture.value = picture_html(view.picture, width=self.width,
                                          alt=f"{self.about}: {described(at)}")
        self.text.value = f'<div style="white-space: pre-wrap">{escape(view.text)}</div>'

    # On paper

    def __repr__(self) -> str:
        return f"{self.name}: {described(self.seen_at or self.values)}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None
                          ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and a card with the same picture for pages without a kernel."""
        self.engine.wait(FIRST_VIEW)
        lines = {self.knobs[key].description or key: str(value)
                 for key, value in (self.seen_at or self.values).items()}
        footer = f"{self.seen.text}\n{FOOTER}" if self.seen and self.seen.text else FOOTER
        picture = self.seen.picture if self.seen else None
        return mimebundle(self.view, card(picture, lines, footer), repr(self))


def described(values: Values) -> str:
    """The knobs in one line of words."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())
