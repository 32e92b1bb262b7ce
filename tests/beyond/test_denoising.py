"""Objectives as denoisers: their identities, what a perfect network makes of them, and the ODE."""

import math

import pytest
import torch
from torch import Tensor

from minisd.beyond import flow
from minisd.beyond.denoising import (
    SCHEDULE,
    edm,
    edm_grid,
    predict_eps,
    predict_flow,
    predict_v,
    progress,
    solve,
)
from minisd.diffusion import add_noise

SIGMA = torch.tensor([0.002, 0.05, 0.5, 2.0, 80.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("objective", [edm, predict_eps, predict_v, predict_flow])
def test_the_target_is_the_answer_that_gives_x0_back(objective) -> None:
    x0, noise = normal(5, 3, 2), normal(5, 3, 2, seed=1)
    x = x0 + SIGMA[:, None, None] * noise
    c = objective(SIGMA)
    torch.testing.assert_close(c.x0(x, c.target(x, x0)), x0, rtol=1e-9, atol=1e-9)


def test_targets_are_those_of_the_papers() -> None:
    x0, noise = normal(5, 3), normal(5, 3, seed=1)
    x, sigma = x0 + SIGMA[:, None] * noise, SIGMA[:, None]
    alpha_bar, t = 1 / (1 + sigma ** 2), sigma / (1 + sigma)
    for c, answer, scaled in (
            (predict_eps(SIGMA), noise, add_noise(x0, noise, alpha_bar[:, 0])),
            (predict_v(SIGMA), alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0,
             add_noise(x0, noise, alpha_bar[:, 0])),
            (predict_flow(SIGMA), noise - x0, flow.interpolate(x0, noise, t[:, 0]))):
        torch.testing.assert_close(c.target(x, x0), answer, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(c.input[:, None] * x, scaled)
    torch.testing.assert_close(predict_flow(SIGMA).noise, t[:, 0])


def test_edm_keeps_variance_one_and_enlarges_errors_least() -> None:
    for sigma_data in (0.5, 1.0, 2.0):
        c = edm(SIGMA, sigma_data)
        variance = sigma_data ** 2 + SIGMA ** 2
        torch.testing.assert_close(c.input ** 2 * variance, torch.ones(5, dtype=torch.float64))
        of_answer = ((1 - c.skip) ** 2 * sigma_data ** 2 + c.skip ** 2 * SIGMA ** 2) / c.out ** 2
        torch.testing.assert_close(of_answer, torch.ones(5, dtype=torch.float64))
        weight = (SIGMA ** 2 + sigma_data ** 2) / (SIGMA * sigma_data) ** 2
        torch.testing.assert_close(weight * c.out ** 2, torch.ones(5, dtype=torch.float64))
        for shift in (-0.01, 0.01):         # another c_skip needs a larger c_out
            skip = c.skip + shift
            assert ((1 - skip) ** 2 * sigma_data ** 2 + skip ** 2 * SIGMA ** 2 >= c.out ** 2).all()
    torch.testing.assert_close(edm(SIGMA).noise, SIGMA.log() / 4)


def test_with_unit_data_edm_is_v_prediction_turned_round() -> None:
    c, v = edm(SIGMA, 1.0), predict_v(SIGMA)
    for a, b in ((c.skip, v.skip), (c.out, -v.out), (c.input, v.input)):
        torch.testing.assert_close(a, b.abs())


def test_progress_is_the_schedules_timestep() -> None:
    t = torch.tensor([0, 17, 500, 999])
    torch.testing.assert_close(progress(SCHEDULE.sigma()[t]) * 1000, t.double())
    halfway = SCHEDULE.sigma()[500:502].mean().reshape(1)
    torch.testing.assert_close(progress(halfway) * 1000, torch.tensor([500.5]).double())
    assert SCHEDULE.at(float(progress(halfway)) * 1000) == pytest.approx(
        float(1 / (1 + halfway ** 2)))


# The ODE

def test_the_grid_is_edms() -> None:
    levels = edm_grid(18)
    assert len(levels) == 19 and levels[0] == pytest.approx(80) and levels[-1] == 0
    assert levels[-2] == pytest.approx(0.002)
    middle = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[5] == pytest.approx(middle)
    with pytest.raises(ValueError, match="expected steps >= 1"):
        edm_grid(0)


def test_heun_is_of_second_order_and_euler_of_first() -> None:
    """Gaussian data of variance 1: D(x) = x / (1 + sigma^2), and x / sqrt(1 + sigma^2) stays."""
    def ends(steps: int, heun: bool) -> float:
        levels = [5 - 4 * i / steps for i in range(steps + 1)]
        *_, last = solve(lambda x, sigma: x / (1 + sigma ** 2), torch.ones(1, 1).double(), levels,
                         heun=heun)
        assert last.evaluations == (2 if heun else 1) * steps
        return float(last.x_next) - math.sqrt(2 / 26)

    for heun, order in ((False, 1), (True, 2)):
        assert ends(40, heun) / ends(80, heun) == pytest.approx(2 ** order, rel=0.05)


def test_the_last_step_needs_one_evaluation_and_gives_the_prediction() -> None:
    steps = list(solve(lambda x, sigma: x / 2, normal(3, 2), [2.0, 1.0, 0.0]))
    assert [step.evaluations for step in steps] == [2, 3]
    assert torch.allclose(steps[-1].x_next, steps[-1].x / 2)
    with pytest.raises(FloatingPointError, match="between sigma 2 and 1"):
        list(solve(lambda x, sigma: x / 0, normal(3, 2), [2.0, 1.0, 0.0]))


# Flow matching

def test_flow_and_edms_euler_take_the_same_steps() -> None:
    """Euler on z_t and Euler on x = z_t / (1 - t) are one, whatever the field is."""
    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return z.sin() + t[:, None]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        c = predict_flow(torch.full((len(x),), sigma, dtype=torch.float64))
        return c.x0(x, velocity(c.input[:, None] * x, c.noise))

    z = list(flow.euler(velocity, normal(4, 2), 5))
    sigmas = [t / (1 - t) for t in (0.8, 0.6, 0.4, 0.2, 0.0)]
    steps = list(solve(denoise, z[1] * 5, sigmas, heun=False))
    for after, step in zip(z[2:], steps, strict=True):
        torch.testing.assert_close(step.x_next / (1 + step.sigma_next), after, rtol=1e-5, atol=1e-6)


def test_a_perfect_velocity_of_one_point_is_straight_and_needs_one_step() -> None:
    target = torch.tensor([1.0, -2.0])
    path = torch.stack(list(flow.euler(lambda z, t: (z - target) / t[:, None], normal(5, 2).float(),
                                       8)))
    torch.testing.assert_close(path[-1], target.expand(5, 2))
    assert flow.straightness(path).max() < 1e-9
    bent = torch.stack([path[0], path[0] + 1, path[-1]])
    apart = 2 * (bent[1] - (bent[0] + bent[2]) / 2)
    torch.testing.assert_close(flow.straightness(bent), apart.square().sum(1))


def test_the_loss_of_the_mean_velocity_is_its_variance() -> None:
    x0, noise = torch.ones(4000, 2), normal(4000, 2).float()
    t = flow.draw_times(4000, torch.Generator().manual_seed(0))
    assert t.min() > 0 and t.max() < 1 and abs(t.median() - 0.5) < 0.02
    assert abs((t / (1 - t)).log().std() - 1) < 0.03
    assert flow.flow_loss(lambda z, t: (z - 1) / t[:, None], x0, noise, t) < 1e-6
    assert abs(flow.flow_loss(lambda z, t: -x0, x0, noise, t) - noise.square().mean()) < 1e-6
