"""Exercises of the notebook on samplers: one step of DDIM, one of Euler, and the price of Heun."""

from collections.abc import Callable

import torch
from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import ddim_coefficients, make_schedule, take_step
from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn

STRIDE = 20                     # timesteps between two of 50 steps
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]           # x_t, eps, now, before
Levels = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]        # alpha_bar, t, stride


# DDIM

def check_ddim_step(answer: Answer | None) -> Verdict:
    """answer(x_t, eps, alpha_bar, t, stride) -> x_prev, as DDIM with eta = 0 has it.

    alpha_bar: the schedule's, (T,). x_prev is at t - stride; below 0 it is at alpha_bar[0].
    """
    alpha_bar = make_schedule(ScheduleConfig()).alpha_bar
    return compare(
        answer, right=_right_ddim_step,
        cases=[(drawn(1), drawn(2), alpha_bar, 901, STRIDE),
               (drawn(3), drawn(4), alpha_bar, 401, STRIDE),
               (drawn(5), drawn(6), alpha_bar, 1, STRIDE)],
        hint="two lines: x0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), then the "
             "same eps again, at the level of t - stride",
        mistakes=[*_level_mistakes(), *_formula_mistakes()])


def _right_ddim_step(x_t: Tensor, eps: Tensor, alpha_bar: Tensor, t: int, stride: int) -> Tensor:
    now, before = float(alpha_bar[t]), float(alpha_bar[max(t - stride, 0)])
    return take_step(x_t, eps, None, ddim_coefficients(now, before))


def _ddim(x_t: Tensor, eps: Tensor, now: Tensor, before: Tensor) -> Tensor:
    return before.sqrt() * _x0(x_t, eps, now, now) + (1 - before).sqrt() * eps


def _x0(x_t: Tensor, eps: Tensor, now: Tensor, _: Tensor) -> Tensor:
    return (x_t - (1 - now).sqrt() * eps) / now.sqrt()


def _clamped(alpha_bar: Tensor, t: int, stride: int) -> tuple[Tensor, Tensor]:
    return alpha_bar[t], alpha_bar[max(t - stride, 0)]


def _wrapped(alpha_bar: Tensor, t: int, stride: int) -> tuple[Tensor, Tensor]:
    return alpha_bar[t], alpha_bar[t - stride]


def _with(step: Step, levels: Levels) -> Answer:
    """An answer to the exercise, of a formula and of the levels it is given."""
    return lambda x_t, eps, alpha_bar, t, stride: step(x_t, eps, *levels(alpha_bar, t, stride))


def _level_mistakes() -> list[Mistake]:
    """The right formula with a wrong alpha_bar."""
    last = len(make_schedule(ScheduleConfig())) - 1
    wrong: list[tuple[str, Levels]] = [
        ("At the last step t - stride is below 0, and alpha_bar[-19] counts from the end of the "
         "schedule, where all is noise: take alpha_bar[max(t - stride, 0)].", _wrapped),
        ("Off by one timestep: the step before is stride timesteps away, not one: t - stride.",
         lambda a, t, stride: (a[t], a[max(t - 1, 0)])),
        ("You look up alpha_bar at t + stride: the run goes down, towards less noise.",
         lambda a, t, stride: (a[t], a[min(t + stride, last)])),
        ("The two alpha_bar are swapped: x_t is at the level of t, and x_prev at that of "
         "t - stride.", lambda a, t, stride: _clamped(a, t, stride)[::-1]),
        ("Both times you use the alpha_bar of t, so you are back at x_t: give the noise back at "
         "the level of t - stride.", lambda a, t, stride: (a[t], a[t])),
        ("Below 0 you take alpha_bar = 1, no noise at all. DDPM ends so; this DDIM ends at "
         "alpha_bar[0].",
         lambda a, t, stride: (a[t], a[t - stride] if t >= stride else torch.ones_like(a[0]))),
        ("You count timesteps from 1: alpha_bar[t] is the level of t, without a - 1.",
         lambda a, t, stride: (a[t - 1], a[max(t - stride - 1, 0)])),
    ]
    return [Mistake(hint, _with(_ddim, levels)) for hint, levels in wrong]


def _formula_mistakes() -> list[Mistake]:
    """Wrong formulas, with the last step's alpha_bar right or wrong."""
    wrong: list[tuple[str, Step]] = [
        ("You forgot the square roots: the picture has the weight sqrt(alpha_bar), the noise "
         "sqrt(1 - alpha_bar).",
         lambda x, e, now, before: before * (x - (1 - now) * e) / now + (1 - before) * e),
        ("You forgot the square root over 1 - alpha_bar: noise has the weight "
         "sqrt(1 - alpha_bar).",
         lambda x, e, now, before: before.sqrt() * (x - (1 - now) * e) / now.sqrt()
         + (1 - before) * e),
        ("You forgot the square root over alpha_bar: the picture has the weight "
         "sqrt(alpha_bar).",
         lambda x, e, now, before: before * _x0(x, e, now, now) * now.sqrt() / now
         + (1 - before).sqrt() * e),
        ("You return x0: give the noise back, at the level of t - stride, or the next step gets "
         "latents cleaner than its timestep says.", _x0),
        ("You scale x0 but do not give noise back: add sqrt(1 - alpha_bar_before) eps.",
         lambda x, e, now, before: before.sqrt() * _x0(x, e, now, now)),
        ("You forgot to divide by sqrt(alpha_bar_t): x_t without its noise is x0 made smaller.",
         lambda x, e, now, before: before.sqrt() * (x - (1 - now).sqrt() * e)
         + (1 - before).sqrt() * e),
        ("You give the noise back at the level of t: take the alpha_bar of t - stride there too.",
         lambda x, e, now, before: before.sqrt() * _x0(x, e, now, now) + (1 - now).sqrt() * e),
        ("The sign of the noise is wrong: it was added to make x_t, so subtract it to find x0.",
         lambda x, e, now, before: before.sqrt() * (x + (1 - now).sqrt() * e) / now.sqrt()
         + (1 - before).sqrt() * e),
    ]
    return [Mistake(hint, _with(step, levels)) for hint, step in wrong
            for levels in (_clamped, _wrapped)]


# Euler and Heun

def check_euler_step(answer: Answer | None) -> Verdict:
    """answer(x_hat, eps, sigma, sigma_next) -> the next x_hat, where x_hat = x0 + sigma eps."""
    return compare(
        answer, right=lambda x, e, now, after: x + (after - now) * e,
        cases=[(drawn(1), drawn(2), 14.6, 9.3), (drawn(3), drawn(4), 2.5, 1.0),
               (drawn(5), drawn(6), 0.1, 0.0)],
        hint="the slope of x_hat over sigma is eps; the step along it is sigma_next - sigma long",
        mistakes=[
            Mistake("The sigma difference has the wrong sign: sigma falls, so sigma_next - sigma "
                    "is negative and noise goes away.", lambda x, e, now, after: x + (now - after)
                    * e),
            Mistake("You take all of the noise away, sigma eps, at once: that is x0. Take away "
                    "only the part between the two levels.", lambda x, e, now, after: x - now * e),
            Mistake("You take away sigma_next eps: that is what should remain. What goes is "
                    "(sigma - sigma_next) eps.", lambda x, e, now, after: x - after * e),
            Mistake("You add the noise of the next level without taking away that of this one.",
                    lambda x, e, now, after: x + after * e),
            Mistake("You take away eps as it is: scale it by the difference of the two sigmas.",
                    lambda x, e, now, after: x - e),
            Mistake("You shrink x_hat by sigma_next / sigma: its noise shrinks so, but the "
                    "picture in it too. Take noise away instead.",
                    lambda x, e, now, after: x * after / now),
            Mistake("You return x_t, in the coordinates of variance 1: here x_hat stays as it is, "
                    "do not divide by sqrt(1 + sigma_next ** 2).",
                    lambda x, e, now, after: (x + (after - now) * e) / (1 + after ** 2) ** 0.5),
        ])


def check_heun_evaluations(answer: Answer | None) -> Verdict:
    """answer(steps) -> how often Heun asks the network in a run of so many steps."""
    return compare(
        answer, right=lambda steps: 2 * steps - 1, cases=[(1,), (2,), (7,), (50,)],
        hint="every step looks where it stands and where Euler would land; where does the last "
             "step land, and is there a slope?",
        praise="The last step lands at sigma = 0, where there is no noise to predict.",
        mistakes=[
            Mistake("Nearly: the last step lands at sigma = 0, where the network is not asked.",
                    lambda steps: 2 * steps),
            Mistake("That is Euler's number: Heun also looks at the place where Euler would land.",
                    lambda steps: steps),
            Mistake("That is PLMS's number, which looks ahead once, at its first step. Heun does "
                    "at every step but the last.", lambda steps: steps + 1),
            Mistake("It is the last step that saves one look, not every step: count once more.",
                    lambda steps: 2 * (steps - 1)),
        ])
