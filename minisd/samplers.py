"""All samplers: a grid of noise levels, a rule for coefficients, and the one loop under them.

Between two noise levels there is one formula, DDIM's (`ddim_coefficients`). Samplers differ in
where the levels lie, in how much fresh noise a step adds, and in what takes the place of the
predicted noise in the formula:

    ddim            the prediction itself, on levels T / steps apart
    ddpm            the same with eta = 1 (Ho et al. 2020, algorithm 2)
    euler, euler_a  the same two, on levels from the noisiest timestep down to no noise at all:
                    Euler's method for d x_hat / d sigma = eps (Karras et al. 2022), where
                    x_hat = x_t / sqrt(alpha_bar) and sigma = sqrt(1 / alpha_bar - 1)
    heun            the mean of the predictions at both ends of the step
    plms, lms       a blend of this prediction with earlier ones, which extrapolates them
    dpm++2m         the same for the predicted x_0

The network enters as `predict(x_t, t) -> Prediction`: any model will do, or a formula. The loop is
a generator, and whoever stops early causes no further work.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minisd.diffusion import Schedule, StepCoefficients, ddim_coefficients, predict_x0, take_step


@dataclass(frozen=True)
class Prediction:
    """The noise predicted at one x_t."""

    eps: Tensor                         # guided
    eps_uncond: Tensor | None = None    # what it was made of; None where that pass was skipped
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
    coefficients: StepCoefficients  # what x_prev was made of
    evaluations: int                # of the network, up to and including this step


Predict = Callable[[Tensor, float], Prediction]
Noise = Callable[[], Tensor]                # fresh standard normal noise of x_t's shape
Keep = Callable[[Tensor, float], Tensor]    # x_prev and its alpha_bar -> what takes its place


# Grids: the timesteps of a run, falling, of `total` = T

def spaced(total: int, steps: int) -> list[float]:
    """T // steps apart: 50 steps visit 980, 960, ..., 0; with offset 1, 981, 961, ..., 1."""
    return [i * (total // steps) for i in reversed(range(steps))]


def even(total: int, steps: int) -> list[float]:
    """From the last timestep to 0, fractions included: 3 steps visit 999, 499.5, 0."""
    return np.linspace(0, total - 1, steps)[::-1].tolist()


def even_but_zero(total: int, steps: int) -> list[float]:
    """In one interval more, 0 left out: 3 steps visit 999, 666, 333."""
    return np.linspace(0, total - 1, steps + 1).round()[:0:-1].tolist()


# Rules: DDIM's coefficients c of step i become the sampler's, when `known` steps are remembered

def heun(c: StepCoefficients, alpha_bar: Sequence[float], i: int, known: int) -> StepCoefficients:
    """The mean of both slopes, but for the last step (Karras et al. 2022, algorithm 1)."""
    last = i == len(alpha_bar) - 2
    return c if last else replace(c, eps=c.eps / 2, ahead=c.eps / 2)


def plms(c: StepCoefficients, alpha_bar: Sequence[float], i: int, known: int) -> StepCoefficients:
    """A blend as if steps were even (Liu et al. 2022); with nothing remembered, Heun's."""
    return blend(c, -np.arange(known + 1.0)) if known else heun(c, alpha_bar, i, known)


def lms(c: StepCoefficients, alpha_bar: Sequence[float], i: int, known: int) -> StepCoefficients:
    """A blend by where the predictions really lie in sigma."""
    sigmas = np.array([sigma(alpha_bar[i - k]) for k in range(known + 1)])
    return blend(c, (sigmas - sigmas[0]) / (sigma(alpha_bar[i + 1]) - sigmas[0]))


def blend(c: StepCoefficients, places: np.ndarray) -> StepCoefficients:
    """Adams-Bashforth: the mean over the step of the polynomial through all predictions.

    places: where they lie, newest first; the step goes from 0 to 1. The weights integrate 1, x,
    x^2, ... exactly; at 0, -1, -2, -3 they are (55, -59, 37, -9) / 24.
    """
    powers = np.vander(places, increasing=True).T
    newest, *earlier = c.eps * np.linalg.solve(powers, 1 / np.arange(1, len(places) + 1))
    return replace(c, eps=float(newest), past=tuple(map(float, earlier)))


def dpm(c: StepCoefficients, alpha_bar: Sequence[float], i: int, known: int) -> StepCoefficients:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): a line in log(sigma) through two x_0."""
    if not known or alpha_bar[i + 1] == 1:
        return c
    before, now, after = (sigma(alpha_bar[i + k]) for k in (-1, 0, 1))
    ratio = math.log(now / after) / math.log(before / now)
    gain = math.sqrt(alpha_bar[i + 1]) * (1 - after / now) * ratio / 2  # of x_0 minus the last x_0
    return replace(c, x_t=c.x_t + gain / math.sqrt(alpha_bar[i]), eps=c.eps - gain * now,
                   past=(-gain,))


def sigma(alpha_bar: float) -> float:
    """Noise relative to the signal; 0 without noise."""
    return math.sqrt(1 / alpha_bar - 1)


# Samplers by name

@dataclass(frozen=True)
class Method:
    """What makes a sampler."""

    grid: Callable[[int, int], list[float]]
    rule: Callable[[StepCoefficients, Sequence[float], int, int], StepCoefficients] | None = None
    memory: int = 0                 # earlier predictions to remember
    of_x0: bool = False             # remember x_0 in place of eps
    eta: float = 0.0                # fresh noise; for ddim it is the user's
    offset: int = 0                 # added to the timesteps; with it a run ends at the noise of 0


SAMPLERS = {"ddim": Method(spaced, offset=1), "ddpm": Method(spaced, eta=1.0),
            "plms": Method(spaced, plms, memory=3, offset=1), "lms": Method(even, lms, memory=3),
            "euler": Method(even), "euler_a": Method(even, eta=1.0), "heun": Method(even, heun),
            "dpm++2m": Method(even_but_zero, dpm, memory=1, of_x0=True)}


@dataclass(frozen=True)
class Sampler:
    """A method on the grid of one run: n timesteps, and n + 1 levels, the last of the result."""

    method: Method
    timesteps: tuple[float, ...]
    alpha_bar: tuple[float, ...]
    eta: float
    start_scale: float              # of the starting noise in x_t

    def coefficients(self, i: int, known: int = 0) -> StepCoefficients:
        """Of step i, when `known` earlier steps are remembered."""
        c = ddim_coefficients(self.alpha_bar[i], self.alpha_bar[i + 1], self.eta)
        return self.method.rule(c, self.alpha_bar, i, known) if self.method.rule else c


def make_sampler(name: str, schedule: Schedule, steps: int, eta: float = 0.0) -> Sampler:
    """eta counts for ddim alone. Raises ValueError for an unknown name or number of steps."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    method, most = SAMPLERS[name], len(schedule) - (name != "ddpm")
    if not 1 <= steps <= most:
        raise ValueError(f"steps must be from 1 to {most} for {name}, got {steps}")
    timesteps = [t + method.offset for t in method.grid(len(schedule), steps)]
    levels = [schedule.at(t) for t in timesteps]
    # CompVis's DDIM keeps the little noise of timestep 0, the others end without any. On the even
    # grid the starting noise is sigma times standard noise in x_hat.
    last = schedule.at(0) if method.offset else 1.0
    start_scale = math.sqrt(1 - levels[0]) if method.grid is even else 1.0
    return Sampler(method, tuple(timesteps), (*levels, last), eta if name == "ddim" else method.eta,
                   start_scale)


@torch.no_grad()
def sample(sampler: Sampler, predict: Predict, x: Tensor, noise: Noise, *, start: int = 0,
           keep: Keep | None = None) -> Iterator[SampleStep]:
    """Walk the grid from step number `start` on, yielding each step.

    x: (b, c, h, w), noise, or latents noised to level `start`. keep: called after every step, with
    the level reached, in the end 1. Raises FloatingPointError where latents stop being finite.
    """
    memory: list[Tensor] = []       # newest first
    evaluations, total = 0, len(sampler.timesteps) - start
    for i, t in list(enumerate(sampler.timesteps))[start:]:
        level, after = sampler.alpha_bar[i:i + 2]
        prediction = predict(x, t)
        eps, x0 = prediction.eps, predict_x0(x, prediction.eps, level)
        c, ahead = sampler.coefficients(i, len(memory)), None
        if c.ahead:                 # a second prediction, where DDIM's step would arrive
            there = take_step(ddim_coefficients(level, after), x, eps)
            ahead = predict(there, sampler.timesteps[i + 1]).eps
        x_prev = take_step(c, x, eps, noise=noise() if c.noise else None, ahead=ahead, past=memory)
        evaluations += 1 if ahead is None else 2
        if not x_prev.isfinite().all():
            raise FloatingPointError(f"the latents stopped being finite at step {i - start + 1} of "
                                     f"{total} (t = {t:g}): the guidance scale is far too large, "
                                     f"the weights are damaged, or float16 overflows")
        if keep is not None:
            x_prev = keep(x_prev, 1.0 if i - start == total - 1 else after)
        yield SampleStep(i - start, total, t, x, eps, prediction.eps_uncond, prediction.eps_cond,
                         x0, x_prev, c, evaluations)
        memory = [x0 if sampler.method.of_x0 else eps, *memory][:sampler.method.memory]
        x = x_prev
