"""Exercises on forward diffusion: the jump, signal-to-noise, the way back, and the loss.

A schedule of five steps stands for one of a thousand, so that a neighbour of t is far away; it is
as long as latents are wide and as a batch is long, so that a forgotten [t] fits, and is named.
"""

import torch
from torch import Tensor

from minisd.diffusion import Schedule, add_noise, predict_x0
from minisd.exercises.checking import Check, drawn

ALPHA_BAR = torch.tensor([0.96, 0.75, 0.45, 0.2, 0.03])


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """In the place of one; its answer depends on both arguments, t a number or one for each row."""
    return x_t.sin() * (1 + torch.as_tensor(t).view(-1, *[1] * (x_t.ndim - 1)) / 4)


check_add_noise = Check(
    "my_add_noise(x0, noise, t, alpha_bar)", "returns x_t; alpha_bar (T,) is the whole schedule",
    right=lambda x0, n, t, bar: add_noise(x0, n, float(bar[t])),
    cases=[(drawn(9), drawn(10), t, ALPHA_BAR) for t in (1, 2, 3)],
    mistakes={
        "You forgot [t]: alpha_bar is the whole schedule, and you need its value at t.":
            ("[t]", ""),
        "A root is missing: alpha_bar and 1 - alpha_bar are variances.":
            [(".sqrt()", ""), (").sqrt()", ")")],
        "Off by one timestep.": ("[t]", "[t - 1]")},
    hints=("a share of the picture and a share of the noise; their squares add up to 1.",
           "sqrt(a) * x0 + sqrt(1 - a) * noise, where a is alpha_bar at t."),
    solution="return `alpha_bar[t].sqrt()` * x0 + `(1 - alpha_bar[t]).sqrt()` * noise")

check_snr = Check(
    "my_snr(alpha_bar)", "returns the signal's variance over the noise's",
    right=lambda bar: Schedule(1 - bar, bar).snr(), cases=[(ALPHA_BAR,), (ALPHA_BAR[2],)],
    mistakes={
        "The ratio is one of variances: no roots.": "return (alpha_bar / (1 - alpha_bar)).sqrt()",
        "a / 1 - a is 0: put brackets around 1 - alpha_bar.": ("(1 - alpha_bar)", "1 - alpha_bar"),
        "Upside down: that is noise to signal.": "return (1 - alpha_bar) / alpha_bar"},
    hints=("x_t holds x0 with one variance and noise with another: which are they?",
           "x0 has the variance alpha_bar, and the noise what is left of 1."),
    solution="return alpha_bar / (`1 - alpha_bar`)")

check_predict_x0 = Check(
    "my_x0(x_t, eps, alpha_bar)", "returns the x0 that x_t and the predicted noise imply",
    right=lambda x_t, eps, a: predict_x0(x_t, eps, float(a)),
    cases=[(drawn(11), drawn(12), a) for a in ALPHA_BAR[1:4]],
    mistakes={
        "The noise was added, so it is taken away.": ("x_t -", "x_t +"),
        "A root is missing: sqrt(1 - alpha_bar) times the noise, and sqrt(alpha_bar) below.":
            [(").sqrt()", ")"), (".sqrt()", "")],
        "Divide by sqrt(alpha_bar), or it is faded.": (" / alpha_bar.sqrt()", "")},
    hints=("write down the equation of the jump, with eps for the noise.",
           "x_t = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * eps. Solve it for x0."),
    solution="return (x_t - `(1 - alpha_bar).sqrt()` * eps) / `alpha_bar.sqrt()`")

check_loss = Check(
    "my_loss(predict_noise, x0, noise, t, alpha_bar)", "returns one number for the whole batch",
    praise="It is what the UNet is trained with, too.",
    cases=[(network, drawn(11, 5, 2), drawn(12, 5, 2), torch.tensor([1, 3, 2, 0, 4]), ALPHA_BAR)],
    mistakes={
        "You forgot [t]: each point has a level of its own.": ("[t]", ""),
        "You compare with x0. This network predicts the noise.": ("- noise", "- x0"),
        "The network saw the clean x0. It has to see x_t.": ("(x_t, t)", "(x0, t)")},
    hints=("noise each point to its own level, let the network predict, compare with the noise.",
           "alpha_bar[t] is (b,), and [:, None] makes a column of it; then a mean of squares."),
    solution="""\
        a = `alpha_bar[t][:, None]`
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        return (predict_noise(`x_t, t`) - `noise`).square().mean()""")
