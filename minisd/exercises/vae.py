"""Exercises on the autoencoder: what is lost, a sample of the posterior, and the scale factor."""

import math
from typing import Any

import torch
from torch import Tensor

from minisd.exercises.checking import Answer, Mistake, Verdict, compare
from minisd.observe import pictures


def check_psnr(answer: Answer | None) -> Verdict:
    """answer(a, b): the peak signal-to-noise ratio in dB of two pictures in [-1, 1]."""
    g = torch.Generator().manual_seed(6)
    a = torch.rand(3, 8, 12, generator=g) * 2 - 1
    cases = [(a, a * 0.9), (a, torch.rand(3, 8, 12, generator=g) * 2 - 1)]
    return compare(answer, cases=cases, right=lambda a, b: float(pictures.psnr(a[None], b[None])),
                   hint="10 * log10(peak**2 / mse): mse is the mean of the squared differences, "
                        "and peak is the width of the pictures' range.",
                   mistakes=[
        Mistake("You took 1 for the peak. From -1 to 1 the range is 2 wide: you are 6.02 dB short.",
                lambda a, b: -_decibels(_mse(a, b))),
        Mistake("You took 255 for the peak. These pictures lie in [-1, 1], so it is 2.",
                lambda a, b: _decibels(255 ** 2 / _mse(a, b))),
        Mistake("You did not square the peak: 2 ** 2 stands above the mean of squares.",
                lambda a, b: _decibels(2 / _mse(a, b))),
        Mistake("That is the natural logarithm. A decibel is a tenth of a log10: 10 * log10(...).",
                lambda a, b: 10 * math.log(4 / _mse(a, b))),
        Mistake("That is the binary logarithm. A decibel is a tenth of a log10: 10 * log10(...).",
                lambda a, b: 10 * math.log2(4 / _mse(a, b))),
        Mistake("The factor 10 is missing: log10 counts bels, and a bel has ten decibels.",
                lambda a, b: _decibels(4 / _mse(a, b)) / 10),
        Mistake("20 * log10 belongs to peak / sqrt(mse). For the squares it is 10 * log10.",
                lambda a, b: 2 * _decibels(4 / _mse(a, b))),
        Mistake("The sign is wrong: the peak stands above the error, so that more is better.",
                lambda a, b: _decibels(_mse(a, b) / 4)),
        Mistake("You took the mean of the absolute differences; they are squared first.",
                lambda a, b: _decibels(4 / float((a - b).abs().mean()))),
        Mistake("You summed the squared differences. Take their mean, or large pictures look bad.",
                lambda a, b: _decibels(4 / float((a - b).square().sum()))),
    ])


def check_posterior_sample(answer: Answer | None) -> Verdict:
    """answer(mean, logvar, noise): a sample of the posterior made of standard normal noise."""
    g = torch.Generator().manual_seed(7)
    mean, noise = (torch.randn(1, 4, 3, 5, generator=g) for _ in range(2))
    cases = [(mean, torch.randn(1, 4, 3, 5, generator=g) - 1, noise),
             (noise, torch.full_like(mean, -6.0), mean)]
    return compare(answer, cases=cases,
                   right=lambda mean, logvar, noise: mean + torch.exp(0.5 * logvar) * noise,
                   hint="mean + std * noise. logvar is log(std ** 2): which power of e is std?",
                   mistakes=[
        Mistake("exp(logvar) is the variance. Noise is scaled by the standard deviation, its root: "
                "exp(0.5 * logvar).", lambda mean, logvar, noise: mean + logvar.exp() * noise),
        Mistake("You took logvar for the standard deviation. It is the logarithm of the variance: "
                "exp(0.5 * logvar) is the standard deviation.",
                lambda mean, logvar, noise: mean + logvar * noise),
        Mistake("Half of the variance is not its root: the 0.5 belongs inside, exp(0.5 * logvar).",
                lambda mean, logvar, noise: mean + 0.5 * logvar.exp() * noise),
        Mistake("The sign inside exp is wrong: you divide by the standard deviation.",
                lambda mean, logvar, noise: mean + torch.exp(-0.5 * logvar) * noise),
        Mistake("You did not scale the noise: it has standard deviation 1, the posterior has "
                "exp(0.5 * logvar).", lambda mean, logvar, noise: mean + noise),
        Mistake("You forgot the noise: every sample would be the same.",
                lambda mean, logvar, noise: mean + torch.exp(0.5 * logvar)),
        Mistake("You forgot the mean: a sample lies around it.",
                lambda mean, logvar, noise: torch.exp(0.5 * logvar) * noise),
        Mistake("That is the mean: the most likely value, not a sample.",
                lambda mean, logvar, noise: mean),
    ])


def check_to_z(answer: Answer | None) -> Verdict:
    """answer(latents, scale_factor): what the decoder takes."""
    g = torch.Generator().manual_seed(8)
    cases: list[tuple[Any, ...]] = [(torch.randn(1, 4, 3, 5, generator=g), factor)
                                    for factor in (0.18215, 0.4)]
    return compare(answer, cases=cases, right=lambda latents, factor: latents / factor,
                   hint="latents = z * scale_factor. Solve it for z.",
                   mistakes=[
        Mistake("You forgot the scale factor: the decoder would see a faint picture.",
                lambda latents, factor: latents),
        Mistake("You multiplied, which is the way from z to latents. The way back divides.",
                lambda latents, factor: latents * factor),
        Mistake("It is a factor, not an offset: divide by it.",
                lambda latents, factor: latents - factor),
        Mistake("That is the inverse of z: the latents stand above, the factor below.",
                lambda latents, factor: factor / latents),
        Mistake("The scale factor is no variance: divide by it, not by its root.",
                lambda latents, factor: latents / math.sqrt(factor)),
    ])


def _mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())


def _decibels(ratio: float) -> float:
    return 10 * math.log10(ratio)
