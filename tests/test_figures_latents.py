"""The figures on latents and on diffusion: what their titles say is what their numbers are."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minisd import figures
from minisd.config import ScheduleConfig
from minisd.diffusion import Schedule, make_schedule
from minisd.figures import COLOURS, latents
from minisd.figures import schedule as drawn


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def ink(figure: Figure, path: Path) -> float:
    """The share of a saved figure's pixels that are not white."""
    figures.save(figure, path)
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


def maps(figure: Figure) -> list:
    return [axes.images[0] for axes in figure.axes if axes.images]


@pytest.mark.parametrize("kind", ["picture", "curves"])
def test_in_a_notebook_a_figure_takes_half_the_room_and_looks_the_same(
        kind: str, tmp_path: Path) -> None:
    down, across = np.meshgrid(*[np.linspace(20, 235, 200)] * 2)
    soft = np.stack([down, across, 255 - down], 2)
    photo = Image.fromarray((soft + np.random.default_rng(0).normal(0, 5, soft.shape)).astype("u1"))
    figure = (figures.picture_grid([[photo]], ["a"], ["b"], "A picture") if kind == "picture"
              else figures.schedule_curves(make_schedule(ScheduleConfig())))
    figures.save(figure, tmp_path / "whole.png")
    stored, whole = figure._repr_png_(), (tmp_path / "whole.png").read_bytes()
    assert len(stored) < 0.55 * len(whole)
    seen, meant = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)
                   for png in (stored, whole))
    assert np.abs(seen - meant).mean() < 8 and seen[0, 0].min() >= 254


# Latents

def test_both_halves_of_a_posterior_stand_below_each_other(tmp_path: Path) -> None:
    mean, std = torch.randn(5, 3, 4), torch.full((5, 3, 4), 0.1)
    figure = figures.posterior_maps(mean, std)
    shown, limit = maps(figure), float(mean.abs().max())
    assert len(shown) == 10
    for c in range(5):
        assert np.allclose(shown[c].get_array(), mean[c])
        assert shown[c].get_clim() == pytest.approx((-limit, limit))
        assert shown[5 + c].get_clim() == pytest.approx((0, 0.1))
    assert [axes.get_title(loc="center") for axes in figure.axes[:5]] == [
        f"channel {c}" for c in range(5)]
    assert title(figure) == (f"The means differ {float(mean.std() / 0.1):.0f} times as much as the "
                             f"encoder is unsure of one of them")
    assert ink(figure, tmp_path / "posterior.png") > 0.2


def test_an_encoder_that_is_unsure_of_everything_is_called_so() -> None:
    figure = figures.posterior_maps(torch.tensor([[[0.0, 2.0 ** 0.5]]]), torch.ones(1, 1, 2))
    assert title(figure) == ("The encoder is about as unsure of a mean as the means differ "
                             "(1.0 : 1)")


def test_signed_maps_share_a_scale_with_0_in_the_middle(tmp_path: Path) -> None:
    figure = figures.signed_maps([torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)], ["a", "b"],
                                 "Two maps", unit="standard deviations")
    assert [shown.get_clim() for shown in maps(figure)] == [(-3, 3)] * 2
    assert {shown.get_cmap().name for shown in maps(figure)} == {"RdBu_r"}
    assert figure.axes[-1].get_ylabel() == "standard deviations" and title(figure) == "Two maps"
    assert ink(figure, tmp_path / "maps.png") > 0.1
    assert maps(figures.signed_maps([torch.zeros(2, 2)], ["a"], ""))[0].get_clim() == (-1, 1)


def test_what_a_decoder_loses_is_measured_in_the_title(tmp_path: Path) -> None:
    """One of 100 pixels is wrong, from white to black, so its error is 255 levels."""
    original = torch.ones(1, 3, 10, 10)
    decoded = original.clone()
    decoded[..., 2, 7] = -1
    figure = figures.reconstruction(original, decoded)
    assert title(figure) == "20.0 dB: half of the squared error is in 1.0 % of the pixels"
    before, after, error = (np.asarray(shown.get_array()) for shown in maps(figure))
    assert (before == 255).all() and (after[2, 7] == 0).all()
    assert error[2, 7] == pytest.approx(255) and np.count_nonzero(error) == 1
    assert "grey levels" in figure.axes[-1].get_ylabel()
    assert ink(figure, tmp_path / "lost.png") > 0.05


def test_a_decoders_overshoot_is_no_error() -> None:
    original = torch.ones(1, 3, 4, 4)
    figure = figures.reconstruction(original, original * 1.5)
    assert maps(figure)[2].get_array().max() == 0


@pytest.mark.parametrize(("error", "share"), [
    (torch.ones(10), 0.5), (torch.tensor([3.0, 4.0, 0.0, 0.0]), 0.25), (torch.zeros(8), 1.0),
    (torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 0.5)])
def test_the_share_that_holds_half_of_the_error(error: torch.Tensor, share: float) -> None:
    assert latents.concentration(error) == share


# The schedule

def test_the_schedules_curves_and_where_they_cross(schedule: Schedule, tmp_path: Path) -> None:
    figure = figures.schedule_curves(schedule)
    shares, ratio = figure.axes
    signal, noise = (line.get_ydata() for line in shares.lines)
    assert np.allclose(signal ** 2 + noise ** 2, 1) and signal[0] > noise[0]
    even = int(np.flatnonzero(noise > signal)[0])
    assert np.allclose(ratio.lines[0].get_ydata(), (signal / noise) ** 2)
    assert ratio.get_yscale() == "log"
    assert title(figure) == (f"Picture and noise weigh the same at t = {even}; at the end "
                             f"the picture still weighs {100 * signal[-1]:.1f} %")
    assert ink(figure, tmp_path / "schedule.png") > 0.02


def test_a_schedule_that_never_drowns_the_picture_crosses_at_its_end() -> None:
    assert drawn.crossing(make_schedule(ScheduleConfig(1e-5, 1e-4, 20))) == 19


def test_the_loss_stands_beside_what_knowing_nothing_costs(tmp_path: Path) -> None:
    figure = figures.loss_by_timestep([0, 500, 999], [0.9, 0.2, 0.01], "Noise is easy to name")
    curve, nothing = figure.axes[0].lines
    assert curve.get_xdata().tolist() == [0, 500, 999]
    assert list(nothing.get_ydata()) == [1, 1] and figure.axes[0].get_ylim()[0] == 0
    assert ink(figure, tmp_path / "loss.png") > 0.01


# Points

def test_clouds_stand_side_by_side_on_the_same_axes(tmp_path: Path) -> None:
    clouds = [torch.randn(50, 2), 3 * torch.randn(50, 2)]
    figure = figures.point_clouds(clouds, ["narrow", "wide"], "Two clouds")
    assert [axes.get_title(loc="center") for axes in figure.axes] == ["narrow", "wide"]
    for axes, cloud in zip(figure.axes, clouds, strict=True):
        assert np.allclose(axes.collections[0].get_offsets(), cloud)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert ink(figure, tmp_path / "clouds.png") > 0.005


def test_paths_lead_from_the_first_points_to_the_last(tmp_path: Path) -> None:
    paths = torch.stack([torch.randn(100, 2) + step for step in range(5)])
    figure = figures.point_paths(paths, "Five steps")
    axes = figure.axes[0]
    assert len(axes.lines) == drawn.PATHS
    assert np.allclose(axes.lines[3].get_xydata(), paths[:, 3])
    begin, end, half = axes.collections
    assert np.allclose(begin.get_offsets(), paths[0]) and np.allclose(end.get_offsets(), paths[-1])
    assert np.allclose(half.get_offsets(), paths[2, :drawn.PATHS])
    assert ink(figure, tmp_path / "paths.png") > 0.01


def test_colours_keep_their_meaning() -> None:
    figure = figures.schedule_curves(make_schedule(ScheduleConfig()))
    colours = [line.get_color() for axes in figure.axes for line in axes.lines[:2]]
    assert colours[:3] == [COLOURS["picture"], COLOURS["noise"], COLOURS["time"]]
    assert math.isclose(figure.axes[1].lines[1].get_ydata()[0], 1)
