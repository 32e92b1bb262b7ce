"""Hands for the tests of widgets: to turn knobs, to wait, and to read what is shown."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

SOON = 300.0        # seconds for what takes milliseconds when the machine is free


@contextmanager
def ready(widget: Any) -> Iterator[Any]:
    assert widget.engine.wait(SOON)
    assert widget.engine.error is None, widget.engine.error
    try:
        yield widget
    finally:
        widget.view.close()


def turn(widget: Any, **knobs: object) -> str:
    """Turn the knobs, wait, and read the text below the picture."""
    for name, value in knobs.items():
        widget.knobs[name].value = value
    assert widget.engine.wait(SOON)
    assert widget.engine.error is None, widget.engine.error
    return widget.seen.text


def status(widget: Any) -> str:
    """The status line, once the widget is at rest."""
    assert widget.engine.wait(SOON)
    return re.sub("<[^>]*>", "", widget.engine.status.value)


@contextmanager
def counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """How many predictions each call of a network makes, inside the `with`."""
    calls: list[int] = []
    hook = network.register_forward_hook(lambda net, inputs, eps: calls.append(len(eps)))
    try:
        yield calls
    finally:
        hook.remove()


def decoded(html_or_png: str) -> Image.Image:
    data = html_or_png.rpartition("base64,")[2].rstrip('">')
    return Image.open(io.BytesIO(base64.b64decode(data)))


def tile(widget: Any, left: int, top: int, side: int) -> Image.Image:
    """What a place of the shown sheet shows."""
    return widget.seen.picture.crop((left, top, left + side, top + side))


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.NEAREST)
