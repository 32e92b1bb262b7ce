"""Whole trajectories of all samplers against diffusers, and the promises of the generator."""

import re
import threading
from collections.abc import Callable, Iterator

import parity
import pytest
import torch
from parity import TOLERANCE, relative_error
from torch import Tensor

from minisd.diffusion import Schedule, StepCoefficients, add_noise, predict_x0, take_step
from minisd.samplers import SAMPLERS, Prediction, SampleStep, blend, make_sampler, sample

SHAPE = (2, 5, 3, 7)
COUNTS = [1, 2, 3, 7, 20, 50, 999]
RUNS = [*((name, 0.0) for name in SAMPLERS), ("ddim", 0.5), ("ddim", 1.0)]
every_sampler = pytest.mark.parametrize("name", list(SAMPLERS))


def network(schedule: Schedule) -> Callable[[Tensor, float], Tensor]:
    """A formula in place of the UNet: of x and of t, its values near 1 as true noise is.

    sqrt(1 - alpha_bar) x is what a perfect network says of data that are themselves normal noise;
    it keeps x_t at variance 1. The wave is there so that every t and every value counts.
    """
    def eps(x: Tensor, t: float) -> Tensor:
        return (1 - schedule.at(t)) ** 0.5 * x + 0.3 * torch.sin(2 * x.roll(1, -1) + t / 60)

    return eps


def noise_stream(seed: int = 5) -> Callable[[], Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(SHAPE, generator=g)


def first_noise() -> Tensor:
    return noise_stream(4)()


def run(name: str, schedule: Schedule, steps: int, calls: list[float], *, eta: float = 0.0,
        noise: Callable[[], Tensor] | None = None) -> Iterator[SampleStep]:
    """Ours, over the fake network; calls collects the timesteps at which that is evaluated."""
    net, sampler = network(schedule), make_sampler(name, schedule, steps, eta)

    def predict(x: Tensor, t: float) -> Prediction:
        calls.append(t)
        return Prediction(net(x, t))

    noise = noise or noise_stream()
    return sample(sampler, predict, first_noise() * sampler.start_scale, noise)


# Against diffusers

def reference(name: str, schedule: Schedule, steps: int, eta: float
              ) -> tuple[list[float], list[Tensor]]:
    """Diffusers' timesteps, and its x after each step, in variance-preserving coordinates."""
    theirs, net = parity.scheduler(name), network(schedule)
    theirs.alphas_cumprod = schedule.alpha_bar          # in place of a product of float32
    if name in ("ddim", "plms"):
        theirs.final_alpha_cumprod = schedule.alpha_bar[0]
    theirs.set_timesteps(steps)
    options = {"generator": torch.Generator().manual_seed(5)}
    options = {"ddpm": options, "euler_a": options, "ddim": {**options, "eta": eta}}.get(name, {})
    x, after = first_noise() * theirs.init_noise_sigma, []
    for i, t in enumerate(theirs.timesteps):
        eps = net(theirs.scale_model_input(x, t), float(t))
        x = theirs.step(eps, t, x, **options).prev_sample
        scaled = name in ("lms", "euler", "euler_a", "heun")
        sigma = float(theirs.sigmas[i + 1]) if scaled else 0.0
        after.append(x / (1 + sigma ** 2) ** 0.5)
    if name == "heun":
        after = after[1::2] + after[-1:]        # every other is only where the step would arrive
    if name == "plms" and steps > 1:
        after = after[1:]                       # its second answer revises the first
    return theirs.timesteps.tolist(), after


@pytest.mark.parametrize(("name", "eta", "steps"), [
    *((name, eta, steps) for name, eta in RUNS for steps in COUNTS
      if steps < 999 or name != "lms" and not eta),     # LMS's integrals take scipy a minute there
    ("ddpm", 0.0, 1000)])
def test_trajectories_like_diffusers(schedule: Schedule, name: str, eta: float, steps: int
                                     ) -> None:
    """The same timesteps, and the same x after every one of them."""
    calls: list[float] = []
    ours = list(run(name, schedule, steps, calls, eta=eta))
    visited, theirs = reference(name, schedule, steps, eta)
    assert calls == pytest.approx(visited, abs=1e-3)    # fractions are float32 in diffusers
    assert len(ours) == len(theirs) == steps
    # Float32 rounds at 6e-8, and 999 roundings that are not all of one sign add up to 2e-6.
    # Diffusers takes Euler ancestral's noise from a difference of the squares of two float32
    # sigmas; of 999 levels the nearest are 0.5 % apart, so it loses a factor of 100.
    tolerance = 10 * TOLERANCE if (name, steps) == ("euler_a", 999) else TOLERANCE
    assert max(relative_error(a.x_prev, b) for a, b in zip(ours, theirs, strict=True)) < tolerance


def test_blends_are_adams_bashforths() -> None:
    """At even places the published weights; at any, the integral of every cubic, exactly."""
    even = blend(StepCoefficients(1.0, 24.0), -torch.arange(4.0).double().numpy())
    assert (even.eps, *even.past) == pytest.approx((55, -59, 37, -9))
    places = torch.tensor([0.0, -0.4, -1.1, -1.5]).double().numpy()
    uneven = blend(StepCoefficients(1.0, 1.0), places)
    for power in range(4):
        assert (uneven.eps, *uneven.past) @ places ** power == pytest.approx(1 / (power + 1))


# What a step reports

@pytest.mark.parametrize(("name", "eta"), RUNS)
def test_a_step_says_all_that_it_did(schedule: Schedule, name: str, eta: float) -> None:
    """x_prev is the sum that the coefficients describe, memories and the prediction ahead too."""
    net, noise, used = network(schedule), noise_stream(), noise_stream()
    sampler, calls, seen = make_sampler(name, schedule, 7, eta), [], []
    x = first_noise() * sampler.start_scale
    for i, step in enumerate(run(name, schedule, 7, calls, eta=eta, noise=used)):
        level, after = sampler.alpha_bar[i:i + 2]
        assert (step.index, step.total, step.t) == (i, 7, sampler.timesteps[i])
        assert step.evaluations == len(calls)
        assert torch.equal(step.x_t, x)                 # where the step before ended
        assert torch.equal(step.eps, net(x, step.t))
        assert torch.equal(step.x0, predict_x0(x, step.eps, level))
        assert step.eps_uncond is None and step.eps_cond is None
        c, ahead = step.coefficients, None
        if c.ahead:
            there = add_noise(step.x0, step.eps, after)     # DDIM's step
            ahead = net(there, sampler.timesteps[i + 1])
        x = take_step(c, x, step.eps, noise=noise() if c.noise else None, ahead=ahead, past=seen)
        assert relative_error(step.x_prev, x) < TOLERANCE
        x, seen = step.x_prev, [step.x0 if name == "dpm++2m" else step.eps, *seen]
    assert step.evaluations == {"plms": 8, "heun": 13}.get(name, 7)
    assert torch.equal(used(), noise())                 # none was drawn that was not used


@every_sampler
def test_the_perfect_network_leads_back_to_the_picture(schedule: Schedule, name: str) -> None:
    """If there is one picture only, its noise is known exactly and every sampler finds it."""
    x0, noise = first_noise().double(), lambda: first_noise().double().flip(0)

    def predict(x: Tensor, t: float) -> Prediction:
        level = schedule.at(t)
        return Prediction((x - level ** 0.5 * x0) / (1 - level) ** 0.5)

    *_, last = sample(make_sampler(name, schedule, 20), predict, noise(), noise)
    torch.testing.assert_close(last.x0, x0, atol=1e-9, rtol=0)
    if name not in ("ddim", "plms"):        # which keep the noise of timestep 0, as CompVis's do
        torch.testing.assert_close(last.x_prev, x0, atol=1e-9, rtol=0)


# The generator

@every_sampler
def test_gradients_are_off_inside_and_as_before_outside(schedule: Schedule, name: str) -> None:
    """Wherever a run is continued: in another mode, in another thread."""
    inside: list[bool] = []
    outside: list[bool] = []

    def predict(x: Tensor, t: float) -> Prediction:
        inside.append(torch.is_grad_enabled())
        return Prediction(0.9 * x)

    def consume(steps: Iterator[SampleStep]) -> None:
        for step in steps:
            outside.append(torch.is_grad_enabled() and not step.x_prev.requires_grad)

    begun, elsewhere = (sample(make_sampler(name, schedule, 5), predict,
                               first_noise().requires_grad_(), noise_stream()) for _ in range(2))
    with torch.no_grad():
        next(begun)
        assert not torch.is_grad_enabled()
    consume(begun)
    next(elsewhere)
    thread = threading.Thread(target=consume, args=[elsewhere])
    thread.start()
    thread.join()
    assert torch.is_grad_enabled() and not any(inside)
    assert outside == [True] * (4 + 4)


@every_sampler
def test_what_makes_no_sampler_is_refused(schedule: Schedule, name: str) -> None:
    most = 1000 if name == "ddpm" else 999
    assert len(make_sampler(name, schedule, most).timesteps) == most
    for steps in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"to {most} for {re.escape(name)}, got {steps}"):
            make_sampler(name, schedule, steps)
    with pytest.raises(ValueError, match="unknown sampler 'ddmp': choose one of ddim, ddpm, plms"):
        make_sampler("ddmp", schedule, 20)
