"""The form of all widgets: knobs, waiting for Paint, stills on paper, inert under grading."""

import base64
import io
import re

import ipywidgets
import numpy as np
import pytest
import torch
from hands import SOON, counted, decoded, ready, status, turn
from PIL import Image

from minisd import StableDiffusion, widgets
from minisd.config import V1
from minisd.widgets import knobs
from minisd.widgets.cells import Area
from minisd.widgets.drawing import VIEW, mimebundle
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, View, small
from minisd.widgets.stills import still

RED = Image.new("RGB", (16, 8), "red")

# All of them, of the tiny model, a picture and a recorded run; in the first eight a model works.
EVERY = {
    "playground": lambda toy, soft, trace: widgets.playground(toy),
    "lab": lambda toy, soft, trace: widgets.guidance_lab(toy),
    "comparison": lambda toy, soft, trace: widgets.prompt_comparison(toy),
    "editor": lambda toy, soft, trace: widgets.editor(toy, soft),
    "attention": lambda toy, soft, trace: widgets.attention_explorer(toy, steps=5),
    "noise": lambda toy, soft, trace: widgets.noise_slider(toy, soft),
    "vae": lambda toy, soft, trace: widgets.vae_explorer(toy, {"one": soft, "two": RED}),
    "skips": lambda toy, soft, trace: widgets.skip_explorer(toy, "a red car", soft),
    "tokens": lambda toy, soft, trace: widgets.token_explorer(toy),
    "scrubber": lambda toy, soft, trace: widgets.step_scrubber(trace),
    "trajectory": lambda toy, soft, trace: widgets.trajectory_map({"a": trace, "b": trace})}


def explorer(**settings) -> Explorer:
    def frames(at):
        yield Frame(1, 2, View(RED, "half"))
        yield Frame(2, 2, View(Image.new("RGB", (16, 8), (at["x"], 0, 0)), f"x is {at['x']}"))

    return Explorer("try out", {"x": knobs.slider("X", 5, 0, 10),
                                "word": knobs.words("Word", "a")}, frames, **settings)


# Working

def test_a_turned_knob_shows_its_picture_with_words_for_those_who_do_not_see_it() -> None:
    with ready(explorer(about="red")) as widget:
        assert turn(widget, x=7) == "x is 7" and widget.values == {"x": 7, "word": "a"}
        assert decoded(widget.picture.value).getpixel((0, 0)) == (7, 0, 0)
        assert 'alt="red: x 7, word a"' in widget.picture.value
        assert "x is 7" in widget.text.value
        turn(widget, word="<b>")
        assert 'alt="red: x 7, word &lt;b&gt;"' in widget.picture.value
        turn(widget, word="\ud83c")                     # half of a character


def test_a_large_model_waits_for_paint() -> None:
    widget = explorer(live=False)
    assert not widget.knobs["x"].continuous_update and explorer().knobs["x"].continuous_update
    assert status(widget).startswith("Press Paint") and widget.seen is None
    widget.knobs["x"].value = 3
    assert status(widget) == "Changed: press Paint." and widget.seen is None
    widget.paint.click()
    assert status(widget).startswith("Done") and widget.seen.text == "x is 3"
    widget.engine.seconds = 12.3
    widget.knobs["x"].value = 4
    assert status(widget) == "Changed: press Paint, about 12 s."
    widget.live.value = True
    assert turn(widget) == "x is 4"
    assert list(widget.buttons.children) == [widget.paint, widget.stop, widget.live]
    assert not explorer().buttons.children


def test_size_decides_what_waits(toy) -> None:
    with torch.device("meta"):
        v1 = StableDiffusion(V1)
    assert small(toy.unet) and not small(v1.unet) and not small(v1.vae)


@pytest.mark.parametrize("name", [*EVERY][:8])
def test_nothing_large_paints_by_itself(toy, soft, monkeypatch, name: str) -> None:
    monkeypatch.setattr("minisd.widgets.explorer.PAINTS_AT_ONCE", 1)
    with counted(toy.unet) as calls:
        widget = EVERY[name](toy, soft, None)
        assert status(widget).startswith("Press Paint") and not calls and widget.paint.description
    data, _ = widget._repr_mimebundle_()
    assert VIEW in data and "image/png" in data


def test_weights_changed_in_place_are_painted_anew(toy) -> None:
    with ready(widgets.playground(toy)) as play:
        before = play.seen.picture.tobytes()
        turn(play, seed="9")
        turn(play, seed="3")
        assert play.seen.picture.tobytes() == before and "memory" in status(play)
        toy.unet.conv_out.bias.data += 0.5
        try:
            turn(play, seed="9")
            turn(play, seed="3")
            assert play.seen.picture.tobytes() != before and "memory" not in status(play)
        finally:
            toy.unet.conv_out.bias.data -= 0.5


def test_knobs_keep_integers_and_seeds_of_any_size() -> None:
    assert isinstance(knobs.slider("a", 1, 0, 3), ipywidgets.IntSlider)
    assert isinstance(knobs.slider("a", 1.0, 0, 3), ipywidgets.FloatSlider)
    assert knobs.seed_of(" 42 ") == 42 and knobs.seed_of(str(2 ** 63 - 1)) == 2 ** 63 - 1
    for wrong in ("", "-1", "x", "1.5", str(2 ** 63)):
        with pytest.raises(ValueError, match="a seed is a whole number from 0 to 9,223,"):
            knobs.seed_of(wrong)


# On pages and on paper

def test_the_bundle_holds_the_widget_and_a_picture() -> None:
    view = ipywidgets.VBox()
    data, metadata = mimebundle(view, RED, "a red field")
    assert data[VIEW]["model_id"] == view.model_id and data["text/plain"] == "a red field"
    assert decoded(data["image/png"]).size == (16, 8)
    assert metadata["image/png"] == {"width": 16, "alt": "a red field"}
    view.close()
    assert VIEW not in mimebundle(view, RED, "")[0] and VIEW not in mimebundle(None, RED, "")[0]


def test_on_paper_there_are_knobs_picture_and_text() -> None:
    with ready(explorer()) as widget:
        data, metadata = widget._repr_mimebundle_()
    assert VIEW in data and data["text/plain"] == metadata["image/png"]["alt"] == repr(widget)
    assert repr(widget) == "try out: x 5, word a"
    paper = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    assert (5, 0, 0) in {colour for _, colour in paper.getcolors(1 << 20)}


@pytest.mark.parametrize("text", ["", "word " * 500, "x" * 3000, "日本語 $\\frac$ \ud83c\0", "é"])
def test_a_still_takes_any_text_and_picture_and_stays_a_page(text: str) -> None:
    prompt = (ipywidgets.Text(description="Prompt"), text)
    for picture in (None, RED, Image.new("RGB", (2000, 40)), Image.new("RGB", (40, 80))):
        for width in (384, 840):
            paper = still(picture, width, [prompt] * 6, f"{text}\nfoot")
            assert paper.width <= 1100 and 80 < paper.height < 4000


def test_a_still_has_the_shape_of_the_widget_and_no_empty_half() -> None:
    pairs = [(knobs.slider("X", 5, 0, 10), 5), (knobs.words("Word", "a"), "a"),
             (knobs.choice("Layer", ["one", "two"]), "two"),
             (knobs.buttons("Tokens", [("a", 0), ("b", 1)], 0), 1),
             (ipywidgets.Checkbox(description="skip 0"), True)]
    for width in (384, 648, 840):
        paper = np.asarray(still(Image.new("RGB", (8, 8), "red"), width, pairs, "a line"))
        for half in np.array_split(paper[2:-2, 2:-2], 2, axis=1):
            assert (half < 250).any((1, 2)).mean() > 0.5
        left = np.argwhere((paper == (255, 0, 0)).all(2))[:, 1].min()
        assert (left > 200) == (width < 700)                # beside the knobs, or below them


@pytest.mark.parametrize(("knob", "values"), [
    (knobs.slider("X", 5, 0, 10), (0, 10)), (knobs.choice("L", [("one", 1), ("two", 2)]), (1, 2)),
    (knobs.buttons("T", ["a", "b"], "a"), ("a", "b")), (ipywidgets.Checkbox(), (True, False)),
    (ipywidgets.SelectionSlider(options=[("0", 0.0), ("5", 5.0)]), (0.0, 5.0))])
def test_a_still_shows_where_a_knob_stands(knob, values) -> None:
    first, second = (still(RED, 384, [(knob, value)], "").tobytes() for value in values)
    assert first != second


def test_under_grading_a_widget_is_a_picture(monkeypatch) -> None:
    monkeypatch.setenv("MINISD_GRADING", "1")
    with ready(explorer()) as widget:
        data, _ = widget._repr_mimebundle_()
        assert VIEW not in data and "image/png" in data and widget.seen.text == "x is 5"
        widget.knobs["x"].value = 9
        assert widget.engine.wait(SOON) and widget.seen.text == "x is 5"


# Clicks

def test_a_click_on_a_cell_is_heard_where_the_cell_lies() -> None:
    picked = []
    areas = [Area(0, 10, 60, 20, 2, 3, lambda *at: picked.append(("first", *at))),
             Area(30, 40, 64, 64, 64, 64, lambda *at: picked.append(("second", *at)))]
    with ready(explorer(width=200, height=120, areas=areas)) as widget:
        box = widget.view.children[1].children[0]
        picture, first, second = box.children
        assert picture is widget.picture and box.layout.height == "120px"
        assert len(first.children) == 6 and len(second.children) == 16 * 16
        assert not any(button.tabbable for button in (*first.children, *second.children))
        assert first.layout.margin == "-110px 0 0 0px" and second.layout.margin == "10px 0 0 30px"
        first.children[4].click()
        second.children[0].click()
        second.children[-1].click()
        assert picked == [("first", 1, 1), ("second", 2, 2), ("second", 62, 62)]
        assert first.children[4].tooltip == "row 1, column 1"


# All of them

def another(key: str, knob: ipywidgets.Widget):
    """Another value of a knob, with which something else is shown."""
    if hasattr(knob, "options"):
        values = [one[1] if isinstance(one, tuple) else one for one in knob.options]
        return values[(values.index(knob.value) + 1) % len(values)]
    if isinstance(knob, ipywidgets.Text):
        return {"seed": "8", "cells": "1,1 2,3", "negative_prompt": "red",
                "second": "a car"}.get(key, "a blue fish")
    if isinstance(knob, ipywidgets.Checkbox):
        return not knob.value
    step = getattr(knob, "step", None) or 1
    return knob.value + step if knob.value + step <= knob.max else knob.value - step


@pytest.mark.parametrize("name", EVERY)
def test_each_says_what_it_is_and_answers_to_every_knob(toy, soft, name: str) -> None:
    trace = toy.trace("a red car", seed=1, steps=5, pictures="none")
    with ready(EVERY[name](toy, soft, trace)) as widget:
        data, metadata = widget._repr_mimebundle_()
        assert VIEW in data and data["text/plain"].startswith(f"{widget.name}: ")
        assert np.asarray(decoded(data["image/png"]).convert("L")).std() > 10
        assert metadata["image/png"]["alt"] == data["text/plain"] and widget.seen.text
        assert all(knob.description for knob in widget.knobs.values())
        assert f'alt="{widget.about}'.replace("'", "&#x27;") in widget.picture.value
        assert re.fullmatch(r"[a-z ]+", widget.name)
        for key in sorted(widget.knobs, key=["repaint", "cells"].__contains__):     # last: a mask
            before, knob = (widget.seen.picture.tobytes(), widget.seen.text), widget.knobs[key]
            knob.value = another(key, knob)
            turn(widget)
            assert (widget.seen.picture.tobytes(), widget.seen.text) != before, key
        inside = [widget.view]
        for one in inside:              # ipywidgets 8.1.9 draws an error where these have a tooltip
            inside += getattr(one, "children", ())
            assert not isinstance(one, ipywidgets.Image)
            assert not (isinstance(one, ipywidgets.Box) and one.tooltip)
