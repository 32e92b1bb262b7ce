"""Exercises on training: batches, the three losses, the average of the weights, and the bill."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.diffusion import add_noise
from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn
from minisd.vae import Gaussian


def check_samples_seen(answer: Answer | None) -> Verdict:
    """answer(machines, gpus, accumulate, per_gpu, steps): pictures that went through training."""
    return compare(answer, cases=[(32, 8, 2, 4, 10), (3, 5, 7, 11, 13)],
                   right=lambda m, g, a, b, steps: m * g * a * b * steps, tolerance=1e-9,
                   hint="one gradient step takes machines * gpus * accumulate * per_gpu pictures.",
                   mistakes=[
        Mistake("That is one gradient step. Multiply by the number of steps.",
                lambda m, g, a, b, steps: m * g * a * b),
        Mistake("Gradient accumulation is missing: every step adds up the gradients of "
                "`accumulate` batches before it moves the weights.",
                lambda m, g, a, b, steps: m * g * b * steps),
        Mistake("Accumulation makes a step larger: multiply by it, do not divide.",
                lambda m, g, a, b, steps: m * g * b * steps / a),
        Mistake("The GPUs of one machine only: multiply by the number of machines.",
                lambda m, g, a, b, steps: g * a * b * steps),
        Mistake("One GPU in each machine only: multiply by `gpus`.",
                lambda m, g, a, b, steps: m * a * b * steps),
        Mistake("All GPUs work on pictures of their own: multiply by machines * gpus.",
                lambda m, g, a, b, steps: a * b * steps),
        Mistake("Every GPU takes several pictures at once: multiply by per_gpu.",
                lambda m, g, a, b, steps: m * g * a * steps),
        Mistake("You added the factors. They are multiplied.",
                lambda m, g, a, b, steps: (m + g + a + b) * steps),
    ])


def check_carbon(answer: Answer | None) -> Verdict:
    """answer(watts, hours, kg_per_kwh, pue): kilograms of carbon dioxide."""
    return compare(answer, cases=[(250.0, 150_000.0, 0.3, 1.1), (20.0, 3.0, 0.45, 1.5)],
                   right=lambda w, h, grid, pue: w / 1000 * h * pue * grid,
                   hint="energy in kWh is watts / 1000 * hours * pue; then the grid's kg per kWh.",
                   mistakes=[
        Mistake("A thousand times too much: the grid counts kilowatt hours, and your power is in "
                "watts. Divide by 1000.", lambda w, h, grid, pue: w * h * pue * grid),
        Mistake("You multiplied by 1000. A kilowatt is 1000 watts, so divide.",
                lambda w, h, grid, pue: w * 1000 * h * pue * grid),
        Mistake("A thousand times too little: kilograms are asked, not tonnes.",
                lambda w, h, grid, pue: w / 1e6 * h * pue * grid),
        Mistake("The building's overhead is missing: multiply by pue.",
                lambda w, h, grid, pue: w / 1000 * h * grid),
        Mistake("The building draws more than its machines, not less: multiply by pue.",
                lambda w, h, grid, pue: w / 1000 * h / pue * grid),
        Mistake("That is energy, in kWh. Multiply by the grid's kg per kWh.",
                lambda w, h, grid, pue: w / 1000 * h * pue),
        Mistake("You divided by the grid's intensity. It is kg per kWh: multiply.",
                lambda w, h, grid, pue: w / 1000 * h * pue / grid),
        Mistake("Hours are asked, and given: do not turn them into seconds.",
                lambda w, h, grid, pue: w / 1000 * h * 3600 * pue * grid),
    ])


def check_ema(answer: Answer | None) -> Verdict:
    """answer(average, weights, decay): the new average."""
    average, weights = drawn(21, 2, 3), drawn(22, 2, 3)
    return compare(answer, cases=[(average, weights, 0.9), (weights, average, 0.7)],
                   right=lambda a, w, d: torch.lerp(a, w, 1 - d),
                   hint="keep `decay` of the average, and take the rest from the weights.",
                   mistakes=[
        Mistake("You swapped them: with a decay near 1 the average has to change slowly, so decay "
                "belongs to the average.", lambda a, w, d: d * w + (1 - d) * a),
        Mistake("The factor (1 - decay) of the weights is missing: the two shares must add up "
                "to 1, or the average grows.", lambda a, w, d: d * a + w),
        Mistake("The factor decay of the average is missing: the two shares must add up to 1.",
                lambda a, w, d: a + (1 - d) * w),
        Mistake("The sign is wrong: the average moves towards the weights, not away from them.",
                lambda a, w, d: a + (1 - d) * (a - w)),
        Mistake("That is the plain mean of the two, whatever the decay is.",
                lambda a, w, d: (a + w) / 2),
        Mistake("That forgets all earlier weights.", lambda a, w, d: w),
        Mistake("That never learns anything: the average has to move.", lambda a, w, d: a),
    ])


def check_info_nce(answer: Answer | None) -> Verdict:
    """answer(image, text, scale): CLIP's loss; rows are unit vectors, row i belongs to row i."""
    image, text = (F.normalize(drawn(seed, 5, 4), dim=-1) for seed in (23, 24))
    cases: list[tuple[Any, ...]] = [(image, text, 3.0), (text[:4], image[:4], 8.0)]
    return compare(answer, cases=cases,
                   right=lambda i, t, s: _both_ways(s * i @ t.T),
                   hint="logits = scale * image @ text.T; cross-entropy along the rows and along "
                        "the columns, where the right answer of row i is i; the mean of both.",
                   mistakes=[
        Mistake("The scale is missing (the temperature is 1 / scale): cosines lie between -1 and "
                "1, so without it no answer can be sure.",
                lambda i, t, s: _both_ways(i @ t.T)),
        Mistake("You divided by the scale. It is one over the temperature: multiply.",
                lambda i, t, s: _both_ways(i @ t.T / s)),
        Mistake("One direction only: you look for the caption of each picture. Add the picture of "
                "each caption: the same with logits.T.", lambda i, t, s: _rows(s * i @ t.T)),
        Mistake("One direction only: you look for the picture of each caption. Add the caption of "
                "each picture: the same with logits.T.", lambda i, t, s: _rows(s * t @ i.T)),
        Mistake("You added both directions. Take their mean.",
                lambda i, t, s: 2 * _both_ways(s * i @ t.T)),
        Mistake("You summed over the batch. Take the mean, or the loss depends on its size.",
                lambda i, t, s: len(i) * _both_ways(s * i @ t.T)),
        Mistake("The sign is wrong: a loss falls when the right pair's probability rises.",
                lambda i, t, s: -_both_ways(s * i @ t.T)),
        Mistake("That pulls the right pairs together and pushes nothing apart: the softmax over "
                "the other captions is missing.", lambda i, t, s: -s * (i * t).sum(-1).mean()),
    ])


def check_kl(answer: Answer | None) -> Verdict:
    """answer(mean, logvar): KL of Gaussians to the standard normal, one number per sample."""
    # Positive, so that its logarithm, which some take, is a number.
    mean, logvar = drawn(25, 3, 2, 4, 4), drawn(26, 3, 2, 4, 4).abs() + 0.1

    def other(inside: Callable[[Tensor], Tensor]) -> Answer:
        return lambda m, lv: 0.5 * (m.square() + inside(lv)).flatten(1).sum(1)

    return compare(answer, cases=[(mean, logvar)], right=lambda m, lv: Gaussian(m, lv).kl(),
                   hint="half the sum, over all axes but the first, of "
                        "mean**2 + var - 1 - logvar, where var is exp(logvar).",
                   mistakes=[
        Mistake("The sign is wrong. A KL divergence is never negative, and 0 where mean and "
                "logvar are 0.", lambda m, lv: -Gaussian(m, lv).kl()),
        Mistake("The sign of logvar is wrong: a variance that goes to 0 has to cost, and log(0) "
                "is far below 0.", other(lambda v: v.exp() - 1 + v)),
        Mistake("You took logvar for the variance. It is its logarithm: the variance is "
                "exp(logvar).", other(lambda v: v - 1 - v.log())),
        Mistake("The exponential is missing: the variance is exp(logvar).",
                other(lambda v: v - 1 - v)),
        Mistake("exp(logvar / 2) is the standard deviation. The variance is exp(logvar).",
                other(lambda v: (v / 2).exp() - 1 - v)),
        Mistake("The half is missing.", lambda m, lv: 2 * Gaussian(m, lv).kl()),
        Mistake("The - 1 is missing: at mean 0 and variance 1 it has to be 0.",
                other(lambda v: v.exp() - v)),
        Mistake("The mean counts squared.",
                lambda m, lv: 0.5 * (m + lv.exp() - 1 - lv).flatten(1).sum(1)),
        Mistake("That is the mean over the values. Independent Gaussians' divergences add up.",
                lambda m, lv: Gaussian(m, lv).kl() / m[0].numel()),
        Mistake("That is one number for the whole batch: keep the first axis.",
                lambda m, lv: Gaussian(m, lv).kl().sum()),
        Mistake("That is the mean over the batch: keep the first axis.",
                lambda m, lv: Gaussian(m, lv).kl().mean()),
        Mistake("That is one number per value: sum over all axes but the first.",
                lambda m, lv: 0.5 * (m.square() + lv.exp() - 1 - lv)),
    ])


def check_noise_loss(answer: Answer | None) -> Verdict:
    """answer(net, x0, noise, t, alpha_bar): the UNet's loss; alpha_bar is the number at t."""
    x0, noise = drawn(27, 2, 4, 3, 3), drawn(28, 2, 4, 3, 3)
    cases: list[tuple[Any, ...]] = [(_net, x0, noise, 300, 0.6), (_net, noise, x0, 700, 0.1)]

    def loss(x0: Tensor, noise: Tensor, t: int, bar: float, target: Tensor) -> Tensor:
        return F.mse_loss(_net(add_noise(x0, noise, bar), t), target)

    return compare(answer, cases=cases, right=lambda net, x0, n, t, bar: loss(x0, n, t, bar, n),
                   hint="x_t = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * noise; the mean "
                        "squared difference of net(x_t, t) and the noise.",
                   mistakes=[
        Mistake("You compare with x0. This network is asked for the noise.",
                lambda net, x0, n, t, bar: loss(x0, n, t, bar, x0)),
        Mistake("You compare with x_t. The network is asked for the noise alone.",
                lambda net, x0, n, t, bar: loss(x0, n, t, bar, add_noise(x0, n, bar))),
        Mistake("The network saw the clean x0. It has to see x_t, the noisy one.",
                lambda net, x0, n, t, bar: F.mse_loss(net(x0, t), n)),
        Mistake("The network saw nothing but noise: x_t holds some of x0 too.",
                lambda net, x0, n, t, bar: F.mse_loss(net(n, t), n)),
        Mistake("Both roots are missing in x_t: alpha_bar and 1 - alpha_bar are variances.",
                lambda net, x0, n, t, bar: F.mse_loss(net(bar * x0 + (1 - bar) * n, t), n)),
        Mistake("The factors are swapped in x_t: alpha_bar is the picture's share.",
                lambda net, x0, n, t, bar: loss(x0, n, t, 1 - bar, n)),
        Mistake("You took absolute differences. Square them.",
                lambda net, x0, n, t, bar: F.l1_loss(net(add_noise(x0, n, bar), t), n)),
        Mistake("You summed. Take the mean, or the loss depends on the picture's size.",
                lambda net, x0, n, t, bar: n.numel() * loss(x0, n, t, bar, n)),
        Mistake("That is a root of the mean square. Leave the root out.",
                lambda net, x0, n, t, bar: loss(x0, n, t, bar, n).sqrt()),
    ])


def _rows(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.arange(len(logits)))


def _both_ways(logits: Tensor) -> Tensor:
    """As `contrastive_loss` in minisd/toyworld/train_clip.py; a test compares the two."""
    return (_rows(logits) + _rows(logits.T)) / 2


def _net(x_t: Tensor, t: Any) -> Tensor:
    """Stands in for a UNet; its answer depends on both arguments."""
    return x_t.sin() * (1 + torch.as_tensor(t) / 1000)
