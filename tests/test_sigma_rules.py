"""The samplers that think in sigma, against diffusers' and against their own equations."""

from collections.abc import Callable, Iterator

import pytest
import torch
from parity import TOLERANCE, relative_error
from torch import Tensor

from minisd.diffusion import Schedule, take_step
from minisd.samplers import Guess, SampleStep, make_rule, sample
from minisd.sigma_rules import integrated_lagrange

SHAPE = (2, 5, 3, 7)
COUNTS = [1, 2, 3, 7, 20, 50, 999]
NAMES = ["euler", "euler_a", "heun", "lms", "dpm++2m"]
COMMON = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def network(schedule: Schedule) -> Callable[[Tensor, float], Tensor]:
    """A formula in place of the UNet, as in test_samplers.py, for fractional t as well."""
    def eps(x: Tensor, t: float) -> Tensor:
        return (1 - schedule.at(t)) ** 0.5 * x + 0.3 * torch.sin(2 * x.roll(1, -1) + t / 60)

    return eps


def first_noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))


def run(name: str, schedule: Schedule, steps: int, *, dtype: torch.dtype = torch.float32
        ) -> Iterator[SampleStep]:
    net, g = network(schedule), torch.Generator().manual_seed(5)
    rule = make_rule(name, schedule, steps)
    return sample(rule, schedule, lambda x, t: Guess(net(x, t)),
                  first_noise().to(dtype) * rule.start_scale,
                  lambda: torch.randn(SHAPE, generator=g).to(dtype))


def reference(name: str, schedule: Schedule, steps: int) -> tuple[list[float], list[Tensor]]:
    """Diffusers' timesteps and, after each step, its x in variance-preserving coordinates."""
    import diffusers

    kinds = {"euler": diffusers.EulerDiscreteScheduler, "lms": diffusers.LMSDiscreteScheduler,
             "euler_a": diffusers.EulerAncestralDiscreteScheduler,
             "heun": diffusers.HeunDiscreteScheduler,
             "dpm++2m": diffusers.DPMSolverMultistepScheduler}
    scheduler = kinds[name](**COMMON)
    scheduler.set_timesteps(steps)
    net, g = network(schedule), torch.Generator().manual_seed(5)
    options = {"generator": g} if name == "euler_a" else {}
    x, after, visited = first_noise() * scheduler.init_noise_sigma, [], []
    for i, t in enumerate(scheduler.timesteps):
        asked = scheduler.scale_model_input(x, t)
        x = scheduler.step(net(asked, float(t)), t, x, **options).prev_sample
        looked_ahead = name == "heun" and i % 2 == 0 and i < len(scheduler.timesteps) - 1
        if not looked_ahead:
            visited.append(float(t))
            sigma = 0.0 if name == "dpm++2m" else float(scheduler.sigmas[i + 1])
            after.append(x / (1 + sigma ** 2) ** 0.5)
    return visited, after


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", COUNTS)
def test_trajectories_like_diffusers(schedule: Schedule, name: str, steps: int) -> None:
    ours = list(run(name, schedule, steps))
    visited, theirs = reference(name, schedule, steps)
    assert len(ours) == len(theirs) == steps
    if name != "heun":              # whose second visit of a level counts for the step before
        assert [step.t for step in ours] == pytest.approx(visited, abs=1e-3)
    found = torch.stack([step.x_prev for step in ours])
    # Diffusers takes sigma from a float32 1 - alpha_bar, which is off by up to 3.5e-5 at t = 0;
    # it shows where that level is all there is (1 step) and where 999 of them add up. Against
    # float64 ours is within 5e-6 (tested below).
    rounding = 2 if steps in (1, 999) else 1
    assert relative_error(found, torch.stack(theirs)) < rounding * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_enough(schedule: Schedule, name: str) -> None:
    """Coefficients are float64, so only the latents' own rounding adds up."""
    exact = list(run(name, schedule, 50, dtype=torch.float64))
    for step, expected in zip(run(name, schedule, 50), exact, strict=True):
        assert relative_error(step.x_prev, expected.x_prev) < 5e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_perfect_network_leads_back_to_the_picture(schedule: Schedule, name: str) -> None:
    """If there is one picture only, its noise is known exactly and every sampler finds it."""
    x0, g = first_noise().double(), torch.Generator().manual_seed(6)

    def predict(x: Tensor, t: float) -> Guess:
        level = schedule.at(t)
        return Guess((x - level ** 0.5 * x0) / (1 - level) ** 0.5)

    def noise() -> Tensor:
        return torch.randn(SHAPE, generator=g).double()

    *_, last = sample(make_rule(name, schedule, 20), schedule, predict, noise(), noise)
    torch.testing.assert_close(last.x_prev, x0, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 7), ("euler_a", 7), ("lms", 7),
                                                   ("dpm++2m", 7), ("heun", 13)])
def test_how_often_the_network_is_asked(schedule: Schedule, name: str, evaluations: int) -> None:
    *_, last = run(name, schedule, 7)
    assert last.evaluations == evaluations


@pytest.mark.parametrize("name", [*NAMES, "plms"])
def test_coefficients_say_all_that_a_step_took(schedule: Schedule, name: str) -> None:
    """x_prev is the sum that the coefficients describe, memory and look ahead included."""
    net, g = network(schedule), torch.Generator().manual_seed(5)
    eps_seen: list[Tensor] = []
    x0_seen: list[Tensor] = []
    for step in run(name, schedule, 7, dtype=torch.float64):
        c = step.coefficients
        memory = x0_seen if name == "dpm++2m" else eps_seen
        ahead = None
        if c.ahead:
            rule = make_rule(name, schedule, 7)
            there = rule.timesteps[step.index + 1]
            first = take_step(step.x_t, 2 * step.eps, None, c)
            ahead = net(first, there)
        noise = torch.randn(SHAPE, generator=g).double() if name == "euler_a" else None
        made = take_step(step.x_t, step.eps, noise, c, past=memory[::-1], ahead=ahead)
        torch.testing.assert_close(made, step.x_prev, rtol=1e-9, atol=1e-9)
        eps_seen.append(step.eps)
        x0_seen.append(step.x0)


def test_integrals_of_lagrange_polynomials() -> None:
    """Exact for every polynomial that four points determine."""
    nodes, to = [5.0, 7.0, 8.5, 11.0], 3.0
    weights = integrated_lagrange(nodes, to)
    for power in range(4):
        integral = (to ** (power + 1) - nodes[0] ** (power + 1)) / (power + 1)
        assert sum(w * n ** power for w, n in zip(weights, nodes, strict=True)) == pytest.approx(
            integral)
