"""Samplers: rules for walking from noise to a picture, over one loop that yields every step.

A rule says at which timesteps the network is asked (`timesteps`) and how its answer moves x_t
(`step`). A rule object belongs to one run; multistep rules keep their memory in it. The network
enters as `predict(x_t, t) -> Guess`, so a rule works for any model, a real one or a formula.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minisd.diffusion import (
    Schedule,
    StepCoefficients,
    ddim_coefficients,
    ddpm_coefficients,
    predict_x0,
    take_step,
)


@dataclass(frozen=True)
class Guess:
    """The noise predicted at one x_t: guided, and the two predictions it was made of.

    eps_uncond and eps_cond are None where that pass was skipped (guidance 1 and 0).
    """

    eps: Tensor
    eps_uncond: Tensor | None = None
    eps_cond: Tensor | None = None


@dataclass(frozen=True)
class SampleStep:
    """One step of a run. x_t and x0 are in variance-preserving coordinates for every sampler."""

    index: int                      # 0 .. total - 1
    total: int                      # steps of this run
    t: float                        # the timestep of x_t, 999 .. 0
    x_t: Tensor                     # (b, c, h, w), before the step
    eps: Tensor                     # the guided noise prediction at x_t
    eps_uncond: Tensor | None
    eps_cond: Tensor | None
    x0: Tensor                      # the clean latents that x_t and eps imply
    x_prev: Tensor                  # after the step
    coefficients: StepCoefficients  # x_prev of x_t, of eps (PLMS: of its blend), of fresh noise
    evaluations: int                # of the network, up to and including this step


Predict = Callable[[Tensor, float], Guess]
Noise = Callable[[], Tensor]        # fresh standard normal noise of x_t's shape


class Rule(Protocol):
    """What a sampler has to know; see `DDIM` for the simplest one."""

    timesteps: list[int]            # where step i asks the network, falling

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        """x_prev, and what it took of x_t, eps and noise."""
        ...


def leading_timesteps(schedule: Schedule, steps: int, offset: int) -> list[int]:
    """steps timesteps, T // steps apart, ending at `offset`: 50 steps visit 981, 961, ..., 1."""
    stride = len(schedule) // steps
    return [i * stride + offset for i in reversed(range(steps))]


class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) on a subset of the timesteps."""

    max_steps = 1000

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        """eta is DDIM's and has no meaning here."""
        self.schedule, self.stride = schedule, len(schedule) // steps
        self.timesteps = leading_timesteps(schedule, steps, offset=0)

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        t = self.timesteps[i]
        previous = t - self.stride
        before = self.schedule.at(previous) if previous >= 0 else 1.0
        c = ddpm_coefficients(self.schedule.at(t), before)
        return take_step(x_t, eps, noise() if t > 0 else None, c), c


class DDIM:
    """Song et al. 2021: deterministic at eta = 0, as noisy as DDPM at eta = 1."""

    max_steps = 999

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        self.schedule, self.eta, self.stride = schedule, eta, len(schedule) // steps
        self.timesteps = leading_timesteps(schedule, steps, offset=1)

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        t = self.timesteps[i]
        c = ddim_coefficients(self.schedule.at(t), self.schedule.at(t - self.stride), self.eta)
        return take_step(x_t, eps, noise() if self.eta else None, c), c


class PLMS:
    """Liu et al. 2022 (PNDM without Runge-Kutta): DDIM's step along a blend of past predictions.

    The blend is Adams-Bashforth of order up to four. The first step has no past, so it looks one
    step ahead and averages (Heun), at the cost of one more evaluation of the network.
    """

    max_steps = 999
    BLENDS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12),
              (55 / 24, -59 / 24, 37 / 24, -9 / 24))        # newest prediction first

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        """eta is DDIM's and has no meaning here."""
        self.schedule, self.stride = schedule, len(schedule) // steps
        self.timesteps = leading_timesteps(schedule, steps, offset=1)
        self.past: list[Tensor] = []                        # newest first, at most three

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        t = self.timesteps[i]
        c = ddim_coefficients(self.schedule.at(t), self.schedule.at(t - self.stride))
        known = [eps, *self.past]
        weights = self.BLENDS[len(known) - 1]
        blended = sum((w * e for w, e in zip(weights, known, strict=True)), torch.zeros_like(eps))
        if not self.past and t > self.stride:
            ahead = predict(take_step(x_t, eps, None, c), t - self.stride)
            blended = (eps + ahead.eps) / 2
        self.past = known[:3]
        return take_step(x_t, blended, None, c), c


SAMPLERS: dict[str, type[DDPM] | type[DDIM] | type[PLMS]] = {
    "ddpm": DDPM, "ddim": DDIM, "plms": PLMS}


def make_rule(name: str, schedule: Schedule, steps: int, eta: float = 0.0) -> Rule:
    """A fresh rule for one run. Raises ValueError for an unknown name or number of steps."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be a whole number, got {steps!r}")
    if not 1 <= steps <= sampler.max_steps:
        raise ValueError(f"steps must be from 1 to {sampler.max_steps} for {name}, got {steps}")
    return sampler(schedule, steps, eta)


@torch.no_grad()
def sample(rule: Rule, schedule: Schedule, predict: Predict, x: Tensor, noise: Noise, *,
           start: int = 0) -> Iterator[SampleStep]:
    """Walk the rule's timesteps from number `start` on, yielding each step; lazy throughout.

    x: (b, c, h, w), noise, or latents noised to rule.timesteps[start].
    Raises FloatingPointError at the step at which the latents stop being finite.
    """
    evaluations = 0

    def counted(x_t: Tensor, t: float) -> Guess:
        nonlocal evaluations
        evaluations += 1
        return predict(x_t, t)

    total = len(rule.timesteps) - start
    for index in range(total):
        t = rule.timesteps[start + index]
        guess = counted(x, t)
        x_prev, coefficients = rule.step(start + index, x, guess.eps, counted, noise)
        if not x_prev.isfinite().all():
            raise FloatingPointError(
                f"the latents stopped being finite at step {index + 1} of {total} (t = {t:g}): "
                f"in float16 an overflow is likely, try dtype='float32' or 'bfloat16'; otherwise "
                f"the weights or the guidance scale are at fault")
        yield SampleStep(index, total, t, x, guess.eps, guess.eps_uncond, guess.eps_cond,
                         predict_x0(x, guess.eps, schedule.at(t)), x_prev, coefficients,
                         evaluations)
        x = x_prev
