"""Exercises on the forward process: the jump, signal-to-noise, the way back, and the loss."""

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


def check_loss(answer: Answer | None) -> Verdict:
    """answer(predict_noise, x0, noise, t, alpha_bar): the loss of a batch of points, one number.

    x0, noise: (b, 2). t: (b,), a timestep for each point. alpha_bar (T,) holds the whole schedule.
    """
    g = torch.Generator().manual_seed(11)
    x0, noise = torch.randn(7, 2, generator=g), 0.5 + torch.randn(7, 2, generator=g)
    t = torch.tensor([1, 3, 2, 2, 1, 3, 1])
    levels = ALPHA_BAR.float()
    return compare(answer, cases=[(_stand_in, x0, noise, t, levels),
                                  (_stand_in, noise[:4], x0[:4], t[:4], levels)],
                   right=_loss(_mean_square),
                   hint="noise each point to its own level: alpha_bar[t] is (b,), and [:, None] "
                        "makes it (b, 1). Then the mean squared difference of predict_noise(x_t, "
                        "t) and the noise.",
                   praise="It is what the UNet is trained with, too.",
                   mistakes=[
        Mistake("You compare with x0. This network is asked for the noise.",
                _loss(_mean_square, target=lambda x0, noise, x_t: x0)),
        Mistake("You compare with x_t. The network is asked for the noise alone.",
                _loss(_mean_square, target=lambda x0, noise, x_t: x_t)),
        Mistake("Both roots are missing in x_t: alpha_bar and 1 - alpha_bar are variances.",
                _loss(_mean_square, lambda a: (a, 1 - a))),
        Mistake("The root is missing before the noise in x_t: sqrt(1 - alpha_bar).",
                _loss(_mean_square, lambda a: (a.sqrt(), 1 - a))),
        Mistake("The root is missing before x0 in x_t: sqrt(alpha_bar).",
                _loss(_mean_square, lambda a: (a, (1 - a).sqrt()))),
        Mistake("alpha_bar and 1 - alpha_bar are swapped in x_t: alpha_bar is the picture's share.",
                _loss(_mean_square, lambda a: ((1 - a).sqrt(), a.sqrt()))),
        Mistake("The network saw the clean x0. It has to see x_t, the noisy one.",
                _loss(_mean_square, lambda a: (torch.ones_like(a), torch.zeros_like(a)))),
        Mistake("The network saw nothing but noise: x_t holds some of x0 too.",
                _loss(_mean_square, lambda a: (torch.zeros_like(a), torch.ones_like(a)))),
        Mistake("The noise is added to the whole of x0: x0 needs its factor, sqrt(alpha_bar), and "
                "the noise sqrt(1 - alpha_bar).",
                _loss(_mean_square, lambda a: (torch.ones_like(a), torch.ones_like(a)))),
        Mistake("Off by one: you took alpha_bar[t - 1]. Timesteps count from 0, as the table does.",
                _loss(_mean_square, shift=-1)),
        Mistake("The mean is missing: that is one number for each coordinate. Training wants a "
                "single one.", _loss(torch.square)),
        Mistake("That is one number for each point. Take the mean over all of them.",
                _loss(lambda errors: errors.square().mean(1))),
        Mistake("That is one number for each point, and a sum: take the mean over everything.",
                _loss(lambda errors: errors.square().sum(1))),
        Mistake("You summed. Take the mean, or the loss depends on the size of the batch.",
                _loss(lambda errors: errors.square().sum())),
        Mistake("You summed over the coordinates. Take the mean over everything.",
                _loss(lambda errors: errors.square().sum(1).mean())),
        Mistake("The square is missing: errors of opposite signs cancel each other.",
                _loss(torch.mean)),
        Mistake("The square is missing, and the sign is turned: errors cancel each other.",
                _loss(lambda errors: -errors.mean())),
        Mistake("You took absolute differences. Square them.",
                _loss(lambda errors: errors.abs().mean())),
        Mistake("That is the root of the mean square. Leave the root out.",
                _loss(lambda errors: errors.square().mean().sqrt())),
    ])


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 5, generator=g), torch.randn(2, 4, 3, 5, generator=g)


def _stand_in(x_t: Tensor, t: Tensor) -> Tensor:
    """Instead of a network for points (b, 2); its answer depends on each point's timestep."""
    return x_t.sin() * (1 + t[:, None] / 4)


def _fading(a: Tensor) -> tuple[Tensor, Tensor]:
    return a.sqrt(), (1 - a).sqrt()


def _mean_square(errors: Tensor) -> Tensor:
    return errors.square().mean()


def _loss(over: Answer, factors: Answer = _fading, *, shift: int = 0,
          target: Answer = lambda x0, noise, x_t: noise) -> Answer:
    """A loss with other factors in x_t, another target, or another way to sum the errors up."""
    def answer(net: Answer, x0: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
        of_signal, of_noise = factors(alpha_bar[t + shift][:, None])
        x_t = of_signal * x0 + of_noise * noise
        total: Tensor = over(net(x_t, t) - target(x0, noise, x_t))
        return total

    return answer


def _with(factors: Answer, shift: int = 0) -> Answer:
    """x_t with other factors, of alpha_bar at another timestep."""
    def answer(x0: Tensor, noise: Tensor, t: int, alpha_bar: Tensor) -> Tensor:
        of_signal, of_noise = factors(alpha_bar[t + shift])
        return of_signal * x0 + of_noise * noise

    return answer
