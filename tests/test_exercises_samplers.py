"""The checks of the exercises on samplers: the right answer, none, and every mistake they name."""

import pytest
import torch

from minisd.diffusion import Schedule
from minisd.exercises import check_ddim_step, check_euler_step, check_heun_evaluations
from minisd.samplers import Guess, make_rule, sample

LAST = 999


def ddim(x, e, a, t, stride, *, now=None, before=None):
    """With other levels than the right ones, if they are given as functions of (a, t, stride)."""
    now = a[t] if now is None else now(a, t, stride)
    before = a[max(t - stride, 0)] if before is None else before(a, t, stride)
    clean = x / now ** 0.5 - (1 / now - 1) ** 0.5 * e
    return before ** 0.5 * clean + (1 - before) ** 0.5 * e


def levels(now, before):
    return lambda x, e, a, t, stride: ddim(x, e, a, t, stride, now=now, before=before)


def formula(step):
    """A mistake that reads the schedule right, and one that also forgets its end."""
    return [lambda x, e, a, t, stride: step(x, e, a[t], a[max(t - stride, 0)]),
            lambda x, e, a, t, stride: step(x, e, a[t], a[t - stride])]


def clean(x, e, now):
    return (x - (1 - now) ** 0.5 * e) / now ** 0.5


RIGHT = {check_ddim_step: ddim, check_euler_step: lambda x, e, now, after: x - (now - after) * e,
         check_heun_evaluations: lambda steps: steps + (steps - 1)}
MISTAKES = {
    check_ddim_step: {
        "counts from the end": levels(None, lambda a, t, s: a[t - s]),
        "Off by one timestep": levels(None, lambda a, t, s: a[max(t - 1, 0)]),
        "You look up alpha_bar at t + stride": levels(None, lambda a, t, s: a[min(t + s, LAST)]),
        "The two alpha_bar are swapped": levels(lambda a, t, s: a[max(t - s, 0)],
                                                lambda a, t, s: a[t]),
        "you are back at x_t": lambda x, e, a, t, stride: x,
        "Below 0 you take alpha_bar = 1": levels(
            None, lambda a, t, s: a[t - s] if t >= s else a[0] * 0 + 1),
        "You count timesteps from 1": levels(lambda a, t, s: a[t - 1],
                                             lambda a, t, s: a[max(t - s - 1, 0)]),
        "You forgot the square roots": formula(
            lambda x, e, n, b: b * (x - (1 - n) * e) / n + (1 - b) * e),
        "square root over 1 - alpha_bar": formula(
            lambda x, e, n, b: b ** 0.5 * (x - (1 - n) * e) / n ** 0.5 + (1 - b) * e),
        "square root over alpha_bar:": formula(
            lambda x, e, n, b: b * (x - (1 - n) ** 0.5 * e) / n + (1 - b) ** 0.5 * e),
        "You return x0": formula(lambda x, e, n, b: clean(x, e, n)),
        "do not give noise back": formula(lambda x, e, n, b: b ** 0.5 * clean(x, e, n)),
        "You forgot to divide": formula(
            lambda x, e, n, b: b ** 0.5 * clean(x, e, n) * n ** 0.5 + (1 - b) ** 0.5 * e),
        "back at the level of t:": formula(
            lambda x, e, n, b: b ** 0.5 * clean(x, e, n) + (1 - n) ** 0.5 * e),
        "The sign of the noise": formula(
            lambda x, e, n, b: b ** 0.5 * clean(x, -e, n) + (1 - b) ** 0.5 * e)},
    check_euler_step: {
        "wrong sign": lambda x, e, now, after: x + (now - after) * e,
        "at once: that is x0": lambda x, e, now, after: x - now * e,
        "You take away sigma_next eps": lambda x, e, now, after: x - after * e,
        "without taking away": lambda x, e, now, after: x + after * e,
        "eps as it is": lambda x, e, now, after: x - e,
        "You shrink x_hat": lambda x, e, now, after: x * after / now,
        "You return x_t": lambda x, e, now, after: (x + (after - now) * e)
        / (1 + after ** 2) ** 0.5},
    check_heun_evaluations: {
        "Nearly": lambda steps: 2 * steps,
        "Euler's number": lambda steps: steps,
        "PLMS's number": lambda steps: steps + 1,
        "count once more": lambda steps: 2 * steps - 2}}


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
    wrong = MISTAKES[check][words]
    for answer in wrong if isinstance(wrong, list) else [wrong]:
        verdict = check(answer)
        assert not verdict and words in verdict.message, verdict


def test_another_shape_and_another_error_are_told() -> None:
    assert "has shape (4, 3, 5), expected (1, 4, 3, 5)" in check_ddim_step(
        lambda *given: ddim(*given)[0]).message
    assert "raises IndexError" in check_ddim_step(
        levels(None, lambda a, t, s: a[t + 5 * s])).message
    assert "values differ" in check_euler_step(lambda x, e, now, after: x * e).message


def test_plain_square_roots_of_numbers_are_as_good() -> None:
    from math import sqrt

    def answer(x, e, a, t, stride):
        now, before = float(a[t]), float(a[max(t - stride, 0)])
        return sqrt(before) * (x - sqrt(1 - now) * e) / sqrt(now) + sqrt(1 - before) * e

    assert check_ddim_step(answer)


def test_the_right_answers_are_what_the_samplers_do(schedule: Schedule) -> None:
    def steps(name: str, count: int):
        rule = make_rule(name, schedule, count)
        return list(sample(rule, schedule, lambda x, t: Guess(x.roll(1, -1)),
                           torch.randn(1, 2, 3, 5).double(), lambda: torch.zeros(())))

    for step in steps("ddim", 50):
        torch.testing.assert_close(ddim(step.x_t, step.eps, schedule.alpha_bar, int(step.t), 20),
                                   step.x_prev)
    euler = steps("euler", 10)
    for step, later in zip(euler, euler[1:], strict=False):
        now, after = schedule.sigma_at(step.t), schedule.sigma_at(later.t)
        torch.testing.assert_close(
            RIGHT[check_euler_step](step.x_t * (1 + now ** 2) ** 0.5, step.eps, now, after),
            step.x_prev * (1 + after ** 2) ** 0.5)
    for count in (1, 2, 7):
        assert steps("heun", count)[-1].evaluations == RIGHT[check_heun_evaluations](count)
