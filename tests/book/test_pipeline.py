"""The pipeline on a tiny model: identities of guidance and runs, pictures, masks, bad input."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from parity import relative_error
from PIL import Image
from torch import Tensor

from minisd import images, pipeline
from minisd.diffusion import add_noise
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, SampleStep

PROMPT = "a red car"
ROUNDING = 1e-5             # float32 sums in another order for another batch size
LATENTS = (5, 6, 6)         # of a picture of TINY's size
every_sampler = pytest.mark.parametrize("sampler", list(SAMPLERS))


@pytest.fixture
def unet_batches(sd) -> Iterator[list[int]]:
    """The batch size of every evaluation of the UNet."""
    seen: list[int] = []
    handle = sd.unet.register_forward_pre_hook(lambda net, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


@pytest.fixture
def mask() -> np.ndarray:
    """For `picture`: white over three by three cells, and over one pixel of the last cell."""
    drawn = np.zeros((40, 72), bool)
    drawn[:24, 24:48] = drawn[39, 71] = True
    return drawn


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def run(sd, prompt=PROMPT, **settings) -> list[SampleStep]:
    return list(sd.steps(prompt, **{"steps": 5, "seed": 0} | settings))


def same(a: list[Image.Image], b: list[Image.Image]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Guidance

@pytest.mark.parametrize("g", [-1.5, 0.5, 1.0 + 1e-9, 7.5])
def test_guidance_is_the_formula_at_every_scale(sd, unet_batches, g):
    for step in run(sd, guidance_scale=g):
        assert torch.equal(step.eps, step.eps_uncond + g * (step.eps_cond - step.eps_uncond))
    assert unet_batches == [2] * 5


@pytest.mark.parametrize(("g", "kept", "skipped"), [
    (0, "eps_uncond", "eps_cond"), (1, "eps_cond", "eps_uncond")])
@pytest.mark.parametrize("sampler", ["ddim", "plms", "heun"])
def test_at_0_and_1_half_the_work_is_enough(sd, unet_batches, g, kept, skipped, sampler):
    settings = {"guidance_scale": g, "sampler": sampler, "num_images": 2}
    short, evaluations = run(sd, **settings), len(unet_batches)
    full = run(sd, both_predictions=True, **settings)
    assert unet_batches == [2] * evaluations + [4] * evaluations
    for a, b in zip(short, full, strict=True):
        assert getattr(a, skipped) is None and torch.equal(getattr(a, kept), a.eps)
        assert relative_error(a.eps, getattr(b, kept)) < ROUNDING
        assert relative_error(a.x_prev, b.x_prev) < ROUNDING
        assert relative_error(b.eps_cond, b.eps_uncond) > 0.001


# Runs

@pytest.mark.parametrize(("sampler", "start"), [
    *((sampler, "noise") for sampler in SAMPLERS),
    ("ddim", "picture"), ("ddpm", "picture"), ("euler_a", "mask"), ("heun", "mask")])
def test_prompts_and_seeds_together_are_what_each_is_alone(sd, picture, mask, sampler, start):
    settings = {"sampler": sampler, "eta": 0.6, "image": None if start == "noise" else picture,
                "mask": mask if start == "mask" else None}
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
    settings = {"steps": 5, "sampler": sampler, "eta": 0.6, "seed": 4, "num_images": 2}
    whole, stopped = run(sd, **settings), sd.steps(PROMPT, **settings)
    resumed, other = [next(stopped)], sd.steps("blue fish", image=picture, **settings)
    for step in stopped:
        torch.randn(3)
        next(other, None)
        resumed.append(step)
    for a, b in zip(resumed, whole, strict=True):
        for name, value in vars(a).items():
            other = getattr(b, name)
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name


def test_one_seed_is_one_picture(sd, picture):
    """And the global generator and the default dtype are nobody's business."""
    before, settings = torch.get_rng_state(), {"steps": 5, "seed": 11, "sampler": "ddpm"}
    first = sd.text_to_image(PROMPT, **settings)
    repainted = sd.image_to_image(PROMPT, picture, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert [p.size for p in first] == [(48, 48)] and first[0].mode == "RGB"
    torch.randn(7)
    torch.set_default_dtype(torch.float64)
    try:
        assert same(first, sd.text_to_image(PROMPT, **settings))
        assert same(repainted, sd.image_to_image(PROMPT, picture, **settings))
    finally:
        torch.set_default_dtype(torch.float32)
    assert not same(first, sd.text_to_image(PROMPT, **settings | {"seed": 12}))
    assert not same(first, sd.text_to_image("a blue fish", **settings))


def test_steps_lead_lazily_from_noise_to_the_picture(sd, picture, unet_batches):
    steps, seen = sd.steps(PROMPT, steps=7, seed=3), []
    assert unet_batches == []
    first = next(steps)
    assert unet_batches == [2]
    assert torch.equal(first.x_t[0], torch.randn(LATENTS, generator=seeded(3)))
    steps = [first, *steps]
    assert all(torch.equal(a.x_prev, b.x_t) for a, b in zip(steps, steps[1:], strict=False))
    painted = sd.text_to_image(PROMPT, steps=7, seed=3, on_step=seen.append)
    assert same(sd.decode(steps[-1].x_prev), painted)
    sd.image_to_image(PROMPT, picture, steps=10, strength=0.5, seed=0, on_step=seen.append)
    assert [s.index for s in seen] == [*range(7), *range(5)]


def test_starting_noise_and_size_can_be_given(sd):
    noise = torch.randn(1, *LATENTS, generator=seeded(4))
    own = run(sd, seed=4)
    for given in (noise, noise.double(), noise.numpy(), noise.clone().requires_grad_()):
        steps = run(sd, latents=given)
        assert torch.equal(steps[-1].x_prev, own[-1].x_prev) and not steps[0].x_t.requires_grad
    for height, width in ((72, 40), (8, 8), (24, 88)):
        painted, = sd.text_to_image(PROMPT, steps=5, seed=0, height=height, width=width)
        assert painted.size == (width, height)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_latents_stay_in_float32_whatever_the_networks_compute_in(sd, picture, dtype):
    """And without gradients, though the weights want them."""
    half = StableDiffusion(sd.config, sd.tokenizer)
    half.load_state_dict(sd.state_dict())
    half.to(dtype)
    for step in half.steps(PROMPT, steps=5, image=picture):
        tensors = [value for value in vars(step).values() if isinstance(value, Tensor)]
        assert [(t.dtype, t.requires_grad) for t in tensors] == [(torch.float32, False)] * 6
    context = half.encode_prompt(PROMPT)
    assert context.dtype == half.dtype == dtype and not context.requires_grad
    assert not half.encode_image(picture).requires_grad
    assert half.decode(step.x_prev)[0].size == picture.size


def test_encoding_and_decoding_are_the_scaled_networks(sd, picture, monkeypatch):
    pixels = images.from_pil(picture)
    z = sd.vae.encode(pixels).mean
    assert relative_error(sd.encode_image(picture), 0.7 * z) < 1e-6
    assert torch.equal(sd.encode_image(pixels), sd.encode_image(picture))
    assert same(sd.decode(0.7 * z), images.to_pil(sd.vae.decode(0.7 * z / 0.7)))
    together = sd.decode(torch.cat([z, -z, z]))
    monkeypatch.setattr(pipeline, "DECODED_AT_ONCE", 1)     # one after the other, as large ones are
    for a, b in zip(sd.decode(torch.cat([z, -z, z])), together, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


# Image to image

def test_strength_0_returns_the_autoencoded_picture(sd, picture, unet_batches):
    painted = sd.image_to_image(PROMPT, picture, strength=0, seed=3, steps=20)
    latents = sd.encode_image(picture, generator=seeded(3))
    assert same(painted, sd.decode(latents)) and unet_batches == []
    assert run(sd, image=picture, strength=0) == []


# Inpainting

@every_sampler
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_outside_the_mask_is_the_noised_picture(sd, picture, mask, sampler, strength):
    """After every step. A cell is repainted if any of its pixels is white."""
    settings = {"strength": strength, "sampler": sampler, "steps": 6, "seed": 3}
    steps = run(sd, image=picture, mask=mask, **settings)
    assert len(steps) == 6 * strength
    g = seeded(3)
    original = sd.encode_image(picture, generator=g)
    noise = torch.randn(original.shape[1:], generator=g)
    free = torch.from_numpy(mask.reshape(5, 8, 9, 8).any((1, 3)))
    states = [steps[0].x_t, *(step.x_prev for step in steps)]
    levels = [*(sd.schedule.at(step.t) for step in steps), 1.0]
    for i, (latents, level) in enumerate(zip(states, levels, strict=True)):
        expected = add_noise(original, noise, level)
        assert torch.equal(latents[..., ~free], expected[..., ~free])
        if i > 0 or strength == 1:
            assert (latents != expected).any(1)[..., free].all()
    assert same(sd.inpaint(PROMPT, picture, mask, **settings), sd.decode(steps[-1].x_prev))


@pytest.mark.filterwarnings("ignore:the mask repaints")
def test_a_black_mask_keeps_all_and_a_white_one_nothing(sd, picture):
    black, white = np.zeros((40, 72), bool), np.ones((40, 72), bool)
    settings, g = {"steps": 5, "seed": 3}, seeded(3)
    latents = sd.encode_image(picture, generator=g)
    assert same(sd.inpaint(PROMPT, picture, black, **settings), sd.decode(latents))
    assert same(sd.inpaint(PROMPT, picture, white, strength=0.6, **settings),
                sd.image_to_image(PROMPT, picture, strength=0.6, **settings))
    # At strength 1 nothing of the picture is left in the start.
    start = next(sd.steps(PROMPT, image=picture, mask=white, **settings)).x_t
    assert torch.equal(start[0], torch.randn(start.shape[1:], generator=g))


# What is refused, before any work; warnings, each at the caller's own line

@pytest.mark.parametrize(("settings", "kind", "text"), [
    ({"steps": 1000}, ValueError, "steps must be from 1 to 999 for ddim, got 1000"),
    ({"sampler": "euler_b"}, ValueError, "unknown sampler 'euler_b': choose one of ddim, ddpm"),
    ({"eta": 2}, ValueError, "eta must be from 0.0 to 1.0, got 2"),
    ({"latents": torch.zeros(2, *LATENTS)}, ValueError, "latents of shape (2, 5, 6, 6), expected"),
    ({"latents": torch.full((1, *LATENTS), math.nan)}, ValueError, "latents of shape (1, 5, 6, 6)"),
    ({"latents": [0.0]}, ValueError, "latents of shape (1,), expected finite ones of (1, 5, 6, 6)"),
    ({"image": 5}, TypeError, "expected a PIL picture"),
    ({"image": torch.zeros(3, 8, 8)}, ValueError, "expected pictures (b, 3, h, w)"),
    ({"image": torch.zeros(1, 3, 8, 8), "mask": 5}, TypeError, "expected a PIL picture")])
@pytest.mark.parametrize("method", ["text_to_image", "steps", "trace"])
def test_bad_input_is_refused_at_once(sd, unet_batches, method, settings, kind, text):
    with pytest.raises(kind) as error:
        getattr(sd, method)(PROMPT, **settings)
    assert str(error.value).startswith(text) and unet_batches == []


def test_what_is_missing_is_named(tiny, sd, picture):
    with pytest.raises(TypeError, match="inpaint takes a picture and a mask, got None"):
        sd.inpaint(PROMPT, picture, None)
    with pytest.raises(TypeError, match="image_to_image takes a picture, got None"):
        sd.image_to_image(PROMPT, None)
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        StableDiffusion(tiny).text_to_image(PROMPT)


@pytest.mark.filterwarnings("ignore:the mask repaints")
def test_what_is_not_finite_is_named(sd, picture, monkeypatch):
    """Also under a mask that would hide it."""
    with pytest.raises(FloatingPointError, match="the latents hold NaN or are far too large"):
        sd.decode(torch.full((1, *LATENTS), math.nan))
    monkeypatch.setattr(sd.unet, "forward",
                        lambda x, t, context: x / (t.view(-1, 1, 1, 1) > 500))
    for settings in ({}, {"image": picture, "mask": np.zeros((40, 72), bool)}):
        with pytest.raises(FloatingPointError, match=r"at step 3 of 5 \(t = 401\)"):
            sd.text_to_image(PROMPT, steps=5, seed=0, **settings)


@pytest.mark.parametrize(("prompt", "settings", "text"), [
    (PROMPT, {"steps": 3}, "3 steps of ddim begin at t = 667, where"),
    (PROMPT, {"steps": 1, "sampler": "ddpm"}, "1 steps of ddpm begin at t = 0, where"),
    (PROMPT, {"steps": 600}, "600 steps of ddim begin at t = 600, .* a number that divides 1000"),
    ("red " * 11 + "car", {"steps": 5}, "longer than 11 tokens; dropped 3 characters: 'car'")])
def test_warnings_name_the_line_that_asked(sd, prompt, settings, text):
    with pytest.warns(UserWarning, match=text) as caught:
        sd.steps(prompt, seed=0, **settings)
    assert [w.filename for w in caught] == [__file__]


def test_ordinary_runs_do_not_warn(sd, picture):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings in ({"steps": 5}, {"steps": 999}, {"steps": 600, "sampler": "euler"},
                         {"steps": 3, "image": picture}):   # which starts from a picture anyway
            sd.steps(PROMPT, **settings)
