"""Exercises on evaluation: how surely a rate is known, how far two clouds are, what is best."""

import torch

from minisd.exercises.checking import Check, drawn
from minisd.toyworld.evaluation.judge import frechet_distance
from minisd.toyworld.evaluation.rates import wilson_interval

SCALES = [1.5, 2.0, 3.0, 4.0, 5.0]
MIXED = torch.tensor([[1.0, 0.6, 0.3], [0.0, 1.0, 0.5], [0.0, 0.0, 0.7]])   # columns go together

check_interval = Check(
    "my_interval(right, of)", "returns (low, high) of Wilson's 95 % interval: with p = right / of, "
    "n = of and z = 1.96, the middle is (p + z**2 / (2 n)) / (1 + z**2 / n), and half the width is "
    "z / (1 + z**2 / n) * sqrt(p (1 - p) / n + z**2 / (4 n**2))",
    right=wilson_interval, cases=[(11, 12), (12, 12), (430, 500)],
    mistakes={
        "That is the normal approximation: it says that 12 of 12 leaves no doubt. Use Wilson's.":
            "return p - z * (p * (1 - p) / of) ** 0.5, p + z * (p * (1 - p) / of) ** 0.5",
        "That z belongs to another certainty. For 95 % between two bounds it is 1.96.":
            ("1.96", "1.644854")},
    hints=("name p and 1 + z**2 / n first; both bounds use them.",
           "(middle - half, middle + half), each of the two with a line of its own."),
    solution="""\
        p, z, shrink = right / of, `1.96`, 1 + 1.96**2 / of
        half = z * (p * (1 - p) / of + z**2 / (4 * `of**2`)) ** 0.5
        return (p + z**2 / (`2 * of`) - half) / shrink, (p + z**2 / (2 * of) + half) / shrink""")

check_frechet = Check(
    "my_frechet(a, b)", "returns the Fréchet distance of features a (n, f) and b (m, f)",
    right=frechet_distance, cases=[(drawn(31, 8, 3) @ MIXED, drawn(32, 11, 3) @ MIXED * 1.5 + 1)],
    mistakes={
        "Both count, the means and the covariances: clouds differ in place and in width.":
            [(" + p.trace() + q.trace() - 2 * root", ""),
             ("(a.mean(0) - b.mean(0)).square().sum() + ", "")],
        "A root of each element is no root of the matrix, with R @ R = the matrix.":
            ("torch.linalg.eigvals(p @ q).real", "(p @ q).diagonal()")},
    hints=("the means' squared distance, and what differs in the covariances, torch.cov(a.T).",
           "trace(root) is the sum of roots of torch.linalg.eigvals(cov_a @ cov_b).real."),
    solution="""\
        p, q = torch.cov(a.T), torch.cov(b.T)
        root = `torch.linalg.eigvals(p @ q)`.real.clamp_min(0).sqrt().sum()
        return `(a.mean(0) - b.mean(0)).square()`.sum() + p.trace() + q.trace() - `2` * root""")

check_best_guidance = Check(
    "my_best(scales, shares, distances)", "returns the best scale",
    praise="It is the package's rule.",
    cases=[(SCALES, [0.4, 0.8, 0.9, 0.9, 0.7], [0.2, 0.1, 0.35, 0.3, 0.5]),
           (SCALES, [0.6, 0.9, 0.9, 0.9, 0.2], [0.5, 0.2, 0.4, 0.3, 0.1])],
    mistakes={
        "Of several scales with the highest share, take the one with the lowest distance.":
            ["return scales[shares.index(max(shares))]", ("-d", "d")],
        "That is the lowest distance; shares come first.":
            "return scales[distances.index(min(distances))]"},
    hints=("sort by the share; only where several have it does the distance decide.",
           "a key of two numbers: (share, -distance), the largest wins."),
    solution="return `max`(zip(shares, [`-d` for d in distances], scales))[`2`]")
