"""Exercises on training: the losses of the three networks, and the average of the weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.exercises.checking import Check, drawn
from minisd.exercises.diffusion import loss, network
from minisd.vae import Gaussian


def terms(mean: Tensor, variance: Tensor, logvar: Tensor, minus: float = 1.0) -> Tensor:
    return 0.5 * (mean ** 2 + variance - minus - logvar).flatten(1).sum(1)


def both_ways(logits: Tensor) -> Tensor:
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


check_kl = Check(
    "my_kl(mean, logvar)", "returns the KL divergence from the standard normal, one per sample",
    right=lambda mean, logvar: Gaussian(mean, logvar).kl(),
    cases=[(drawn(25, 3, 2, 4, 4), drawn(26, 3, 2, 4, 4).abs() + 0.1)],
    mistakes={
        "The variance is exp(logvar).": (lambda m, v: terms(m, v, v.log()),
                                         lambda m, v: terms(m, (v / 2).exp(), v)),
        "The half or the - 1 is missing: at mean 0 and variance 1 the divergence is 0.":
            (lambda m, v: 2 * terms(m, v.exp(), v), lambda m, v: terms(m, v.exp(), v, minus=0)),
        "Sum over all axes but the first: independent divergences add up.":
            lambda m, v: terms(m, v.exp(), v) / m[0].numel()},
    hints=("one term for each value, then a sum over all that belong to one sample.",
           "half of mean**2 + var - 1 - logvar, where var is exp(logvar)."),
    solution="""\
        terms = mean ** 2 + `logvar.exp()` - 1 - logvar
        return `0.5` * terms.flatten(`1`).sum(1)""")

check_info_nce = Check(
    "my_info_nce(image, text, scale)", "returns CLIP's loss; row i of both belong together",
    right=lambda i, t, s: both_ways(s * i @ t.T),
    cases=[(F.normalize(drawn(23, 5, 4), dim=-1), F.normalize(drawn(24, 5, 4), dim=-1), 3.0)],
    mistakes={
        "The scale is missing, or divides. It is one over the temperature: multiply.":
            (lambda i, t, s: both_ways(i @ t.T), lambda i, t, s: both_ways(i @ t.T / s)),
        "One direction only: each picture looks for its caption, and each caption its picture.":
            lambda i, t, s: F.cross_entropy(s * i @ t.T, torch.arange(len(i)))},
    hints=("all cosines at once; each row is a choice among captions, each column among pictures.",
           "cross-entropy of scale * image @ text.T and of its transpose: row i's answer is i."),
    solution="""\
        logits, right = `scale` * image @ text.T, torch.arange(len(image))
        return (F.cross_entropy(logits, right) + F.cross_entropy(`logits.T`, right)) / `2`""")

check_noise_loss = Check(
    "my_noise_loss(net, x0, noise, t, alpha_bar)", "returns one number; alpha_bar is that at t",
    right=lambda net, x0, n, t, a: loss(net, x0, n, t, torch.tensor(a)),
    cases=[(network, drawn(27), drawn(28), 3, 0.6), (network, drawn(28), drawn(27), 7, 0.1)],
    mistakes={
        "You compare with x0. This network predicts the noise.":
            lambda net, x0, n, t, a: loss(net, x0, n, t, torch.tensor(a), target="x0"),
        "The network saw the clean x0. It has to see x_t.":
            lambda net, x0, n, t, a: loss(net, x0, n, t, torch.tensor(a), sees="x0")},
    hints=("make x_t, let the network predict, and compare with what was added.",
           "x_t jumps to the level alpha_bar; then a mean of squares of net(x_t, t) - noise."),
    solution="""\
        x_t = `alpha_bar ** 0.5` * x0 + (1 - alpha_bar) ** 0.5 * noise
        return (net(`x_t, t`) - `noise`).square().mean()""")

check_ema = Check(
    "my_ema(average, weights, decay)", "returns the new average",
    right=lambda average, weights, decay: torch.lerp(average, weights, 1 - decay),
    cases=[(drawn(21), drawn(22), 0.9), (drawn(22), drawn(21), 0.7)],
    mistakes={
        "You swapped them: the average has to change slowly.": lambda a, w, d: d * w + (1 - d) * a,
        "The two shares must add up to 1.": lambda a, w, d: d * a + w},
    hints=("two shares, which add up to 1.",
           "keep `decay` of the average, and take the rest from the weights."),
    solution="return `decay` * average + (`1 - decay`) * weights")
