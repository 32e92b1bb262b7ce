"""Exercises on evaluation: how surely a rate is known, how far two clouds are, and what is best."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn

Z_95 = 1.959964                 # a standard normal lies within +-1.96 in 95 % of all cases

Bounds = tuple[float, float]


def check_interval(answer: Answer | None) -> Verdict:
    """answer(right, of): the bounds (low, high) of Wilson's 95 % interval for the share."""

    def times(count: Callable[[int], float]) -> Answer:
        return lambda k, n: tuple(count(n) * bound for bound in _wilson(k, n))

    def with_z(z: float) -> Answer:
        return lambda k, n: _wilson(k, n, z)

    return compare(answer, cases=[(11, 12), (12, 12), (430, 500)], right=_wilson,
                   hint="with p = right / of, n = of and z = 1.96: the middle is "
                        "(p + z**2 / (2*n)) / (1 + z**2 / n), and half the width is "
                        "z / (1 + z**2 / n) * sqrt(p*(1 - p)/n + z**2 / (4*n**2)).",
                   praise="It agrees with Wilson, 1927, and so with the package.", mistakes=[
        Mistake("That is the normal approximation, p +- z * sqrt(p * (1 - p) / n). It says that 12 "
                "of 12 leaves no doubt at all, and it can reach beyond 1. Use Wilson's.", _wald),
        Mistake("That is the normal approximation, cut off at 0 and 1. It still says that 12 of 12 "
                "leaves no doubt. Use Wilson's.",
                lambda k, n: tuple(min(1.0, max(0.0, bound)) for bound in _wald(k, n))),
        Mistake("z = 1.645 belongs to 90 %, or to one side only. For 95 % between two bounds it is "
                "1.96.", with_z(1.644854)),
        Mistake("z = 2.576 belongs to 99 %. For 95 % it is 1.96.", with_z(2.575829)),
        Mistake("z = 1 is one standard error, which holds in 68 % of cases. For 95 % it is 1.96.",
                with_z(1.0)),
        Mistake("2 is a rule of thumb. Take z = 1.96.", with_z(2.0)),
        Mistake("These are counts: the bounds are asked as shares, between 0 and 1.",
                times(lambda n: n)),
        Mistake("These are percent: the bounds are asked as shares, between 0 and 1.",
                times(lambda n: 100)),
        Mistake("You swapped the bounds: (low, high).", lambda k, n: _wilson(k, n)[::-1]),
        Mistake("You put the share itself in the middle. Wilson's middle is drawn towards one "
                "half: (p + z**2 / (2*n)) / (1 + z**2 / n).",
                lambda k, n: _around(k / n, _half(k, n))),
        Mistake("The division by 1 + z**2 / n is missing, in the middle and in the width.",
                lambda k, n: tuple((1 + Z_95 ** 2 / n) * bound for bound in _wilson(k, n))),
        Mistake("Under the root, z**2 / (4 * n**2) is missing.",
                lambda k, n: _around(_middle(k, n),
                                     Z_95 / (1 + Z_95 ** 2 / n) * _error(k, n))),
        Mistake("That is the middle and half of the width. Give (middle - half, middle + half).",
                lambda k, n: (_middle(k, n), _half(k, n))),
    ])


def check_frechet(answer: Answer | None) -> Verdict:
    """answer(a, b): the Frechet distance of features (n, f) and (m, f), each as a Gaussian."""
    a, b = _correlated(31, 8), _correlated(32, 11) * 1.5 + 1
    return compare(answer, cases=[(a, b), (b, a * 0.5)], right=_frechet,
                   hint="the squared distance of the means, plus trace(cov_a) + trace(cov_b) - 2 * "
                        "trace(root of cov_a @ cov_b), with torch.cov(a.T). The trace of a "
                        "matrix's root is the sum of the roots of its eigenvalues: "
                        "torch.linalg.eigvals(...).real.",
                   mistakes=[
        Mistake("That is the distance of the means alone. The covariances are missing: two clouds "
                "with one middle can differ in width.", lambda a, b: _means(a, b)),
        Mistake("The means are missing: you compare the covariances alone.",
                lambda a, b: _spread(a, b)),
        Mistake("The means' distance counts squared.",
                lambda a, b: _means(a, b).sqrt() + _spread(a, b)),
        Mistake("The two traces are missing: with them, equal clouds have distance 0.",
                lambda a, b: _means(a, b) - 2 * _root(*_covs(a, b))),
        Mistake("You took the root of each element of cov_a @ cov_b. A matrix's root R has "
                "R @ R = the matrix; the trace of R is the sum of the roots of the eigenvalues.",
                _with_root(lambda p, q: (p @ q).clamp_min(0).sqrt().trace())),
        Mistake("You multiplied the covariances element by element. It is the matrix product "
                "cov_a @ cov_b; what lies off the diagonal counts too.",
                _with_root(lambda p, q: (p * q).clamp_min(0).sqrt().trace())),
        Mistake("The root is missing: trace(cov_a @ cov_b) is not the trace of its root.",
                _with_root(lambda p, q: (p @ q).trace())),
        Mistake("That is the root of the trace. The trace of the root is asked: first the root of "
                "each eigenvalue, then their sum.",
                _with_root(lambda p, q: (p @ q).trace().sqrt())),
        Mistake("The factor 2 before the root is missing: with it, equal clouds have distance 0.",
                lambda a, b: _frechet(a, b) + _root(*_covs(a, b))),
        Mistake("The sign of the root is wrong: what both share is subtracted.",
                lambda a, b: _frechet(a, b) + 4 * _root(*_covs(a, b))),
        Mistake("You took a last root. What is called Fréchet distance here, and FID elsewhere, is "
                "the square.", lambda a, b: _frechet(a, b).sqrt()),
        Mistake("Your covariances divide by n. torch.cov divides by n - 1.",
                lambda a, b: _frechet(a, b, correction=0)),
    ])


def check_best_guidance(answer: Answer | None) -> Verdict:
    """answer(scales, shares, distances): the best scale; of equal shares, the nearest pictures."""
    cases: list[tuple[list[float], ...]] = [
        ([1.5, 2.0, 3.0, 4.0, 5.0], [0.4, 0.8, 0.9, 0.9, 0.7], [0.2, 0.1, 0.35, 0.3, 0.5]),
        ([1.5, 2.0, 3.0, 4.0, 5.0], [0.6, 0.9, 0.9, 0.9, 0.2], [0.5, 0.2, 0.4, 0.3, 0.1])]

    def tied(choose: Callable[[list[float], list[float]], float]) -> Answer:
        """Choose among the scales of the highest share, given their distances."""
        def chosen(scales: list[float], shares: list[float], distances: list[float]) -> float:
            ties = [i for i, share in enumerate(shares) if share == max(shares)]
            return choose([scales[i] for i in ties], [distances[i] for i in ties])
        return chosen

    right = tied(lambda scales, distances: scales[distances.index(min(distances))])
    return compare(answer, cases=cases, right=right,
                   hint="the highest share first; where several have it, the lowest Fréchet "
                        "distance. max(..., key=lambda ...: (share, -distance)) does both.",
                   praise="It is the package's rule.", mistakes=[
        Mistake("Of several scales with the highest share you took the first. Take the one with "
                "the lowest distance.", tied(lambda scales, _: scales[0])),
        Mistake("Of several scales with the highest share you took the last. Take the one with "
                "the lowest distance.", tied(lambda scales, _: scales[-1])),
        Mistake("Of several scales with the highest share you took the one with the highest "
                "distance. A low distance is good: it needs a minus in the key.",
                tied(lambda scales, distances: scales[distances.index(max(distances))])),
        Mistake("Of several scales with the highest share you took the mean, which may be a scale "
                "that nobody measured.", tied(lambda scales, _: sum(scales) / len(scales))),
        Mistake("That is the lowest distance, whatever the pictures show. The share comes first.",
                lambda scales, _, distances: scales[distances.index(min(distances))]),
        Mistake("That is the lowest share.",
                lambda scales, shares, _: scales[shares.index(min(shares))]),
        Mistake("That is the place in the list. Return the scale that stands there.",
                lambda scales, shares, distances: scales.index(right(scales, shares, distances))),
        Mistake("That is the share. Return the scale that has it.",
                lambda scales, shares, distances: max(shares)),
    ])


# Wilson's interval; `wilson_interval` in minisd/toyworld/rates.py is the same, a test compares them

def _wilson(right: int, of: int, z: float = Z_95) -> Bounds:
    return _around(_middle(right, of, z), _half(right, of, z))


def _middle(right: int, of: int, z: float = Z_95) -> float:
    return (right / of + z ** 2 / (2 * of)) / (1 + z ** 2 / of)


def _half(right: int, of: int, z: float = Z_95) -> float:
    return z / (1 + z ** 2 / of) * math.sqrt(_error(right, of) ** 2 + z ** 2 / (4 * of ** 2))


def _error(right: int, of: int) -> float:
    """The standard error of a share."""
    return math.sqrt(right / of * (1 - right / of) / of)


def _wald(right: int, of: int) -> Bounds:
    return _around(right / of, Z_95 * _error(right, of))


def _around(middle: float, half: float) -> Bounds:
    return middle - half, middle + half


# The Frechet distance, as `frechet_distance` in minisd/toyworld/judge.py; a test compares the two

def _frechet(a: Tensor, b: Tensor, correction: int = 1) -> Tensor:
    return _means(a, b) + _spread(a, b, correction)


def _means(a: Tensor, b: Tensor) -> Tensor:
    return (a.mean(0) - b.mean(0)).square().sum()


def _spread(a: Tensor, b: Tensor, correction: int = 1) -> Tensor:
    p, q = _covs(a, b, correction)
    return p.trace() + q.trace() - 2 * _root(p, q)


def _covs(a: Tensor, b: Tensor, correction: int = 1) -> tuple[Tensor, Tensor]:
    return torch.cov(a.T, correction=correction), torch.cov(b.T, correction=correction)


def _root(p: Tensor, q: Tensor) -> Tensor:
    """The trace of (p q)^(1/2)."""
    return torch.linalg.eigvals(p @ q).real.clamp_min(0).sqrt().sum()


def _with_root(root: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """The distance with another term in the place of the trace of the root."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        p, q = _covs(a, b)
        return _means(a, b) + p.trace() + q.trace() - 2 * root(p, q)

    return distance


def _correlated(seed: int, n: int) -> Tensor:
    """(n, 3) whose columns go together, so that a covariance is more than its diagonal."""
    return drawn(seed, n, 3) @ torch.tensor([[1.0, 0.6, 0.3], [0.0, 1.0, 0.5], [0.0, 0.0, 0.7]])
