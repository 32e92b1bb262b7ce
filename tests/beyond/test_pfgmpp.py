"""PFGM++: the exact denoiser against rational numbers and the Poisson field; the kernel's draws."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from minisd.beyond.denoising import edm_grid, solve
from minisd.beyond.pfgmpp import (
    CLIP,
    draw_radius,
    exact_denoiser,
    exact_ode,
    perturb,
    prior,
)

EPS64 = 2.0 ** -52


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fractions(x: Tensor, data: Tensor, sigma: float, D: float) -> Tensor:
    """The denoiser with the squares, and their differences, in exact rational numbers.

    Only log1p, exp and the last sum are float64, of numbers that hold no more cancellation.
    """
    rows = []
    for one in x.tolist():
        squares = [sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(one, y, strict=True))
                   for y in data.tolist()]
        least, r2 = min(squares), Fraction(sigma) ** 2
        if math.isinf(D):
            logs = [-float((s - least) / r2) / 2 for s in squares]
        else:
            r2 *= Fraction(D)
            logs = [-(len(one) + D) / 2 * math.log1p((s - least) / (least + r2)) for s in squares]
        weights = [math.exp(value) for value in logs]
        rows.append([math.fsum(w * y[i] for w, y in zip(weights, data.tolist(), strict=True))
                     / math.fsum(weights) for i in range(len(one))])
    return torch.tensor(rows, dtype=torch.float64)


def gaussian(x: Tensor, data: Tensor, sigma: float) -> Tensor:
    """EDM's ideal denoiser (Karras et al. 2022, eq. 57)."""
    return (-torch.cdist(x, data).square() / (2 * sigma ** 2)).softmax(1) @ data


# The exact denoiser

@pytest.mark.parametrize("sigma", [0.05, 0.7, 30.0])
def test_at_infinity_it_is_the_gaussian_denoiser(sigma: float) -> None:
    x, data = 2 * drawn(5, 3), drawn(7, 3, seed=1)
    expected = gaussian(x, data, sigma)
    # cdist's squares carry some roundings of |x|^2, which 1 / (2 sigma^2) enlarges
    rounding = 100 * EPS64 * (1 + 1 / sigma ** 2)
    torch.testing.assert_close(exact_denoiser(x, data, sigma, math.inf), expected, rtol=0,
                               atol=rounding)
    apart = [(exact_denoiser(x, data, sigma, D) - expected).abs().max() for D in (1e4, 1e6, 1e8)]
    assert apart[2] < 1e-4 and apart[2] <= apart[1] <= apart[0]


def test_at_one_it_is_the_poisson_field_of_the_augmented_points() -> None:
    """PFGM's field is the gradient of the potential of charges in N + 1 dimensions."""
    x, data, sigma = drawn(6, 3), drawn(5, 3, seed=1), 0.8
    point = torch.cat([x, torch.full((6, 1), sigma, dtype=torch.float64)], 1).requires_grad_()
    charges = torch.cat([data, torch.zeros(5, 1, dtype=torch.float64)], 1)
    potential = (point[:, None] - charges).norm(dim=-1).pow(-2).sum()       # Green's, N + 1 = 4
    field = -torch.autograd.grad(potential, point)[0]
    slope = field[:, :3] / field[:, 3:]                                     # dx / dr
    expected = (x - exact_denoiser(x, data, sigma, 1)) / sigma
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("D", [1, 2.5, 128, 1e6, 1e12, 10 ** 30, math.inf])
@pytest.mark.parametrize(("away", "sigma"), [(0.0, 0.01), (3.0, 1.0), (1e4, 80.0), (1e9, 1e5)])
def test_it_is_exact_near_and_far(D: float, away: float, sigma: float) -> None:
    x, data = drawn(3, 4) + away, drawn(6, 4, seed=1)
    expected = fractions(x, data, sigma, D)
    found = exact_denoiser(x, data, sigma, D)
    # x and the data are exact numbers; q has a few roundings of its factors, and the exponent of
    # every point that still weighs something is below 750.
    torch.testing.assert_close(found, expected, rtol=0, atol=2000 * EPS64 * float(data.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("D", [1, 2048, 1e12, math.inf])
def test_it_loses_nothing_in_other_dtypes(dtype: torch.dtype, D: float) -> None:
    x, data = (drawn(3, 4) + 1e4).to(dtype), drawn(6, 4, seed=1).to(dtype)
    found = exact_denoiser(x, data, 90.0, D)
    assert found.dtype == dtype
    expected = fractions(x.double(), data.double(), 90.0, D)
    torch.testing.assert_close(found, expected.to(dtype), rtol=torch.finfo(dtype).eps,
                               atol=torch.finfo(dtype).tiny)


def test_many_points_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, data = drawn(7, 3), drawn(5, 3, seed=1)
    whole = exact_denoiser(x, data, 0.5, 3)
    monkeypatch.setattr("minisd.beyond.pfgmpp.AT_ONCE", 31)
    torch.testing.assert_close(exact_denoiser(x, data, 0.5, 3), whole, rtol=0, atol=1e-15)
    assert exact_denoiser(x[:0], data, 0.5, 3).shape == (0, 3)


def test_one_point_is_its_own_mean_and_a_point_of_the_data_is_found() -> None:
    data = drawn(6, 3)
    for D in (1, 50, math.inf):
        assert exact_denoiser(drawn(2, 3), data[:1], 1e3, D).equal(data[:1].expand(2, 3))
        for sigma in (1e-12, 1e-200):
            torch.testing.assert_close(exact_denoiser(data, data, sigma, D), data)
        near = exact_denoiser(data + 1e-9, data, 1e-200, math.inf)
        torch.testing.assert_close(near, data)


@pytest.mark.parametrize(("changed", "message"), [
    ({"sigma": 0.0}, "sigma must be above 0"), ({"sigma": math.nan}, "sigma must be above 0"),
    ({"sigma": math.inf}, "sigma must be above 0"), ({"D": 0.9}, "D must be from 1 on"),
    ({"D": math.nan}, "D must be from 1 on"), ({"data": drawn(5, 2)}, r"expected \(b, N\)"),
    ({"data": drawn(0, 3)}, "at least one data point"), ({"x": drawn(3)}, r"expected \(b, N\)"),
    ({"x": torch.ones(2, 3, dtype=torch.long)}, "floating"),
    ({"data": drawn(5, 3) / 0}, "NaN or infinite")])
def test_bad_input_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_denoiser(**{"x": drawn(4, 3), "data": drawn(5, 3), "sigma": 1.0, "D": 2, **changed})


# The kernel

@pytest.mark.parametrize("N", [2, 5])
@pytest.mark.parametrize("D", [1, 4, 128, 1e9, math.inf])
def test_radii_follow_the_kernels_density(N: int, D: float) -> None:
    """Kolmogorov's distance to the density R^(N-1) / (R^2 + D)^((N+D)/2), integrated anew."""
    count = 40_000
    radii = draw_radius(count, N, D, torch.Generator().manual_seed(0)).sort().values.numpy()
    s = np.linspace(-12, 25, 400_001)                       # R = exp(s), dR = R ds
    R = np.exp(s)
    fall = R ** 2 / 2 if math.isinf(D) else (N + D) / 2 * np.log1p(R ** 2 / D)
    density = np.exp(N * s - fall)
    cumulative = np.cumsum(density) / density.sum()
    expected = np.interp(np.log(radii), s, cumulative)
    distance = np.abs(expected - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / math.sqrt(count)               # passed by chance 999 times of 1,000


def test_directions_are_uniform_and_each_sample_has_its_level() -> None:
    g = torch.Generator().manual_seed(0)
    y, sigma = drawn(20_000, 3).float(), torch.tensor([0.1, 7.0]).repeat(10_000)
    offset = perturb(y, sigma, 128, g) - y
    assert offset.dtype == torch.float32
    unit = offset / offset.norm(dim=1, keepdim=True)
    assert (unit.T @ unit / len(unit) - torch.eye(3) / 3).abs().max() < 0.01
    assert unit.mean(0).abs().max() < 0.02
    # Student's t has the variance D / (D - 2)
    for level, part in ((0.1, offset[::2]), (7.0, offset[1::2])):
        assert abs(part.var() / level ** 2 / (128 / 126) - 1) < 0.03


def test_training_clips_the_radius_and_the_prior_is_the_kernel_around_zero() -> None:
    g = torch.Generator().manual_seed(0)
    radii = draw_radius(20_000, 2, 1, g, clip=CLIP)
    low, high = (math.sqrt(b / (1 - b)) for b in CLIP)
    assert radii.min() >= low - 1e-12 and radii.max() <= high + 1e-12
    assert draw_radius(20_000, 2, 1, g).max() > high
    start = prior((4000, 5), 80.0, math.inf, g)
    assert start.dtype == torch.float32 and abs(start.std() / 80 - 1) < 0.02


@pytest.mark.parametrize("D", [1, 16, math.inf])
def test_paths_lead_from_the_prior_to_the_data(D: float) -> None:
    data = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]], dtype=torch.float64)
    x = prior((300, 2), 80.0, D, torch.Generator().manual_seed(0)).double()
    *_, last = solve(exact_ode(data, D), x, edm_grid(40))
    apart, nearest = torch.cdist(last.x_next, data).min(1)
    assert (apart < 0.01).double().mean() > 0.97            # with D = 1 some start very far away
    assert (nearest.bincount(minlength=3) / 300 - 1 / 3).abs().max() < 0.1
