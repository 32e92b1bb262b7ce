"""Lines, bars, points, matrices: what is drawn are the numbers that were given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import ink, title

from minisd import figures
from minisd.figures.style import COLOURS


def test_lines_have_their_numbers_colours_and_legend(tmp_path: Path) -> None:
    figure = figures.lines({"x_t": ([0, 50, 100], [3, 2, 0]), "x0": ([0, 50, 100], [1, .5, 0])},
                           "They meet", xlabel="steps (%)", kinds=("noise", "picture"))
    a, b = figure.axes[0].lines
    assert list(a.get_ydata()) == [3, 2, 0] and a.get_color() == COLOURS["noise"]
    assert b.get_color() == COLOURS["picture"] and a.get_linestyle() != b.get_linestyle()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x_t", "x0"]
    assert title(figure) == "They meet" and ink(figure, tmp_path) > 0.005


def test_logarithmic_lines_have_plain_ticks(tmp_path: Path) -> None:
    figure = figures.lines({"a": ([10, 50], [0.3, 0.1])}, "t", log="xy")
    ink(figure, tmp_path)
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert {"10", "20", "50"} <= {tick.get_text() for tick in axes.get_xticklabels()}
    long = figures.blank(4)                     # of a cell that draws for itself
    long.subplots().loglog([1, 10 ** 6], [1, 10])
    ink(long, tmp_path)
    ticks = {tick.get_text() for tick in long.axes[0].get_xticklabels()}
    assert "1,000" in ticks and "2" not in ticks


def test_panels_stand_three_in_a_row_and_share_a_legend() -> None:
    figure = figures.lines({f"panel {i}": {"a": ([0, 1], [0, i]), "b": ([0, 1], [i, 0])}
                            for i in range(4)}, "t", ylabel="y")
    assert [axes.get_title("left") for axes in figure.axes[:4]] == [f"panel {i}" for i in range(4)]
    assert [axes.get_ylabel() for axes in figure.axes[:4]] == ["y", "", "", "y"]
    assert len(figure.legends) == 1 and not figure.axes[5].axison


def test_bars_keep_their_order_and_write_their_values(tmp_path: Path) -> None:
    figure = figures.bars({"a": 0.9, "b": 0.5, "c": -0.25}, "T", xlabel="cosine", digits=3)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, -0.25]
    assert [text.get_text() for text in axes.texts] == ["0.900", "0.500", "-0.250"]
    assert axes.get_xlim()[0] < -0.25 and axes.yaxis_inverted() and ink(figure, tmp_path) > 0.05


def test_groups_of_bars_stand_side_by_side() -> None:
    beside = figures.bars({"one": {"x": 0.25, "y": 0.75}, "two": {"y": 1.0}}, "t").axes[0].patches
    assert [bar.get_width() for bar in beside] == [0.25, 0.75, 0.0, 1.0]
    assert beside[1].get_y() != beside[3].get_y() and beside[2].get_hatch()


def test_clouds_share_their_axes(tmp_path: Path) -> None:
    clouds = [torch.randn(50, 2), 3 * torch.randn(50, 2)]
    figure = figures.points({"narrow": {"data": clouds[0]}, "wide": {"data": clouds[1]}}, "Two")
    for axes, cloud in zip(figure.axes, clouds, strict=True):
        assert np.allclose(axes.collections[0].get_offsets(), cloud)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert ink(figure, tmp_path) > 0.005


def test_a_matrix_writes_its_values_and_leaves_nan_white(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, torch.nan], [0.25, 0.75]])
    axes = figures.matrix(values, ["a", "b"], ["c", "d"], "T", digits=2).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.25", "0.75"]
    assert axes.images[0].get_clim() == (0, 1)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["c", "d"]
    light, _, dark = (text.get_color() for text in axes.texts[:3])      # viridis ends light
    assert light != "white" and axes.texts[1].get_color() == "white" != dark
    signed = figures.matrix(torch.tensor([[-0.5, 0.2]]), ["a"], ["c", "d"], "T", digits=1,
                            signed=True)
    assert signed.axes[0].images[0].get_clim() == (-0.5, 0.5)


@pytest.mark.parametrize("count", [2, 7])
def test_no_label_of_a_matrix_is_cut_off(tmp_path: Path, count: int) -> None:
    """Square cells make the layout guess wrong, unless they keep to their corner."""
    names = [f"a yellow tree above a black mushroom on a gray background {i}"
             for i in range(count)]
    figure = figures.matrix(torch.eye(count), names, ["end"] * count, "T", digits=2)
    ink(figure, tmp_path)
    assert all(label.get_window_extent().x0 >= 0 for label in figure.axes[0].get_yticklabels())
