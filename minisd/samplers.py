"""Samplers by name, and the one loop that walks any of them from noise to a picture.

The rules stand in rules.py (those that think in timesteps) and sigma_rules.py (those that think in
noise levels). The loop is a generator: whoever consumes it sees every step, and whoever stops early
causes no further work.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from minisd.diffusion import Schedule, StepCoefficients, predict_x0
from minisd.rules import DDIM, DDPM, PLMS, Guess, Noise, Predict, Rule
from minisd.sigma_rules import LMS, DPMSolverPP, Euler, EulerAncestral, Heun

SAMPLERS: dict[str, type[Rule]] = {
    "ddpm": DDPM, "ddim": DDIM, "plms": PLMS, "lms": LMS, "euler": Euler,
    "euler_a": EulerAncestral, "heun": Heun, "dpm++2m": DPMSolverPP}

# x_prev and its alpha_bar -> what takes its place, for whoever must hold a part of it fixed
Keep = Callable[[Tensor, float], Tensor]


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
    coefficients: StepCoefficients  # what x_prev was made of
    evaluations: int                # of the network, up to and including this step


def make_rule(name: str, schedule: Schedule, steps: int, eta: float = 0.0) -> Rule:
    """A fresh rule for one run. Raises ValueError for an unknown name or number of steps."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[name]
    steps = as_whole("steps", steps)
    if not 1 <= steps <= sampler.max_steps:
        raise ValueError(f"steps must be from 1 to {sampler.max_steps} for {name}, got {steps}")
    return sampler(schedule, steps, eta)


def as_whole(name: str, value: SupportsIndex) -> int:
    """An int, of an int or one of NumPy's. Raises TypeError for anything else, True among it."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    return operator.index(value)


@torch.no_grad()
def sample(rule: Rule, schedule: Schedule, predict: Predict, x: Tensor, noise: Noise, *,
           start: int = 0, keep: Keep | None = None) -> Iterator[SampleStep]:
    """Walk the rule's timesteps from number `start` on, yielding each step; lazy throughout.

    x: (b, c, h, w), noise, or latents noised to rule.timesteps[start].
    keep: called after every step, with the level of the next one, after the last with 1: no noise.
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
        if keep is not None:
            last = index == total - 1
            x_prev = keep(x_prev, 1.0 if last else schedule.at(rule.timesteps[start + index + 1]))
        yield SampleStep(index, total, t, x, guess.eps, guess.eps_uncond, guess.eps_cond,
                         predict_x0(x, guess.eps, schedule.at(t)), x_prev, coefficients,
                         evaluations)
        x = x_prev
