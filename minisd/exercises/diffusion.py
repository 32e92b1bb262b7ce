"""Exercises on the forward process: noise in one jump, signal-to-noise, and the way back."""

from typing import Any

import torch
from torch import Tensor

from minisd.diffusion import add_noise, predict_x0
from minisd.exercises.checking import Answer, Mistake, Verdict, compare

# Five steps instead of a thousand, so that a neighbour of t is far away.
ALPHA_BAR = torch.tensor([0.96, 0.75, 0.45, 0.2, 0.03], dtype=torch.float64)


def check_add_noise(answer: Answer | None) -> Verdict:
    """answer(x0, noise, t, alpha_bar): x_t; alpha_bar (T,) holds the whole schedule."""
    x0, noise = _pair(9)
    return compare(answer, cases=[(x0, noise, t, ALPHA_BAR) for t in (1, 2, 3)],
                   right=lambda x0, noise, t, alpha_bar: add_noise(x0, noise, float(alpha_bar[t])),
                   hint="sqrt(a) * x0 + sqrt(1 - a) * noise, where a is alpha_bar at t.",
                   mistakes=[
        Mistake("Both roots are missing: alpha_bar and 1 - alpha_bar are variances, and x_t is "
                "scaled by standard deviations.", _with(lambda a: (a, 1 - a))),
        Mistake("1 - alpha_bar is the noise's variance. Scale the noise by its root.",
                _with(lambda a: (a.sqrt(), 1 - a))),
        Mistake("The root of alpha_bar is missing before x0.",
                _with(lambda a: (a, (1 - a).sqrt()))),
        Mistake("The noise has the factor sqrt(1 - alpha_bar), not 1 - sqrt(alpha_bar).",
                _with(lambda a: (a.sqrt(), 1 - a.sqrt()))),
        Mistake("You swapped the factors: alpha_bar is the picture's share.",
                _with(lambda a: ((1 - a).sqrt(), a.sqrt()))),
        Mistake("The picture has to fade: x0 needs the factor sqrt(alpha_bar).",
                _with(lambda a: (torch.ones(()), (1 - a).sqrt()))),
        Mistake("The noise needs the factor sqrt(1 - alpha_bar), or it is as strong at every t.",
                _with(lambda a: (a.sqrt(), torch.ones(())))),
        Mistake("The sign is wrong: the noise is added.",
                _with(lambda a: (a.sqrt(), -(1 - a).sqrt()))),
        Mistake("Off by one: you took alpha_bar[t - 1]. Timesteps count from 0, as the table does.",
                _with(lambda a: (a.sqrt(), (1 - a).sqrt()), shift=-1)),
        Mistake("Off by one: you took alpha_bar[t + 1]. Timesteps count from 0, as the table does.",
                _with(lambda a: (a.sqrt(), (1 - a).sqrt()), shift=1)),
    ])


def check_snr(answer: Answer | None) -> Verdict:
    """answer(alpha_bar): the signal-to-noise ratio, signal's variance to noise's variance."""
    return compare(answer, cases=[(ALPHA_BAR,), (ALPHA_BAR[2],)],
                   right=lambda a: a / (1 - a),
                   hint="x_t holds x0 with variance alpha_bar, and noise with what is left of 1.",
                   mistakes=[
        Mistake("You divided the standard deviations. The ratio is one of variances: no roots.",
                lambda a: (a / (1 - a)).sqrt()),
        Mistake("alpha_bar / 1 - alpha_bar is 0: put brackets around 1 - alpha_bar.",
                lambda a: a / 1 - a),
        Mistake("Upside down: that is noise to signal.", lambda a: (1 - a) / a),
        Mistake("That is sigma, the noise relative to the signal: 1 / sqrt(snr).",
                lambda a: ((1 - a) / a).sqrt()),
        Mistake("The root is over the signal alone: take it nowhere.",
                lambda a: a.sqrt() / (1 - a)),
        Mistake("The root is over the noise alone: take it nowhere.",
                lambda a: a / (1 - a).sqrt()),
        Mistake("That is the signal's share of the whole. Divide by the noise's variance, "
                "1 - alpha_bar.", lambda a: a),
        Mistake("That is the ratio in decibels. Leave the logarithm out.",
                lambda a: 10 * (a / (1 - a)).log10()),
        Mistake("That is the logarithm of the ratio. Leave it out.",
                lambda a: (a / (1 - a)).log()),
    ])


def check_predict_x0(answer: Answer | None) -> Verdict:
    """answer(x_t, eps, alpha_bar): the picture that x_t and the predicted noise imply."""
    x_t, eps = _pair(10)
    cases: list[tuple[Any, ...]] = [(x_t, eps, a) for a in ALPHA_BAR[1:4]]
    return compare(answer, cases=cases, right=lambda x_t, eps, a: predict_x0(x_t, eps, float(a)),
                   hint="x_t = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * eps. Solve it for x0.",
                   mistakes=[
        Mistake("The sign is wrong: the noise was added, so it is taken away.",
                lambda x_t, eps, a: (x_t + (1 - a).sqrt() * eps) / a.sqrt()),
        Mistake("The root before the noise is missing: sqrt(1 - alpha_bar).",
                lambda x_t, eps, a: (x_t - (1 - a) * eps) / a.sqrt()),
        Mistake("You divide by alpha_bar; x0 was scaled by its root.",
                lambda x_t, eps, a: (x_t - (1 - a).sqrt() * eps) / a),
        Mistake("Both roots are missing.", lambda x_t, eps, a: (x_t - (1 - a) * eps) / a),
        Mistake("You forgot to divide by sqrt(alpha_bar): what is left is a faded picture.",
                lambda x_t, eps, a: x_t - (1 - a).sqrt() * eps),
        Mistake("You multiplied by sqrt(alpha_bar) where the way back divides.",
                lambda x_t, eps, a: (x_t - (1 - a).sqrt() * eps) * a.sqrt()),
        Mistake("Only the noise is divided: put brackets around the difference.",
                lambda x_t, eps, a: x_t - (1 - a).sqrt() * eps / a.sqrt()),
        Mistake("The noise needs its factor, sqrt(1 - alpha_bar).",
                lambda x_t, eps, a: (x_t - eps) / a.sqrt()),
    ])


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 5, generator=g), torch.randn(2, 4, 3, 5, generator=g)


def _with(factors: Answer, shift: int = 0) -> Answer:
    """x_t with other factors, of alpha_bar at another timestep."""
    def answer(x0: Tensor, noise: Tensor, t: int, alpha_bar: Tensor) -> Tensor:
        of_signal, of_noise = factors(alpha_bar[t + shift])
        return of_signal * x0 + of_noise * noise

    return answer
