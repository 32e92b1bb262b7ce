"""The guidance lab: a strip that fills in, the reference, the sum in digits, verdicts, history."""

import json
import re

import numpy as np
import pytest
from hands import counted, enlarged, ready, status, tile, turn

from minisd.diffusion import guide
from minisd.widgets import examples, guidance_lab, lab
from minisd.widgets.curve import WIDE
from minisd.widgets.drawing import GAP, LABEL_HIGH
from minisd.widgets.lab import SIDE, STEPS

SCALES = (0.0, 1.0, 3.0, 20.0)


@pytest.fixture
def widget(toy):
    with ready(guidance_lab(toy, scales=SCALES)) as widget:
        yield widget


def in_hand(widget):
    return tile(widget, SIDE + GAP, widget.high + GAP + LABEL_HIGH, SIDE)


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", text)]


def test_the_picture_in_hand_and_the_reference_are_what_text_to_image_paints(widget, toy) -> None:
    words = examples("toyworld")
    assert widget.values["scale"] == 3.0 and widget.seen.picture.width == WIDE
    for g, left in ((3.0, SIDE + GAP), (1.0, 0)):
        expected, = toy.text_to_image(words.prompt, seed=words.seed, steps=STEPS, guidance_scale=g)
        shown = tile(widget, left, widget.high + GAP + LABEL_HIGH, SIDE)
        away = np.abs(np.asarray(shown, int) - np.asarray(enlarged(expected, SIDE), int))
        assert away.max() <= 1                  # guidance 1 needs only one of the predictions
    assert "Guidance 3: contrast" in widget.seen.text


def test_the_strip_fills_in_the_nearest_first_and_no_run_is_made_twice(toy) -> None:
    with ready(guidance_lab(toy, scales=SCALES)) as widget:
        seen, notes = [], []
        widget.picture.observe(lambda change: seen.append(change.new), "value")
        widget.engine.status.observe(lambda change: notes.append(change.new), "value")
        with counted(toy.unet) as calls:
            turn(widget, seed=8)
        assert sum(calls) == 2 * STEPS * len(SCALES)
        order = dict.fromkeys(re.findall(r"Guidance ([\d.]+), step", " ".join(notes)))
        assert list(order) == ["3", "1", "0", "20"] and len(set(seen)) > STEPS
        with counted(toy.unet) as calls:
            for knobs in ({"scale": 20.0}, {"step": 2}, {"row": 0}, {"column": 0}, {"channel": 2}):
                before = widget.seen.picture.tobytes()
                turn(widget, **knobs)
                assert widget.seen.picture.tobytes() != before, knobs
        assert not calls


def test_the_sum_in_digits_is_the_samplers(widget, toy) -> None:
    words = examples("toyworld")
    for place in ({}, {"channel": 4, "row": 1, "column": 5, "step": 9, "scale": 20.0}):
        text, at = turn(widget, **place), widget.values
        step = list(toy.steps(words.prompt, seed=words.seed, steps=STEPS, both_predictions=True,
                              guidance_scale=at["scale"]))[at["step"] - 1]
        cell = (0, at["channel"], at["row"], at["column"])
        uncond, cond = float(step.eps_uncond[cell]), float(step.eps_cond[cell])
        guided = float(guide(step.eps_uncond, step.eps_cond, at["scale"])[cell])
        digits, share = text.splitlines()[-2:]
        assert digits.startswith(f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, "
                                 f"column {at['column']}: eps = ")
        assert numbers(digits) == pytest.approx([uncond, cond, uncond, guided], abs=6e-4)
        ratio = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
        assert f"{ratio:.1%} as large as" in share


def test_a_click_chooses_a_scale_or_a_cell(widget) -> None:
    _, strip, cells = widget.view.children[1].children[0].children
    assert len(strip.children) == len(SCALES) and len(cells.children) == 6 * 6
    strip.children[3].click()
    cells.children[4 * 6 + 1].click()
    text = turn(widget)
    assert widget.values["scale"] == 20.0 and "row 4, column 1" in text


def test_the_history_goes_back(widget) -> None:
    before = in_hand(widget).tobytes()
    turn(widget, scale=20.0, seed=8, prompt="a blue fish")
    assert in_hand(widget).tobytes() != before
    labels = [label for label, _ in widget.history.options]
    assert widget.history.label == labels[0] == "now"
    assert labels[1].startswith("guidance 3, seed 3, a red car")
    widget.history.value = widget.history.options[1][1]
    turn(widget)
    assert in_hand(widget).tobytes() == before and "memory" in status(widget)


def test_judge_and_measured_curve_are_there_for_toyworld_alone(toy, monkeypatch, tmp_path) -> None:
    rate = {"share": 0.9, "low": 0.8, "high": 0.95}
    section = {"rows": [{"guidance": 3.0, "all": rate}], "n": 64}
    (tmp_path / "toyworld").mkdir()
    file = tmp_path / "toyworld" / "evaluation.json"
    file.write_text(json.dumps({"sections": {"guidance": section}}))
    monkeypatch.setattr(lab, "WEIGHTS", tmp_path)
    judge, measured, prompts = lab.about_toyworld(toy)
    assert measured == {3.0: (0.9, 0.8, 0.95)} and prompts == 64
    with ready(guidance_lab(toy, scales=SCALES)) as widget:
        high = widget.high
        reading, _ = judge(in_hand(widget), "a red car")
        assert "Guidance 3: the judge reads" in widget.seen.text and ", " in reading
    for broken in ("{", "{}"):
        file.write_text(broken)
        assert lab.about_toyworld(toy)[1] == {}
    with ready(guidance_lab(toy, scales=SCALES)) as widget:
        assert widget.high < high               # nothing was measured: no empty curve


def test_other_models_have_neither(sd) -> None:
    judge, measured, _ = lab.about_toyworld(sd)
    assert judge(None, "a red car") == ("", "") and not measured
    with ready(guidance_lab(sd, scales=(7.5,))) as widget:
        assert widget.scales == (1.0, 7.5) and "judge" not in widget.seen.text


def test_the_knobs_end_where_the_latents_do(widget) -> None:
    assert [widget.knobs[name].max for name in ("channel", "row", "column", "step")] == [
        4, 5, 5, STEPS]
