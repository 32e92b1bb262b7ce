"""Exercises on samplers: one step of DDIM, one of Euler, and the price of Heun."""

import torch
from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import add_noise, ddim_coefficients, make_schedule, predict_x0, take_step
from minisd.exercises.checking import Answer, Check, drawn

ALPHA_BAR = make_schedule(ScheduleConfig()).alpha_bar


def step(rule: Answer, lowest: int = 0) -> Answer:
    """A step by a rule of (x_t, eps, now, before); timesteps do not go below `lowest`."""
    def answer(x_t: Tensor, eps: Tensor, bar: Tensor, t: int, stride: int) -> Tensor:
        result: Tensor = rule(x_t, eps, float(bar[t]), float(bar[max(t - stride, lowest)]))
        return result

    return answer


def ddim(x: Tensor, eps: Tensor, now: float, before: float) -> Tensor:
    return add_noise(predict_x0(x, eps, now), eps, before)


def ddpm(x: Tensor, eps: Tensor, now: float, before: float) -> Tensor:
    return take_step(ddim_coefficients(now, before, eta=1.0), x, eps)


def fresh(x: Tensor, eps: Tensor, now: float, before: float) -> Tensor:
    return add_noise(predict_x0(x, eps, now), torch.randn_like(x), before)


check_ddim_step = Check(
    "my_ddim_step(x_t, eps, alpha_bar, t, stride)", "returns x_prev of DDIM with eta = 0",
    right=step(ddim), cases=[(drawn(1), drawn(2), ALPHA_BAR, t, 20) for t in (901, 401, 1)],
    mistakes={
        "That is the mean of DDPM's step, which leaves room for fresh noise. DDIM gives the "
        "predicted eps back in full.": step(ddpm),
        "You add fresh noise. DDIM gives back the eps that the network predicted.":
            (step(fresh), step(fresh, lowest=-999)),
        "At the last step t - stride is below 0, and alpha_bar[-19] counts from the end, where all "
        "is noise: alpha_bar[max(t - stride, 0)].": step(ddim, lowest=-999),
        "You found x0, or came back to x_t: give the noise back at the level of t - stride.":
            (step(lambda x, e, now, before: predict_x0(x, e, now)), lambda x, *_: x)},
    hints=("two moves: what is x0, if eps is the noise in x_t? Then up to the next, lower level.",
           "x0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t), and the same eps at t - stride, or 0."),
    solution="""\
        now, before = alpha_bar[t], alpha_bar[`max(t - stride, 0)`]
        x0 = (x_t - `(1 - now)` ** 0.5 * eps) / now ** 0.5
        return before ** 0.5 * `x0` + (1 - before) ** 0.5 * `eps`""")

check_euler_step = Check(
    "my_euler_step(x_hat, eps, sigma, sigma_next)", "returns the next x_hat, x0 + sigma_next eps",
    right=lambda x, e, s, after: x + (after - s) * e,
    cases=[(drawn(1), drawn(2), 14.6, 9.3), (drawn(5), drawn(6), 0.1, 0.0)],
    mistakes={
        "The sign is wrong: sigma falls, noise goes.": lambda x, e, s, after: x + (s - after) * e,
        "You take all of the noise away, which is x0, or as much as should remain.":
            (lambda x, e, s, after: x - s * e, lambda x, e, s, after: x - after * e),
        "Here the picture keeps its size: do not scale.": lambda x, e, s, after: x * after / s},
    hints=("x_hat is x0 + sigma eps. What changes from one sigma to the next?",
           "the slope of x_hat over sigma is eps; the step along it is sigma_next - sigma long."),
    solution="return x_hat + (`sigma_next - sigma`) * `eps`")

check_heun_evaluations = Check(
    "my_evaluations(steps)", "returns how many predictions Heun takes in a run",
    right=lambda steps: 2 * steps - 1, cases=[(1,), (2,), (7,), (50,)],
    mistakes={
        "Nearly: the last step lands where nothing is left to predict.": lambda steps: 2 * steps,
        "That is Euler's number: Heun also predicts where Euler lands.": lambda steps: steps},
    hints=("how many slopes does one step look at, and does every step have both?",
           "two each, where it stands and where it would land. Where does the last step land?"),
    solution="return 2 * steps `- 1`")
