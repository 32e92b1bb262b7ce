"""The schedule's published numbers, and identities between the ways to write one step.

Those of whole runs stand in test_identities.py.
"""

import math

import pytest
import torch
from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import (
    Schedule,
    StepCoefficients,
    add_noise,
    ddim_coefficients,
    ddpm_coefficients,
    guide,
    make_schedule,
    predict_eps,
    predict_x0,
    take_step,
)

LEVELS = [(0, None), (1, 0), (20, 0), (21, 1), (500, 480), (981, 961), (999, 0), (999, None)]


def levels(schedule: Schedule, pair: tuple[int, int | None]) -> tuple[float, float]:
    """alpha_bar of a step's two ends; None is the clean picture, alpha_bar 1."""
    t, before = pair
    return schedule.at(t), 1.0 if before is None else schedule.at(before)


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


# The schedule

def test_the_schedules_published_numbers(schedule: Schedule) -> None:
    assert len(schedule) == 1000
    assert schedule.at(0) == pytest.approx(0.99915, abs=1e-8)
    assert schedule.at(999) == pytest.approx(0.0046601, abs=1e-7)
    assert float(schedule.sigma()[-1]) == pytest.approx(14.6146, abs=1e-4)
    assert float(schedule.betas[0]) == pytest.approx(0.00085)
    assert float(schedule.betas[-1]) == pytest.approx(0.012)
    assert schedule.betas.dtype == schedule.alpha_bar.dtype == torch.float64


def test_the_square_roots_of_betas_are_linear(schedule: Schedule) -> None:
    differences = schedule.betas.sqrt().diff()
    torch.testing.assert_close(differences, differences.mean().expand(999))


def test_the_schedule_is_diffusers_scaled_linear(schedule: Schedule) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    # Theirs is a float32 product of up to 1000 factors.
    torch.testing.assert_close(theirs.alphas_cumprod.double(), schedule.alpha_bar, rtol=2e-5,
                               atol=0)


def test_below_zero_the_schedule_stays_at_its_start(schedule: Schedule) -> None:
    assert schedule.at(-19) == schedule.at(-1) == schedule.at(0) == 1 - 0.00085


def test_signal_to_noise(schedule: Schedule) -> None:
    torch.testing.assert_close(schedule.snr() * schedule.sigma() ** 2,
                               torch.ones(1000, dtype=torch.float64))
    assert (schedule.snr().diff() < 0).all()
    # x_t / sqrt(alpha_bar) = x_0 + sigma eps
    t = 700
    x0, noise = normal(3, 5), normal(3, 5, seed=1)
    torch.testing.assert_close(add_noise(x0, noise, schedule.at(t)) / schedule.at(t) ** 0.5,
                               x0 + float(schedule.sigma()[t]) * noise)


def test_a_schedule_of_another_length() -> None:
    short = make_schedule(ScheduleConfig(timesteps=10))
    assert len(short) == 10
    assert float(short.betas[-1]) == pytest.approx(0.012)


# Adding noise

def test_q_is_a_thousand_small_steps(schedule: Schedule) -> None:
    """x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps, a thousand times (Ho et al. 2020, eq. 2)."""
    signal, variance = 1.0, 0.0
    for t, beta in enumerate(schedule.betas.tolist()):
        signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        assert signal ** 2 == pytest.approx(schedule.at(t))
        assert variance == pytest.approx(1 - schedule.at(t))


def test_pictures_of_variance_one_keep_it(schedule: Schedule) -> None:
    x_t = add_noise(normal(400_000), normal(400_000, seed=1), schedule.at(300))
    assert float(x_t.var()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_one_line_solved_for_each_letter(schedule: Schedule, t: int) -> None:
    x0, noise, level = normal(2, 5, 3, 7), normal(2, 5, 3, 7, seed=1), schedule.at(t)
    x_t = add_noise(x0, noise, level)
    torch.testing.assert_close(predict_x0(x_t, noise, level), x0)
    torch.testing.assert_close(predict_eps(x_t, x0, level), noise)


def test_a_level_for_each_picture(schedule: Schedule) -> None:
    """As in training, where every picture of a batch has a timestep of its own."""
    t = torch.tensor([0, 500, 999])
    x0, noise = normal(3, 5, 4, 7).float(), normal(3, 5, 4, 7, seed=1).float()
    together = add_noise(x0, noise, schedule.alpha_bar[t])
    assert together.dtype == torch.float32
    for i in range(3):
        alone = add_noise(x0[i], noise[i], schedule.at(int(t[i])))
        torch.testing.assert_close(together[i], alone)
    torch.testing.assert_close(predict_x0(together, noise, schedule.alpha_bar[t]), x0, atol=1e-5,
                               rtol=1e-5)
    torch.testing.assert_close(predict_eps(together, x0, schedule.alpha_bar[t]), noise, atol=1e-5,
                               rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_dtype_is_that_of_the_latents(schedule: Schedule, dtype: torch.dtype) -> None:
    x, per_picture = torch.ones(2, 5, 3, 7, dtype=dtype), schedule.alpha_bar[[3, 5]]
    for level in (0.3, per_picture):
        for function in (add_noise, predict_x0, predict_eps):
            assert function(x, x, level).dtype == dtype
    assert take_step(x, x, x, StepCoefficients(0.1, 0.2, 0.3)).dtype == dtype


# Guidance

def test_guidance_is_the_formula() -> None:
    uncond, cond = normal(2, 5), normal(2, 5, seed=1)
    torch.testing.assert_close(guide(uncond, cond, 7.5), uncond + 7.5 * (cond - uncond))
    torch.testing.assert_close(guide(uncond, cond, 7.5), 7.5 * cond - 6.5 * uncond)
    assert torch.equal(guide(uncond, cond, 0), uncond)
    torch.testing.assert_close(guide(uncond, cond, 1), cond)


def test_guidance_between_equal_predictions_does_nothing() -> None:
    eps = normal(2, 5)
    for scale in (-1, 0, 0.3, 1, 7.5, 1000):
        assert torch.equal(guide(eps, eps.clone(), scale), eps)


# Steps back

@pytest.mark.parametrize("pair", LEVELS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_stays_on_the_marginals(schedule: Schedule, pair: tuple[int, int | None],
                                     eta: float) -> None:
    """From q(x_t | x_0), with the true noise as eps, x_prev is distributed as q(x_prev | x_0)."""
    level, before = levels(schedule, pair)
    c = ddim_coefficients(level, before, eta)
    signal = c.x_t * math.sqrt(level)
    old_noise = c.x_t * math.sqrt(1 - level) + c.eps
    assert signal == pytest.approx(math.sqrt(before))
    assert old_noise ** 2 + c.noise ** 2 == pytest.approx(1 - before, abs=1e-12)
    assert old_noise >= -1e-12
    assert eta or c.noise == 0


@pytest.mark.parametrize("pair", LEVELS)
def test_ddim_with_eta_one_is_ddpm(schedule: Schedule, pair: tuple[int, int | None]) -> None:
    ddim = ddim_coefficients(*levels(schedule, pair), eta=1.0)
    ddpm = ddpm_coefficients(*levels(schedule, pair))
    assert ddim.x_t == pytest.approx(ddpm.x_t)
    assert ddim.eps == pytest.approx(ddpm.eps, abs=1e-12)
    assert ddim.noise == pytest.approx(ddpm.noise, abs=1e-12)


@pytest.mark.parametrize("pair", [p for p in LEVELS if p[1] is not None])
def test_ddpm_is_bayes_rule(schedule: Schedule, pair: tuple[int, int | None]) -> None:
    """q(x_prev | x_t, x_0) ~ q(x_t | x_prev) q(x_prev | x_0), two Gaussians multiplied."""
    level, before = levels(schedule, pair)
    alpha = level / before
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    x_t, eps = 1.3, -0.4
    x0 = (x_t - math.sqrt(1 - level) * eps) / math.sqrt(level)
    mean = (math.sqrt(alpha) * x_t / (1 - alpha) + math.sqrt(before) * x0 / (1 - before)
            ) / precision
    c = ddpm_coefficients(level, before)
    assert c.x_t * x_t + c.eps * eps == pytest.approx(mean)
    assert c.noise == pytest.approx(precision ** -0.5)


def test_the_last_ddpm_step_returns_x0_without_noise(schedule: Schedule) -> None:
    x_t, eps, level = normal(2, 5), normal(2, 5, seed=1), schedule.at(0)
    c = ddpm_coefficients(level, 1.0)
    assert c.noise == 0
    torch.testing.assert_close(take_step(x_t, eps, None, c), predict_x0(x_t, eps, level))


def test_a_ddim_step_is_x0_noised_again(schedule: Schedule) -> None:
    x_t, eps = normal(2, 5), normal(2, 5, seed=1)
    level, before = schedule.at(981), schedule.at(961)
    found = take_step(x_t, eps, None, ddim_coefficients(level, before))
    torch.testing.assert_close(found, add_noise(predict_x0(x_t, eps, level), eps, before))
    assert ddim_coefficients(level, level) == StepCoefficients(1.0, 0.0, 0.0)


def test_take_step_is_the_sum_it_says() -> None:
    x_t, eps, noise = normal(2, 5), normal(2, 5, seed=1), normal(2, 5, seed=2)
    c = StepCoefficients(1.5, -0.25, 0.5)
    torch.testing.assert_close(take_step(x_t, eps, noise, c), 1.5 * x_t - 0.25 * eps + 0.5 * noise)
    torch.testing.assert_close(take_step(x_t, eps, None, c), 1.5 * x_t - 0.25 * eps)
