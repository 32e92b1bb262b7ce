"""The exercises on evaluation: right answers, named mistakes, and nonsense."""

import math

import pytest
import torch

from minisd.exercises import check_best_guidance, check_frechet, check_interval
from minisd.toyworld.judge import frechet_distance
from minisd.toyworld.rates import wilson_interval


def name(check, answer) -> str:
    verdict = check(answer)
    assert not verdict
    return verdict.message


# The interval

def test_the_right_interval() -> None:
    assert check_interval(wilson_interval)
    assert check_interval(lambda k, n: wilson_interval(k, n, 1.96))
    assert check_interval(lambda k, n: torch.tensor(wilson_interval(k, n)))


def normal(k, n, z=1.96):
    half = z * math.sqrt(k / n * (1 - k / n) / n)
    return k / n - half, k / n + half


def test_the_hint_holds_the_formula() -> None:
    def by_the_hint(right, of):
        p, n, z, sqrt = right / of, of, 1.96, math.sqrt
        middle = (p + z**2 / (2*n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * sqrt(p*(1 - p)/n + z**2 / (4*n**2))
        return middle - half, middle + half
    hint = name(check_interval, None)
    assert "(p + z**2 / (2*n)) / (1 + z**2 / n)" in hint
    assert "z / (1 + z**2 / n) * sqrt(p*(1 - p)/n + z**2 / (4*n**2))" in hint
    assert check_interval(by_the_hint)


def parts(k, n, z=1.96):
    p, shrink = k / n, 1 + z * z / n
    return (p, shrink, (p + z * z / 2 / n) / shrink,
            z / shrink * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n))


def around_the_share(k, n):
    p, _, _, half = parts(k, n)
    return p - half, p + half


def without_the_last_term(k, n):
    p, shrink, middle, _ = parts(k, n)
    half = 1.96 / shrink * math.sqrt(p * (1 - p) / n)
    return middle - half, middle + half


@pytest.mark.parametrize(("answer", "said"), [
    (normal, "can reach beyond 1"),
    (lambda k, n: [min(1, max(0, x)) for x in normal(k, n)], "cut off at 0 and 1"),
    (lambda k, n: wilson_interval(k, n, 1.645), "belongs to 90 %"),
    (lambda k, n: wilson_interval(k, n, 2.576), "belongs to 99 %"),
    (lambda k, n: wilson_interval(k, n, 1), "one standard error"),
    (lambda k, n: wilson_interval(k, n, 2), "rule of thumb"),
    (lambda k, n: [n * x for x in wilson_interval(k, n)], "These are counts"),
    (lambda k, n: [100 * x for x in wilson_interval(k, n)], "These are percent"),
    (lambda k, n: wilson_interval(k, n)[::-1], "swapped the bounds"),
    (around_the_share, "the share itself in the middle"),
    (lambda k, n: [parts(k, n)[1] * x for x in wilson_interval(k, n)], "division by 1 + z**2 / n"),
    (without_the_last_term, "z**2 / (4 * n**2) is missing"),
    (lambda k, n: parts(k, n)[2:], "half of the width"),
    (lambda k, n: (0, 1), "values differ")])
def test_mistakes_of_the_interval(answer, said: str) -> None:
    assert said in name(check_interval, answer)


# The Frechet distance

def frechet(means=lambda d: d.square().sum(), traces=1, twice=2, correction=1,
            root=lambda p, q: torch.linalg.eigvals(p @ q).real.sqrt().sum()):
    def answer(a, b):
        p, q = (torch.cov(x.T, correction=correction) for x in (a, b))
        spread = traces * (p.trace() + q.trace()) - twice * root(p, q)
        return means(a.mean(0) - b.mean(0)) + spread
    return answer


def test_the_right_distance() -> None:
    assert check_frechet(frechet_distance)
    assert check_frechet(frechet())
    assert check_frechet(lambda a, b: frechet()(a.double(), b.double()).item())


@pytest.mark.parametrize(("answer", "said"), [
    (lambda a, b: (a.mean(0) - b.mean(0)).square().sum(), "means alone"),
    (frechet(means=lambda d: 0), "means are missing"),
    (frechet(means=lambda d: d.norm()), "counts squared"),
    (frechet(traces=0), "two traces are missing"),
    (frechet(root=lambda p, q: (p @ q).sqrt().trace()), "root of each element"),
    (frechet(root=lambda p, q: (p * q).sqrt().trace()), "element by element"),
    (frechet(root=lambda p, q: p.diag().sqrt() @ q.diag().sqrt()), "element by element"),
    (frechet(root=lambda p, q: (p @ q).trace()), "root is missing"),
    (frechet(root=lambda p, q: (p @ q).trace().sqrt()), "root of the trace"),
    (frechet(twice=1), "factor 2"),
    (frechet(twice=-2), "sign of the root"),
    (lambda a, b: frechet()(a, b).sqrt(), "last root"),
    (frechet(correction=0), "divide by n."),
    (lambda a, b: 7.0, "values differ")])
def test_mistakes_of_the_distance(answer, said: str) -> None:
    assert said in name(check_frechet, answer)


# The best scale

def test_the_right_scale() -> None:
    assert check_best_guidance(lambda g, s, d: max(zip(s, [-x for x in d], g, strict=True))[2])


def ties(g, s, d):
    return [(x, y) for x, share, y in zip(g, s, d, strict=True) if share == max(s)]


@pytest.mark.parametrize(("answer", "said"), [
    (lambda g, s, d: g[s.index(max(s))], "took the first"),
    (lambda g, s, d: ties(g, s, d)[-1][0], "took the last"),
    (lambda g, s, d: max(zip(s, d, g, strict=True))[2], "needs a minus"),
    (lambda g, s, d: sum(x for x, _ in ties(g, s, d)) / len(ties(g, s, d)), "took the mean"),
    (lambda g, s, d: g[d.index(min(d))], "whatever the pictures show"),
    (lambda g, s, d: g[s.index(min(s))], "lowest share"),
    (lambda g, s, d: g.index(min(ties(g, s, d), key=lambda tie: tie[1])[0]), "place in the list"),
    (lambda g, s, d: max(s), "That is the share"),
    (lambda g, s, d: 100.0, "values differ")])
def test_mistakes_of_the_choice(answer, said: str) -> None:
    assert said in name(check_best_guidance, answer)
