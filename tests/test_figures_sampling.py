"""The figures on guidance and samplers: what they draw and say is what their numbers are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minisd import figures
from minisd.diffusion import Schedule
from minisd.figures import sampling
from minisd.samplers import Guess, SampleStep, make_rule, sample


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def drawn(figure: Figure, path: Path) -> None:
    """It can be saved, and there is something on it."""
    figures.save(figure, path)
    assert 0.01 < (np.asarray(Image.open(path).convert("L")) < 250).mean() < 0.7


# Guidance

@pytest.mark.parametrize("at", [(4, 5), (0, 0), (6, 8)])
def test_noise_maps_show_both_predictions_and_digits(tmp_path: Path, at: tuple[int, int]) -> None:
    uncond = torch.randn(7, 9)
    cond = 0.7 * uncond + 0.1 * torch.randn(7, 9)
    figure = figures.noise_maps(uncond, cond, at)
    upper, lower = figure.axes[:3], figure.axes[3:6]
    for axes, expected in zip(upper, (uncond, cond, cond - uncond), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), expected)
        low, high = axes.images[0].get_clim()
        assert low == -high                             # white is 0
    assert upper[0].images[0].get_clim() == upper[1].images[0].get_clim()
    bold = [t for t in lower[0].texts if t.get_fontweight() == "bold"]
    assert [t.get_text() for t in bold] == [f"{float(uncond[at]):.2f}"]
    assert len(lower[0].texts) == 25
    share = float((cond - uncond).norm() / uncond.norm())
    assert f"impact is {100 * share:.0f} % as large" in title(figure)
    drawn(figure, tmp_path / "maps.png")


def test_small_impacts_are_written_in_thousandths() -> None:
    uncond = torch.randn(6, 6)
    figure = figures.noise_maps(uncond, uncond + 0.01, (3, 3))
    impact = figure.axes[5]
    assert impact.get_xlabel() == "in thousandths" and impact.texts[0].get_text() == "10"
    figures.noise_maps(uncond, uncond, (3, 3))          # no impact at all


def test_guided_values_are_straight_lines_through_both_predictions(tmp_path: Path) -> None:
    uncond, cond = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    figure = figures.guided_values(uncond, cond, [(0, 1, 2), (1, 0, 3)], [0, 1, 7.5])
    for line, cell in zip(figure.axes[0].lines, [(0, 1, 2), (1, 0, 3)], strict=False):
        u, c = float(uncond[cell]), float(cond[cell])
        assert list(line.get_ydata()) == pytest.approx([u, c, u + 7.5 * (c - u)], rel=1e-5)
    strong = float((uncond + 7.5 * (cond - uncond)).square().mean().sqrt())
    assert f"from guidance 1 to 7.5 the guided noise grows from " \
           f"{float(cond.square().mean().sqrt()):.2f} to {strong:.2f}" in title(figure)
    drawn(figure, tmp_path / "lines.png")


def test_impact_curves_name_the_peaks_of_the_first_prompt(tmp_path: Path) -> None:
    figure = figures.impact_curves([901, 501, 1], {"a": [.01, .02, .1], "b": [.3, .1, .1]},
                                   {"a": [.9, .1, .0], "b": [.1, .9, .1]})
    assert title(figure) == ("As a share of the noise the prompt's impact peaks at t = 1; the "
                             "picture moves most at t = 901")
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([1, 2, 10])
    assert figure.axes[0].get_xlim()[0] > figure.axes[0].get_xlim()[1]      # noise at the left
    drawn(figure, tmp_path / "impact.png")


# Samplers

def steps_of(name: str, schedule: Schedule, count: int) -> list[SampleStep]:
    rule = make_rule(name, schedule, count)
    return list(sample(rule, schedule, lambda x, t: Guess(0.9 * x), torch.randn(1, 2, 3, 3),
                       lambda: torch.randn(1, 2, 3, 3)))


def test_coefficient_curves_show_what_each_sampler_uses(schedule: Schedule, tmp_path: Path
                                                        ) -> None:
    names = {"ddim": {"x_t", "eps"}, "ddpm": {"x_t", "eps", "fresh noise"},
             "heun": {"x_t", "eps", "eps one step ahead"},
             "lms": {"x_t", "eps", "memory, newest first", "_memory 1", "_memory 2"},
             "dpm++2m": {"x_t", "eps", "memory, newest first"}}
    runs = {name: steps_of(name, schedule, 8) for name in names}
    for name, steps in runs.items():
        found = {label: values for label, values, *_ in sampling.curves(steps)}
        assert set(found) == names[name]
        assert found["eps"] == [step.coefficients.eps for step in steps]
    ahead, = (values for label, values, *_ in sampling.curves(runs["heun"])
              if label == "eps one step ahead")
    assert math.isnan(ahead[-1]) and ahead[0] == runs["heun"][0].coefficients.ahead
    figure = figures.coefficient_curves(runs)
    grown = [100 * np.mean([s.coefficients.x_t - 1 for s in steps]) for steps in runs.values()]
    assert title(figure) == (f"5 of 5 samplers always take predicted noise away; x_t is enlarged "
                             f"by {min(grown):.0f} to {max(grown):.0f} % a step")
    drawn(figure, tmp_path / "coefficients.png")


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 4.0])
def test_the_fitted_order_is_the_slope(order: float) -> None:
    assert sampling.fitted_order({n: 3 / n ** order for n in (10, 20, 70)}) == pytest.approx(order)


def test_convergence_says_what_twice_the_steps_are_worth(tmp_path: Path) -> None:
    counts = (10, 20, 40)
    figure = figures.convergence({"slow": {n: 1 / n for n in counts},
                                  "fast": {n: 1 / n ** 2 for n in counts}})
    assert title(figure) == "Twice the steps divide slow's error by 2.0, fast's by 4.0"
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["slow: order 1.0",
                                                                     "fast: order 2.0"]
    assert list(axes.get_xticks()) == [10, 20, 50]
    drawn(figure, tmp_path / "orders.png")
    alike = figures.convergence({"a": {n: 1 / n for n in counts}, "b": {n: 2 / n for n in counts}})
    assert title(alike) == "Twice the steps divide every error by 2.0"


def test_distances_near_one_another_have_plain_ticks(tmp_path: Path) -> None:
    figure = figures.distance_curves({"a": {6: 0.3, 24: 0.1}, "b": {11: 0.2, 47: 0.05}}, "a title")
    assert title(figure) == "a title"
    assert [f"{x:g}" for x in figure.axes[0].get_yticks()] == ["0.05", "0.1", "0.2"]
    drawn(figure, tmp_path / "distances.png")


def test_travels_end_in_the_histogram(tmp_path: Path) -> None:
    ways = torch.randn(6, 100)
    places = torch.linspace(-3, 3, 50)
    density = (-places ** 2 / 2).exp() / (2 * math.pi) ** 0.5
    figure = figures.point_travels({"a": ways, "b": 2 * ways},
                                   {"a": [999, 700, 500, 300, 100], "b": [9, 7, 5, 3, 1]},
                                   (places, density), "they travel")
    travel, arrival = figure.axes[:2]
    assert len(travel.lines) == sampling.WAYS
    assert list(travel.lines[0].get_xdata()) == [999, 700, 500, 300, 100, 0]
    inside = ways[-1][(ways[-1] >= -3) & (ways[-1] <= 3)]
    area = sum(bar.get_width() * bar.get_height() for bar in arrival.patches)
    assert area == pytest.approx(1) and len(inside) > 90
    drawn(figure, tmp_path / "travels.png")
