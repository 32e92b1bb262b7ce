"""Guidance by a schedule: a setting of every run, whatever the model and the sampler."""

import json
import math
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import words

from minisd.beyond.mdt import power_cosine
from minisd.beyond.painter import OBJECTIVES, Painter
from minisd.diffusion import guide
from minisd.observe.trace import Trace
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS
from minisd.settings import plan

SETTINGS = {"prompt": "a red circle", "seed": 1, "steps": 5, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    torch.manual_seed(0)
    return StableDiffusion(tiny_training.config(), words()).eval()


def painter(sd: StableDiffusion, objective: str) -> Painter:
    made = Painter(sd.config, sd.tokenizer, OBJECTIVES[objective])
    made.vae, made.text_encoder, made.unet = sd.vae, sd.text_encoder, sd.unet
    return made.eval()


def rising(t: float) -> float:
    return power_cosine(3.8, 1 - t / 1000)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_constant_schedule_is_the_scale_to_the_last_bit(sd: StableDiffusion, sampler: str
                                                          ) -> None:
    settings = {**SETTINGS, "sampler": sampler, "eta": 0.5}
    constant, scheduled, changing = (
        list(sd.steps(guidance_scale=g, **settings)) for g in (3.8, lambda t: 3.8, rising))
    for a, b in zip(constant, scheduled, strict=True):
        assert a.eps.equal(b.eps) and a.x_prev.equal(b.x_prev)
    assert not changing[-1].x_prev.allclose(constant[-1].x_prev)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_so_it_is_of_a_painter(sd: StableDiffusion, objective: str, sampler: str) -> None:
    made, settings = painter(sd, objective), {**SETTINGS, "sampler": sampler}
    constant, scheduled, changing = (
        [step.x_prev for step in made.steps(guidance_scale=g, **settings)][-1]
        for g in (3.8, lambda t: 3.8, rising))
    assert constant.equal(scheduled) and not changing.allclose(constant)


def test_each_step_is_guided_by_the_scale_at_its_timestep(sd: StableDiffusion) -> None:
    for step in sd.steps(guidance_scale=rising, **SETTINGS):
        assert step.eps.equal(guide(step.eps_uncond, step.eps_cond, rising(step.t)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_schedule_is_given_v1s_timesteps_whatever_the_network_is_told(
        sd: StableDiffusion, objective: str) -> None:
    asked: list[float] = []
    steps = list(painter(sd, objective).steps(
        guidance_scale=lambda t: asked.append(t) or 2.0, **SETTINGS))
    assert asked == [step.t for step in steps] and asked == sorted(asked, reverse=True)
    assert asked[0] > 990 and min(asked) >= 0


def test_a_trace_keeps_the_scale_of_every_step(sd: StableDiffusion, tmp_path: Path) -> None:
    trace = sd.trace(guidance_scale=rising, pictures="none", **SETTINGS)
    trace.save(tmp_path / "run.safetensors")
    about = Trace.load(tmp_path / "run.safetensors").about
    assert about["guidance_scale"] == [rising(step.t) for step in trace]
    assert json.dumps(about) == json.dumps(trace.about)


@pytest.mark.parametrize(("value", "error", "message"), [
    (None, TypeError, "guidance_scale must be a number, got None"),
    ("7", TypeError, "guidance_scale must be a number, got '7'"),
    (math.nan, ValueError, "guidance_scale must be finite")])
def test_what_a_schedule_gives_is_checked(sd: StableDiffusion, value: object,
                                          error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        next(sd.steps(guidance_scale=lambda t: value, **SETTINGS))


def test_no_other_number_may_be_a_function(sd: StableDiffusion) -> None:
    for name in ("steps", "eta", "seed", "num_images", "height"):
        with pytest.raises(TypeError, match=f"{name} must be"):
            plan(sd.config, "a red circle", {name: lambda t: 1})


def test_power_cosine_rises_late_from_one_to_the_scale() -> None:
    steps = [power_cosine(3.8, i / 250) for i in range(251)]
    assert steps[0] == 1 and steps[-1] == pytest.approx(3.8) and steps == sorted(steps)
    assert power_cosine(3.8, 0.5) - 1 < 0.01 * 2.8
    assert power_cosine(3.8, 0.6, power=1) == pytest.approx(1 + 2.8 * (1 - math.cos(0.6 * math.pi))
                                                            / 2)
