"""The attention explorer, headless, on a tiny random model: what it shows is what was recorded."""

import re

import numpy as np
import pytest
import torch

from minisd.observe.attention_maps import (
    attention_layers,
    edit_attention,
    record_attention,
    scale_word,
    word_maps,
)
from minisd.widgets import attention_explorer, word_tokens
from minisd.widgets.attention import EVERY, HEAT, MEAN, Reader, _coloured, _lit
from minisd.widgets.pictures import VIEW

SOON = 300.0        # seconds for what takes milliseconds when the machine is free
PROMPT, STEPS, SEED = "a red car", 5, 3
CAR = [3, 4, 5]     # c, a, r</w>


@pytest.fixture
def explorer(sd):
    explorer = attention_explorer(sd, PROMPT, seed=SEED, steps=STEPS)
    assert explorer.engine.wait(SOON)
    yield explorer
    explorer.view.close()


@pytest.fixture
def reader(sd):
    return Reader(sd, PROMPT, SEED, STEPS, small=True)


def at(**changed):
    return {"word": "car", "layer": EVERY, "head": MEAN, "step": STEPS, "strength": 1.0, **changed}


def finish(frames):
    return list(frames)[-1]


def turn(explorer, knob, value):
    explorer.knobs[knob].value = value
    assert explorer.engine.wait(SOON)
    assert explorer.engine.error is None
    return explorer.seen


# Words and their tokens

def test_every_position_belongs_to_one_word(sd) -> None:
    words = word_tokens(sd.tokenizer, PROMPT)
    assert words == {"start": [0], "a": [1], "red": [2], "car": CAR, "end": [6],
                     "padding": list(range(7, 13))}


def test_words_that_come_again_are_numbered(sd) -> None:
    words = word_tokens(sd.tokenizer, "a end a red a")
    assert list(words) == ["start", "a", "end", "a (2)", "red", "a (3)", "end (2)", "padding"]
    assert sorted(sum(words.values(), [])) == list(range(13))


def test_a_prompt_that_is_too_long_has_no_padding_and_may_end_within_a_word(sd) -> None:
    words = word_tokens(sd.tokenizer, "abcd efghijklmnopq")
    assert list(words) == ["start", "abcd", "efghijk", "end"]
    assert sorted(sum(words.values(), [])) == list(range(13))
    assert list(word_tokens(sd.tokenizer, "")) == ["start", "end", "padding"]


# What is looked up

def recorded(sd, edit=None):
    with record_attention(sd.unet, rows=1) as record:
        steps = list(sd.steps(PROMPT, seed=SEED, steps=STEPS)) if edit is None else None
    if edit is not None:
        with edit_attention(sd.unet, edit, rows=1):
            steps = list(sd.steps(PROMPT, seed=SEED, steps=STEPS))
    return steps, record


def test_the_maps_are_those_of_the_run(sd, reader) -> None:
    finish(reader.frames(at()))
    steps, record = recorded(sd)
    run = reader._run("car", 1.0)
    assert [torch.equal(a.x0, b.x0) for a, b in zip(run.seen, steps, strict=True)] == [True] * STEPS
    for step in (1, STEPS):
        own = [entry for entry in record if entry.call == step - 1]
        expected = word_maps(own, CAR, (6, 6))
        torch.testing.assert_close(reader.heat(run, step - 1, at()), expected)
    layer = next(iter(attention_layers(sd.unet)))           # of the largest grid
    own, = (entry for entry in record if entry.layer == layer and entry.call == 2)
    chosen = at(layer=layer.partition(".attention")[0], head="head 2")
    expected = own.weights[0, 1][:, CAR].float().sum(1).view(6, 6)
    torch.testing.assert_close(reader.heat(run, 2, chosen), expected)


def test_the_words_share_all_of_a_cells_attention(reader) -> None:
    finish(reader.frames(at()))
    run = reader._run("", 1.0)
    total = sum(reader.heat(run, 0, at(word=word)) for word in reader.words)
    torch.testing.assert_close(total, torch.ones(6, 6), atol=2e-3, rtol=0)


def test_a_run_goes_only_as_far_as_one_looks_and_never_twice(sd, reader) -> None:
    frames = list(reader.frames(at(step=2)))
    assert [frame.done for frame in frames] == [1, 2, 2, 3] and frames[-1].total == 3
    run = reader._run("", 1.0)
    assert len(run.seen) == 2
    for word in ("red", "start", "padding"):
        finish(reader.frames(at(word=word, step=1)))
    assert len(run.seen) == 2 and len(reader.runs) == 1
    finish(reader.frames(at()))
    assert len(run.seen) == STEPS


def test_a_run_that_was_left_goes_on_where_it_was(reader) -> None:
    frames = reader.frames(at())
    next(frames)
    frames.close()
    assert len(reader._run("", 1.0).seen) == 1
    finish(reader.frames(at()))
    assert len(reader._run("", 1.0).seen) == STEPS


def test_warnings_of_the_run_are_on_the_status_line_alone(sd, recwarn) -> None:
    with pytest.warns(UserWarning, match="take at least 5 steps"):      # in the user's own cell
        explorer = attention_explorer(sd, PROMPT, seed=SEED, steps=4)
    assert explorer.engine.wait(SOON)
    turn(explorer, "strength", 0.0)
    assert "take at least 5 steps" in explorer.engine.status.value
    turn(explorer, "layer", list(explorer.knobs["layer"].options)[1])       # of steps that are kept
    assert "take at least 5 steps" in explorer.engine.status.value
    assert not recwarn.list
    explorer.view.close()


@pytest.mark.parametrize("strength", [0.0, 4.0])
def test_another_weight_is_another_run_from_the_same_seed(sd, reader, strength: float) -> None:
    for word, factor in (("car", 1.0), ("red", strength), ("car", strength)):
        finish(reader.frames(at(word=word, strength=factor)))
    expected, _ = recorded(sd, scale_word(CAR, strength))
    plain, record = recorded(sd)
    run = reader._run("car", strength)
    assert torch.equal(run.seen[-1].x0, expected[-1].x0)
    assert not torch.equal(run.seen[-1].x0, plain[-1].x0)
    first = next(entry for entry in record if entry.call == 0)      # before any edit has effect
    torch.testing.assert_close(reader.heat(run, 0, at(layer="down.0.layers.0")),
                               word_maps([first], CAR, (6, 6)))
    assert not any(layer.tap.listeners for layer in attention_layers(sd.unet, None).values())


def test_few_runs_are_kept(reader) -> None:
    for strength in (1.0, 0.0, 0.5, 2.0, 4.0):
        for word in ("red", "car"):
            reader._run(word, strength)
    assert len(reader.runs) == 6


def test_after_an_error_it_begins_anew(sd, reader, monkeypatch) -> None:
    finish(reader.frames(at(step=1)))
    with monkeypatch.context() as patch:
        patch.setattr(sd.unet.mid, "forward", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finish(reader.frames(at()))
    finish(reader.frames(at()))
    assert len(reader._run("", 1.0).seen) == STEPS


def test_what_makes_no_sense_is_refused_at_once(sd) -> None:
    with pytest.raises(ValueError, match="steps"):
        attention_explorer(sd, PROMPT, steps=-1)


# What is seen

@pytest.mark.parametrize(("knob", "value"), [
    ("word", "start"), ("word", "padding"), ("layer", "mid.layers.0"), ("step", 1), ("step", 5),
    ("strength", 0.0)])
def test_every_knob_shows_another_picture(explorer, knob: str, value) -> None:
    before, shown = explorer.seen, explorer.picture.value
    after = turn(explorer, knob, value)
    assert after.picture.tobytes() != before.picture.tobytes() and explorer.picture.value != shown


def test_a_head_shows_another_picture_once_a_layer_is_chosen(explorer) -> None:
    assert "choose a layer first" in turn(explorer, "head", "head 1").text
    one = turn(explorer, "layer", "up.2.layers.1")
    other = turn(explorer, "head", "head 2")
    assert one.picture.tobytes() != other.picture.tobytes()
    assert "choose a layer" not in other.text


def test_the_text_gives_the_shares(explorer) -> None:
    reader = explorer.frames.__self__
    heat = reader.heat(reader._run("", 1.0), 2, at(step=3))
    mean, most, alike = re.findall(r"([\d.]+)%", explorer.seen.text)
    assert explorer.values == at(step=3)
    assert float(mean) == pytest.approx(100 * heat.mean().item(), abs=0.006)
    assert float(most) == pytest.approx(100 * heat.max().item(), abs=0.006)
    assert float(alike) == pytest.approx(100 * 3 / 13, abs=0.006)
    assert "multiplied by 2" in turn(explorer, "strength", 2.0).text


def test_all_words_are_buttons_and_the_story_word_is_pressed(explorer) -> None:
    knob = explorer.knobs["word"]
    assert knob.options == ("start", "a", "red", "car", "end", "padding") and knob.value == "car"


def test_on_paper_it_shows_the_same_picture(explorer) -> None:
    data, metadata = explorer._repr_mimebundle_()
    assert VIEW in data and len(data["image/png"]) > 1000
    assert data["text/plain"] == metadata["image/png"]["alt"] == (
        "attention explorer: word car, layer mean of all layers, head mean of the heads, step 3, "
        "strength 1.0")


def test_bright_is_where_the_word_is_read(picture) -> None:
    heat = torch.zeros(5, 9)
    heat[4, 8] = 0.3
    light, dark = np.asarray(_lit(picture, heat), float), np.asarray(picture, float)
    assert np.abs(light[-1, -1] - dark[-1, -1]).max() < 1
    assert np.abs(light[:20, :40] - 0.15 * dark[:20, :40]).max() <= 0.5
    colours = np.asarray(_coloured(heat))
    assert colours.shape == (5, 9, 3)
    assert tuple(colours[4, 8]) == tuple(HEAT[-1]) and tuple(colours[0, 0]) == tuple(HEAT[0])


def test_a_word_that_is_nowhere_read_is_dark(picture) -> None:
    assert np.asarray(_coloured(torch.zeros(5, 9))).std(axis=(0, 1)).max() == 0
    assert np.asarray(_lit(picture, torch.zeros(5, 9))).max() <= 0.15 * 255 + 1


def test_our_colours_are_viridis() -> None:
    from matplotlib import colormaps
    expected = 255 * colormaps["viridis"](np.linspace(0, 1, len(HEAT)))[:, :3]
    assert np.abs(HEAT - expected).max() <= 2
