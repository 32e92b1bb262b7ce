"""Exercises on diffusion in the plane: noise, and why it is what is predicted.

Points x0 are rows, (n, 2). alpha_bar is a number: the share of x0's variance that x_t still has.
"""

import torch

from minisd.diffusion import add_noise, predict_eps
from minisd.exercises.checking import Check, Words, drawn

check_jump = Check(
    "my_jump(x0, noise, alphas, t)", "returns x_t; step s, 0 to t, keeps alphas[s] of the variance",
    right=lambda x0, n, a, t: add_noise(x0, n, float(a[:t + 1].prod())),
    cases=[(drawn(1, 5, 2), drawn(2, 5, 2), torch.tensor([0.9, 0.8, 0.6, 0.7]), t) for t in (1, 2)],
    mistakes={
        "That is the last step alone.": ("[:t + 1].prod()", "[t]"),
        "Step t counts too.": ("t + 1", "t"),
        "A root is missing: the product is a share of the variance.": (".sqrt()", "")},
    hints=("after two steps, which share of x0 is left, and which variance has the noise?",
           "shares multiply: alpha_bar is alphas[:t + 1].prod(), and the variances add up to 1."),
    solution="""\
        alpha_bar = alphas[:`t + 1`].`prod`()
        return alpha_bar.sqrt() * x0 + `(1 - alpha_bar).sqrt()` * noise""")

check_implied_eps = Check(
    "my_eps(x_t, x0, alpha_bar)", "returns the noise that a predicted x0 implies",
    right=predict_eps, cases=[(drawn(3, 5, 2), drawn(4, 5, 2), 0.3)],
    mistakes={
        "x_t holds only sqrt(alpha_bar) of x0.": ("alpha_bar ** 0.5 * ", ""),
        "Divide what is left by sqrt(1 - alpha_bar).": (" / (1 - alpha_bar) ** 0.5", "")},
    hints=("x_t is made of two parts: take away the one that you know.",
           "solve x_t = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * eps for eps."),
    solution="return (x_t - `alpha_bar ** 0.5` * x0) / `(1 - alpha_bar) ** 0.5`")

check_posterior_mean = Check(
    "my_mean(x_t, points, alpha_bar)", "returns the mean of x0 given x_t (b, 2), if x0 was one of "
    "the points (n, 2): each weighs exp(-|x_t - sqrt(alpha_bar) point|**2 / (2 (1 - alpha_bar)))",
    cases=[(drawn(5, 4, 2), drawn(6, 7, 2), 0.4)],
    praise="It lies between the points: this is the blur of a single step.",
    mistakes={
        "x_t lies near sqrt(alpha_bar) * point: shrink the points before you compare.":
            ("alpha_bar ** 0.5 * ", ""),
        "That is the nearest point. The mean takes all of them, the near ones most.":
            "return points[torch.cdist(x_t, alpha_bar ** 0.5 * points).argmin(1)]",
        "The weights of one x_t over all points add up to 1: softmax over the points.":
            ("softmax(1)", "softmax(0)")},
    hints=("a weighted mean of the points: which of them could have become this x_t?",
           "a softmax of -distance**2 / (2 (1 - alpha_bar)) gives the weights, (b, n)."),
    solution="""\
        apart = torch.cdist(x_t, `alpha_bar ** 0.5` * points).square()
        return (-apart / (2 * (`1 - alpha_bar`))).softmax(`1`) @ points""")

check_why_noise = Words(
    "why does the network predict the noise rather than the picture?",
    "each gives the other, but the noise has variance 1 at every level, and errors count alike. "
    "A squared error of x0 is (1 - alpha_bar) / alpha_bar times as large: nearly all of that loss "
    "would be about the noisiest levels, where little can be known.")

check_why_many_steps = Words(
    "why does one step from pure noise give a blur, and many steps a picture?",
    "from noise alone the best guess is the mean of all that could have been there, which is a "
    "blur. A small step towards it leaves fewer possibilities, so the next guess is sharper.")
