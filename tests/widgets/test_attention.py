"""The attention explorer on a tiny random model: what it shows is what was recorded."""

import re

import numpy as np
import pytest
import torch
from hands import ready, tile, turn

from minisd.observe.attention_maps import (
    attention_layers,
    edit_attention,
    record_attention,
    scale_word,
    word_maps,
)
from minisd.widgets import attention_explorer
from minisd.widgets.attention import EVERY, MEAN, SIDE, Reader
from minisd.widgets.drawing import LABEL_HIGH

PROMPT, STEPS, SEED = "a red car", 5, 3
CAR = [3, 4, 5]     # c, a, r</w>


@pytest.fixture
def explorer(sd):
    with ready(attention_explorer(sd, PROMPT, seed=SEED, steps=STEPS)) as widget:
        yield widget


@pytest.fixture
def reader(sd):
    return Reader(sd, PROMPT, SEED, STEPS)


def at(**changed):
    return {"word": "car", "layer": EVERY, "head": MEAN, "step": STEPS, "strength": 1.0, **changed}


def finish(frames):
    return list(frames)[-1]


def recorded(sd, strength: float = 1.0):
    """The run by itself: its steps, and what was read after the edit."""
    with edit_attention(sd.unet, scale_word(CAR, strength), rows=1), \
            record_attention(sd.unet, rows=1) as record:
        return list(sd.steps(PROMPT, seed=SEED, steps=STEPS)), record


def test_the_maps_are_those_of_the_run(sd, reader) -> None:
    finish(reader.frames(at()))
    steps, record = recorded(sd)
    run = reader.run("car", 1.0)
    assert all(torch.equal(a[0].x0, b.x0) for a, b in zip(run.steps, steps, strict=True))
    for step in (1, STEPS):
        own = [entry for entry in record if entry.call == step - 1]
        torch.testing.assert_close(reader.heat(run, step - 1, at()), word_maps(own, CAR, (6, 6)))
    layer = next(iter(attention_layers(sd.unet)))           # of the largest grid
    own, = (entry for entry in record if entry.layer == layer and entry.call == 2)
    chosen = at(layer=layer.partition(".attention")[0], head="head 2")
    expected = own.weights[0, 1][:, CAR].float().sum(1).view(6, 6)
    torch.testing.assert_close(reader.heat(run, 2, chosen), expected)
    total = sum(reader.heat(run, 0, at(word=word)) for word in reader.words)
    torch.testing.assert_close(total, torch.ones(6, 6), atol=2e-3, rtol=0)


def test_a_run_goes_only_as_far_as_one_looks_and_never_twice(reader) -> None:
    frames = list(reader.frames(at(step=2)))
    assert [frame.done for frame in frames] == [1, 2, 2, 3] and frames[-1].total == 3
    run = reader.run("", 1.0)
    for word in ("red", "start", "padding"):
        finish(reader.frames(at(word=word, step=1)))
    assert len(run.steps) == 2
    frames = reader.frames(at())
    next(frames)
    frames.close()                                          # another knob was turned
    assert len(run.steps) == 3
    finish(reader.frames(at()))
    assert len(run.steps) == STEPS and reader.run("red", 1.0) is run


@pytest.mark.parametrize("strength", [0.0, 4.0])
def test_another_weight_is_another_run_from_the_same_seed(sd, reader, strength: float) -> None:
    for word, factor in (("car", 1.0), ("red", strength), ("car", strength)):
        finish(reader.frames(at(word=word, strength=factor)))
    (expected, record), (plain, _) = recorded(sd, strength), recorded(sd)
    run = reader.run("car", strength)
    assert torch.equal(run.steps[-1][0].x0, expected[-1].x0)
    assert not torch.equal(run.steps[-1][0].x0, plain[-1].x0)
    own = [entry for entry in record if entry.call == 0]
    torch.testing.assert_close(reader.heat(run, 0, at()), word_maps(own, CAR, (6, 6)))
    assert not any(layer.listeners for layer in attention_layers(sd.unet, None).values())


def test_a_word_of_weight_0_takes_nothing(explorer) -> None:
    text = turn(explorer, strength=0.0)
    assert text.startswith("“car” takes 0.00% of the attention, 0.00% in the cell")
    assert text.endswith("its weight is multiplied by 0.")
    left = np.asarray(tile(explorer, 0, LABEL_HIGH, SIDE))
    assert left.mean() > 60                                 # what is painted can still be seen
    assert float(re.findall(r"([\d.]+)%", turn(explorer, strength=2.0))[0]) > 0


def test_what_makes_no_sense_is_refused_at_once(sd) -> None:
    with pytest.raises(ValueError, match="steps"):
        attention_explorer(sd, PROMPT, steps=-1)


def test_a_head_shows_another_picture_once_a_layer_is_chosen(explorer) -> None:
    assert "choose a layer first" in turn(explorer, head="head 1")
    turn(explorer, layer="up.2.layers.1")
    one = explorer.seen.picture.tobytes()
    assert "choose a layer" not in turn(explorer, head="head 2")
    assert explorer.seen.picture.tobytes() != one


def test_the_text_gives_the_shares_and_all_words_are_buttons(explorer) -> None:
    reader = explorer.frames.__self__
    heat = reader.heat(reader.run("", 1.0), 2, at(step=3))
    mean, most, alike = (float(x) for x in re.findall(r"([\d.]+)%", explorer.seen.text))
    assert explorer.values == at(step=3)
    assert (mean, most, alike) == pytest.approx(
        (100 * heat.mean().item(), 100 * heat.max().item(), 100 * 3 / 13), abs=0.006)
    assert explorer.knobs["word"].options == ("start", "a", "red", "car", "end", "padding")
