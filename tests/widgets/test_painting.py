"""Playground, comparison and editor: they paint what the pipeline paints, and say what changed."""

import re

import numpy as np
import pytest
import torch
from hands import decoded, enlarged, ready, status, tile, turn
from PIL import Image, ImageChops

from minisd.images import to_pil
from minisd.observe.reading import to_tensor
from minisd.widgets import editor, examples, playground, prompt_comparison, word_changes
from minisd.widgets.comparison import STEPS as EACH
from minisd.widgets.comparison import Change
from minisd.widgets.drawing import LABEL_HIGH
from minisd.widgets.editor import BOX, CLICKED, SIDE, STEPS, WHOLE, in_text


def moved(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.asarray(ImageChops.difference(a, b)).max(2) > 32


def alike(shown: Image.Image, expected: Image.Image) -> bool:
    return bool(np.abs(np.asarray(shown, int) - np.asarray(expected, int)).max() <= 1)


# The playground

@pytest.fixture
def play(toy):
    with ready(playground(toy)) as widget:
        yield widget


def test_it_paints_what_text_to_image_paints(play, toy) -> None:
    words = examples("toyworld")
    assert play.values == {"prompt": words.prompt, "negative_prompt": "", "guidance": 3.0,
                           "steps": 8, "seed": str(words.seed), "sampler": "ddim"}
    expected, = toy.text_to_image(words.prompt, seed=words.seed)
    assert decoded(play.picture.value).tobytes() == expected.tobytes()
    assert re.fullmatch(r"Done in \d+\.\d s\.", status(play))


def test_previews_come_before_the_picture(play) -> None:
    texts = []
    play.text.observe(lambda change: texts.append(change.new), "value")
    turn(play, seed="77")
    assert "Step 1 of 8" in texts[0] and "Step 8 of 8" in texts[-1]


def test_seeds_are_never_clamped(play, toy) -> None:
    seed = 2 ** 62 + 12345
    turn(play, seed=str(seed))
    expected, = toy.text_to_image(play.values["prompt"], seed=seed)
    assert decoded(play.picture.value).tobytes() == expected.tobytes()
    play.next_seed.click()
    assert status(play).startswith("Done") and play.values["seed"] == str(seed + 1)


def test_warnings_and_errors_appear_on_the_status_line(play, toy, recwarn, monkeypatch) -> None:
    turn(play, prompt="a red car below a blue fish on the sand with a red dragon")
    assert "toyworld never saw 'dragon'" in status(play) and "dropped" in status(play)
    turn(play, prompt="a red car", steps=2)
    assert "take at least 5 steps" in status(play) and not recwarn.list
    monkeypatch.setattr(toy, "tokenizer", None)
    play.knobs["seed"].value = "99"
    assert status(play).startswith("Error (ValueError): this model has no tokenizer")


# The comparison

@pytest.fixture
def comparison(toy):
    with ready(prompt_comparison(toy)) as widget:
        yield widget


def test_the_comparison_paints_both_prompts_from_one_seed(comparison, toy) -> None:
    words = examples("toyworld")
    runs = [list(toy.steps(prompt, seed=words.seed, steps=EACH))
            for prompt in words.keyword_prompts]
    assert torch.equal(runs[0][0].x_t, runs[1][0].x_t)
    pictures = [toy.decode(run[-1].x_prev)[0] for run in runs]
    assert alike(tile(comparison, 0, LABEL_HIGH, 240), enlarged(pictures[0], 240))
    apart = float((runs[0][-1].x0 - runs[1][-1].x0).square().mean().sqrt())
    assert comparison.seen.text == (
        f"Step {EACH} of {EACH}: {moved(*pictures).mean():.0%} of the pixels "
        f"differ by more than 32 levels; x0 differs by {apart:.2f} (latents, root mean square).")


def test_equal_prompts_and_unseen_words_are_said(comparison) -> None:
    text = turn(comparison, second=comparison.knobs["first"].value)
    assert ": 0% of the pixels" in text
    turn(comparison, first="a red dragon", second="a blue dragon")
    assert status(comparison).count("never saw 'dragon'") == 1


def test_prompts_are_compared_word_by_word() -> None:
    assert word_changes("a red car", "a blue car") == (Change("red", "blue"),)
    assert word_changes("a cat", "a cat in a hat") == (Change("", "in a hat"),)
    assert word_changes("a b", "a  b") == ()
    word_changes(*("red car sea " * 1000 + end for end in ("x", "y")))      # that took 21 s


# The editor

@pytest.fixture
def editing(toy, soft):
    with ready(editor(toy, soft)) as widget:
        yield widget


def result(widget) -> Image.Image:
    return tile(widget, SIDE + 8, LABEL_HIGH, SIDE)


def test_the_editor_paints_what_inpaint_paints(editing, toy, soft) -> None:
    at, square = editing.values, to_tensor(soft, size=(48, 48))
    assert editing.original.tobytes() == to_pil(square)[0].tobytes()
    mask = editing.mask(at)
    expected, = toy.inpaint(at["prompt"], editing.original, mask, seed=at["seed"], steps=STEPS)
    inside, changed = np.asarray(mask) > 0, moved(expected, editing.original)
    assert inside.mean() == at["wide"] * at["high"] / editing.cells ** 2
    assert alike(result(editing), enlarged(expected, SIDE))
    assert f"{STEPS} of {STEPS} steps" in editing.seen.text
    assert (f"{changed.mean():.0%} of the pixels change by more than 32 levels: "
            f"{changed[inside].mean():.0%} in the mask, which holds {inside.mean():.0%} of them, "
            f"and outside it {changed[~inside].mean():.0%}") in editing.seen.text


def test_the_editor_paints_what_image_to_image_paints(editing, toy) -> None:
    text, at = turn(editing, repaint=WHOLE, strength=0.5), editing.values
    expected, = toy.image_to_image(at["prompt"], editing.original, strength=0.5, seed=at["seed"],
                                   steps=STEPS)
    assert alike(result(editing), enlarged(expected, SIDE))
    assert text.startswith(f"{STEPS // 2} of {STEPS} steps, from t = ")


@pytest.mark.parametrize("repaint", [WHOLE, BOX])
def test_at_strength_0_nothing_is_repainted(editing, toy, repaint: str) -> None:
    assert turn(editing, repaint=repaint, strength=0.0).startswith("No step is run")
    back = toy.decode(toy.encode_image(editing.original))[0]
    assert alike(result(editing), enlarged(back, SIDE))


def test_a_box_ends_at_the_edges(editing) -> None:
    last = editing.cells - 1
    text = turn(editing, left=last, top=last, wide=editing.cells, high=editing.cells)
    assert f"which holds {1 / editing.cells ** 2:.0%} of them" in text
    assert "outside it none there" in turn(editing, left=0, top=0)


def test_what_is_not_chosen_hides(editing) -> None:
    shown = {name: {knob.layout.display for knob in some.values()}
             for name, some in editing.hidden.items()}
    assert shown == {BOX: {None}, CLICKED: {"none"}}
    turn(editing, repaint=WHOLE)
    assert all(knob.layout.display == "none" for some in editing.hidden.values()
               for knob in some.values())


def test_clicked_or_typed_cells_are_the_mask(editing, toy) -> None:
    assert turn(editing, repaint=CLICKED) == "Click the cells that are to be repainted."
    buttons, side = editing.view.children[1].children[0].children[1].children, editing.cells
    for i in (0, side + 2, 0, 1):                       # the first twice: in and out again
        buttons[i].click()
    assert editing.values["cells"] == "0,1 1,2"
    turn(editing)
    at, mask = editing.values, editing.mask(editing.values)
    cells = np.asarray(mask).reshape(side, editing.factor, side, editing.factor).all((1, 3))
    assert np.argwhere(cells).tolist() == [[0, 1], [1, 2]]
    painted, = toy.inpaint(at["prompt"], editing.original, mask, seed=at["seed"], steps=STEPS)
    assert alike(result(editing), enlarged(painted, SIDE))
    assert in_text("0,1; 2 , 3 x") == {(0, 1), (2, 3)}
    typed = turn(editing, cells="0,1 99,99")            # what lies outside is the last cell
    assert f"holds {2 / side ** 2:.0%} of them" in typed
