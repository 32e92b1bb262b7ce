"""How every figure and widget looks: colours, letters, titles; how a figure is shown and saved.

One colour for one kind of thing (`COLOURS`), here, in the README and in the widgets. Figures are
plain `Figure` objects and never pyplot's, so that drawing one in a callback or in the middle of a
training leaves nothing behind. A title states the finding, computed from the numbers shown.

    with figures.house():
        figure = figures.blank(5)
        figure.subplots().plot(x, y)
        figures.entitle(figure, "What it shows")
"""

import io
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
from cycler import cycler
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.image import AxesImage
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogFormatter, LogLocator, NullLocator, StrMethodFormatter
from PIL import Image, ImageFont

from minisd.observe.files import written_whole
from minisd.observe.pictures import few_colours

# At least 3:1 on white, and told apart in every kind of colour blindness; a test computes both.
COLOURS = {"text": "#0356DC", "latent": "#9B4899", "noise": "#484848", "picture": "#0BA669",
           "time": "#D05B13"}
INK, PAPER, FAINT, ERROR = "#1A1A1A", "#FFFFFF", "#D8D8D8", "#B3261E"
PALE = 0.35                     # the opacity of what lies behind
SIGNED, MAGNITUDE = "RdBu_r", "viridis"     # of maps: with 0 in the middle, from 0 upwards

WIDE, HIGHEST = 11.0, 30.0      # inches: the width of a page, and no figure is higher
DPI = 100
TITLE, HEAD, SMALL = 18, 13, 11.5           # points: letters of a figure's title, a panel's, notes
NEAR = 100                      # spans below this have ticks between the powers of ten
LONGEST, LINE = 400, 110        # letters of a title, and of one line of any text
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _typeface() -> list[str]:
    """Aileron (Sora Sagano, CC0), which Pillow carries, and DejaVu for the letters it lacks."""
    font, file = ImageFont.load_default(TITLE), Path(matplotlib.get_cachedir()) / "minisd.ttf"
    assert isinstance(font, ImageFont.FreeTypeFont)
    if not file.is_file() or file.read_bytes() != font.font_bytes:
        with written_whole(file) as part:
            part.write_bytes(font.font_bytes)
    font_manager.fontManager.addfont(file)
    return ["Aileron", "DejaVu Sans"]


TYPEFACE = _typeface()
EM = 0.47                       # of a letter's size, its mean width
KNOWN = frozenset(font_manager.get_font(DEJAVU).get_charmap())      # letters that can be drawn
CARRIED = frozenset(font_manager.get_font(font_manager.findfont(TYPEFACE[0])).get_charmap())

HOUSE: dict[Any, Any] = {
    "font.family": TYPEFACE, "font.size": 13, "text.parse_math": False, "text.color": INK,
    "axes.titlesize": HEAD, "axes.titlelocation": "left", "axes.titlepad": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": INK, "axes.axisbelow": True, "axes.grid": True, "grid.color": FAINT,
    "grid.linewidth": 0.8, "lines.linewidth": 2.5, "lines.markersize": 7, "xtick.color": INK,
    "ytick.color": INK, "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0,
    "ytick.minor.size": 0, "legend.frameon": False, "legend.fontsize": 12,
    "axes.prop_cycle": cycler(color=[*COLOURS.values(), INK])}

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def house() -> Iterator[None]:
    """What is drawn inside has this style; other threads wait, for matplotlib's is global."""
    with _ONE_AT_A_TIME, rc_context(HOUSE):
        yield


class Figure(matplotlib.figure.Figure):
    """A figure that Jupyter shows as it is, without pyplot and its backends."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw; whatever stands in a label is shown as text, and logarithmic axes in digits."""
        with house():
            for axis in [axis for axes in self.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)]:
                if axis.get_scale() == "log":
                    axis.set_minor_locator(NullLocator())
                if isinstance(axis.get_major_formatter(), LogFormatter):
                    in_digits(axis)
                for level in (axis.major, axis.minor):
                    of: Any = level.formatter
                    of.format_ticks = partial(_ticks, type(of), of)
            for text in self.findobj(Text):
                text.set_parse_math(False)
                lines = text.get_text().split("\n")
                text.set_text("\n".join(printable(line, LINE) for line in lines))
            super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """In few colours, so that a notebook full of pictures stays small.

        Its alternative text is the title, and what toyworld's judge reads from its pictures.
        """
        from minisd.toyworld.evaluation.verdict import aloud
        file = io.BytesIO()
        few_colours(as_picture(self)).save(file, "PNG", optimize=True)
        shown = [np.asarray(image.get_array()) for image in self.findobj(AxesImage)]
        pictures = [Image.fromarray(values) for values in shown if values.dtype == np.uint8]
        return file.getvalue(), {"alt": aloud(" ".join(self.get_suptitle().split()), pictures)}


def _ticks(kind: type[Formatter], formatter: Formatter, values: list[float]) -> list[str]:
    return [printable(text) for text in kind.format_ticks(formatter, values)]


def in_digits(axis: Axis) -> None:
    """Ticks of a logarithmic axis at powers of ten, over short spans times 2 and 5 too."""
    short = axis.get_data_interval()[1] < NEAR * axis.get_minpos()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def as_picture(figure: matplotlib.figure.Figure) -> Image.Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    # Without the version that matplotlib adds, the same numbers give the same bytes.
    with written_whole(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def blank(height: float, width: float = WIDE) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, min(height, HIGHEST)), dpi=DPI, layout="constrained")


def entitle(figure: Figure, title: str) -> None:
    """A title over the whole figure, in as many lines as its width asks for."""
    heading = figure.suptitle(wrapped(title, figure.get_figwidth() - 0.2, TITLE), x=0.008,
                              ha="left", fontsize=TITLE)
    embolden(heading)


def titled(title: str, height: float, width: float = WIDE) -> Figure:
    """An empty figure under its title; height: without the title."""
    figure = blank(height + 0.3 * title_lines(title, width), width)
    entitle(figure, title)
    return figure


def embolden(text: Text) -> None:
    """The typeface has no bold letters: a thin line around these makes them stronger."""
    outline = Stroke(linewidth=0.038 * float(text.get_fontsize()), foreground=INK)
    text.set_path_effects([outline, Normal()])


def title_lines(title: str, width: float = WIDE) -> int:
    return 1 + wrapped(title, width - 0.2, TITLE).count("\n")


# Text

def printable(text: object, most: int = 80) -> str:
    """Whatever a user wrote, as letters that can be drawn, cut off after so many.

    A box stands for what the typeface lacks: control characters, halves of a character, signs.
    """
    shown = str(text)
    shown = shown if len(shown) <= most else f"{shown[:most - 1].rstrip()}…"
    return "".join(x if ord(x) in KNOWN or x == "\n" else "□" for x in shown)


def wrapped(text: str, inches: float, points: float, most: int = LONGEST) -> str:
    """A printable text in lines of at most that width; its own line breaks stay."""
    letters = max(1, int(72 * inches / (EM * points)))
    return "\n".join(textwrap.fill(line, letters) for line in printable(text, most).split("\n"))


def typeface(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """For drawing with Pillow: the figures' typeface, or DejaVu where the text needs it."""
    return (ImageFont.load_default(size) if CARRIED.issuperset(map(ord, text)) else
            ImageFont.truetype(DEJAVU, size))


def percent(share: float) -> str:
    """In whole percent; with a digit behind the point where it would be lost otherwise."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.0995 or not share else f"{100 * share:.1f} %"


def bare(axes: Axes) -> None:
    """Without axes, ticks and lines: for pictures and maps."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
