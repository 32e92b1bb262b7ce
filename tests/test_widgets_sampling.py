"""The guidance explorer, the guided pixel and the sampler microscope on a tiny random model."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion, Tokenizer
from minisd.checkpoints.load import WEIGHTS
from minisd.diffusion import guide
from minisd.samplers import SAMPLERS
from minisd.tokenizer import warn
from minisd.widgets import (
    examples,
    guidance,
    guidance_explorer,
    guided_pixel,
    microscope,
    sampler_microscope,
)
from minisd.widgets.cells import MOST, Cells
from minisd.widgets.maps import LABEL_HIGH, Panel, largest, sheet, signed_picture
from minisd.widgets.pictures import VIEW
from minisd.widgets.recorded import Recorded

SOON = 300.0        # seconds for what takes milliseconds when the machine is free


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    from conftest import TINY
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_folder(WEIGHTS / "toyworld" / "tokenizer", max_length=13)
    config = replace(TINY, name="toyworld",
                     text=replace(TINY.text, vocab_size=len(tokenizer.vocab)))
    return StableDiffusion(config, tokenizer).eval()


@contextmanager
def ready(widget) -> Iterator:
    assert widget.engine.wait(SOON)
    try:
        yield widget
    finally:
        widget.view.close()


def turn(widget, **knobs: object) -> str:
    """Turn the knobs, wait, and read the text below the picture."""
    for name, value in knobs.items():
        widget.knobs[name].value = value
    assert widget.engine.wait(SOON)
    assert widget.engine.error is None, widget.engine.error
    return widget.seen.text


@contextmanager
def counted(sd: StableDiffusion) -> Iterator[list[int]]:
    """How many predictions each call of the UNet makes, inside the `with`."""
    calls: list[int] = []
    hook = sd.unet.register_forward_hook(lambda net, inputs, eps: calls.append(len(eps)))
    try:
        yield calls
    finally:
        hook.remove()


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", text)]


# Maps and recorded runs

def test_signed_maps_have_the_colours_of_the_figures() -> None:
    shares = torch.linspace(-1, 1, 11).view(1, 11)
    ours = np.asarray(signed_picture(3 * shares, 3.0), int)[0]
    theirs = matplotlib.colormaps["RdBu_r"]((1 + shares.numpy()) / 2)[0, :, :3] * 255
    assert np.abs(ours - theirs).max() < 3              # matplotlib's has 256 levels
    cut_off = signed_picture(torch.tensor([[-9.0, 9.0]]), 3.0)
    assert [cut_off.getpixel((i, 0)) for i in (0, 1)] == [tuple(ours[0]), tuple(ours[-1])]


def test_a_map_of_zeros_is_white_in_the_middle() -> None:
    assert largest(torch.zeros(2, 2), torch.zeros(1)) == 1.0
    assert largest(torch.tensor([1.0, -4.0]), torch.ones(2)) == 4.0
    assert signed_picture(torch.zeros(2, 2), 0.0).getpixel((0, 0)) == (247, 247, 247)


def test_a_sheet_enlarges_maps_and_frames_a_cell() -> None:
    values = torch.zeros(4, 4)
    values[1, 2] = 1
    paper = sheet(60, 40 + LABEL_HIGH, [Panel(signed_picture(values, 1), "x", 10, 0, 40, (1, 2)),
                                        Panel(None, "empty", 50, 0, 10)])
    red = (103, 0, 31)
    assert paper.getpixel((10 + 25, LABEL_HIGH + 15)) == red
    assert paper.getpixel((10 + 20, LABEL_HIGH + 10)) == (26, 26, 26)           # the frame
    assert paper.getpixel((10 + 5, LABEL_HIGH + 15)) == (247, 247, 247)


def test_a_recorded_run_goes_on_where_it_stopped() -> None:
    asked: list[int] = []

    def steps() -> Iterator[int]:
        warn("a word of warning")
        for i in range(9):
            asked.append(i)
            yield i

    run = Recorded(steps)
    assert [(f.done, f.total) for f in run.until(2)] == [(1, 4), (2, 4), (3, 4)]
    assert list(run.until(1)) == [] and [f.done for f in run.until(4)] == [4, 5]
    assert run.steps == asked == [0, 1, 2, 3, 4] and run.notes == ["a word of warning"]
    half = Recorded(steps)
    next(half.until(6))                                 # somebody turned another knob
    list(half.until(3))
    assert half.steps == [0, 1, 2, 3]


def test_a_recorded_run_that_failed_begins_anew() -> None:
    fails = iter([True, False])

    def steps() -> Iterator[int]:
        yield 0
        if next(fails):
            raise FloatingPointError("latents")
        yield 1

    run = Recorded(steps)
    with pytest.raises(FloatingPointError):
        list(run.until(1))
    list(run.until(1))
    assert run.steps == [0, 1]


# The guidance explorer

@pytest.fixture
def explorer(sd):
    with ready(guidance_explorer(sd)) as widget:
        yield widget


def test_the_explorer_paints_what_text_to_image_paints(explorer, sd) -> None:
    words = examples("toyworld")
    expected, = sd.text_to_image(words.prompt, seed=words.seed, steps=guidance.STEPS)
    assert explorer.seen.picture.tobytes() == expected.tobytes()
    assert "eps_uncond + 7.5 * (eps_cond - eps_uncond)" in explorer.seen.text
    levels = np.asarray(expected)
    ends = np.mean((levels == 0) | (levels == 255))
    assert (f"24 passes through the UNet; contrast {levels.std():.0f} of 255; {ends:.0%} of the "
            f"values") in explorer.seen.text
    assert re.search(r"Painted in \d+\.\d s\.", explorer.engine.status.value)


@pytest.mark.parametrize(("knobs", "said"), [
    ({"guidance": 1.0}, "eps = eps_cond: the prompt, not exaggerated\n12 passes"),
    ({"guidance": 0.0}, "eps = eps_uncond: the prompt has no say\n12 passes"),
    ({"guidance": -2.0}, "eps_uncond + -2 * (eps_cond - eps_uncond)\n24 passes"),
    ({"seed": 8}, "24 passes"), ({"prompt": "a blue fish"}, "24 passes")])
def test_every_knob_of_the_explorer_paints_anew(explorer, sd, knobs, said) -> None:
    before = explorer.seen.picture.tobytes()
    with counted(sd) as calls:
        assert said in turn(explorer, **knobs)
    assert explorer.seen.picture.tobytes() != before
    assert f"{sum(calls)} passes" in explorer.seen.text


def test_the_explorer_shows_previews_on_its_way(explorer) -> None:
    seen: list[str] = []
    explorer.picture.observe(lambda change: seen.append(change.new), "value")
    turn(explorer, seed=10)
    assert len(seen) == guidance.STEPS and len(set(seen)) > 2


def test_the_explorer_repeats_warnings(explorer) -> None:
    turn(explorer, prompt="a red dragon")
    assert "Note: toyworld never saw 'dragon'" in explorer.engine.status.value


def test_a_large_model_waits_for_the_hand_to_rest(sd, monkeypatch) -> None:
    monkeypatch.setattr(guidance, "SMALL", 1)
    with ready(guidance_explorer(sd)) as widget:
        assert f"{2 * guidance.FEW_STEPS} passes" in widget.seen.text
        assert not widget.knobs["guidance"].continuous_update
        assert not widget.knobs["seed"].continuous_update


def test_a_long_run_says_how_long_it_will_take(sd) -> None:
    first, *_, last = sd.steps("a red car", steps=8, seed=1)
    assert guidance.remaining(5.0, first) == "About 35 s to go."
    assert guidance.remaining(0.1, first) == guidance.remaining(99.0, last) == ""


# The guided pixel

@pytest.fixture
def pixel(sd):
    with ready(guided_pixel(sd)) as widget:
        yield widget


def test_the_guided_sum_in_digits_is_the_samplers(pixel, sd) -> None:
    words = examples("toyworld")
    steps = list(sd.steps(words.prompt, seed=words.seed, steps=guidance.STEPS))
    for place in ({}, {"channel": 4, "row": 1, "column": 5, "step": 9, "guidance": 20.0}):
        text, at = turn(pixel, **place), pixel.values
        step = steps[at["step"] - 1]
        cell = (0, at["channel"], at["row"], at["column"])
        uncond, cond = float(step.eps_uncond[cell]), float(step.eps_cond[cell])
        guided = float(guide(step.eps_uncond, step.eps_cond, at["guidance"])[cell])
        *_, impact, total, share = text.splitlines()
        assert text.startswith(f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, "
                               f"column {at['column']}\n")
        assert numbers(impact) == pytest.approx([cond, uncond, cond - uncond], abs=6e-4)
        assert numbers(total)[0] == pytest.approx(uncond, abs=6e-4)
        assert numbers(total)[-2:] == pytest.approx([cond - uncond, guided], abs=6e-4)
        ratio = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
        assert f"the impact is {ratio:.1%} as large" in share


def test_turning_guidance_or_the_place_asks_the_network_nothing(pixel, sd) -> None:
    before = pixel.seen
    with counted(sd) as calls:
        for knobs in ({"guidance": 2.0}, {"row": 0}, {"column": 0}, {"channel": 2}, {"step": 2}):
            turn(pixel, **knobs)
            assert pixel.seen.picture.tobytes() != before.picture.tobytes(), knobs
            assert pixel.seen.text != before.text
            before = pixel.seen
        assert not calls
        turn(pixel, step=guidance.STEPS)
        assert len(calls) == guidance.STEPS - guidance.STEPS // 3


def test_the_knobs_of_the_pixel_end_where_the_latents_do(pixel, sd) -> None:
    assert [pixel.knobs[name].max for name in ("channel", "row", "column", "step")] == [
        4, 5, 5, guidance.STEPS]


def test_a_click_on_a_cell_chooses_it(pixel) -> None:
    buttons, before = pixel.cells.buttons, pixel.cells.picture.value
    assert len(buttons) == 6 * 6 and not any(button.tabbable for button in buttons)
    buttons[4 * 6 + 1].click()
    pixel.engine.wait(SOON)
    assert (pixel.values["row"], pixel.values["column"]) == (4, 1)
    assert "row 4, column 1" in pixel.seen.text and pixel.cells.picture.value != before
    assert buttons[4 * 6 + 1].tooltip == "row 4, column 1"


def test_where_cells_are_many_a_button_stands_for_the_one_in_its_middle() -> None:
    picked = []
    cells = Cells(64, 256, lambda *place: picked.append(place))
    assert len(cells.buttons) == MOST ** 2
    cells.buttons[0].click()
    cells.buttons[-1].click()
    assert picked == [(2, 2), (62, 62)]


# The sampler microscope

@pytest.fixture
def scope(sd):
    with ready(sampler_microscope(sd)) as widget:
        yield widget


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_terms_add_up_to_x_prev(sd, sampler) -> None:
    words = examples("toyworld")
    steps = list(sd.steps(words.prompt, seed=words.seed, steps=7, sampler=sampler, eta=0.5))
    for index, step in enumerate(steps):
        found = microscope.terms(steps, index, sampler)
        total = sum(term.weight * term.values for term in found)
        torch.testing.assert_close(total, step.x_prev, rtol=1e-4, atol=1e-5)
        c = step.coefficients
        weights = [c.x_t, c.eps, *c.past, *[w for w in (c.noise, c.ahead) if w]]
        assert [term.weight for term in found] == weights
        # What was worked out is what it is called: noise as large as noise, not a remainder.
        for term in found:
            if term.name == "noise":
                assert 0.8 < float(term.values.std()) < 1.2


def test_the_third_term_is_what_it_is_called(sd) -> None:
    """The noise that was worked out is the generator's, the look ahead the network's."""
    words = examples("toyworld")
    draw = torch.Generator().manual_seed(words.seed)
    steps = list(sd.steps(words.prompt, seed=words.seed, steps=7, sampler="euler_a"))
    drawn = [torch.randn(steps[0].x_t.shape[1:], generator=draw) for _ in range(4)]
    torch.testing.assert_close(microscope.terms(steps, 2, "euler_a")[-1].values[0], drawn[3],
                               rtol=0, atol=1e-4)
    memory = microscope.terms(steps := list(sd.steps(words.prompt, seed=words.seed, steps=7,
                                                     sampler="dpm++2m")), 3, "dpm++2m")[-1]
    assert memory.name == "x0, 1 ago"
    torch.testing.assert_close(memory.values, steps[2].x0)


def test_every_sampler_and_step_can_be_looked_at(scope, sd) -> None:
    seen = {scope.seen.picture.tobytes()}
    for sampler in SAMPLERS:
        for step in (2, microscope.STEPS):
            text = turn(scope, sampler=sampler, step=step)
            assert text.startswith(f"Step {step} of {microscope.STEPS}, at t = ")
            seen.add(scope.seen.picture.tobytes())
            *_, digits, last = text.splitlines()
            *terms, result = digits.split("= ")
            assert eval(" ".join(terms).partition(": ")[2]) == pytest.approx(
                float(result), abs=2e-2 if step == 2 else 1e-1)
            assert ("last step" in last) == (step == microscope.STEPS)
    assert len(seen) == 2 * len(SAMPLERS) + 1


def test_the_microscope_counts_evaluations_and_weights(scope) -> None:
    assert "asked twice" not in turn(scope, sampler="heun", step=3)
    assert "The UNet was asked 2 times for it, 6 times in all." in scope.seen.text
    assert "asked once for it" in turn(scope, sampler="heun", step=microscope.STEPS)
    text = turn(scope, sampler="euler", step=3)
    assert "the weights are 1.0000 of the present latents" in text
    assert re.search(r"x_prev = \d\.\d{4} \(x_t\) - \d\.\d{4} \(eps\)$", text, re.MULTILINE)


def test_eta_belongs_to_ddim_alone(scope, sd) -> None:
    plain = turn(scope, sampler="ddim", eta=0.0)
    assert "(noise)" in turn(scope, eta=1.0) and "(noise)" not in plain
    before = turn(scope, sampler="euler")
    with counted(sd) as calls:
        assert turn(scope, eta=0.0) == before and not calls


def test_the_run_is_watched_on_its_way_to_the_step(scope) -> None:
    seen, texts = [], []
    scope.picture.observe(lambda change: seen.append(change.new), "value")
    scope.text.observe(lambda change: texts.append(change.new), "value")
    turn(scope, sampler="lms", step=4)
    assert [text.partition("Step ")[2][0] for text in texts] == ["1", "2", "3", "4"]
    assert len(seen) == 5                               # the last is decoded, no preview


# On paper

@pytest.mark.parametrize("make", [guidance_explorer, guided_pixel, sampler_microscope],
                         ids=lambda make: make.__name__)
def test_on_paper_each_shows_its_picture_and_says_what_it_is(sd, make) -> None:
    with ready(make(sd)) as widget:
        data, metadata = widget._repr_mimebundle_()
        assert VIEW in data and data["text/plain"].startswith(f"{widget.name}: ")
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert np.asarray(picture.convert("L")).std() > 10
        assert metadata["image/png"]["alt"] == data["text/plain"]
        assert all(knob.description for knob in widget.knobs.values())
        assert f'alt="{widget.about}' in widget.picture.value
