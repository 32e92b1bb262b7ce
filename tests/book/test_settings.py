"""What a run is asked for: defaults, lists of prompts and seeds, and one table of bad input."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY

from minisd.config import TOYWORLD
from minisd.settings import Run, Settings, plan

PROMPT = "a red car"
LAST_SEED = 2 ** 63 - 1


def test_none_stands_for_the_default() -> None:
    run = plan(TINY, PROMPT, {"seed": 3})
    assert run == Run((PROMPT,), (3,), guidance_scale=7.5, steps=50)
    assert plan(TINY, PROMPT, dict.fromkeys(Settings.__annotations__) | {"seed": 3}) == run
    assert plan(TOYWORLD, PROMPT, {"seed": 3}) == Run((PROMPT,), (3,), guidance_scale=7.5, steps=25)
    assert plan(TINY, PROMPT, {}).seeds != plan(TINY, PROMPT, {}).seeds     # drawn at random


def test_one_picture_for_each_prompt_and_seed() -> None:
    for prompt, settings, prompts, seeds in [
            (PROMPT, {"seed": 5, "num_images": 3}, (PROMPT,) * 3, (5, 6, 7)),
            (PROMPT, {"seed": [9, 4], "num_images": 2}, (PROMPT,) * 2, (9, 4)),
            (["red", "blue"], {"seed": 5}, ("red", "blue"), (5, 6)),
            (["red", "blue"], {"seed": (7, 7)}, ("red", "blue"), (7, 7))]:
        run = plan(TINY, prompt, settings)
        assert (run.prompts, run.seeds) == (prompts, seeds)


def test_numbers_may_be_those_of_numpy_and_torch() -> None:
    for whole, number in ((np.int64, np.float32), (np.uint8, np.float64), (torch.tensor, float)):
        run = plan(TINY, PROMPT, {"steps": whole(6), "seed": whole(3), "eta": number(0.5)})
        assert run == plan(TINY, PROMPT, {"steps": 6, "seed": 3, "eta": 0.5})
        assert [type(value) for value in (run.steps, *run.seeds, run.eta)] == [int, int, float]


@pytest.mark.parametrize(("steps", "strength", "expected"), [
    (100, 0.29, 29), (50, None, 37), (20, 1, 20), (20, 0.049, 0), (10, 0.7, 7), (3, 1 / 3, 1)])
def test_floor_of_steps_times_strength_are_run(steps: int, strength, expected: int) -> None:
    """By default three quarters of them, and with a mask all."""
    run = plan(TINY, PROMPT, {"image": "x", "steps": steps, "strength": strength})
    assert run.steps_to_run == expected
    assert plan(TINY, PROMPT, {"image": "x", "mask": "y"}).strength == 1


WRONG_TYPES = [
    ({"prompt": None}, "a prompt must be text, got NoneType: None"),
    ({"prompt": ["a", 5]}, "a prompt must be text, got int: 5"),
    ({"negative_prompt": 5}, "a prompt must be text, got int: 5"),
    ({"seeds": 1}, "unknown setting 'seeds': choose from negative_prompt, guidance_scale, steps"),
    ({"steps": True}, "steps must be an integer, got True"),
    ({"steps": 5.0}, "steps must be an integer, got 5.0"),
    ({"guidance_scale": "7"}, "guidance_scale must be a number, got '7'"),
    ({"eta": False}, "eta must be a number, got False"),
    ({"width": "64"}, "width must be an integer, got '64'"),
    ({"seed": 1.5}, "seed must be an integer, got 1.5"),
    ({"seed": [1, True], "num_images": 2}, "seed must be an integer, got True")]
WRONG_VALUES = [
    ({"prompt": []}, "got 0 prompts, 0 seeds, 0 num_images: give as many of each"),
    ({"prompt": ["a", "b"], "seed": [1]}, "got 2 prompts, 1 seeds, 2 num_images"),
    ({"prompt": ["a", "b"], "num_images": 3}, "got 2 prompts, 2 seeds, 3 num_images"),
    ({"seed": [1, 2]}, "got 1 prompts, 2 seeds, 1 num_images"),
    ({"steps": 0}, "steps must be from 1 to 1000, got 0"),
    ({"guidance_scale": math.nan}, "guidance_scale must be finite, got nan"),
    ({"guidance_scale": -math.inf}, "guidance_scale must be finite, got -inf"),
    ({"eta": 1.5}, "eta must be from 0.0 to 1.0, got 1.5"),
    ({"height": 100}, "height must be a multiple of 8, got 100"),
    ({"width": 0}, "width must be from 1 to"),
    ({"seed": -1}, "seed must be from 0 to"),
    ({"seed": LAST_SEED, "num_images": 2}, f"seed must be from 0 to {LAST_SEED}, got {2 ** 63}"),
    ({"num_images": 0}, "num_images must be from 1 to"),
    ({"strength": 0.5}, "strength and mask say how to repaint a picture: give it as image"),
    ({"mask": "x"}, "strength and mask say how to repaint a picture: give it as image"),
    ({"image": "x", "strength": 1.2}, "strength must be from 0.0 to 1.0, got 1.2"),
    ({"image": "x", "strength": math.nan}, "strength must be from 0.0 to 1.0, got nan"),
    ({"image": "x", "latents": torch.zeros(1)}, "latents and an image both say where to start")]


@pytest.mark.parametrize(("kind", "settings", "text"), [
    *((TypeError, *row) for row in WRONG_TYPES), *((ValueError, *row) for row in WRONG_VALUES)])
def test_what_makes_no_sense_is_refused(kind: type[Exception], settings: dict, text: str) -> None:
    prompt = settings.get("prompt", PROMPT)
    with pytest.raises(kind) as error:
        plan(TINY, prompt, {key: settings[key] for key in settings if key != "prompt"})
    assert str(error.value).startswith(text)
