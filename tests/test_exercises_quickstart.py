"""The checks of the first notebook's exercises: right answers, none, and each mistake they name."""

import math

import pytest
import torch

from minisd.exercises import check_negative_prompt, check_predictions
from minisd.exercises.checking import Verdict


def run(steps, strength):
    return int(steps * strength)


RIGHT = {
    check_negative_prompt: lambda u, n, c, g: (1 - g) * n + g * c,
    check_predictions: lambda steps, strength: run(steps, strength) * 2,
}
MISTAKES = [(check, said, answer) for check, known in {
    check_negative_prompt: {
        "eps_negative has no effect": lambda u, n, c, g: (1 - g) * u + g * c,
        "You start from eps_uncond still": lambda u, n, c, g: u + g * (c - u) - g * (n - u),
        "the bracket still measures": lambda u, n, c, g: n + g * c - g * u,
        "The sign is wrong": lambda u, n, c, g: n + g * (n - c),
        "The two are swapped": lambda u, n, c, g: g * n + (1 - g) * c,
        "You start from eps_cond": lambda u, n, c, g: (1 + g) * c - g * n,
        "the difference alone": lambda u, n, c, g: g * c - g * n,
        "is not taken away": lambda u, n, c, g: u + g * (c - u) - n,
        "values differ by up to": lambda u, n, c, g: c - n,
    },
    check_predictions: {
        "Those are the steps": run,
        "Twice for every step": lambda n, s: n + n,
        "All the steps, and one": lambda n, s: n,
        "share that is left out": lambda n, s: 2 * run(n, 1 - s),
        "At strength 1 all steps": lambda n, s: 2 * (n - run(n, s)),
        "is the share": lambda n, s: 2 * round((1 - s) * n),
        "rounded to the nearest": lambda n, s: 2 * round(n * s),
        "You rounded up": lambda n, s: 2 * -(-n * s // 1),
        "no half step": lambda n, s: n * s * 2,
        "before you double": lambda n, s: math.floor(2 * n * s),
        "Off by one": lambda n, s: len(range(run(n, s) + 1)) * 2,
        "no step is run at all": lambda n, s: 2 * max(run(n, s), 1),
        "values differ by up to": lambda n, s: 3 * run(n, s),
    }}.items() for said, answer in known.items()]


@pytest.mark.parametrize("check", RIGHT)
def test_the_right_answer_is_right(check) -> None:
    verdict = check(RIGHT[check])
    assert isinstance(verdict, Verdict) and verdict.right


@pytest.mark.parametrize(("check", "said", "answer"), MISTAKES)
def test_each_mistake_is_named(check, said: str, answer) -> None:
    verdict = check(answer)
    assert not verdict and said in verdict.message, verdict


@pytest.mark.parametrize("check", RIGHT)
def test_a_word_is_no_answer(check) -> None:
    verdict = check(lambda *_: "many")
    assert not verdict and "'many'" in verdict.message


@pytest.mark.parametrize(("steps", "strength"), [(10, 0.35), (6, 0.5), (3, 1.0)])
def test_the_pipeline_asks_as_often(sd, picture, steps: int, strength: float) -> None:
    asked: list[int] = []
    hook = sd.unet.register_forward_hook(lambda net, inputs, eps: asked.append(len(eps)))
    sd.image_to_image("a red car", picture, strength=strength, steps=steps, seed=1)
    hook.remove()
    assert sum(asked) == RIGHT[check_predictions](steps, strength)


def test_the_pipeline_puts_the_negative_prompt_in_the_same_place(sd) -> None:
    step = next(iter(sd.steps("a red car", negative_prompt="a fish", steps=5, seed=1,
                              guidance_scale=3.0)))
    at = torch.tensor([step.t], device=sd.device)
    empty, negative, cond = (sd.unet(step.x_t, at, sd.encode_prompt(prompt))
                             for prompt in ("", "a fish", "a red car"))
    torch.testing.assert_close(step.eps, RIGHT[check_negative_prompt](empty, negative, cond, 3.0),
                               atol=1e-4, rtol=1e-4)
