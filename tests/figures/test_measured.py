"""What trainings and evaluations say: losses as they count, rates with their intervals."""

from pathlib import Path

import numpy as np
import pytest
from drawn import ink, title

from minisd import figures
from minisd.figures import COLOURS
from minisd.toyworld.evaluation.rates import rate


def of(right: int, count: int) -> dict:
    return dict(rate([True] * right + [False] * (count - right)))


# Losses

def csv_file(folder: Path, lines: str, name: str = "unet") -> Path:
    path = folder / f"{name}.csv"
    path.write_text(lines)
    return path


@pytest.mark.parametrize("text", ["", "step,loss\n", "step,accuracy\n1,2\n"])
def test_no_losses_no_figure(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="no losses yet"):
        figures.losses(csv_file(tmp_path, text))


def test_losses_are_drawn_raw_and_smooth_on_a_log_axis(tmp_path: Path) -> None:
    rows = "".join(f"{i},{1 / i}\n" for i in range(1, 1001))
    figure = figures.losses(csv_file(tmp_path, "step,loss\n" + rows, "vae"))
    axes = figure.axes[0]
    assert axes.get_yscale() == "log" and "no unit" in axes.get_ylabel()
    raw, smooth = axes.lines
    assert len(raw.get_ydata()) == len(smooth.get_ydata()) == 1000
    assert raw.get_color() == COLOURS["latent"] and ink(figure, tmp_path) > 0.01
    assert title(figure) == "vae: the loss falls from 1 to 0.00101 in 1,000 steps"
    figure = figures.losses(csv_file(tmp_path, "step,loss\n1,0.5\n2,2\n"))
    assert title(figure) == "unet: the loss rises from 0.5 to 2 in 2 steps"


def test_each_curve_says_where_it_begins_and_ends() -> None:
    figure = figures.training_curves({"vae": (range(3), [4.0, 2.0, 1.0]),
                                      "unet": ([5, 6], [1.0, 0.5])}, "mine")
    assert [axes.get_title("left") for axes in figure.axes] == ["vae: 4 to 1", "unet: 1 to 0.5"]
    rates = [0.0, 1.0, 1.0, 0.0] * 20           # a mean would round off the corners
    figure = figures.training_curves({"second unet": (range(80), rates)}, "mine", log=False,
                                     noisy=False)
    assert all(list(line.get_ydata()) == rates for line in figure.axes[0].lines)


# Adherence

CURVE = [{"guidance": g, "all": of(right, 50), "frechet": d}
         for g, right, d in ((1.5, 20, 0.3), (2.0, 45, 0.1), (4.0, 48, 0.2), (8.0, 0, 0.9))]


def test_the_guidance_curve_shows_gain_cost_and_both(tmp_path: Path) -> None:
    figure = figures.guidance_curve(CURVE)
    labels = {axes.get_xlabel(): axes for axes in figure.axes}
    trade = labels["Fréchet distance to drawn scenes (left is better)"]
    distance = labels["guidance scale (no unit)"]
    assert distance.lines[0].get_ydata().tolist() == [0.3, 0.1, 0.2, 0.9]
    assert [text.get_text() for text in trade.texts] == ["1.5", "2", "4", "8"]
    assert title(figure) == ("Guidance 4 follows the prompt best (96 %); at 2 the pictures are "
                             "closest to drawn ones")
    assert ink(figure, tmp_path) > 0.01


def test_every_rate_has_its_interval_and_its_count() -> None:
    rates = {"one": of(9, 10), " two": of(0, 4000)}
    figure = figures.rate_intervals(rates, "mine")
    axes = figure.axes[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert np.allclose(bars, [(r["low"], r["high"]) for r in rates.values()])
    assert [float(line.get_xdata()[0]) for line in axes.lines[1::2]] == [0.9, 0.0]
    assert [text.get_text() for text in axes.texts] == ["9 of 10", "0 of 4,000"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1] and title(figure) == "mine"
