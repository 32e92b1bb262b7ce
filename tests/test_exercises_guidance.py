"""The checks of the exercises on guidance: the right answer, none, and every mistake they name."""

from dataclasses import replace

import pytest
import torch

from minisd import StableDiffusion, Tokenizer
from minisd.checkpoints.load import WEIGHTS
from minisd.exercises import check_guide, check_other_convention, check_passes


def guided(u, c, g):
    return (1 - g) * u + g * c


def passes(g, steps):
    return sum((g != 1) + (g != 0) for _ in range(steps))


RIGHT = {check_guide: guided, check_other_convention: lambda g: g - 1, check_passes: passes}
MISTAKES = {
    check_guide: {
        "The sign is wrong": lambda u, c, g: u + g * (u - c),
        "are swapped": lambda u, c, g: g * u + (1 - g) * c,
        "You start from eps_cond": lambda u, c, g: (1 + g) * c - g * u,
        "(guidance_scale - 1) times the difference": lambda u, c, g: u + (g - 1) * (c - u),
        "(g - 1) * eps_uncond": lambda u, c, g: g * c + (g - 1) * u,
        "the difference alone": lambda u, c, g: g * (c - u),
        "add eps_cond itself": lambda u, c, g: u + g * c,
        "has no effect": lambda u, c, g: c},
    check_other_convention: {
        "one whole difference further": lambda g: g,
        "The wrong way round": lambda g: g + 1,
        "push away": lambda g: 1 - g},
    check_passes: {
        "put 0 and 1 into the sum": lambda g, steps: 2 * steps,
        "At guidance 0 one": lambda g, steps: steps if g == 1 else 2 * steps,
        "At guidance 1 one": lambda g, steps: steps if g == 0 else 2 * steps,
        "0.5 and -1 need both": lambda g, steps: steps if g <= 1 else 2 * steps,
        "at 0.5, both are": lambda g, steps: steps if 0 <= g <= 1 else 2 * steps,
        "what guidance 1 needs": lambda g, steps: steps}}


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


@pytest.mark.parametrize(("check", "words"),
                         [(check, words) for check in MISTAKES for words in MISTAKES[check]],
                         ids=lambda value: getattr(value, "__name__", value))
def test_each_mistake_is_named(check, words) -> None:
    verdict = check(MISTAKES[check][words])
    assert not verdict and words in verdict.message, verdict


def test_another_shape_and_another_error_are_told() -> None:
    assert "has shape (1, 3, 5), expected (1, 4, 3, 5)" in check_guide(
        lambda u, c, g: guided(u, c, g)[:, 0]).message
    assert "raises TypeError" in check_guide(lambda u, c: u).message
    assert "raises ZeroDivisionError" in check_other_convention(lambda g: g / (g - 1)).message
    assert "values differ" in check_guide(lambda u, c, g: u * c).message


def test_the_right_number_of_predictions_is_the_pipelines() -> None:
    """Counted on a model, for what the exercise claims of this package."""
    from conftest import TINY
    tokenizer = Tokenizer.from_folder(WEIGHTS / "toyworld" / "tokenizer", max_length=13)
    sd = StableDiffusion(replace(TINY, text=replace(TINY.text, vocab_size=len(tokenizer.vocab))),
                         tokenizer).eval()
    asked: list[int] = []
    sd.unet.register_forward_hook(lambda net, inputs, eps: asked.append(len(eps)))
    for g in (7.5, 1, 0, 0.5, -1):
        asked.clear()
        list(sd.steps("a red car", guidance_scale=g, steps=5, seed=1, height=16, width=16))
        assert sum(asked) == passes(g, 5), g


def test_the_other_convention_gives_the_same_noise() -> None:
    u, c = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for g in (0.0, 1.0, 7.5):
        s = RIGHT[check_other_convention](g)
        torch.testing.assert_close(c + s * (c - u), guided(u, c, g))
