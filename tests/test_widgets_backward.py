"""The step scrubber, the trajectory map, the editor and the prompt comparison, headless."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from minisd import StableDiffusion, Tokenizer, Trace
from minisd.checkpoints.load import WEIGHTS
from minisd.observe.pca import principal_plane
from minisd.widgets import (
    editor,
    examples,
    prompt_comparison,
    step_scrubber,
    trajectory_map,
    word_changes,
)
from minisd.widgets.comparison import STEPS as EACH
from minisd.widgets.comparison import Change, told
from minisd.widgets.guidance import STEPS
from minisd.widgets.pictures import VIEW

SOON = 300.0        # seconds for what takes milliseconds when the machine is free


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    from conftest import TINY
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_folder(WEIGHTS / "toyworld" / "tokenizer", max_length=13)
    config = replace(TINY, name="toyworld",
                     text=replace(TINY.text, vocab_size=len(tokenizer.vocab)))
    return StableDiffusion(config, tokenizer).eval()


@pytest.fixture(scope="module")
def traces(sd) -> dict[str, Trace]:
    """All pictures are kept of the first, none of the others."""
    return {f"seed {seed}": sd.trace("a red car", seed=seed, steps=6,
                                     pictures="none" if seed else "all") for seed in range(3)}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((60, 48), Image.Resampling.BICUBIC)


@contextmanager
def ready(widget) -> Iterator:
    assert widget.engine.wait(SOON)
    assert widget.engine.error is None, widget.engine.error
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


def size(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()


# The step scrubber

def test_the_scrubber_shows_every_step(traces) -> None:
    trace = traces["seed 0"]
    with ready(step_scrubber(trace)) as widget:
        seen = set()
        for done in range(len(trace) + 1):
            t, x_t, x0 = trace.at(done)
            text = turn(widget, done=done)
            assert f"{done} of 6 steps done ({done / 6:.0%}), t = {t:.0f}." in text
            assert f"x_t {size(x_t - trace.latents):.3f}, x0 {size(x0 - trace.latents):.3f}" in text
            assert "decoded" in text and f"done {done}" in widget.picture.value
            seen.add(widget.seen.picture.tobytes())
        assert len(seen) == len(trace) + 1
        assert "x_t 0.000, x0 0.000" in text and "still change by 0.000" in text


def test_the_scrubber_works_from_a_file_without_a_model(traces, tmp_path) -> None:
    traces["seed 1"].save(tmp_path / "run.safetensors")
    with ready(step_scrubber(Trace.load(tmp_path / "run.safetensors"))) as widget:
        assert "linear previews" in turn(widget, done=3)


def test_the_scrubber_of_a_batch_shows_the_first_picture(sd) -> None:
    both, = [sd.trace("a red car", seed=0, steps=5, num_images=2, pictures="all")]
    with ready(step_scrubber(both)) as widget:
        assert turn(widget, done=5).startswith("5 of 5 steps")
        alone = sd.decode(both.latents)[0]
        shown = widget.seen.picture.crop((0, 22, 256, 278))
        enlarged = alone.resize((256, 256), Image.Resampling.NEAREST)
        assert np.abs(np.asarray(shown, int) - np.asarray(enlarged, int)).max() <= 1


def test_play_is_linked_to_the_slider_in_the_browser(traces) -> None:
    with ready(step_scrubber(traces["seed 0"])) as widget:
        assert widget.link.source == (widget.play, "value")
        assert widget.link.target == (widget.knobs["done"], "value")
        assert (widget.play.min, widget.play.max) == (0, 6) and widget.play in widget.view.children


# The trajectory map

@pytest.mark.parametrize(("name", "part"), [("x_t", 1), ("x0", 2)])
def test_the_map_is_the_plane_of_all_runs(traces, name: str, part: int) -> None:
    states = [[trace.at(done)[part].flatten() for done in range(7)] for trace in traces.values()]
    plane = principal_plane(torch.stack([state for way in states for state in way]))
    now = plane.project(torch.stack([way[4] for way in states]))
    spread = (now - now.mean(0)).square().sum(1).mean().sqrt()
    with ready(trajectory_map(traces)) as widget:
        text = turn(widget, map_of=name, done=4)
    assert f"holds {plane.shares.sum():.0%} of the variance of {states[0][0].numel():,} " in text
    assert f"the 3 runs are now {spread:.1f} away" in text


def test_every_knob_of_the_map_changes_the_picture(traces) -> None:
    with ready(trajectory_map(traces)) as widget:
        for knobs in ({"done": 0}, {"map_of": "x_t"}, {"run": "seed 2"}, {"done": 6}):
            before = widget.seen.picture.tobytes()
            turn(widget, **knobs)
            assert widget.seen.picture.tobytes() != before, knobs


def test_runs_that_do_not_match_are_refused(sd, traces) -> None:
    longer = sd.trace("a red car", seed=0, steps=7, pictures="none")
    for wrong in ({}, traces | {"longer": longer}):
        with pytest.raises(ValueError, match="runs of one length and one size"):
            trajectory_map(wrong)


# The editor

@pytest.fixture
def editing(sd, picture):
    with ready(editor(sd, picture)) as widget:
        yield widget


def test_the_editor_reads_its_picture_as_everything_else_does(sd) -> None:
    """A wide one is cropped, not squeezed, and what is transparent becomes white."""
    wide = Image.new("RGBA", (400, 200), (255, 0, 0, 0))
    wide.paste((0, 0, 255, 255), (80, 0, 320, 200))
    with ready(editor(sd, wide)) as widget:
        assert {colour for _, colour in widget.original.getcolors()} == {(0, 0, 255)}
    with ready(editor(sd, Image.new("RGBA", (64, 64), (255, 0, 0, 0)))) as widget:
        assert {colour for _, colour in widget.original.getcolors()} == {(255, 255, 255)}


def test_the_editor_paints_what_inpaint_paints(editing, sd) -> None:
    at = editing.values
    mask = editing.mask(at)
    expected, = sd.inpaint(at["prompt"], editing.original, mask, seed=at["seed"], steps=STEPS,
                           guidance_scale=examples(sd.config.name).guidance)
    moved = np.asarray(ImageChops.difference(expected, editing.original)).max(2) > 32
    inside = np.asarray(mask) > 0
    assert inside.mean() == at["wide"] * at["high"] / editing.cells ** 2
    text = editing.seen.text
    assert f"{STEPS} of {STEPS} steps" in text
    assert (f"{moved.mean():.0%} of the pixels change by more than 32 levels: "
            f"{moved[inside].mean():.0%} in the mask, which holds {inside.mean():.0%} of them, and "
            f"outside it {moved[~inside].mean():.0%}") in text


def test_the_editor_paints_what_image_to_image_paints(editing, sd) -> None:
    text, at = turn(editing, repaint="the whole picture", strength=0.5), editing.values
    expected, = sd.image_to_image(at["prompt"], editing.original, strength=0.5, seed=at["seed"],
                                  steps=STEPS, guidance_scale=editing.guidance)
    moved = np.asarray(ImageChops.difference(expected, editing.original)).max(2) > 32
    assert text.startswith(f"{STEPS // 2} of {STEPS} steps, from t = ")
    assert text.endswith(f"{moved.mean():.0%} of the pixels change by more than 32 levels")


@pytest.mark.parametrize("repaint", ["the whole picture", "a box"])
def test_at_strength_0_nothing_is_repainted(editing, sd, repaint: str) -> None:
    text = turn(editing, repaint=repaint, strength=0.0)
    assert text.startswith("No step is run")
    back = sd.decode(sd.encode_image(editing.original))[0]
    shown = editing.seen.picture.crop((328, 22, 648, 342))
    enlarged = back.resize((320, 320), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(shown, int) - np.asarray(enlarged, int)).max() <= 1


def test_every_knob_of_the_editor_changes_the_picture(editing) -> None:
    for knobs in ({"left": 0}, {"top": 2}, {"wide": 6}, {"high": 1}, {"seed": 9},
                  {"prompt": "a blue fish"}, {"strength": 0.5}):
        before = editing.seen.picture.tobytes()
        turn(editing, **knobs)
        assert editing.seen.picture.tobytes() != before, knobs


def test_a_box_ends_at_the_edges(editing) -> None:
    last = editing.cells - 1
    text = turn(editing, left=last, top=last, wide=editing.cells, high=editing.cells)
    assert f"which holds {1 / editing.cells ** 2:.0%} of them" in text
    assert "outside it none there" in turn(editing, left=0, top=0)


def test_the_box_hides_where_the_whole_picture_is_repainted(editing) -> None:
    turn(editing, repaint="the whole picture")
    assert all(knob.layout.display == "none" for knob in editing.box.values())
    turn(editing, repaint="a box")
    assert all(knob.layout.display is None for knob in editing.box.values())


def test_clicked_cells_are_the_mask(editing, sd) -> None:
    assert turn(editing, repaint="clicked cells") == "Click the cells that are to be repainted."
    buttons, side = editing.drawing.buttons, editing.cells
    assert len(buttons) == side ** 2 and editing.drawing.layout.display is None
    empty = editing.drawing.picture.value
    for i in (0, side + 2, 0, 1):                       # the first twice: in and out again
        buttons[i].click()
    editing.engine.wait(SOON)
    white = np.asarray(editing.mask(editing.values)) > 0
    factor = editing.factor
    cells = white.reshape(side, factor, side, factor).all((1, 3))
    assert np.argwhere(cells).tolist() == [[0, 1], [1, 2]]
    assert white.mean() == 2 / side ** 2 and editing.drawing.picture.value != empty
    assert f"which holds {white.mean():.0%} of them" in editing.seen.text
    assert "2 clicked" in editing.picture.value
    at = editing.values
    painted, = sd.inpaint(at["prompt"], editing.original, editing.mask(at), seed=at["seed"],
                          steps=STEPS, guidance_scale=editing.guidance)
    shown = editing.seen.picture.crop((328, 22, 648, 342))
    enlarged = painted.resize((320, 320), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(shown, int) - np.asarray(enlarged, int)).max() <= 1


# The prompt comparison

@pytest.fixture
def comparison(sd):
    with ready(prompt_comparison(sd)) as widget:
        yield widget


def test_the_comparison_paints_both_prompts_from_one_seed(comparison, sd) -> None:
    words = examples("toyworld")
    runs = [sd.trace(prompt, seed=words.seed, steps=EACH, pictures="none")
            for prompt in words.keyword_prompts]
    assert torch.equal(runs[0][0].x_t, runs[1][0].x_t)
    pictures = [sd.decode(run.latents)[0] for run in runs]
    moved = np.asarray(ImageChops.difference(*pictures)).max(2) > 32
    text = comparison.seen.text
    assert text.startswith("“red” becomes “blue”\n")
    assert f"Step {EACH} of {EACH}: {moved.mean():.0%} of the pixels" in text
    assert f"x0 differs by {size(runs[0][-1].x0 - runs[1][-1].x0):.2f}" in text


def test_every_knob_of_the_comparison_paints_anew(comparison) -> None:
    for knobs in ({"seed": 8}, {"guidance": 2.0}, {"second": "a blue fish"}, {"first": "a car"}):
        before = comparison.seen.picture.tobytes()
        turn(comparison, **knobs)
        assert comparison.seen.picture.tobytes() != before, knobs


def test_equal_prompts_give_equal_pictures(comparison) -> None:
    text = turn(comparison, second=comparison.knobs["first"].value)
    assert "The prompts are the same" in text and ": 0% of the pixels" in text
    assert "differs by 0.00" in text


def test_the_comparison_repeats_warnings_once(comparison) -> None:
    turn(comparison, first="a red dragon", second="a blue dragon")
    assert comparison.engine.status.value.count("never saw 'dragon'") == 1


def test_changes_are_told_word_by_word() -> None:
    assert word_changes("a red car", "a blue car") == [Change("red", "blue")]
    assert word_changes("a cat", "a cat in a hat") == [Change("", "in a hat")]
    assert told(word_changes("a cat in a hat", "a cat")) == "“in a hat” is gone"
    assert told(word_changes("red car sea", "blue car sky")) == (
        "“red” becomes “blue”; “sea” becomes “sky”")
    assert word_changes("a b", "a  b") == []


# All of them

@pytest.mark.parametrize("name", ["scrubber", "map", "editor", "comparison"])
def test_on_paper_each_shows_its_picture_and_says_what_it_is(sd, traces, picture, name) -> None:
    made = {"scrubber": lambda: step_scrubber(traces["seed 0"]),
            "map": lambda: trajectory_map(traces), "editor": lambda: editor(sd, picture),
            "comparison": lambda: prompt_comparison(sd)}[name]()
    with ready(made) as widget:
        data, metadata = widget._repr_mimebundle_()
        assert VIEW in data and data["text/plain"].startswith(f"{widget.name}: ")
        still = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert np.asarray(still.convert("L")).std() > 10
        assert metadata["image/png"]["alt"] == data["text/plain"]
        assert all(knob.description for knob in widget.knobs.values())
        assert f'alt="{widget.about}' in widget.picture.value
        assert re.fullmatch(r"[a-z ]+", widget.name)
