"""A widget on paper: its knobs drawn as the page shows them, its picture, and what it says."""

from collections.abc import Sequence
from typing import Any

import ipywidgets
from PIL import Image, ImageDraw

from minisd.figures.style import COLOURS, EM, FAINT, INK, PAPER, printable, typeface, wrapped

PAGE, BESIDE = 1100, 700        # pixels: a page, and the widest picture that has knobs beside it
PANEL = 480                     # the widest panel beside a picture
MARGIN, LETTERS, LINE = 16, 15, 21
NAMES, ROW, READOUT = 132, 34, 52           # of a knob: its name, its line, a slider's number
COLUMN, TALLEST = 360, 4000     # the least width of one of several columns; a panel's height
LONGEST = 4000                  # letters of text
FOOTER = "A still picture: run this cell, and the knobs can be moved."


def still(picture: Image.Image | None, width: int, knobs: Sequence[tuple[ipywidgets.Widget, Any]],
          text: str) -> Image.Image:
    """Knobs and their values, the picture `width` pixels wide, and the text.

    As on the page, a wide picture has the knobs above it, in columns; a narrow one beside it.
    """
    shown = (picture or Image.new("RGB", (9, 1), PAPER)).convert("RGB")
    shown = shown.resize((width, max(1, round(shown.height * width / shown.width))),
                         Image.Resampling.LANCZOS)
    beside, said = width <= BESIDE, f"{text}\n{FOOTER}".lstrip()
    wide = min(PANEL, PAGE - width - 3 * MARGIN) if beside else width
    panel = board(knobs, wide, 1 if beside else max(1, min(len(knobs), width // COLUMN)))
    left, top = (2 * MARGIN + wide, MARGIN) if beside else (MARGIN, 2 * MARGIN + panel.height)
    words, below = written(said, wide), 2 * MARGIN + panel.height
    if not beside or below + words.height > top + shown.height:     # no room beside the picture
        words, below = written(said, left + width - MARGIN), max(below, top + shown.height) + 8
    paper = Image.new("RGB", (left + width + MARGIN,
                              MARGIN + max(top + shown.height, below + words.height)), PAPER)
    for part, place in ((panel, (MARGIN, MARGIN)), (shown, (left, top)), (words, (MARGIN, below))):
        paper.paste(part, place)
    ImageDraw.Draw(paper).rectangle((0, 0, paper.width - 1, paper.height - 1), outline=FAINT)
    return paper


def written(text: str, wide: int) -> Image.Image:
    """Lines of text, no wider."""
    lines = wrapped(text, 0.9 * wide / 72, LETTERS, LONGEST).split("\n")
    paper = Image.new("RGB", (wide, LINE * len(lines)), PAPER)
    for i, line in enumerate(lines):
        ImageDraw.Draw(paper).text((0, LINE * i), line, INK, typeface(line, LETTERS))
    return paper


def board(knobs: Sequence[tuple[ipywidgets.Widget, Any]], wide: int, columns: int) -> Image.Image:
    """The knobs in columns, in a frame."""
    paper, each, high = Image.new("RGB", (wide, TALLEST), PAPER), wide // columns, 0
    pen, rows = ImageDraw.Draw(paper), -(-len(knobs) // columns)
    for column in range(columns):
        top = MARGIN // 2
        for knob, value in knobs[column * rows:(column + 1) * rows]:
            top = _knob(pen, knob, value, column * each + MARGIN // 2, top, each - MARGIN)
        high = max(high, top + MARGIN // 2)
    pen.rectangle((0, 0, wide - 1, high - 1), outline=FAINT)
    return paper.crop((0, 0, wide, high))


def _knob(pen: ImageDraw.ImageDraw, knob: ipywidgets.Widget, value: Any, left: int, top: int,
          wide: int) -> int:
    """One knob with its name; returns where the next line begins."""
    options = [one if isinstance(one, tuple) else (str(one), one)
               for one in getattr(knob, "options", ())]
    names, values = [name for name, _ in options], [one for _, one in options]
    shown = names[values.index(value)] if value in values else str(value)
    start, end, middle = left + NAMES + 8, left + wide, top + ROW // 2

    def write(x: float, text: str, room: float, colour: str = INK, anchor: str = "lm") -> None:
        text = printable(text, max(2, int(room / (1.05 * EM * LETTERS))))
        pen.text((x, middle), text, colour, typeface(text, LETTERS), anchor=anchor)

    if isinstance(knob, ipywidgets.Checkbox):
        pen.rectangle((left + 4, middle - 8, left + 20, middle + 8), PAPER, INK)
        if value:
            pen.line((left + 8, middle, left + 11, middle + 4, left + 17, middle - 5), INK, 2)
        write(left + 28, knob.description, wide - 28)
        return top + ROW
    write(start - 8, knob.description, NAMES, anchor="rm")
    if isinstance(knob, ipywidgets.ToggleButtons):
        x: float = start
        for name in names:
            long = pen.textlength(name, typeface(name, LETTERS)) + 16
            if x > start and x + long > end:
                x, middle = start, middle + ROW - 4
            chosen = name == shown
            pen.rectangle((x, middle - 13, x + long, middle + 13), INK if chosen else FAINT)
            write(x + 8, name, end - x, PAPER if chosen else INK)
            x += long + 4
    elif hasattr(knob, "readout"):
        longest = max(names, key=len, default="")
        room = max(READOUT, 18 + int(pen.textlength(longest, typeface(longest, LETTERS))))
        start, far = start + 8, end - room
        low, high = (0, len(values) - 1) if options else (knob.min, knob.max)
        at = values.index(value) if options else value
        here = start + (at - low) / max(high - low, 1e-9) * (far - start)
        pen.line((start, middle, far, middle), FAINT, 5)
        pen.line((start, middle, here, middle), COLOURS["time"], 5)
        pen.ellipse((here - 8, middle - 8, here + 8, middle + 8), PAPER, INK, 2)
        write(far + 14, shown if options else format(value, knob.readout_format), room)
    else:
        pen.rectangle((start, middle - 14, end, middle + 14), PAPER, FAINT)
        write(start + 8, shown, end - start - 32 * bool(options))
        if options:
            pen.polygon([(end - 22, middle - 4), (end - 10, middle - 4), (end - 16, middle + 5)],
                        INK)
    return middle + ROW // 2
