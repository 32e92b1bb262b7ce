"""Pictures in widgets, with alternative text, and the still picture that stands in for a widget."""

import base64
import io
from html import escape
from typing import Any

import ipywidgets
from PIL import Image, ImageDraw, ImageFont

from minisd.observe.pictures import few_colours

# The widgets' colours; the first row is of figures/style.py, which would import matplotlib.
COLOURS = {"time": "#D05B13", "noise": "#484848", "picture": "#0BA669",
           "error": "#B3261E", "ink": "#1A1A1A", "paper": "#FFFFFF"}
VIEW = "application/vnd.jupyter.widget-view+json"
CARD_WIDTH, CARD_PICTURE, CARD_GAP, CARD_TEXT, CARD_SPACING = 720, 288, 20, 17, 7     # pixels
LIVE = 1            # effort for pictures that are soon replaced
WIDE = 1.25         # times as wide as high: such a picture stands above its card's text


def png_base64(picture: Image.Image, effort: int = 6) -> str:
    """The picture as a PNG file in base64, which is what pages and notebooks hold.

    effort: from 0 to 9, to make it small. 1 takes a third of the time of 6 for a quarter more.
    """
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=effort)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def picture_html(picture: Image.Image, *, alt: str, width: int) -> str:
    """An <img> with alternative text (`ipywidgets.Image` has none), `width` CSS pixels wide."""
    return (f'<img alt="{escape(alt)}" width="{width}" style="image-rendering: pixelated; '
            f'max-width: 100%; height: auto" src="data:image/png;base64,'
            f'{png_base64(picture, LIVE)}">')


def mimebundle(view: ipywidgets.Widget, picture: Image.Image, description: str
               ) -> tuple[dict[str, Any], dict[str, Any]]:
    """For `_repr_mimebundle_`: the live widget and, wherever there is no kernel, a true picture.

    GitHub, nbconvert and a notebook opened again show the PNG, for they do not know the widget.
    It has few colours, so that the notebook stays small.
    """
    still = png_base64(few_colours(picture))
    data: dict[str, Any] = {"text/plain": description, "image/png": still}
    if view.comm is not None:               # not closed
        data[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": view.model_id}
    return data, {"image/png": {"width": picture.width, "alt": description}}


def card(picture: Image.Image | None, lines: dict[str, str], footer: str) -> Image.Image:
    """A widget on paper: the picture, and at the right of it (of a wide one, below) its settings.

    lines: shown as `name: value`.
    """
    font = ImageFont.load_default(CARD_TEXT)
    wide = picture is not None and picture.width > WIDE * picture.height
    room = CARD_WIDTH - 2 * CARD_GAP if wide else CARD_PICTURE
    scale = room / max(picture.size) if picture else 1.0
    shown = (round(picture.width * scale), round(picture.height * scale)) if picture else (0, 0)
    left = CARD_GAP if wide else CARD_PICTURE + 2 * CARD_GAP
    top = shown[1] + 2 * CARD_GAP if wide else CARD_GAP
    paragraphs = [f"{name}: {value}" for name, value in lines.items()] + ["", footer]
    text = "\n".join(_wrapped(line, font, CARD_WIDTH - left - CARD_GAP)
                     for paragraph in paragraphs for line in paragraph.split("\n"))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    bottom = measure.multiline_textbbox((left, top), text, font, spacing=CARD_SPACING)[3]
    height = CARD_GAP + max(0 if wide else CARD_GAP + CARD_PICTURE, round(bottom))
    sheet = Image.new("RGB", (CARD_WIDTH, height), COLOURS["paper"])
    drawing = ImageDraw.Draw(sheet)
    if picture is not None:
        resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        sheet.paste(picture.resize(shown, resampling), (CARD_GAP, CARD_GAP))
    if not wide:
        frame = (CARD_GAP - 1, CARD_GAP - 1, CARD_GAP + CARD_PICTURE, CARD_GAP + CARD_PICTURE)
        drawing.rectangle(frame, outline=COLOURS["ink"])
    drawing.multiline_text((left, top), text, COLOURS["ink"], font, spacing=CARD_SPACING)
    return sheet


def _wrapped(text: str, font: Any, width: int) -> str:
    """Line breaks between words, so that no line is wider than `width` pixels if it can be."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if font.getlength(longer) <= width else [lines[-1], word]
    return "\n".join(lines).strip()
