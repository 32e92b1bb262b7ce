"""The checks of the exercises on attention: the right answer, none, and every mistake they name."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.exercises import check_attention, check_geglu, check_split_heads


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bnd,bmd->bnm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bnm,bmd->bnd", scores.softmax(-1), v)


def split(x: Tensor, heads: int) -> Tensor:
    return torch.stack(x.split(x.shape[-1] // heads, dim=-1), dim=1)


def geglu(x: Tensor) -> Tensor:
    value, gate = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return value * gate * 0.5 * (1 + torch.erf(gate / 2 ** 0.5))


RIGHT = {check_attention: attention, check_split_heads: split, check_geglu: geglu}


def scores(q: Tensor, k: Tensor, factor: float) -> Tensor:
    return torch.einsum("bnd,bmd->bnm", q, k) * factor


MISTAKES = {
    check_attention: {
        "left out the scale": lambda q, k, v: scores(q, k, 1).softmax(-1) @ v,
        "You divide the scores by d:": lambda q, k, v: scores(q, k, 1 / q.shape[-1]).softmax(-1)
        @ v,
        "multiply the scores": lambda q, k, v: scores(q, k, q.shape[-1] ** 0.5).softmax(-1) @ v,
        "root of the number of keys": lambda q, k, v: scores(
            q, k, 1 / k.shape[1] ** 0.5).softmax(-1) @ v,
        "softmax runs over the queries": lambda q, k, v: scores(
            q, k, 1 / q.shape[-1] ** 0.5).softmax(1) @ v,
        "There is no softmax": lambda q, k, v: scores(q, k, 1 / q.shape[-1] ** 0.5) @ v,
        "You return the weights": lambda q, k, v: scores(
            q, k, 1 / q.shape[-1] ** 0.5).softmax(-1)},
    check_split_heads: {
        "still stand behind": lambda x, heads: split(x, heads).transpose(1, 2),
        "reshaped across positions": lambda x, heads: x.view(
            len(x), heads, -1, x.shape[-1] // heads),
        "every heads-th component": lambda x, heads: torch.stack(
            [x[..., i::heads] for i in range(heads)], dim=1),
        "last two dimensions": lambda x, heads: split(x, heads).transpose(2, 3)},
    check_geglu: {
        "exchanged": lambda x: geglu(torch.cat(x.chunk(2, -1)[::-1], -1)),
        "approximated by tanh": lambda x: x.chunk(2, -1)[0] * F.gelu(
            x.chunk(2, -1)[1], approximate="tanh"),
        "QuickGELU": lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1] * torch.sigmoid(
            1.702 * x.chunk(2, -1)[1]),
        "which is GLU": F.glu,
        "SiLU": lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1]),
        "ReLU": lambda x: x.chunk(2, -1)[0] * F.relu(x.chunk(2, -1)[1]),
        "Nothing bends": lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1],
        "took neighbours": lambda x: x[..., 0::2] * F.gelu(x[..., 1::2])}}


@pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)
def test_the_right_answer_is_right(check) -> None:
    verdict = check(RIGHT[check])
    assert verdict and verdict.right, verdict


@pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)
def test_an_exercise_without_an_answer_gets_its_hint(check) -> None:
    def unfinished(*arguments: object) -> None:
        raise NotImplementedError

    for answer in (None, unfinished, lambda *arguments: None, lambda *arguments: ...):
        verdict = check(answer)
        assert not verdict and verdict.message.startswith("There is no answer yet. Hint:")


@pytest.mark.parametrize("check", RIGHT, ids=lambda check: check.__name__)
def test_another_shape_is_named(check) -> None:
    verdict = check(lambda *arguments: RIGHT[check](*arguments)[..., :1])
    assert not verdict and re.match(r"Your answer has shape \(.*1\), expected \(", verdict.message)


@pytest.mark.parametrize(("check", "words"), [(check, words) for check, found in MISTAKES.items()
                                              for words in found])
def test_each_mistake_is_named(check, words: str) -> None:
    verdict = check(MISTAKES[check][words])
    assert not verdict and words in verdict.message, verdict
    others = [other for other in MISTAKES[check] if other != words]
    assert not any(other in verdict.message for other in others)


def test_the_checks_leave_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    for check, answer in RIGHT.items():
        check(answer)
    assert torch.equal(torch.randn(2), expected)
