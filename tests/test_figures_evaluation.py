"""The figures of evaluation: intervals, clouds, and the distance of equals."""

import numpy as np
import torch

from minisd import figures
from minisd.toyworld.rates import rate


def test_every_rate_has_its_interval_and_its_count() -> None:
    rates = {"one": rate([True] * 9 + [False]), "two": rate([False] * 4000)}
    figure = figures.rate_intervals(rates, "mine")
    axes = figure.axes[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert np.allclose(bars, [(r["low"], r["high"]) for r in rates.values()])
    assert [float(line.get_xdata()[0]) for line in axes.lines[1::2]] == [0.9, 0.0]
    assert [text.get_text() for text in axes.texts] == ["9 of 10", "0 of 4,000"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["one", "two"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1] and figure.get_suptitle() == "mine"


def test_pairs_of_clouds_share_their_axes() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(9, 2, generator=g), 5 + torch.randn(9, 2, generator=g)
    figure = figures.cloud_pairs({"same": (a, a), "moved": (a, b)}, "far")
    limits = {axes.get_xlim() for axes in figure.axes}
    assert len(limits) == 1 and limits.pop()[1] > b[:, 0].max()
    drawn = figure.axes[1].collections[1].get_offsets()
    assert np.allclose(drawn, b.numpy())
    assert [axes.get_title() for axes in figure.axes] == ["same", "moved"]


def test_the_floor_is_written_beside_its_points() -> None:
    figure = figures.floor_curve([100, 1000], [2.5, 0.25], "falls")
    axes = figure.axes[0]
    assert axes.lines[0].get_ydata().tolist() == [2.5, 0.25]
    assert [text.get_text() for text in axes.texts] == ["2.5", "0.25"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "1,000"]
    assert axes.get_ylim()[0] == 0
