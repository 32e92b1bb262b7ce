"""What trainings and evaluations say: losses as they count, rates with their intervals."""

from pathlib import Path

import numpy as np
from drawn import ink, title

from minisd import figures
from minisd.figures import COLOURS
from minisd.toyworld.evaluation.rates import rate


def of(right: int, count: int) -> dict:
    return dict(rate([True] * right + [False] * (count - right)))


# Losses

def test_a_curve_is_drawn_raw_and_smooth_and_says_where_it_begins_and_ends(tmp_path: Path) -> None:
    loss = [1 / i for i in range(1, 1001)]
    figure = figures.training_curves({"vae": (range(1, 1001), loss), "unet": ([5, 6], [1, 0.5])},
                                     "mine")
    assert [axes.get_title("left") for axes in figure.axes] == [
        f"vae: {np.mean(loss[:17]):.2g} to 0.001", "unet: 1 to 0.5"]
    raw, smooth = figure.axes[0].lines
    assert list(raw.get_ydata()) == loss and raw.get_color() == COLOURS["latent"]
    assert np.allclose(smooth.get_ydata()[500], np.mean(loss[484:517]))
    assert figure.axes[0].get_yscale() == "log" and "no unit" in figure.axes[0].get_ylabel()
    assert title(figure) == "mine" and ink(figure, tmp_path) > 0.01
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
