"""What holds exactly, whatever the weights: identities of noise, samplers, guidance and traces.

Each is one test. Those of single formulas, for one step at every level, stand in test_diffusion.py.
"""

import pytest
import torch
from parity import relative_error
from test_trace import assert_same_steps
from torch import Tensor

from minisd.diffusion import Schedule, add_noise
from minisd.observe.trace import Trace
from minisd.rules import DDIM, DDPM
from minisd.samplers import SAMPLERS, Guess, SampleStep, sample
from minisd.sigma_rules import Euler

PROMPT = "a red car"
ROUNDING = 1e-5             # float32, in sums of another order
EXACT = 1e-12               # float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def predict(x: Tensor, t: float) -> Guess:
    """Any function of x and t in place of the network."""
    return Guess(0.9 * x + 0.3 * torch.sin(2 * x.roll(1, -1) + t / 60))


# Noise and samplers

@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_mean_and_variance_of_q(schedule: Schedule, t: int) -> None:
    """x_t ~ N(sqrt(alpha_bar) x_0, 1 - alpha_bar), measured."""
    n, x0 = 400_000, 0.8
    x_t = add_noise(torch.full((n,), x0, dtype=torch.float64), normal(n), schedule.at(t))
    variance = 1 - schedule.at(t)
    assert float(x_t.mean()) == pytest.approx(schedule.at(t) ** 0.5 * x0,
                                              abs=5 * (variance / n) ** 0.5)
    assert float(x_t.var()) == pytest.approx(variance, rel=5 * (2 / n) ** 0.5)


def test_ddim_with_eta_1_is_ddpm_up_to_the_last_step(schedule: Schedule) -> None:
    """One noise, one grid: the same x after every step but the last.

    There DDPM ends at alpha_bar 1, DDIM at alpha_bar_0, where a little noise is left.
    """
    runs = []
    for kind in (DDIM, DDPM):
        rule, g = kind(schedule, 20, 1.0), torch.Generator().manual_seed(1)
        rule.timesteps = [float(t) for t in range(950, -1, -50)]
        runs.append(list(sample(rule, schedule, predict, normal(2, 5, 7), lambda g=g: torch.randn(
            2, 5, 7, generator=g, dtype=torch.float64))))
    ddim, ddpm = runs
    for a, b in zip(ddim[:-1], ddpm[:-1], strict=True):
        assert relative_error(a.x_prev, b.x_prev) < EXACT
    assert relative_error(ddpm[-1].x_prev, ddpm[-1].x0) < EXACT
    left = ddim[-1].x_prev - schedule.at(0) ** 0.5 * ddim[-1].x0
    assert relative_error(left, (1 - schedule.at(0)) ** 0.5 * ddim[-1].eps) < 1e-6


def test_euler_is_ddim_in_sigma_space(schedule: Schedule) -> None:
    """On one grid, over a whole run; there the next latents are these minus scaled noise."""
    ddim, euler = DDIM(schedule, 20), Euler(schedule, 20)
    euler.timesteps = ddim.timesteps
    euler.sigmas = [schedule.sigma_at(t) for t in ddim.timesteps] + [schedule.sigma_at(0)]
    runs = [list(sample(rule, schedule, predict, normal(2, 5, 7), lambda: torch.empty(0)))
            for rule in (ddim, euler)]
    for i, (a, b) in enumerate(zip(*runs, strict=True)):
        assert relative_error(a.x_prev, b.x_prev) < EXACT
        sigma, after = euler.sigmas[i:i + 2]
        x_hat, x_hat_next = (x * (1 + s ** 2) ** 0.5 for x, s in ((a.x_t, sigma),
                                                                  (a.x_prev, after)))
        assert relative_error(x_hat - (sigma - after) * a.eps, x_hat_next) < EXACT


# Guidance

def run(sd, prompt: str = PROMPT, **asked) -> list[SampleStep]:
    return list(sd.steps(prompt, **{"steps": 5, "seed": 0} | asked))


@pytest.mark.parametrize(("g", "kept", "skipped"), [(0, "eps_uncond", "eps_cond"),
                                                    (1, "eps_cond", "eps_uncond")])
@pytest.mark.parametrize("sampler", ["ddim", "plms", "heun"])
def test_at_0_and_1_half_the_work_gives_the_formulas_result(sd, g, kept, skipped, sampler):
    batches: list[int] = []
    asked = {"guidance_scale": g, "sampler": sampler, "negative_prompt": "blue fish",
             "num_images": 2}
    handle = sd.unet.register_forward_pre_hook(lambda net, args: batches.append(len(args[0])))
    short, evaluations = run(sd, **asked), len(batches)
    full = run(sd, both_predictions=True, **asked)
    handle.remove()
    assert batches == [2] * evaluations + [4] * evaluations
    for a, b in zip(short, full, strict=True):
        assert getattr(a, skipped) is None and getattr(a, kept) is a.eps
        formula = b.eps_uncond + g * (b.eps_cond - b.eps_uncond)
        assert relative_error(a.eps, formula) < ROUNDING
        assert relative_error(a.x_prev, b.x_prev) < ROUNDING
        assert relative_error(b.eps_cond, b.eps_uncond) > 0.001


@pytest.mark.parametrize("g", [0.0, 1.0, 3.0, 7.5, -2.0])
def test_a_negative_prompt_equal_to_the_prompt_undoes_guidance(sd, g):
    """eps_n + g (eps_p - eps_n) = eps_p for every g where n = p."""
    undone = run(sd, negative_prompt=PROMPT, guidance_scale=g)
    assert relative_error(undone[-1].x_prev, run(sd, guidance_scale=1.0)[-1].x_prev) < ROUNDING


# Runs

@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(sd, picture, sampler):
    """Whatever happens meanwhile: another run of the same model, draws of the global generator."""
    asked = {"sampler": sampler, "eta": 0.6, "seed": 4, "num_images": 2}
    whole, stopped = run(sd, **asked), sd.steps(PROMPT, steps=5, **asked)
    resumed = [next(stopped), next(stopped)]
    other = sd.steps("blue fish", steps=5, image=picture, **asked)
    for step in stopped:
        torch.randn(3)
        next(other, None)
        resumed.append(step)
    assert_same_steps(resumed, whole)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("start", ["noise", "picture", "mask"])
def test_a_replayed_trace_is_the_run(sd, picture, tmp_path, sampler, start):
    asked = {"sampler": sampler, "eta": 0.6, "seed": 4, "steps": 5, "negative_prompt": "a fish",
             "image": None if start == "noise" else picture,
             "mask": picture.convert("L") if start == "mask" else None}
    sd.trace(PROMPT, pictures="none", **asked).save(tmp_path / "run")
    replayed = Trace.load(tmp_path / "run")
    assert_same_steps(replayed, run(sd, **asked))
    assert torch.equal(replayed.latents, run(sd, **asked)[-1].x_prev)
