"""The pipeline on a tiny model of random weights: batches, sizes, laziness, and bad input.

Identities of guidance, samplers and traces stand in test_identities.py.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import relative_error
from PIL import Image
from torch import Tensor

import minisd
from minisd import images
from minisd.checkpoints import weights as checkpoint
from minisd.config import TOYWORLD, V1
from minisd.diffusion import add_noise
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, SampleStep
from minisd.toyworld import train_tokenizer

PROMPT = "a red car"
KNOWN = frozenset({"a", "red", "car", "blue", "fish"})
BATCH_TOLERANCE = 1e-5      # float32 sums in another order for another batch size
LATENTS = (5, 6, 6)         # of a picture of TINY's size


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


def run(sd, prompt: str = PROMPT, *, steps: int = 5, seed: int | None = 0, **asked
        ) -> list[SampleStep]:
    return list(sd.steps(prompt, steps=steps, seed=seed, **asked))


def last(*args, **asked) -> Tensor:
    return run(*args, **asked)[-1].x_prev


def same(a: list[Image.Image], b: list[Image.Image]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# Seeds and batches

def test_one_seed_is_one_picture(sd):
    asked = {"steps": 5, "seed": 11}
    first = sd.text_to_image(PROMPT, **asked)
    assert [p.size for p in first] == [(48, 48)] and first[0].mode == "RGB"
    torch.randn(7)                                      # the global generator is not touched
    assert same(first, sd.text_to_image(PROMPT, **asked))
    assert not same(first, sd.text_to_image(PROMPT, **asked | {"seed": 12}))
    assert not same(first, sd.text_to_image("a blue fish", **asked))


def test_painting_leaves_the_global_generator_alone(sd, picture):
    before = torch.get_rng_state()
    sd.text_to_image(PROMPT, steps=5, seed=1, sampler="ddpm")
    sd.image_to_image(PROMPT, picture, steps=5, seed=1)
    sd.text_to_image(PROMPT, steps=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_pictures_differ(sd):
    first, second = (run(sd, seed=None)[0].x_t for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("sampler", "eta"), [
    ("ddim", 0.0), ("ddim", 0.7), *((name, 0.0) for name in SAMPLERS if name != "ddim")])
@pytest.mark.parametrize("start", ["noise", "picture", "mask"])
def test_picture_i_of_a_batch_is_the_picture_of_seed_plus_i(sd, picture, mask, sampler, eta, start):
    asked = {"sampler": sampler, "eta": eta, "image": None if start == "noise" else picture,
             "mask": mask if start == "mask" else None}
    together = last(sd, seed=5, num_images=3, **asked)
    assert together.shape[0] == 3
    for i in range(3):
        alone = last(sd, seed=5 + i, **asked)
        assert relative_error(together[i:i + 1], alone) < BATCH_TOLERANCE
    assert relative_error(together[:1], together[1:2]) > 0.1


def test_num_images_gives_as_many_pictures(sd, picture):
    assert len(sd.text_to_image(PROMPT, steps=5, seed=0, num_images=3)) == 3
    assert len(sd.image_to_image(PROMPT, picture, steps=5, seed=0, num_images=2)) == 2


# Guidance

@pytest.mark.parametrize("g", [-1.5, 0.5, 1.0 + 1e-9, 7.5])
def test_guidance_is_the_formula_at_every_scale(sd, unet_batches, g):
    for step in run(sd, guidance_scale=g):
        formula = step.eps_uncond + g * (step.eps_cond - step.eps_uncond)
        assert torch.equal(step.eps, formula)
    assert unet_batches == [2] * 5


def test_the_negative_prompt_takes_the_place_of_the_empty_one(sd):
    step = run(sd, negative_prompt="blue fish", guidance_scale=3.0)[0]
    alone = run(sd, "blue fish", guidance_scale=1.0)[0]
    assert relative_error(step.eps_uncond, alone.eps) < BATCH_TOLERANCE
    plain, empty = run(sd, guidance_scale=3.0)[0], run(sd, "", guidance_scale=1.0)[0]
    assert relative_error(plain.eps_uncond, empty.eps) < BATCH_TOLERANCE
    assert relative_error(plain.eps_cond, step.eps_cond) < BATCH_TOLERANCE


# Steps

def test_steps_are_lazy(sd, unet_batches):
    steps = sd.steps(PROMPT, steps=50, seed=0)
    assert unet_batches == []
    next(steps)
    next(steps)
    assert len(unet_batches) == 2
    steps.close()
    assert len(unet_batches) == 2


def test_steps_lead_from_noise_to_the_picture(sd):
    steps = run(sd, steps=7, seed=3)
    assert [s.index for s in steps] == list(range(7)) and {s.total for s in steps} == {7}
    assert torch.equal(steps[0].x_t[0], torch.randn(
        LATENTS, generator=torch.Generator().manual_seed(3)))
    for a, b in zip(steps, steps[1:], strict=False):
        assert torch.equal(a.x_prev, b.x_t)
    assert same(sd.decode(steps[-1].x_prev), sd.text_to_image(PROMPT, steps=7, seed=3))


def test_on_step_sees_every_step(sd, picture):
    seen: list[SampleStep] = []
    sd.text_to_image(PROMPT, steps=6, seed=0, on_step=seen.append)
    assert [s.index for s in seen] == list(range(6))
    seen.clear()
    sd.image_to_image(PROMPT, picture, steps=10, strength=0.5, seed=0, on_step=seen.append)
    assert len(seen) == 5


def test_nothing_asks_for_gradients_wherever_it_is_consumed(sd, picture):
    assert next(sd.parameters()).requires_grad is False
    sd.requires_grad_(True)
    try:
        with torch.enable_grad():
            steps = sd.steps(PROMPT, steps=5, seed=0,
                             latents=torch.randn(1, *LATENTS).requires_grad_())
            for step in steps:
                tensors = [value for value in vars(step).values() if isinstance(value, Tensor)]
                assert len(tensors) == 6 and not any(t.requires_grad for t in tensors)
                assert torch.is_grad_enabled()
            assert not sd.encode_prompt(PROMPT).requires_grad
            assert not sd.encode_image(picture).requires_grad
    finally:
        sd.requires_grad_(False)


def test_starting_noise_can_be_given(sd):
    noise = torch.randn((2, *LATENTS), generator=torch.Generator().manual_seed(9))
    step = run(sd, latents=noise, num_images=2, seed=0)[0]
    assert torch.equal(step.x_t, noise)
    assert torch.equal(last(sd, latents=noise[:1], seed=0), last(sd, latents=noise[:1], seed=1))
    own = torch.randn(1, *LATENTS, generator=torch.Generator().manual_seed(4))
    assert torch.equal(last(sd, latents=own.double()), last(sd, seed=4))


@pytest.mark.parametrize(("height", "width"), [(72, 40), (8, 8), (56, 48), (24, 88)])
def test_any_multiple_of_8_is_a_size(sd, height, width):
    assert sd.text_to_image(PROMPT, steps=5, seed=0, height=height, width=width)[0].size == (
        width, height)


# Stations

def test_encoding_and_decoding_are_the_scaled_networks(sd, picture):
    pixels = images.from_pil(picture)
    z = sd.vae.encode(pixels).mean
    assert relative_error(sd.encode_image(picture), 0.7 * z) < 1e-6
    assert torch.equal(sd.encode_image(pixels), sd.encode_image(picture))
    with pytest.raises(TypeError, match=r"numbers in \[-1, 1\], got torch.uint8: divide levels by"):
        sd.encode_image(torch.zeros_like(pixels, dtype=torch.uint8))
    assert same(sd.decode(0.7 * z), images.to_pil(sd.vae.decode(0.7 * z / 0.7)))
    context = sd.encode_prompt([PROMPT, "", "blue fish"])
    assert context.shape == (3, 13, 21)
    assert relative_error(context[:1], sd.encode_prompt(PROMPT)) < BATCH_TOLERANCE


def test_decoding_what_is_not_finite_is_refused(sd, monkeypatch):
    with pytest.raises(ValueError, match="the latents contain NaN or infinity"):
        sd.decode(torch.full((1, *LATENTS), math.nan))
    monkeypatch.setattr(sd.vae, "decode", lambda z: z / 0)
    with pytest.raises(FloatingPointError, match="in float32: the latents are far too large"):
        sd.decode(torch.ones(1, *LATENTS))


def test_latents_that_stop_being_finite_name_the_step(sd, monkeypatch):
    forward = sd.unet.forward

    def spoilt(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return forward(x, t, context) / (t.view(-1, 1, 1, 1) > 500)

    monkeypatch.setattr(sd.unet, "forward", spoilt)
    with pytest.raises(FloatingPointError, match=r"at step 3 of 5 \(t = 401\)"):
        sd.text_to_image(PROMPT, steps=5, seed=0)


def test_a_model_without_a_tokenizer_says_so(sd, monkeypatch):
    monkeypatch.setattr(sd, "tokenizer", None)
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        sd.encode_prompt(PROMPT)


# Image to image

def test_strength_0_returns_the_autoencoded_picture(sd, picture, unet_batches):
    painted = sd.image_to_image(PROMPT, picture, strength=0, seed=3, steps=20)
    latents = sd.encode_image(picture, generator=torch.Generator().manual_seed(3))
    assert same(painted, sd.decode(latents)) and unet_batches == []
    assert run(sd, image=picture, strength=0) == []


@pytest.mark.parametrize(("steps", "strength", "expected"), [
    (100, 0.29, 29), (50, 0.75, 37), (20, 1, 20), (20, 0.049, 0), (10, 0.7, 7), (3, 1 / 3, 1)])
def test_floor_of_steps_times_strength_are_run(sd, picture, steps, strength, expected):
    # One look suffices: every step knows how many there are.
    first = next(sd.steps(PROMPT, steps=steps, image=picture, strength=strength, seed=0), None)
    assert (first.total if first else 0) == expected


def test_the_picture_is_noised_to_the_first_step_that_is_run(sd, picture):
    first = next(sd.steps(PROMPT, steps=10, image=picture, strength=0.7, seed=3))
    g = torch.Generator().manual_seed(3)
    latents = sd.encode_image(picture, generator=g)             # the posterior is drawn first
    noise = torch.randn(latents.shape[1:], generator=g)
    alpha_bar = sd.schedule.at(601)                             # of 901, 801, ..., 1 the last 7
    assert first.t == 601
    expected = alpha_bar ** 0.5 * latents + (1 - alpha_bar) ** 0.5 * noise
    assert relative_error(first.x_t, expected) < 1e-6


@pytest.mark.parametrize(("size", "asked", "expected"), [
    ((72, 40), {}, (72, 40)), ((50, 30), {}, (48, 24)), ((5, 3), {}, (8, 8)),
    ((480, 240), {}, (96, 48)), ((72, 40), {"height": 16, "width": 24}, (24, 16)),
    ((72, 40), {"height": 16}, (72, 16)), ((72, 40), {"width": 16}, (16, 40))])
def test_pictures_keep_their_size_as_far_as_that_is_sane(sd, size, asked, expected):
    painted = sd.image_to_image(PROMPT, Image.new("RGBA", size, "red"), steps=5, strength=0.2,
                                seed=0, **asked)
    assert painted[0].size == expected


def test_a_picture_can_be_a_path(sd, picture, tmp_path):
    picture.save(tmp_path / "in.png")
    asked = {"strength": 0.4, "steps": 5, "seed": 0}
    assert same(sd.image_to_image(PROMPT, tmp_path / "in.png", **asked),
                sd.image_to_image(PROMPT, picture, **asked))


# Inpainting

def cells(mask: np.ndarray) -> Tensor:
    """The latent cells with a white pixel in them, (h / 8, w / 8)."""
    return torch.from_numpy(mask.reshape(5, 8, 9, 8).any((1, 3)))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_outside_the_mask_every_step_ends_at_the_noised_picture(sd, picture, mask, sampler,
                                                                strength):
    steps = run(sd, image=picture, mask=mask, strength=strength, sampler=sampler, steps=8, seed=3)
    assert len(steps) == 8 * strength
    g = torch.Generator().manual_seed(3)
    original = sd.encode_image(picture, generator=g)
    noise = torch.randn(original.shape[1:], generator=g)
    free = cells(mask)
    states = [steps[0].x_t, *(step.x_prev for step in steps)]
    levels = [*(sd.schedule.at(step.t) for step in steps), 1.0]
    for i, (latents, level) in enumerate(zip(states, levels, strict=True)):
        expected = add_noise(original, noise, level)
        assert torch.equal(latents[..., ~free], expected[..., ~free])
        if i > 0 or strength == 1:
            assert relative_error(latents[..., free], expected[..., free]) > 0.01
    painted = sd.inpaint(PROMPT, picture, mask, strength=strength, sampler=sampler, steps=8, seed=3)
    assert same(painted, sd.decode(steps[-1].x_prev))


def test_a_black_mask_keeps_all_and_a_white_one_nothing(sd, picture):
    black, white = np.zeros((40, 72), bool), np.ones((40, 72), bool)
    latents = sd.encode_image(picture, generator=torch.Generator().manual_seed(3))
    asked = {"steps": 5, "seed": 3}
    assert same(sd.inpaint(PROMPT, picture, black, **asked), sd.decode(latents))
    assert same(sd.inpaint(PROMPT, picture, black, paste=True, **asked), [picture])
    assert same(sd.inpaint(PROMPT, picture, white, strength=0.6, **asked),
                sd.image_to_image(PROMPT, picture, strength=0.6, **asked))
    # At strength 1 nothing of the picture is left in the start.
    g = torch.Generator().manual_seed(3)
    sd.encode_image(picture, generator=g)
    start = next(sd.steps(PROMPT, image=picture, mask=white, **asked)).x_t
    assert torch.equal(start[0], torch.randn(start.shape[1:], generator=g))


def test_pasting_gives_the_unmasked_pixels_back_exactly(sd, picture, mask):
    asked = {"steps": 5, "seed": 3, "num_images": 2}
    plain = sd.inpaint(PROMPT, picture, mask, **asked)
    pasted = sd.inpaint(PROMPT, picture, mask, paste=True, **asked)
    for a, b in zip(plain, pasted, strict=True):
        assert np.array_equal(np.asarray(b)[~mask], np.asarray(picture)[~mask])
        assert np.array_equal(np.asarray(b)[mask], np.asarray(a)[mask])
        assert not np.array_equal(np.asarray(a)[~mask], np.asarray(picture)[~mask])


def test_steps_repaint_by_default_as_strongly_as_the_methods_do(sd, picture, mask):
    assert len(run(sd, image=picture, steps=8)) == 6
    assert len(run(sd, image=picture, mask=mask, steps=8)) == 8
    assert len(run(sd, image=picture, mask=mask, steps=8, strength=0.75)) == 6
    untouched = sd.decode(sd.encode_image(picture, generator=torch.Generator().manual_seed(3)))
    assert same(sd.inpaint(PROMPT, picture, mask, strength=0, seed=3), untouched)


def test_a_mask_that_would_hide_broken_latents_does_not(sd, picture, monkeypatch):
    monkeypatch.setattr(sd.unet, "forward", lambda x, t, context: x * math.nan)
    with pytest.raises(FloatingPointError, match="at step 1 of 5"):
        sd.inpaint(PROMPT, picture, np.zeros((40, 72), bool), steps=5, seed=0)


@pytest.mark.parametrize(("image", "mask", "kind", "text"), [
    (True, None, TypeError, "inpaint takes a picture and a mask, got None"),
    (False, True, TypeError, "inpaint takes a picture and a mask, got None"),
    (True, 5, TypeError, "expected a PIL picture, a path or a uint8 array, got int"),
    (True, "nowhere.png", FileNotFoundError, "no picture at 'nowhere.png'"),
    (True, np.zeros((72, 40), bool), ValueError, "the mask is 40 x 72 pixels and the picture 72")])
def test_bad_masks_are_refused_at_once(sd, picture, unet_batches, image, mask, kind, text):
    with pytest.raises(kind) as error:
        sd.inpaint(PROMPT, picture if image else None, mask, seed=0)
    assert text in str(error.value) and unet_batches == []


def test_a_mask_needs_a_picture(sd, mask):
    with pytest.raises(ValueError, match="give the picture as image"):
        sd.steps(PROMPT, mask=mask)
    with pytest.raises(TypeError, match="image_to_image takes a picture, got None"):
        sd.image_to_image(PROMPT, None)


def test_numbers_may_be_those_of_numpy(sd):
    for scale in (np.int64(3), np.float32(3), 3):
        assert next(sd.steps(PROMPT, seed=1, steps=6, guidance_scale=scale, eta=np.float32(0)))
    asked = {"steps": 6, "seed": 3, "num_images": 1, "height": 16, "width": 24}
    plain, = sd.text_to_image(PROMPT, **asked)
    counted, = sd.text_to_image(PROMPT, **{k: np.int64(v) for k, v in asked.items()})
    assert counted.tobytes() == plain.tobytes()
    trace = sd.trace(PROMPT, **{k: np.int32(v) for k, v in asked.items() if k != "num_images"})
    assert all(type(trace.about[name]) is int for name in ("steps", "seed", "height", "width"))


# Bad input, refused before any work

BAD = [
    ({"steps": 0}, ValueError, "steps must be from 1 to 999 for ddim, got 0"),
    ({"steps": -1}, ValueError, "steps must be from 1 to 999 for ddim, got -1"),
    ({"steps": 1000}, ValueError, "steps must be from 1 to 999 for ddim, got 1000"),
    ({"steps": 1001, "sampler": "ddpm"}, ValueError, "steps must be from 1 to 1000 for ddpm"),
    ({"steps": True}, TypeError, "steps must be a whole number, got True"),
    ({"steps": "5"}, TypeError, "steps must be a whole number, got '5'"),
    ({"steps": 5.0}, TypeError, "steps must be a whole number, got 5.0"),
    ({"guidance_scale": math.nan}, ValueError, "guidance_scale must be finite, got nan"),
    ({"guidance_scale": math.inf}, ValueError, "guidance_scale must be finite, got inf"),
    ({"guidance_scale": "7"}, TypeError, "guidance_scale must be a number, got '7'"),
    ({"guidance_scale": True}, TypeError, "guidance_scale must be a number, got True"),
    ({"eta": 1.5}, ValueError, "eta must be from 0 to 1, got 1.5"),
    ({"height": 100}, ValueError, "height must be a multiple of 8, got 100: take 96 or 104"),
    ({"width": 0}, ValueError, "width must be at least 8, got 0"),
    ({"height": -8}, ValueError, "height must be at least 8, got -8"),
    ({"width": "64"}, TypeError, "width must be a whole number, got '64'"),
    ({"height": 64.0}, TypeError, "height must be a whole number, got 64.0"),
    ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
    ({"seed": np.float64(2)}, TypeError, "seed must be a whole number, got np.float64(2.0)"),
    ({"seed": -1}, ValueError, "seed must be from 0 to"),
    ({"seed": 2 ** 63}, ValueError, "seed must be from 0 to"),
    ({"num_images": 0}, ValueError, "num_images must be at least 1, got 0"),
    ({"prompt": None}, TypeError, "prompt must be text, got NoneType: None"),
    ({"prompt": 123}, TypeError, "prompt must be text, got int: 123"),
    ({"prompt": ["a", "b"]}, TypeError, "prompt must be text, got list"),
    ({"negative_prompt": None}, TypeError, "negative_prompt must be text, got NoneType: None"),
    ({"sampler": "euler_b"}, ValueError, "unknown sampler 'euler_b': choose one of ddpm, ddim"),
]
BAD_LATENTS = [
    ({"latents": torch.zeros(1, 5, 6, 7)}, ValueError,
     r"latents have shape (1, 5, 6, 7), expected (1, 5, 6, 6)"),
    ({"latents": torch.zeros(2, *LATENTS)}, ValueError, r"expected (1, 5, 6, 6)"),
    ({"latents": [0.0]}, TypeError, "latents must be a tensor of shape (1, 5, 6, 6), got list"),
    ({"latents": torch.full((1, *LATENTS), math.nan)}, ValueError, "latents contain NaN"),
]


@pytest.mark.parametrize(("asked", "kind", "text"), BAD + BAD_LATENTS)
@pytest.mark.parametrize("method", ["text_to_image", "steps"])
def test_bad_input_is_refused_at_once(sd, unet_batches, method, asked, kind, text):
    with pytest.raises(kind) as error:
        getattr(sd, method)(**{"prompt": PROMPT, "seed": 0} | asked)
    assert text in str(error.value) and unet_batches == []


@pytest.mark.parametrize(("asked", "kind", "text"), [*BAD,
    ({"strength": 1.2}, ValueError, "strength must be from 0 to 1, got 1.2"),
    ({"strength": -0.1}, ValueError, "strength must be from 0 to 1, got -0.1"),
    ({"strength": math.nan}, ValueError, "strength must be from 0 to 1, got nan"),
    ({"strength": "1"}, TypeError, "strength must be a number, got '1'"),
    ({"image": 5}, TypeError, "expected a PIL picture, a path or a uint8 array, got int"),
    ({"image": "nowhere.png"}, FileNotFoundError, "no picture at 'nowhere.png'")])
def test_bad_input_with_a_picture_is_refused_at_once(sd, picture, unet_batches, asked, kind, text):
    with pytest.raises(kind) as error:
        sd.image_to_image(**{"prompt": PROMPT, "image": picture, "seed": 0} | asked)
    assert text in str(error.value) and unet_batches == []


def test_two_places_to_start_from_are_refused(sd, picture):
    with pytest.raises(ValueError, match="latents and an image both say where to start"):
        sd.steps(PROMPT, image=picture, latents=torch.zeros(1, *LATENTS))


# Warnings, each at the caller's own line

def test_few_steps_warn_where_they_were_asked_for(sd, picture):
    with pytest.warns(UserWarning, match="3 steps of ddim begin at t = 667, where") as caught:
        sd.text_to_image(PROMPT, steps=3, seed=0)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="1 steps of ddpm begin at t = 0,") as caught:
        sd.steps(PROMPT, steps=1, seed=0, sampler="ddpm")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sd.text_to_image(PROMPT, steps=5, seed=0)
        sd.image_to_image(PROMPT, picture, steps=3, seed=0)     # starts from a picture anyway


@pytest.mark.parametrize(("steps", "first", "better"), [(334, 667, 500), (400, 799, 500),
                                                        (501, 501, 999), (600, 600, 999)])
def test_many_steps_of_uneven_spacing_warn_and_name_a_better_number(sd, steps, first, better):
    with pytest.warns(UserWarning, match=rf"begin at t = {first}, .*: take {better} steps$"):
        sd.steps(PROMPT, steps=steps, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sd.steps(PROMPT, steps=better, seed=0)
        sd.steps(PROMPT, steps=steps, seed=0, sampler="euler")


def test_strength_without_a_picture_is_refused(sd):
    for run in (sd.steps, sd.trace):
        with pytest.raises(ValueError, match="strength says how much of a picture to repaint"):
            run(PROMPT, strength=0.2)


@pytest.mark.parametrize("method", ["text_to_image", "steps", "encode_prompt"])
def test_words_that_the_model_never_saw_are_named(sd, method):
    asked = {} if method == "encode_prompt" else {"steps": 5, "seed": 0}
    with pytest.warns(UserWarning, match="tiny never saw 'zebra', 'pink': it can only") as caught:
        list(getattr(sd, method)("zebra a pink", **asked))
    assert [w.filename for w in caught] == [__file__]


def test_words_that_do_not_fit_are_named(sd):
    with pytest.warns(UserWarning, match="longer than 11 tokens; dropped: 'car'") as caught:
        sd.text_to_image("red " * 11 + "car", steps=5, seed=0)
    assert [w.filename for w in caught] == [__file__]


# Loading

@pytest.fixture
def folder(sd, tmp_path) -> Path:
    checkpoint.write_config(tmp_path, sd.config)
    train_tokenizer.save(tmp_path / "tokenizer", [("r", "e"), ("re", "d</w>")], KNOWN)
    for part in checkpoint.PARTS:
        checkpoint.save(sd.get_submodule(part), tmp_path / f"{part}.safetensors")
    return tmp_path


@pytest.mark.parametrize(("name", "dtype", "tolerance"), [
    ("float32", torch.float32, 1e-2),       # float16 on disk
    ("bfloat16", torch.bfloat16, 0.1), ("float16", torch.float16, 2e-2),
    (torch.float32, torch.float32, 1e-2)])
def test_a_folder_loads_in_each_dtype(sd, folder, name, dtype, tolerance):
    loaded = minisd.load(folder, device="cpu", dtype=name)
    assert loaded.dtype == dtype and {p.dtype for p in loaded.parameters()} == {dtype}
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert loaded.config == sd.config and loaded.tokenizer.known_words == KNOWN
    latents = last(loaded, guidance_scale=2.0)
    assert latents.dtype == torch.float32
    assert relative_error(latents, last(sd, guidance_scale=2.0)) < tolerance
    assert loaded.text_to_image(PROMPT, steps=5, seed=0)[0].size == (48, 48)


def test_the_fingerprint_is_that_of_the_weights_as_they_are_now(folder):
    loaded = minisd.load(folder, device="cpu", dtype="float32")
    before = loaded.fingerprint
    loaded.unet.conv_in.weight.mul_(2)
    assert loaded.fingerprint not in (before, "")


def test_all_dtypes_have_one_fingerprint(folder):
    assert len({minisd.load(folder, device="cpu", dtype=name).fingerprint
                for name in ("float32", "bfloat16", "float16")}) == 1


def test_auto_is_what_the_environment_names(folder, monkeypatch):
    monkeypatch.setenv("MINISD_MODEL", str(folder))
    assert minisd.load(device="cpu", dtype="float32").config.name == "tiny"
    monkeypatch.setenv("MINISD_MODEL", "no-such-model")
    with pytest.raises(ValueError, match="unknown model 'no-such-model': expected"):
        minisd.load()


@pytest.mark.parametrize(("asked", "text"), [
    ({"model": "v9"}, "unknown model 'v9': expected "),
    ({"device": "tpu"}, "device 'tpu' is not at hand ("),
    ({"device": None}, "device None is not at hand ("),
    ({"device": "cuda:99"}, "device 'cuda:99' is not at hand ("),
    ({"dtype": "int8"}, "dtype must be 'auto' or one of float32, bfloat16, float16, got 'int8'"),
    ({"dtype": torch.float64}, "dtype must be one of float32, bfloat16, float16, got torch.f")])
def test_what_cannot_be_loaded_is_named(folder, asked, text):
    with pytest.raises(ValueError) as error:
        minisd.load(**{"model": folder, "device": "cpu"} | asked)
    assert text in str(error.value)


@pytest.mark.parametrize("missing", ["config.json", "unet.safetensors", "tokenizer/vocab.json"])
def test_a_folder_that_lacks_a_file_names_it(folder, missing):
    (folder / missing).unlink()
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        minisd.load(folder, device="cpu")
    assert Path(missing).name in str(error.value)


# The real size

def test_v1_has_exactly_its_parameters_and_takes_no_memory():
    with torch.device("meta"):
        sd = StableDiffusion(V1)
    counts = {name: sum(p.numel() for p in sd.get_submodule(name).parameters())
              for name in checkpoint.PARTS}
    assert counts == {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863}
    assert sum(p.numel() for p in sd.parameters()) == 1_066_235_307
    assert all(tensor.is_meta for tensor in sd.state_dict(keep_vars=True).values())
    assert sd.schedule.alpha_bar.device.type == "cpu"


# The model that ships

SHIPPED = Path(minisd.__file__).parents[1] / "weights" / "toyworld"


def test_the_shipped_model_is_the_preset():
    assert checkpoint.read_config(SHIPPED) == TOYWORLD


def test_the_shipped_files_are_small():
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*.safetensors")) < 40e6


def test_the_shipped_model_paints_the_background_it_is_told():
    """The least that training must have brought: sand is yellow, the sea is blue, night is dark."""
    sd = minisd.load("toyworld", device="cpu")
    means = {}
    for place in ("on the sand", "at sea", "at night", "on a white background"):
        picture, = sd.text_to_image(f"a red car {place}", seed=0, steps=20, guidance_scale=5)
        corners = np.asarray(picture, float)[[0, 0, -1, -1], [0, -1, 0, -1]]
        means[place] = corners.mean(0)
    red, _, blue = means["on the sand"]
    assert red > blue + 20
    red, _, blue = means["at sea"]
    assert blue > red + 40
    assert means["at night"].mean() < 100 < 190 < means["on a white background"].mean()


def test_the_towers_of_the_shipped_clip_find_the_caption_of_a_picture():
    from minisd.checkpoints.load import load_clip
    from minisd.toyworld import data
    from minisd.toyworld.captions import full_caption

    sd = minisd.load("toyworld", device="cpu", dtype="float32")
    clip = load_clip(sd)
    scenes = [data.scene(i, split=data.UNSEEN) for i in range(40)]
    pictures = data.to_tensor(data.pictures(range(40), size=128, split=data.UNSEEN))
    with torch.no_grad():
        similarity = clip.embed_images(pictures) @ clip.embed_text(
            sd.tokenizer([full_caption(scene) for scene in scenes])).T
    found = (similarity.argmax(1) == torch.arange(40)).float().mean()
    assert found > 0.6                          # by chance 1 in 40
