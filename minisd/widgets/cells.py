"""A picture whose cells can be clicked: to choose one, or to draw a mask.

ipywidgets hears no click on a picture, so one transparent button for each cell lies over it. The
Tab key passes them by: whoever uses keys has sliders for the same choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets
import traitlets
from PIL import Image

from minisd.widgets.drawing import picture_html

MOST = 16                       # buttons along a side; more would take the page too long


class Cells(ipywidgets.VBox):
    """The picture and its buttons, which go row by row."""

    def __init__(self, rows: int, columns: int, size: tuple[int, int],
                 picked: Callable[[int, int], None]) -> None:
        """rows, columns: cells of the picture, which is shown `size` CSS pixels wide and high.

        picked(row, column) is called for the cell that was clicked. Where there are more cells
        than buttons, it is the one in the middle of a button.
        """
        self.size, self.picked = size, picked
        self.rows, self.columns = min(rows, MOST), min(columns, MOST)
        wide, high = f"{size[0] / self.columns}px", f"{size[1] / self.rows}px"
        shape = ipywidgets.Layout(width=wide, height=high, min_width="0", margin="0", padding="0")
        clear = ipywidgets.ButtonStyle(button_color="transparent")
        ys, xs = ([int((i + 0.5) * cells / count) for i in range(count)]
                  for cells, count in ((rows, self.rows), (columns, self.columns)))
        self.buttons = [self._button(y, x, shape, clear) for y in ys for x in xs]
        self.picture = ipywidgets.HTML(layout={"height": f"{size[1]}px", "margin": "0"})
        over = ipywidgets.GridBox(self.buttons, layout={
            "grid_template_columns": f"repeat({self.columns}, {wide})", "grid_gap": "0",
            "margin": f"-{size[1]}px 0 0 0", "width": f"{size[0]}px", "height": f"{size[1]}px"})
        super().__init__([self.picture, over], layout={
            "width": f"{size[0]}px", "flex": "none", "overflow": "hidden"})
        self.add_class("minisd-cells")

    def show(self, picture: Image.Image, alt: str) -> None:
        """Put another picture of the same proportions under the buttons."""
        self.picture.value = picture_html(picture, alt=alt, width=self.size[0])

    def _button(self, row: int, column: int, shape: ipywidgets.Layout,
                clear: ipywidgets.ButtonStyle) -> ipywidgets.Button:
        button = ipywidgets.Button(tooltip=f"row {row}, column {column}", tabbable=False,
                                   layout=shape, style=clear)
        button.on_click(lambda _: self.picked(row, column))
        return button


@dataclass(frozen=True)
class Drawn:
    """Cells of a picture, as (row, column), that a mask is made of."""

    cells: frozenset[tuple[int, int]] = frozenset()

    def __str__(self) -> str:
        return f"{len(self.cells)} clicked"


class DrawnMask(Cells):
    """Every click takes a cell into the mask, or out of it; the mask is `value`."""

    value = traitlets.Instance(Drawn, (), help="the mask, one place for each button")
    description = traitlets.Unicode("Cells")

    def __init__(self, cells: int, side: int) -> None:
        super().__init__(cells, cells, (side, side), self._toggle)
        self.all = cells

    def _toggle(self, row: int, column: int) -> None:
        button = row * self.rows // self.all, column * self.columns // self.all
        self.value = Drawn(self.value.cells ^ {button})

    def mask(self, drawn: Drawn, size: tuple[int, int]) -> Image.Image:
        """White where it is drawn; a picture of mode "L"."""
        small = Image.new("L", (self.columns, self.rows), 0)
        for row, column in drawn.cells:
            small.putpixel((column, row), 255)
        return small.resize(size, Image.Resampling.NEAREST)
