"""What a sampler is, and the three that think in timesteps: DDPM, DDIM and PLMS.

A rule says at which timesteps the network is asked (`timesteps`) and how its answer moves x_t
(`step`). A rule object belongs to one run; multistep rules keep their memory in it. The network
enters as `predict(x_t, t) -> Guess`, so a rule works for any model, a real one or a formula.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from minisd.diffusion import (
    Schedule,
    StepCoefficients,
    ddim_coefficients,
    ddpm_coefficients,
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


Predict = Callable[[Tensor, float], Guess]
Noise = Callable[[], Tensor]        # fresh standard normal noise of x_t's shape


class Rule(Protocol):
    """What a sampler has to know; see `DDIM` for the simplest one."""

    max_steps: int                  # that it can take
    timesteps: list[float]          # where step i asks the network, falling; fractions allowed

    def __init__(self, schedule: Schedule, steps: int, eta: float = 0.0) -> None: ...

    @property
    def start_scale(self) -> float:
        """Size of the starting noise in x_t, 1 or nearly."""
        ...

    def step(self, i: int, x_t: Tensor, eps: Tensor, predict: Predict, noise: Noise
             ) -> tuple[Tensor, StepCoefficients]:
        """x_prev, and what it took of x_t, eps and noise."""
        ...


def leading_timesteps(schedule: Schedule, steps: int, offset: int) -> list[float]:
    """steps timesteps, T // steps apart, ending at `offset`: 50 steps visit 981, 961, ..., 1."""
    stride = len(schedule) // steps
    return [i * stride + offset for i in reversed(range(steps))]


class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) on a subset of the timesteps."""

    max_steps, start_scale = 1000, 1.0

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

    max_steps, start_scale = 999, 1.0

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

    max_steps, start_scale = 999, 1.0
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
        past, ahead = self.past, None
        if past:
            newest, *earlier = (w * c.eps for w in self.BLENDS[len(past)])
            c = StepCoefficients(c.x_t, newest, past=tuple(earlier))
        elif t > self.stride:
            ahead = predict(take_step(x_t, eps, None, c), t - self.stride).eps
            c = StepCoefficients(c.x_t, c.eps / 2, ahead=c.eps / 2)
        self.past = [eps, *past][:3]
        return take_step(x_t, eps, None, c, past=past, ahead=ahead), c
