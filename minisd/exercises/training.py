"""Exercises on training: the losses of the three networks, and the average of the weights."""

import torch
import torch.nn.functional as F

from minisd.exercises.checking import Check, drawn
from minisd.exercises.diffusion import network
from minisd.vae import Gaussian

check_kl = Check(
    "my_kl(mean, logvar)", "returns the KL divergence from the standard normal, one per sample",
    right=lambda mean, logvar: Gaussian(mean, logvar).kl(),
    cases=[(drawn(25, 3, 2, 4, 4), drawn(26, 3, 2, 4, 4).abs() + 0.1)],
    mistakes={
        "The variance is exp(logvar).": [("logvar.exp() - 1 - logvar", "logvar - 1 - logvar.log()"),
             ("logvar.exp()", "(logvar / 2).exp()")],
        "The half or the - 1 is missing: at mean 0 and variance 1 the divergence is 0.":
            [("0.5 * ", ""), (" - 1", "")],
        "Sum over all axes but the first: independent divergences add up.": ("sum(1)", "mean(1)")},
    hints=("one term for each value, then a sum over all that belong to one sample.",
           "half of mean**2 + var - 1 - logvar, where var is exp(logvar)."),
    solution="""\
        terms = mean ** 2 + `logvar.exp()` - 1 - logvar
        return `0.5` * terms.flatten(`1`).sum(1)""")

check_info_nce = Check(
    "my_info_nce(image, text, scale)", "returns CLIP's loss; row i of both belong together",
    cases=[(F.normalize(drawn(23, 5, 4), dim=-1), F.normalize(drawn(24, 5, 4), dim=-1), 3.0)],
    mistakes={
        "The scale is missing, or divides. It is one over the temperature: multiply.":
            [("scale * ", ""), ("scale * ", "1 / scale * ")],
        "One direction only: each picture looks for its caption, and each caption its picture.":
            "return F.cross_entropy(logits, right)"},
    hints=("all cosines at once; each row is a choice among captions, each column among pictures.",
           "cross-entropy of scale * image @ text.T and of its transpose: row i's answer is i."),
    solution="""\
        logits, right = `scale` * image @ text.T, torch.arange(len(image))
        return (F.cross_entropy(logits, right) + F.cross_entropy(`logits.T`, right)) / `2`""")

check_noise_loss = Check(
    "my_noise_loss(net, x0, noise, t, alpha_bar)", "returns one number; alpha_bar is that at t",
    cases=[(network, drawn(27), drawn(28), 3, 0.6), (network, drawn(28), drawn(27), 7, 0.1)],
    mistakes={
        "You compare with x0. This network predicts the noise.": ("- noise", "- x0"),
        "The network saw the clean x0. It has to see x_t.": ("(x_t, t)", "(x0, t)")},
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
        "You swapped them: the average has to change slowly.":
            "return decay * weights + (1 - decay) * average",
        "The two shares must add up to 1.": ("(1 - decay) * ", "")},
    hints=("two shares, which add up to 1.",
           "keep `decay` of the average, and take the rest from the weights."),
    solution="return `decay` * average + (`1 - decay`) * weights")
