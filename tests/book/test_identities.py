"""What holds exactly, whatever the weights: identities of guidance, of batches and of runs."""

import pytest
import torch
from parity import relative_error
from torch import Tensor

from minisd.samplers import SAMPLERS, SampleStep

PROMPT = "a red car"
ROUNDING = 1e-5             # float32, in sums of another order
every_sampler = pytest.mark.parametrize("sampler", list(SAMPLERS))
every_start = pytest.mark.parametrize("start", ["noise", "picture", "mask"])


def run(sd, prompt=PROMPT, **settings) -> list[SampleStep]:
    return list(sd.steps(prompt, **{"steps": 5, "seed": 0} | settings))


def at(start: str, picture) -> dict[str, object]:
    """Settings of a run that starts from noise, from a picture, or from one with a mask."""
    return {"noise": {}, "picture": {"image": picture},
            "mask": {"image": picture, "mask": picture.convert("L")}}[start]


@pytest.mark.parametrize(("g", "kept", "skipped"), [(0, "eps_uncond", "eps_cond"),
                                                    (1, "eps_cond", "eps_uncond")])
@pytest.mark.parametrize("sampler", ["ddim", "plms", "heun"])
def test_at_0_and_1_half_the_work_gives_the_formulas_result(sd, g, kept, skipped, sampler):
    batches: list[int] = []
    settings = {"guidance_scale": g, "sampler": sampler, "negative_prompt": "blue fish",
                "num_images": 2}
    handle = sd.unet.register_forward_pre_hook(lambda net, args: batches.append(len(args[0])))
    short, evaluations = run(sd, **settings), len(batches)
    full = run(sd, both_predictions=True, **settings)
    handle.remove()
    assert batches == [2] * evaluations + [4] * evaluations
    for a, b in zip(short, full, strict=True):
        assert getattr(a, skipped) is None and torch.equal(getattr(a, kept), a.eps)
        formula = b.eps_uncond + g * (b.eps_cond - b.eps_uncond)
        assert relative_error(a.eps, formula) < ROUNDING
        assert relative_error(a.x_prev, b.x_prev) < ROUNDING
        assert relative_error(b.eps_cond, b.eps_uncond) > 0.001


@pytest.mark.parametrize("g", [0.0, 1.0, 3.0, -2.0])
def test_a_negative_prompt_equal_to_the_prompt_undoes_guidance(sd, g):
    """eps_n + g (eps_p - eps_n) = eps_p for every g where n = p."""
    undone = run(sd, negative_prompt=PROMPT, guidance_scale=g)
    assert relative_error(undone[-1].x_prev, run(sd, guidance_scale=1.0)[-1].x_prev) < ROUNDING


@every_sampler
@every_start
def test_prompts_and_seeds_together_are_what_each_is_alone(sd, picture, sampler, start):
    settings = {"sampler": sampler, "eta": 0.6, "negative_prompt": "a fish", **at(start, picture)}
    prompts, seeds = [PROMPT, "blue fish", PROMPT], [6, 6, 8]
    together = run(sd, prompts, seed=seeds, **settings)[-1].x_prev
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = run(sd, prompt, seed=seed, **settings)[-1].x_prev
        assert relative_error(together[i:i + 1], alone) < ROUNDING
    assert relative_error(together[:1], together[1:2]) > 1e-4       # other prompts
    assert relative_error(together[:1], together[2:]) > 0.1         # other seeds


@every_sampler
def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(sd, picture, sampler):
    """Whatever happens meanwhile: another run of the same model, draws of the global generator."""
    settings = {"sampler": sampler, "eta": 0.6, "seed": 4, "num_images": 2}
    whole, stopped = run(sd, **settings), sd.steps(PROMPT, steps=5, **settings)
    resumed = [next(stopped), next(stopped)]
    other = sd.steps("blue fish", steps=5, image=picture, **settings)
    for step in stopped:
        torch.randn(3)
        next(other, None)
        resumed.append(step)
    for a, b in zip(resumed, whole, strict=True):
        for name, value in vars(a).items():
            other = getattr(b, name)
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name
