"""The exercises on runs, edits and prompts: right answers, the named mistakes, and nonsense."""

import itertools
import math

import pytest
import torch

from minisd.diffusion import add_noise
from minisd.exercises import (
    check_blend,
    check_combinations,
    check_pca,
    check_snapshot_marks,
    check_steps_run,
    check_swap_word,
)

CHECKS = [check_blend, check_combinations, check_pca, check_snapshot_marks, check_steps_run,
          check_swap_word]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("nonsense", ["seven", 7, [], {"a": 1}, [[1], [2, 3]], True])
def test_nonsense_is_wrong_and_does_not_raise(check, nonsense) -> None:
    assert not check(lambda *_: nonsense)


# Snapshots

def marks(n, r, rounded=lambda x: int(x + 1e-9)) -> list[int]:
    return [rounded(i * r * n) for i in range(int(1 / r + 1e-9) + 1)]


@pytest.mark.parametrize("kind", [list, tuple, iter, set, torch.tensor])
def test_the_right_marks(kind) -> None:
    assert check_snapshot_marks(lambda n, r: kind(sorted({*marks(n, r), n})))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda n, r: sorted({*marks(n, r, int), n}), "Float dust"),
    (lambda n, r: marks(n, r), "where the ratio does not divide 1"),
    (lambda n, r: [m for m in marks(n, r) if m < n], "range stops"),
    (lambda n, r: sorted({*marks(n, r)[1:], n}), "beginning is missing"),
    (lambda n, r: [m for m in marks(n, r)[1:] if m < n], "Both ends"),
    (lambda n, r: sorted({*marks(n, r, round), n}), "rounded to the nearest"),
    (lambda n, r: sorted({*marks(n, r, lambda x: math.ceil(x - 1e-9)), n}), "rounded up"),
    (lambda n, r: [i * r for i in range(int(1 / r + 1e-9) + 1)], "shares of the run"),
    (lambda n, r: [0, n], "shape (2,)")])
def test_mistakes_of_the_marks(answer, said: str) -> None:
    verdict = check_snapshot_marks(answer)
    assert not verdict and said in verdict.message


# Principal components

def vh(p) -> torch.Tensor:
    return torch.linalg.svd(p, full_matrices=False).Vh


def middle(p) -> torch.Tensor:
    return p - p.mean(0)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_the_right_map_may_be_turned(signs) -> None:
    assert check_pca(lambda p: middle(p) @ vh(middle(p))[:2].T * torch.tensor(signs))


def test_the_map_by_eigenvectors_or_by_u_is_right_too() -> None:
    def by_eigenvectors(p):
        return middle(p) @ torch.linalg.eigh(middle(p).T @ middle(p)).eigenvectors.flip(1)[:, :2]

    def by_u(p):
        u, s, _ = torch.linalg.svd(middle(p), full_matrices=False)
        return u[:, :2] * s[:2]

    assert check_pca(by_eigenvectors) and check_pca(by_u)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda p: p @ vh(p)[:2].T, "points are not centred: the first axis"),
    (lambda p: middle(p) @ vh(p)[:2].T, "axes come from points that are not centred"),
    (lambda p: (p - p.mean()) @ vh(p - p.mean())[:2].T, "one number"),
    (lambda p: (p - p.mean(1, True)) @ vh(p - p.mean(1, True))[:2].T, "wrong axis"),
    (lambda p: middle(p) @ vh(middle(p))[:, :2], "columns of Vh"),
    (lambda p: torch.linalg.svd(middle(p), full_matrices=False).U[:, :2], "lost the distances"),
    (lambda p: middle(p) @ vh(middle(p))[-2:].T, "last two axes"),
    (lambda p: p @ vh(middle(p))[:2].T, "not around 0"),
    (lambda p: middle(p) / p.std(0) @ vh(middle(p) / p.std(0))[:2].T, "by its spread"),
    (lambda p: 2 * middle(p) @ vh(middle(p))[:2].T, "values differ by up to")])
def test_mistakes_of_the_map(answer, said: str) -> None:
    verdict = check_pca(answer)
    assert not verdict and said in verdict.message


# Editing

def test_the_right_number_of_steps() -> None:
    assert check_steps_run(lambda n, s: int(n * s + 1e-9))
    assert check_steps_run(lambda n, s: round(n * s, 6) // 1)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda n, s: int(n * s), "28.999999999999996"),
    (lambda n, s: math.ceil(round(n * s, 6)), "You rounded up. A part"),
    (lambda n, s: math.ceil(n * s), "7.000000000000001"),
    (lambda n, s: round(n * s), "nearest"),
    (lambda n, s: n - int(n * s + 1e-9), "left out"),
    (lambda n, s: max(1, int(n * s + 1e-9)), "no step is run"),
    (lambda n, s: n * s, "did not round"),
    (lambda n, s: n, "values differ by up to")])
def test_mistakes_of_the_steps(answer, said: str) -> None:
    verdict = check_steps_run(answer)
    assert not verdict and said in verdict.message


def test_the_right_blend() -> None:
    assert check_blend(lambda x, o, n, m, a: torch.where(m > 0, x, add_noise(o, n, a)))
    assert check_blend(lambda x, o, n, m, a: m * x + (1 - m) * (a ** .5 * o + (1 - a) ** .5 * n))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda x, o, n, m, a: torch.where(m > 0, add_noise(o, n, a), x), "swapped: white"),
    (lambda x, o, n, m, a: torch.where(m > 0, x, o), "original is not noised"),
    (lambda x, o, n, m, a: torch.where(m > 0, o, x), "Swapped, and"),
    (lambda x, o, n, m, a: add_noise(torch.where(m > 0, x, o), n, a), "as well"),
    (lambda x, o, n, m, a: torch.where(m > 0, x, a * o + (1 - a) * n), "roots are missing"),
    (lambda x, o, n, m, a: torch.where(m > 0, x, add_noise(o, n, 1 - a)), "1 - alpha_bar are sw"),
    (lambda x, o, n, m, a: torch.where(m > 0, x, o + (1 - a) ** .5 * n), "on top of the whole"),
    (lambda x, o, n, m, a: torch.where(m > 0, x, n), "nothing but noise"),
    (lambda x, o, n, m, a: m * x, "there is nothing: add"),
    (lambda x, o, n, m, a: m * x + add_noise(o, n, a), "everywhere"),
    (lambda x, o, n, m, a: x, "nothing of the original"),
    (lambda x, o, n, m, a: o, "values differ by up to")])
def test_mistakes_of_the_blend(answer, said: str) -> None:
    verdict = check_blend(answer)
    assert not verdict and said in verdict.message


# Prompts

def swapped(p, w, o) -> str:
    return " ".join(o if x == w else x for x in p.split())


def test_the_right_swap() -> None:
    import re
    assert check_swap_word(swapped)
    assert check_swap_word(lambda p, w, o: re.sub(rf"\b{w}\b", o, p))


@pytest.mark.parametrize(("answer", "said"), [
    (lambda p, w, o: p.replace(w, o), "boatpet"),
    (lambda p, w, o: f" {p} ".replace(f" {w} ", f" {o} ", 1).strip(), "first one only"),
    (lambda p, w, o: p.replace(w, o, 1), "first hit"),
    (lambda p, w, o: " ".join(x for x in p.split() if x != w), "took the word out"),
    (lambda p, w, o: swapped(p, w, f"{w} {o}"), "beside the first"),
    (lambda p, w, o: swapped(p, w, o).split(), "list of words"),
    (lambda p, w, o: swapped(p, o, w), "second argument goes"),
    (lambda p, w, o: p.upper(), "Your answer is 'A RED CAR")])
def test_mistakes_of_the_swap(answer, said: str) -> None:
    verdict = check_swap_word(answer)
    assert not verdict and said in verdict.message


def combinations(axes) -> list[dict]:
    return [dict(zip(axes, v, strict=True)) for v in itertools.product(*axes.values())]


def test_the_right_combinations() -> None:
    assert check_combinations(combinations)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda axes: [dict(zip(axes, v, strict=True)) for v in zip(*axes.values(), strict=False)],
     "diagonal"),
    (lambda axes: [{name: v} for name, values in axes.items() for v in values], "missing"),
    (lambda axes: [{name: one[name] for name in axes} for one in
                   combinations(dict(reversed(axes.items())))], "last axis runs fastest"),
    (lambda axes: list(itertools.product(*axes.values())), "without their names"),
    (lambda axes: combinations(axes)[:1], "Your answer is [{")])
def test_mistakes_of_the_combinations(answer, said: str) -> None:
    verdict = check_combinations(answer)
    assert not verdict and said in verdict.message
