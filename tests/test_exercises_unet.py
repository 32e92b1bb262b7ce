"""The checks of the exercises on the UNet: the right answer, none, and every mistake they name."""

import math

import pytest
import torch
from torch import Tensor

from minisd.exercises import check_skip_count, check_timestep_embedding, check_up_widths


def embedding(timesteps: Tensor, dim: int) -> Tensor:
    half = dim // 2
    angles = [[float(t) * 10_000 ** (-i / half) for i in range(half)] for t in timesteps]
    return torch.tensor([[math.cos(a) for a in row] + [math.sin(a) for a in row]
                         for row in angles])


def count(levels: int, layers: int) -> int:
    return levels * (layers + 1)


def widths(channels, layers):
    put = [channels[0]]
    for level, width in enumerate(channels):
        put.extend([width] * layers)
        if level + 1 < len(channels):
            put.append(width)
    x, found = channels[-1], []
    for width in channels[::-1]:
        for _ in range(layers + 1):
            found.append(x + put.pop())
            x = width
    return found


def waves(timesteps: Tensor, dim: int, exponents: list[float], *, sines_first: bool = False
          ) -> Tensor:
    angles = timesteps[:, None].double() * 10_000.0 ** torch.tensor(exponents).double()
    parts = [angles.cos(), angles.sin()]
    return torch.cat(parts[::-1] if sines_first else parts, -1).float()


def exponents(dim: int, divisor: float) -> list[float]:
    return [-i / divisor for i in range(dim // 2)]


def from_the_front(channels, layers):
    put = [channels[0]]
    for level, width in enumerate(channels):
        put += [width] * (layers + (level + 1 < len(channels)))
    x, found = channels[-1], []
    for width in channels[::-1]:
        for _ in range(layers + 1):
            found.append(x + put.pop(0))
            x = width
    return found


def below(channels, layers):
    """What comes from below, for each ResBlock."""
    return [c for width, under in zip(
        channels[::-1], (channels[-1], *channels[:0:-1]), strict=True)
            for c in [under] + [width] * layers]


def own(channels, layers):
    levels = [width for width in channels[::-1] for _ in range(layers + 1)]
    return [a + b for a, b in zip(below(channels, layers), levels,
                                     strict=True)]


RIGHT = {check_timestep_embedding: embedding, check_skip_count: count, check_up_widths: widths}
MISTAKES = {
    check_timestep_embedding: {
        "sines come first": lambda t, dim: waves(t, dim, exponents(dim, dim // 2),
                                                 sines_first=True),
        "divide by half - 1": lambda t, dim: waves(t, dim, exponents(dim, dim // 2 - 1)),
        "divide the index by dim": lambda t, dim: waves(t, dim, exponents(dim, dim)),
        "frequencies grow": lambda t, dim: waves(t, dim, exponents(dim, -dim // 2)),
        "interleave": lambda t, dim: torch.stack(embedding(t, dim).chunk(2, -1), -1).flatten(1)},
    check_skip_count: {
        "forgot the first": lambda levels, layers: count(levels, layers) - 1,
        "forgot the halvings": lambda levels, layers: 1 + levels * layers,
        "halving at every level": lambda levels, layers: count(levels, layers) + 1,
        "the layers alone": lambda levels, layers: levels * layers},
    check_up_widths: {
        "skips are missing": below, "put aside first": from_the_front, "its own level": own}}


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


def test_another_shape_is_named() -> None:
    verdict = check_timestep_embedding(lambda t, dim: embedding(t, dim)[:, :4])
    assert verdict.message == "Your answer has shape (4, 4), expected (4, 6)."
    verdict = check_up_widths(lambda channels, layers: widths(channels, layers)[1:])
    assert verdict.message == "Your answer has shape (5,), expected (6,)."
    verdict = check_skip_count(lambda levels, layers: [count(levels, layers)])
    assert verdict.message == "Your answer has shape (1,), expected ()."


@pytest.mark.parametrize(("check", "words"), [(check, words) for check, found in MISTAKES.items()
                                              for words in found])
def test_each_mistake_is_named(check, words: str) -> None:
    verdict = check(MISTAKES[check][words])
    assert not verdict and words in verdict.message, verdict
    others = [other for other in MISTAKES[check] if other != words]
    assert not any(other in verdict.message for other in others)


def test_an_answer_in_whole_numbers_may_be_a_tensor() -> None:
    assert check_up_widths(lambda channels, layers: torch.tensor(widths(channels, layers)))
