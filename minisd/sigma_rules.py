"""Samplers that think in sigma, the noise relative to the signal (Karras et al. 2022).

With x_hat = x_t / sqrt(alpha_bar) and sigma = sqrt(1 / alpha_bar - 1), noise is simply added:
x_hat = x_0 + sigma eps. Walking down is then an ordinary differential equation,
d x_hat / d sigma = eps, and these rules are its classical solvers. Outside they speak the same
language as the others: x_t in variance-preserving coordinates, x_t = x_hat / sqrt(1 + sigma^2).
"""

import math

import numpy as np
from torch import Tensor

from minisd.diffusion import Schedule, StepCoefficients, take_step
from minisd.rules import Noise, Predict

MAX_ORDER = 4                   # of LMS


class SigmaRule:
    """What these rules share: evenly spaced timesteps, fractions included, and their sigmas."""

    max_steps = 999

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        """eta is DDIM's and has no meaning here."""
        self.timesteps = np.linspace(0, len(schedule) - 1, steps)[::-1].tolist()
        self.sigmas = [schedule.sigma_at(t) for t in self.timesteps] + [0.0]

    @property
    def start_scale(self) -> float:
        """The starting noise is sigma times standard noise, in x_hat; this is its size in x_t."""
        return scaled(self.sigmas[0], self.sigmas[0])

    def move(self, i: int, to: float) -> StepCoefficients:
        """The straight step from sigma number i to another sigma."""
        sigma = self.sigmas[i]
        return StepCoefficients(scaled(math.sqrt(1 + sigma ** 2), to), scaled(to - sigma, to))


def scaled(of_x_hat: float, sigma: float) -> float:
    """A quantity of x_hat at noise level sigma, in variance-preserving coordinates."""
    return of_x_hat / math.sqrt(1 + sigma ** 2)


class Euler(SigmaRule):
    """x_hat + (sigma_next - sigma) eps: the next latents are these minus scaled noise."""

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        c = self.move(i, self.sigmas[i + 1])
        return take_step(x_t, eps, None, c), c


class EulerAncestral(SigmaRule):
    """Euler to a level below the next one, then fresh noise up to it."""

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        sigma, after = self.sigmas[i], self.sigmas[i + 1]
        up = math.sqrt(after ** 2 * (sigma ** 2 - after ** 2) / sigma ** 2)
        down = math.sqrt(after ** 2 - up ** 2)
        c = StepCoefficients(scaled(math.sqrt(1 + sigma ** 2), after), scaled(down - sigma, after),
                             scaled(up, after))
        return take_step(x_t, eps, noise(), c), c


class Heun(SigmaRule):
    """Euler, a look from there, and the mean of both slopes (Karras et al. 2022, algorithm 1)."""

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        c = self.move(i, self.sigmas[i + 1])
        ahead = take_step(x_t, eps, None, c)
        if i == len(self.timesteps) - 1:
            return ahead, c
        c = StepCoefficients(c.x_t, c.eps / 2, ahead=c.eps / 2)
        there = predict(ahead, self.timesteps[i + 1]).eps
        return take_step(x_t, eps, None, c, ahead=there), c


class LMS(SigmaRule):
    """Linear multistep: the polynomial through up to four past predictions, integrated."""

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        super().__init__(schedule, steps)
        self.past: list[Tensor] = []                        # newest first, at most three

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        known = [eps, *self.past]
        sigma, after = self.sigmas[i], self.sigmas[i + 1]
        weights = [scaled(w, after) for w in
                   integrated_lagrange([self.sigmas[i - k] for k in range(len(known))], after)]
        c = StepCoefficients(scaled(math.sqrt(1 + sigma ** 2), after), weights[0],
                             past=tuple(weights[1:]))
        self.past = known[:MAX_ORDER - 1]
        return take_step(x_t, eps, None, c, past=known[1:]), c


def integrated_lagrange(nodes: list[float], to: float) -> list[float]:
    """For each node the integral of its Lagrange polynomial from nodes[0] to `to`."""
    found = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1:]
        basis = np.poly1d(others, r=True) / math.prod(node - other for other in others)
        antiderivative = np.polyint(basis)
        found.append(float(antiderivative(to) - antiderivative(nodes[0])))
    return found


class DPMSolverPP(SigmaRule):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): a line through the last two x_0, exactly.

    It solves in lambda = log(signal / noise), where the linear part of the equation is known.
    The first and the last step use one x_0 only.
    """

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None:
        self.timesteps = np.linspace(0, len(schedule) - 1, steps + 1).round()[:0:-1].tolist()
        self.sigmas = [schedule.sigma_at(t) for t in self.timesteps] + [0.0]
        self.past: list[Tensor] = []                        # the last x_0

    @property
    def start_scale(self) -> float:
        """Here the run starts from standard noise."""
        return 1.0

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        sigma, after = self.sigmas[i], self.sigmas[i + 1]
        c = self.move(i, after)
        known = self.past
        if known and after > 0:
            before = self.sigmas[i - 1]
            ratio = math.log(sigma / after) / math.log(before / sigma)
            gain = scaled((1 - after / sigma) * ratio / 2, after)   # of x_0 minus the last x_0
            c = StepCoefficients(c.x_t + gain * math.sqrt(1 + sigma ** 2), c.eps - gain * sigma,
                                 past=(-gain,))
        self.past = [x_t * math.sqrt(1 + sigma ** 2) - sigma * eps]
        return take_step(x_t, eps, None, c, past=known), c
