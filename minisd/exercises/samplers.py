"""Exercises on samplers: one step of DDIM, one of Euler, and the price of Heun."""

from torch import Tensor

from minisd.config import ScheduleConfig
from minisd.diffusion import add_noise, ddim_coefficients, make_schedule, predict_x0, take_step
from minisd.exercises.checking import Check, drawn

ALPHA_BAR = make_schedule(ScheduleConfig()).alpha_bar


def ddim(x: Tensor, eps: Tensor, bar: Tensor, t: int, stride: int, lowest: int = 0) -> Tensor:
    now, before = float(bar[t]), float(bar[max(t - stride, lowest)])
    return add_noise(predict_x0(x, eps, now), eps, before)


def ddpm(x: Tensor, eps: Tensor, bar: Tensor, t: int, stride: int) -> Tensor:
    coefficients = ddim_coefficients(float(bar[t]), float(bar[max(t - stride, 0)]), eta=1.0)
    return take_step(coefficients, x, eps)


check_ddim_step = Check(
    "my_ddim_step(x_t, eps, alpha_bar, t, stride)", "returns x_prev of DDIM with eta = 0",
    right=ddim, cases=[(drawn(1), drawn(2), ALPHA_BAR, t, 20) for t in (901, 401, 1)],
    mistakes={
        "That is the mean of DDPM's step, which leaves room for fresh noise. DDIM gives the "
        "predicted eps back in full.": ddpm,
        "At the last step t - stride is below 0, and alpha_bar[-19] counts from the end, where all "
        "is noise: alpha_bar[max(t - stride, 0)].":
            lambda x, eps, bar, t, stride: ddim(x, eps, bar, t, stride, lowest=-999),
        "You found x0: give the noise back at the level of t - stride.":
            lambda x, eps, bar, t, stride: predict_x0(x, eps, float(bar[t]))},
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
        "You take all of the noise away, which is x0.": lambda x, e, s, after: x - s * e,
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
