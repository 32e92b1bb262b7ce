"""A measured curve to look along: drag the bar or click a point, and see what stands behind it."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import ipywidgets
from PIL import Image, ImageDraw

from minisd.figures.style import COLOURS, FAINT, INK, PAPER, typeface
from minisd.widgets import knobs
from minisd.widgets.cells import Area
from minisd.widgets.drawing import GAP, LABEL_HIGH, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.explorer import Explorer, Values, View

WIDE, HIGH = 840, 140           # pixels, of the curve
LETTERS, TOP, FOOT = 14, 40, 22             # its letters, and the room above and below the axes

Point = tuple[float, float, float]          # a value, and its interval
Page = tuple[Sequence[tuple[Image.Image | None, str]], str]     # labelled pictures, and a text


def curve(points: Mapping[str, Point | None], chosen: str, caption: str, style: str = ".0%"
          ) -> Image.Image:
    """A column for each point, with its name below; None where nothing was measured.

    style: how values are written; percentages have an axis up to 100 %.
    """
    paper, column = Image.new("RGB", (WIDE, HIGH), PAPER), WIDE / len(points)
    pen, bottom = ImageDraw.Draw(paper), HIGH - FOOT
    most = 1.0 if style.endswith("%") else max(point[2] for point in points.values() if point)

    def y(value: float) -> float:
        return bottom - value / most * (bottom - TOP)

    def write(x: float, y: float, text: str, anchor: str) -> None:
        pen.text((x, y), text, INK, typeface(text, LETTERS), anchor=anchor)

    write(0, 0, caption, "la")
    for value in (0.0, most / 2, most):
        pen.line((0, y(value), WIDE, y(value)), FAINT)
    shown = {name: ((i + 0.5) * column, *map(y, point))
             for i, (name, point) in enumerate(points.items()) if point}
    pen.line([(x, middle) for x, middle, _, _ in shown.values()], COLOURS["text"], 3)
    for i, (name, point) in enumerate(points.items()):
        write((i + 0.5) * column, HIGH, name, "md")
        if point:
            x, middle, low, high = shown[name]
            pen.line((x, low, x, high), COLOURS["text"], 2)
            r, kind = (7, "time") if name == chosen else (4, "text")
            pen.ellipse((x - r, middle - r, x + r, middle + r), COLOURS[kind])
            write(x, min(middle - 9, high - 2), format(point[0], style), "md")
    return paper


def curve_explorer(name: str, points: Mapping[str, Point], pages: Callable[[str], Iterable[Page]],
                   caption: str, *, knob: str, across: int, style: str = ".0%") -> Explorer:
    """Points by name, in their order; pages: the name of one -> what is shown for it, in turns.

    across: pictures of a page, which stand in one row. pages is called on the worker thread.
    """
    names, side = list(points), (WIDE - (across - 1) * GAP) // across

    def frames(at: Values) -> Generator[Frame, None, None]:
        above = curve(points, at["point"], caption, style)
        for pictures, text in pages(at["point"]):
            below = sheet((side, pictures or [(None, "")]))
            paper = Image.new("RGB", (WIDE, HIGH + GAP + below.height), PAPER)
            paper.paste(above, (0, 0))
            paper.paste(below, (0, HIGH + GAP))
            yield Frame(1, 1, View(paper, text))

    def pick(row: int, column: int) -> None:
        bar.value = names[column]

    bar = ipywidgets.SelectionSlider(options=names, value=names[-1], description=knob,
                                     **knobs.COMMON)
    return Explorer(name, {"point": bar}, frames, width=WIDE,
                    height=HIGH + GAP + LABEL_HIGH + side, memory=Memory(),
                    areas=[Area(0, 0, WIDE, HIGH, 1, len(names), pick)],
                    about=f"a curve, {caption}, and what stands behind one of its points")
