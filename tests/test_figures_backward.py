"""The figures on runs and edits, and the plane under them: what they say is what they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minisd import figures
from minisd.figures.backward import parting, size, ways
from minisd.observe.pca import principal_plane


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def drawn(figure: Figure, path: Path) -> None:
    """It can be saved, and there is something on it."""
    figures.save(figure, path)
    assert 0.01 < (np.asarray(Image.open(path).convert("L")) < 250).mean() < 0.7


@pytest.fixture(scope="module")
def traces(sd):
    return {(seed, scale): sd.trace("a red car", seed=seed, guidance_scale=scale, steps=8,
                                    pictures="none") for seed in (3, 4) for scale in (1, 7.5)}


# The plane

def test_the_plane_holds_most_of_the_variance() -> None:
    points = torch.randn(40, 6) * torch.tensor([0.1, 5.0, 0.2, 3.0, 0.1, 1.0]) + 7
    plane = principal_plane(points)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2), atol=1e-5, rtol=0)
    on = plane.project(points)
    torch.testing.assert_close(on.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    share = on.square().sum(0) / (points - points.mean(0)).square().sum()
    torch.testing.assert_close(plane.shares, share)
    assert plane.shares[0] > plane.shares[1] and plane.shares.sum() > 0.9
    assert plane.axes.abs().argmax(1).tolist() == [1, 3]
    best = torch.linalg.eigvalsh(torch.cov(points.T)).flip(0)[:2]
    torch.testing.assert_close(on.var(0), best, rtol=1e-3, atol=0)


def test_the_same_points_always_give_the_same_map() -> None:
    points = torch.randn(9, 5)
    for turned in (principal_plane(points.flip(0)), principal_plane(points + 3)):
        torch.testing.assert_close(turned.axes, principal_plane(points).axes, atol=1e-4, rtol=0)
    assert all(axis[axis.abs().argmax()] > 0 for axis in principal_plane(-points).axes)


@pytest.mark.parametrize(("points", "said"), [
    (torch.zeros(1, 5), "expected points"), (torch.zeros(5, 1), "expected points"),
    (torch.zeros(5), "expected points"), (torch.ones(5, 4), "alike")])
def test_no_plane_through_too_little(points, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        principal_plane(points)


# Runs

def test_ways_begin_in_the_noise_and_end_in_the_result(traces) -> None:
    trace = traces[3, 7.5]
    x_t, x0 = ways(trace)
    assert x_t.shape == x0.shape == (9, *trace.latents.shape[1:])
    assert torch.equal(x_t[0], trace[0].x_t[0]) and torch.equal(x0[2], trace[2].x0[0])
    assert torch.equal(x_t[-1], trace.latents[0]) and torch.equal(x0[-1], trace.latents[0])


def test_approach_curves_measure_the_distance_to_the_result(traces, tmp_path: Path) -> None:
    trace = traces[3, 7.5]
    figure = figures.approach_curves(trace)
    noisy, clean = (line.get_ydata() for line in figure.axes[0].lines)
    assert noisy[4] == pytest.approx(size(trace[4].x_t - trace.latents))
    assert clean[4] == pytest.approx(size(trace[4].x0 - trace.latents))
    assert noisy[-1] == clean[-1] == 0 and len(noisy) == 9
    assert title(figure) == (f"After 50 % of the steps x0 is {clean[4]:.2f} away from the result, "
                             f"x_t {noisy[4]:.2f}")
    drawn(figure, tmp_path / "curves.png")


def test_trajectory_maps_draw_every_run_on_both_planes(traces, tmp_path: Path) -> None:
    figure = figures.trajectory_maps(traces)
    for part, axes in enumerate(figure.axes):
        states = {run: ways(trace)[part].flatten(1) for run, trace in traces.items()}
        plane = principal_plane(torch.cat(list(states.values())))
        lines = [line for line in axes.lines if len(line.get_xdata()) == 9]
        for line, state in zip(lines, states.values(), strict=True):
            np.testing.assert_allclose(np.stack(line.get_data()).T, plane.project(state), atol=1e-4)
        assert f"holds {100 * plane.shares.sum():.0f} % of the variance" in axes.get_title("left")
        assert len(axes.artists) == (0 if part else len(traces))    # a picture at each end of x_t
        colours = [line.get_color() for line in lines]
        assert colours[0] == colours[1] != colours[2]   # one for each seed
        assert lines[0].get_linestyle() == lines[2].get_linestyle() != lines[1].get_linestyle()
    drawn(figure, tmp_path / "maps.png")


def test_the_title_compares_seeds_and_not_guidance_scales(traces) -> None:
    runs = [(run, ways(trace)) for run, trace in traces.items()]
    pairs = [(a, b) for a in (0, 1) for b in (2, 3)]
    noise, guess, result = (
        np.mean([size(runs[a][1][part][end] - runs[b][1][part][end]) for a, b in pairs])
        for part, end in ((0, 0), (1, 0), (0, -1)))
    assert parting(runs) == (f"Between two seeds the noise differs by {noise:.2f}, the first guess "
                             f"x0 by {guess:.2f}, the result by {result:.2f}")
    assert parting(runs[:2]).startswith("One noise")


# Edits

@pytest.mark.parametrize(("distances", "said"), [
    ([5, 10, 30, 50], "From strength 0.6 on"), ([5, 10, 20, 24], "At no strength is")])
def test_the_strength_curve_names_the_strength_at_half_of_the_way(
        tmp_path: Path, distances: list[float], said: str) -> None:
    figure = figures.strength_curve([0, 0.3, 0.6, 0.9], distances, 50)
    assert list(figure.axes[0].lines[0].get_ydata()) == distances
    assert said in title(figure)
    drawn(figure, tmp_path / "strength.png")
