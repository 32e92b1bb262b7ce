"""A picture whose cells can be clicked.

ipywidgets hears no click on a picture, so transparent buttons lie over it. The Tab key passes them
by: whoever uses keys has sliders or a text field for the same choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets

MOST = 16                       # buttons along a side; more would take the page too long


@dataclass(frozen=True)
class Area:
    """A part of a picture, in CSS pixels, with its cells; picked(row, column) hears of a click.

    Where there are more cells than buttons, it is the cell in the middle of a button.
    """

    left: int
    top: int
    wide: int
    high: int
    rows: int
    columns: int
    picked: Callable[[int, int], None]


def clickable(picture: ipywidgets.HTML, size: tuple[int, int], areas: Sequence[Area]
              ) -> ipywidgets.VBox:
    """The picture, `size` CSS pixels wide and high, under the buttons of its areas, from the top.

    An area begins where the one before it ends, or below.
    """
    picture.layout = {"height": f"{size[1]}px", "margin": "0"}
    over, end = [], size[1]
    for area in areas:
        over.append(_grid(area, area.top - end))
        end = area.top + area.high
    return ipywidgets.VBox([picture, *over], layout={
        "width": f"{size[0]}px", "height": f"{size[1]}px", "flex": "none",
        "overflow": "hidden"}).add_class("minisd-cells")


def _grid(area: Area, above: int) -> ipywidgets.GridBox:
    rows, columns = min(area.rows, MOST), min(area.columns, MOST)
    wide, high = f"{area.wide / columns}px", f"{area.high / rows}px"
    shape = ipywidgets.Layout(width=wide, height=high, min_width="0", margin="0", padding="0")
    clear = ipywidgets.ButtonStyle(button_color="transparent")
    ys, xs = ([int((i + 0.5) * cells / count) for i in range(count)]
              for cells, count in ((area.rows, rows), (area.columns, columns)))

    def button(row: int, column: int) -> ipywidgets.Button:
        made = ipywidgets.Button(tooltip=f"row {row}, column {column}", tabbable=False,
                                 layout=shape, style=clear)
        made.on_click(lambda _: area.picked(row, column))
        return made

    return ipywidgets.GridBox([button(y, x) for y in ys for x in xs], layout={
        "grid_template_columns": f"repeat({columns}, {wide})", "grid_gap": "0",
        "margin": f"{above}px 0 0 {area.left}px", "width": f"{area.wide}px",
        "height": f"{area.high}px", "flex": "none"})
