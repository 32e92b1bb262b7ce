"""Every objective as one denoiser, and one ordinary differential equation that samples with it.

The noisy point is x = x0 + sigma * noise, as in Karras et al. 2022 (EDM). Whatever a network is
trained to predict, its answer F says where x0 is (EDM, eq. 7):

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)

so an objective is four functions of sigma. Predicted noise, velocity and flow are three choices of
them, EDM's own a fourth: with sigma_data = 1 it is v-prediction with the sign turned. The best D is
the mean of all x0 that could have become x.

Dims: b samples; whatever follows is the sample's own shape.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import make_schedule

SCHEDULE = make_schedule(ScheduleConfig())      # of v1 and of toyworld
SIGMA_DATA = 0.5                                # of EDM's images in [-1, 1]

Denoise = Callable[[Tensor, float], Tensor]     # x (b, ...) and sigma -> the predicted x0


@dataclass(frozen=True)
class Coefficients:
    """The four functions at b noise levels, each (b,)."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor               # what the network is told of the level; about -1.5 to 1

    def x0(self, x: Tensor, answer: Tensor) -> Tensor:
        """D: the clean sample that a network's answer F implies in x."""
        return column(self.skip, x) * x + column(self.out, x) * answer

    def target(self, x: Tensor, x0: Tensor) -> Tensor:
        """The answer F that a network should give where x0 is known.

        An equal weight for every error of F is EDM's weight (sigma^2 + sigma_data^2) /
        (sigma sigma_data)^2 = 1 / c_out^2 for errors of D.
        """
        return (x0 - column(self.skip, x) * x) / column(self.out, x)


def column(value: Tensor, like: Tensor) -> Tensor:
    """(b,) -> (b, 1, ...), which multiplies samples."""
    return value.to(like).view(-1, *[1] * (like.ndim - 1))


# Objectives: sigma (b,) -> coefficients

def edm(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> Coefficients:
    """Input and answer have variance 1 at every level, errors are least enlarged (EDM, table 1)."""
    total = (sigma ** 2 + sigma_data ** 2).sqrt()
    return Coefficients((sigma_data / total) ** 2, sigma * sigma_data / total, 1 / total,
                        sigma.log() / 4)


def predict_eps(sigma: Tensor) -> Coefficients:
    """F is the noise (Ho et al. 2020): x0 = x - sigma F."""
    return Coefficients(torch.ones_like(sigma), -sigma, (1 + sigma ** 2).rsqrt(), progress(sigma))


def predict_v(sigma: Tensor) -> Coefficients:
    """F is v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, appendix D)."""
    alpha_bar = 1 / (1 + sigma ** 2)
    return Coefficients(alpha_bar, -sigma * alpha_bar.sqrt(), alpha_bar.sqrt(), progress(sigma))


def predict_flow(sigma: Tensor) -> Coefficients:
    """F is noise - x0 on the line z = (1 - t) x0 + t noise, where sigma = t / (1 - t)."""
    signal = 1 / (1 + sigma)                                                # 1 - t
    return Coefficients(signal, -sigma * signal, signal, sigma * signal)


def progress(sigma: Tensor) -> Tensor:
    """The timestep of v1's schedule that has this sigma, divided by T: 0 to 1."""
    levels = SCHEDULE.sigma().numpy()
    t = np.interp(sigma.double().cpu().numpy(), levels, np.arange(len(levels)))
    return torch.from_numpy(t / len(levels)).to(sigma)


# Sampling

def edm_grid(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
             ) -> list[float]:
    """steps + 1 falling levels, the last of them 0 (EDM, eq. 5); large rho: dense near the data.

    Raises ValueError where the levels do not fall or steps is below 1.
    """
    if steps < 1 or not 0 < sigma_min <= sigma_max < math.inf or not rho > 0:
        raise ValueError(f"expected steps >= 1, 0 < sigma_min <= sigma_max and rho > 0, got steps "
                         f"{steps}, sigma_min {sigma_min}, sigma_max {sigma_max}, rho {rho}")
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    return [*ramp.tolist(), 0.0]


@dataclass(frozen=True)
class OdeStep:
    """One step of the ODE, from sigma to sigma_next."""

    sigma: float
    sigma_next: float
    x: Tensor                   # (b, ...), before the step
    x0: Tensor                  # predicted at x
    x_next: Tensor
    evaluations: int            # of the denoiser, up to and including this step


def solve(denoise: Denoise, x: Tensor, sigmas: list[float], *, heun: bool = True
          ) -> Iterator[OdeStep]:
    """dx / dsigma = (x - D(x; sigma)) / sigma, from sigmas[0] to sigmas[-1] (EDM, algorithm 1).

    x: (b, ...) at level sigmas[0]. heun: take the mean of the slopes at both ends of a step, where
        the far end has noise; else Euler's method.
    Raises FloatingPointError where x stops being finite.
    """
    evaluations = 0
    for now, after in zip(sigmas, sigmas[1:], strict=False):
        x0 = denoise(x, now)
        slope = (x - x0) / now
        x_next = x + (after - now) * slope
        evaluations += 1
        if heun and after > 0:
            ahead = (x_next - denoise(x_next, after)) / after
            x_next = x + (after - now) * (slope + ahead) / 2
            evaluations += 1
        if not x_next.isfinite().all():
            raise FloatingPointError(f"x stopped being finite between sigma {now:g} and {after:g}")
        yield OdeStep(now, after, x, x0, x_next, evaluations)
        x = x_next
