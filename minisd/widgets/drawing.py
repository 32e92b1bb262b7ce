"""Pictures in widgets: sheets of labelled panels, and pictures with alternative text."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw

from minisd.figures.style import INK, PAPER, printable, typeface
from minisd.observe.pictures import few_colours

VIEW = "application/vnd.jupyter.widget-view+json"
LABEL, GAP = 15, 8              # pixels: the size of a label's letters, and between two pictures
LABEL_HIGH = LABEL + 7
LIVE = 1                        # effort for pictures that are soon replaced
MOVED = 32                      # grey levels from which on a pixel counts as changed


def sheet(*rows: tuple[int, Sequence[tuple[Image.Image | None, str]]]) -> Image.Image:
    """Rows of labelled pictures on white; of each row the side of its pictures, in pixels.

    None is an empty place.
    """
    width = max(len(row) * (side + GAP) - GAP for side, row in rows)
    paper = Image.new("RGB", (width, sum(side + LABEL_HIGH + GAP for side, _ in rows) - GAP), PAPER)
    pen, top = ImageDraw.Draw(paper), 0
    for side, row in rows:
        for i, (picture, text) in enumerate(row):
            left, label = i * (side + GAP), printable(text, max(4, int(side / (0.5 * LABEL))))
            pen.text((left, top), label, INK, typeface(label, LABEL))
            if picture is not None:
                place(paper, picture, left, top + LABEL_HIGH, side)
                paper.info.setdefault("pictures", []).append(picture)       # to be read aloud
        top += side + LABEL_HIGH + GAP
    return paper


def place(paper: Image.Image, picture: Image.Image, left: int, top: int, side: int,
          mark: tuple[int, int] | None = None) -> None:
    """Small maps are enlarged cell by cell, pictures are shrunk smoothly."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    enlarged = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    paper.paste(picture.resize(size, enlarged), (left, top))
    if mark is not None:
        y, x = (at * scale for at in mark)
        ImageDraw.Draw(paper).rectangle((left + x, top + y, left + x + scale, top + y + scale),
                                        outline=INK, width=2)


def moved(before: Image.Image, after: Image.Image) -> np.ndarray:
    """How far each pixel differs, (h, w): the largest of its three differences, in grey levels."""
    a, b = (np.asarray(picture.convert("RGB"), np.int16) for picture in (before, after))
    return np.abs(a - b).max(2)


# In pages

def png_base64(picture: Image.Image, effort: int = 6) -> str:
    """The picture as a PNG file in base64, which is what pages and notebooks hold.

    effort: from 0 to 9, to make it small. 1 takes a third of the time of 6 for a quarter more.
    """
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=effort)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def picture_html(picture: Image.Image, *, alt: str, width: int) -> str:
    """An <img> with alternative text (`ipywidgets.Image` has none), `width` CSS pixels wide."""
    described = escape(alt.encode(errors="replace").decode())
    scaled = "pixelated" if picture.width < width else "auto"
    return (f'<img alt="{described}" width="{width}" style="image-rendering: {scaled}; '
            f'max-width: 100%; height: auto" src="data:image/png;base64,'
            f'{png_base64(picture, LIVE)}">')


def mimebundle(view: ipywidgets.Widget | None, picture: Image.Image, description: str,
               alt: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """For `_repr_mimebundle_`: the live widget and, wherever there is no kernel, a true picture.

    GitHub, nbconvert and a notebook opened again show the PNG, for they do not know the widget.
    It has few colours, so that the notebook stays small. view: None for the picture alone.
    alt: the picture's alternative text, where it says more than the description.
    """
    description = description.encode(errors="replace").decode()
    data: dict[str, Any] = {"text/plain": description,
                            "image/png": png_base64(few_colours(picture))}
    if view is not None and view.comm is not None:          # not closed
        data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": view.model_id}
    return data, {"image/png": {"width": picture.width, "alt": alt or description}}
