"""Exercises on samplers: one step of DDIM, one of Euler, and the price of Heun."""

from minisd.config import ScheduleConfig
from minisd.diffusion import add_noise, make_schedule, predict_x0
from minisd.exercises.checking import Check, drawn

ALPHA_BAR = make_schedule(ScheduleConfig()).alpha_bar

check_ddim_step = Check(
    "my_ddim_step(x_t, eps, alpha_bar, t, stride)", "returns x_prev of DDIM with eta = 0",
    right=lambda x, eps, bar, t, stride: add_noise(
        predict_x0(x, eps, float(bar[t])), eps, float(bar[max(t - stride, 0)])),
    cases=[(drawn(1), drawn(2), ALPHA_BAR, t, 20) for t in (901, 401, 1)],
    mistakes={
        "That is the mean of DDPM's step, which leaves room for fresh noise. DDIM gives the "
        "predicted eps back in full.":
            ("(1 - before) ** 0.5", "(1 - before) * (now / before / (1 - now)) ** 0.5"),
        "At the last step t - stride is below 0, and alpha_bar[-19] counts from the end, where all "
        "is noise: alpha_bar[max(t - stride, 0)].": ("max(t - stride, 0)", "t - stride"),
        "You found x0: give the noise back at the level of t - stride.": "return x0"},
    hints=("two moves: what is x0, if eps is the noise in x_t? Then up to the next, lower level.",
           "x0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t), and the same eps at t - stride, or 0."),
    solution="""\
        now, before = alpha_bar[t], alpha_bar[`max(t - stride, 0)`]
        x0 = (x_t - `(1 - now)` ** 0.5 * eps) / now ** 0.5
        return before ** 0.5 * `x0` + (1 - before) ** 0.5 * `eps`""")

check_euler_step = Check(
    "my_euler_step(x_hat, eps, sigma, sigma_next)", "returns the next x_hat, x0 + sigma_next eps",
    cases=[(drawn(1), drawn(2), 14.6, 9.3), (drawn(5), drawn(6), 0.1, 0.0)],
    mistakes={
        "The sign is wrong: sigma falls, noise goes.": ("+", "-"),
        "You take all of the noise away, which is x0.": ("sigma_next - sigma", "-sigma"),
        "Here the picture keeps its size: do not scale.": "return x_hat * sigma_next / sigma"},
    hints=("x_hat is x0 + sigma eps. What changes from one sigma to the next?",
           "the slope of x_hat over sigma is eps; the step along it is sigma_next - sigma long."),
    solution="return x_hat + (`sigma_next - sigma`) * `eps`")

check_heun_evaluations = Check(
    "my_evaluations(steps)", "returns how many predictions Heun takes in a run",
    cases=[(1,), (2,), (7,), (50,)],
    mistakes={
        "Nearly: the last step lands where nothing is left to predict.": (" - 1", ""),
        "That is Euler's number: Heun also predicts where Euler lands.": "return steps"},
    hints=("how many slopes does one step look at, and does every step have both?",
           "two each, where it stands and where it would land. Where does the last step land?"),
    solution="return 2 * steps `- 1`")
