"""The schedule's published numbers, and identities between the ways to write one step."""

import math

import parity
import pytest
import torch
from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import (
    Schedule,
    StepCoefficients,
    add_noise,
    ddim_coefficients,
    guide,
    make_schedule,
    predict_eps,
    predict_x0,
    take_step,
)

every_step = pytest.mark.parametrize(("t", "t_prev"), [     # None is the clean picture
    (0, None), (1, 0), (20, 0), (21, 1), (500, 480), (981, 961), (999, 0), (999, None)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


# The schedule

def test_the_schedules_published_numbers(schedule: Schedule) -> None:
    assert len(schedule) == 1000
    assert schedule.at(0) == pytest.approx(0.99915, abs=1e-8)
    assert schedule.at(999) == pytest.approx(0.0046601, abs=1e-7)
    assert float(schedule.sigma()[-1]) == pytest.approx(14.6146, abs=1e-4)
    assert schedule.betas[[0, -1]].tolist() == pytest.approx([0.00085, 0.012])
    assert schedule.betas.dtype == schedule.alpha_bar.dtype == torch.float64
    steps = schedule.betas.sqrt().diff()
    torch.testing.assert_close(steps, steps.mean().expand(999))
    short = make_schedule(ScheduleConfig(timesteps=10))
    assert len(short) == 10 and float(short.betas[-1]) == pytest.approx(0.012)
    # Diffusers' is a float32 product of up to 1000 factors.
    torch.testing.assert_close(parity.scheduler("ddim").alphas_cumprod.double(),
                               schedule.alpha_bar, rtol=2e-5, atol=0)


def test_signal_to_noise_and_sigma(schedule: Schedule) -> None:
    """Between two timesteps sigma is linear; x_t / sqrt(alpha_bar) is x_0 + sigma eps."""
    torch.testing.assert_close(schedule.snr() * schedule.sigma() ** 2,
                               torch.ones(1000, dtype=torch.float64))
    x0, noise = normal(3, 5), normal(3, 5, seed=1)
    for t, share in ((0, 0.0), (300, 0.25), (998, 0.5), (999, 0.0)):
        low, high = float(schedule.sigma()[t]), float(schedule.sigma()[min(t + 1, 999)])
        level = schedule.at(t + share)
        torch.testing.assert_close(add_noise(x0, noise, level) / level ** 0.5,
                                   x0 + (low + share * (high - low)) * noise)


# Adding noise

@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_one_line_solved_for_each_letter(schedule: Schedule, t: int) -> None:
    x0, noise, level = normal(2, 5, 3, 7), normal(2, 5, 3, 7, seed=1), schedule.at(t)
    x_t = add_noise(x0, noise, level)
    torch.testing.assert_close(x_t, level ** 0.5 * x0 + (1 - level) ** 0.5 * noise)
    torch.testing.assert_close(predict_x0(x_t, noise, level), x0)
    torch.testing.assert_close(predict_eps(x_t, x0, level), noise)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_level_for_each_picture(schedule: Schedule, dtype: torch.dtype) -> None:
    """As in training, where every picture has a timestep of its own; the dtype is the latents'."""
    t = torch.tensor([0, 500, 999])
    a, b = normal(3, 5, 4, 7).to(dtype), normal(3, 5, 4, 7, seed=1).to(dtype)
    for function in (add_noise, predict_x0, predict_eps):
        together = function(a, b, schedule.alpha_bar[t])
        assert together.dtype == dtype
        for i in range(3):
            torch.testing.assert_close(together[i], function(a[i], b[i], schedule.at(int(t[i]))))
        for level in (0.3, schedule.alpha_bar[t]):
            assert function(a.bfloat16(), b.bfloat16(), level).dtype == torch.bfloat16


# Guidance

def test_guidance_is_the_formula() -> None:
    uncond, cond = normal(2, 5), normal(2, 5, seed=1)
    torch.testing.assert_close(guide(uncond, cond, 7.5), 7.5 * cond - 6.5 * uncond)
    torch.testing.assert_close(guide(uncond, cond, 1), cond)
    for scale in (-1, 0, 0.3, 1, 7.5, 1000):            # equal predictions are left alone
        assert torch.equal(guide(cond, cond.clone(), scale), cond)


# Steps back

@every_step
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_stays_on_the_marginals(schedule: Schedule, t: int, t_prev, eta: float) -> None:
    """From q(x_t | x_0), with the true noise as eps, x_prev is distributed as q(x_prev | x_0)."""
    level, before = schedule.at(t), 1.0 if t_prev is None else schedule.at(t_prev)
    c = ddim_coefficients(level, before, eta)
    assert c.x_t * math.sqrt(level) == pytest.approx(math.sqrt(before))
    old_noise = c.x_t * math.sqrt(1 - level) + c.eps
    assert old_noise ** 2 + c.noise ** 2 == pytest.approx(1 - before, abs=1e-12)
    assert old_noise >= -1e-12
    assert eta or c.noise == 0


@every_step
def test_ddim_with_eta_one_is_ddpm(schedule: Schedule, t: int, t_prev) -> None:
    """q(x_prev | x_t, x_0), with the x_0 that eps implies (Ho et al. 2020, eq. 6 and 7)."""
    level, before = schedule.at(t), 1.0 if t_prev is None else schedule.at(t_prev)
    alpha = level / before
    beta = 1 - alpha
    of_x0 = math.sqrt(before) * beta / (1 - level)
    of_x_t = math.sqrt(alpha) * (1 - before) / (1 - level)
    variance = (1 - before) / (1 - level) * beta
    c = ddim_coefficients(level, before, eta=1.0)
    for x_t, eps in ((1.0, 0.0), (0.0, 1.0)):           # the mean is linear in these
        x0 = (x_t - math.sqrt(1 - level) * eps) / math.sqrt(level)
        mean = of_x0 * x0 + of_x_t * x_t
        assert c.x_t * x_t + c.eps * eps == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert c.noise == pytest.approx(math.sqrt(variance), rel=1e-9, abs=1e-12)
    assert c.noise > 0 or before == 1                   # the last step ends at x_0 itself


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_take_step_is_the_sum_it_says(dtype: torch.dtype) -> None:
    """Coefficients of what is left out count nothing, nor do memories that have no coefficient."""
    x_t, eps, noise, ahead, a, b = (normal(2, 5, seed=i).to(dtype) for i in range(6))
    c = StepCoefficients(1.5, -0.25, 0.5, 2.0, (-1.0,))
    whole = take_step(c, x_t, eps, noise=noise, ahead=ahead, past=[a, b])
    torch.testing.assert_close(whole, 1.5 * x_t - 0.25 * eps + 0.5 * noise + 2 * ahead - a)
    assert whole.dtype == dtype
    torch.testing.assert_close(take_step(c, x_t, eps), 1.5 * x_t - 0.25 * eps)
