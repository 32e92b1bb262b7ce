"""Numbers as pictures inside a widget, drawn without matplotlib, and sheets of labelled pictures.

Signed maps have white at 0, red above and blue below, in the colours of the figures ("RdBu_r",
the scheme RdBu of Cynthia Brewer's ColorBrewer).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minisd.widgets.pictures import COLOURS

ANCHORS = np.array([(5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240),
                    (247, 247, 247), (253, 219, 199), (244, 165, 130), (214, 96, 77),
                    (178, 24, 43), (103, 0, 31)], float)    # from -1 to 1
LABEL, GAP = 15, 8              # pixels: the size of a label's letters, and between two pictures
LABEL_HIGH = LABEL + 7


@dataclass(frozen=True)
class Panel:
    """One picture on a sheet: where it lies, in pixels, how large it is shown, and its label."""

    picture: Image.Image | None                 # None: an empty place
    label: str
    left: int
    top: int                                    # of the label, above the picture
    side: int                                   # of the square it is fitted into
    mark: tuple[int, int] | None = None         # row and column of a cell to be framed


def signed_picture(values: Tensor, limit: float) -> Image.Image:
    """A map (h, w) of signed numbers, a pixel per cell; what exceeds the limit is cut off there."""
    shares = (values.detach().float().cpu().numpy() / (limit or 1.0)).clip(-1, 1)
    at = np.linspace(-1, 1, len(ANCHORS))
    levels = np.stack([np.interp(shares, at, anchors) for anchors in ANCHORS.T], axis=-1)
    return Image.fromarray(levels.round().astype(np.uint8))


def largest(*maps: Tensor) -> float:
    """The largest size of a number in any of the maps; 1 if all are zero."""
    return max(float(values.abs().max()) for values in maps) or 1.0


def sheet(width: int, height: int, panels: Sequence[Panel]) -> Image.Image:
    """Labelled pictures on white."""
    paper = Image.new("RGB", (width, height), COLOURS["paper"])
    drawing, font = ImageDraw.Draw(paper), ImageFont.load_default(LABEL)
    for panel in panels:
        drawing.text((panel.left, panel.top), panel.label, COLOURS["ink"], font)
        if panel.picture is not None:
            _place(paper, drawing, panel, panel.picture)
    return paper


def _place(paper: Image.Image, drawing: ImageDraw.ImageDraw, panel: Panel,
           picture: Image.Image) -> None:
    """Small maps are enlarged cell by cell, pictures are shrunk smoothly."""
    scale = panel.side / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    top = panel.top + LABEL_HIGH
    enlarged = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    paper.paste(picture.resize(size, enlarged), (panel.left, top))
    if panel.mark is not None:
        row, column = panel.mark
        box = (panel.left + column * scale, top + row * scale,
               panel.left + (column + 1) * scale, top + (row + 1) * scale)
        drawing.rectangle(box, outline=COLOURS["ink"], width=2)
