"""Notebooks in a real browser: everything runs, and every kind of widget answers keys and mouse.

    00 playground           04 attention_explorer   09 guidance_lab
    03 token_explorer       06 vae_explorer         12 step_scrubber, trajectory_map

The other kinds stand alone in a notebook of their own, for theirs are long (SCRATCH, below).
MINISD_SCREENSHOTS=FOLDER keeps a picture of every notebook and widget, to be looked at.
"""

import os
import shutil
import time
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("playwright")

from lab import BUSY, PIXELS, browser_page, open_and_run, serve  # noqa: E402

FOLDER = Path(__file__).parents[2] / "notebooks"
CHOSEN = ("00", "03", "04", "06", "09", "12")
SCRATCH = """
import minisd
from minisd import widgets
from minisd.toyworld.clip import load_clip
sd = minisd.load()
words, paint = widgets.examples(sd.config.name), sd.text_to_image
few = paint([words.prompt] * 3, seed=[1, 2, 3], steps=5)
---
widgets.noise_slider(sd, few[0])
---
widgets.skip_explorer(sd, words.prompt, few[0])
---
widgets.prompt_comparison(sd)
---
widgets.editor(sd, few[0])
---
widgets.picture_search(load_clip(sd), sd.tokenizer, few, words.prompt)
---
widgets.curve_explorer(         # points are named by the place that is clicked
    "training bar", {f"0,{i}": (i, i - 0.5, i + 0.5) for i in (0, 1, 2)},
    lambda name: [([(few[int(name[2])], name)], name)], "a curve", knob="Point", across=1)
"""
NOTEBOOKS = [*(path.stem for path in sorted(FOLDER.glob("*.ipynb")) if path.stem[:2] in CHOSEN),
             "scratch"]
SHOTS = os.environ.get("MINISD_SCREENSHOTS")

WIDGET = "[class*=minisd-]:has(> * .minisd-picture, > .minisd-picture):not(.minisd-cells)"
CHIPS = ".minisd-token-explorer"
PRESSED = "[class*=minisd-skip-] input, .minisd-play button:first-child"    # check-boxes, Play
WAIT = 120.0                # seconds for a picture to change on a busy machine
QUIET = 1.5                 # seconds after which a picture counts as the last
QUICK = 26                  # slider moves in a row

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    shutil.which("chromium") is None, reason="there is no chromium: install Debian's package")]


@pytest.fixture(scope="module")
def lab(request, tmp_path_factory):
    """True: widgets speak to the kernel beside a busy cell, JupyterLab's way. False: they wait."""
    scratch = tmp_path_factory.mktemp("lab")
    shutil.copytree(FOLDER, scratch / "notebooks")
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in SCRATCH.split("---")]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel),
                   scratch / "notebooks" / "scratch.ipynb")
    with serve(scratch / "notebooks", scratch, subshells=request.param) as url:
        yield url


@pytest.fixture
def page():
    with browser_page() as page:
        yield page


def pixels(widget) -> str:
    image = widget.locator(".minisd-picture img")
    return image.evaluate(PIXELS) if image.count() else ""


def changed(widget, before: str) -> str:
    """The new picture's pixels, once they are others."""
    deadline = time.monotonic() + WAIT
    while (now := pixels(widget)) == before:
        assert time.monotonic() < deadline, "the picture did not change"
        time.sleep(0.02)
    return now


def settled(widget) -> str:
    """The picture's pixels, once no work is under way and they stay."""
    deadline, last, since = time.monotonic() + WAIT, pixels(widget), time.monotonic()
    status = widget.locator(".minisd-status")
    while time.monotonic() - since < QUIET:
        time.sleep(0.05)
        if (now := pixels(widget)) != last or "Working" in status.inner_text():
            last, since = now, time.monotonic()
        assert time.monotonic() < deadline, "the picture does not come to rest"
    return last


def says(widget, *texts: str) -> None:
    """Wait until the picture's alternative text holds one of these."""
    picture, deadline = widget.locator(".minisd-picture img"), time.monotonic() + WAIT
    while not any(text in (alt := picture.get_attribute("alt") or "") for text in texts):
        assert time.monotonic() < deadline, (texts, alt)
        time.sleep(0.05)


def by_keyboard(slider, times: int = 1) -> None:
    slider.scroll_into_view_if_needed()
    slider.focus()
    value, most = (float(slider.get_attribute(f"aria-value{x}") or 0) for x in ("now", "max"))
    for _ in range(times):
        slider.press("ArrowRight" if value < most else "ArrowLeft")


def by_mouse(page, slider) -> None:
    """Drag the handle some way along its track."""
    slider.scroll_into_view_if_needed()
    handle = slider.bounding_box()
    track = slider.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]").bounding_box()
    x, y = (handle[k] + handle[s] / 2 for k, s in (("x", "width"), ("y", "height")))
    middle = track["x"] + track["width"] / 2
    target = track["x"] + track["width"] * (0.8 if x < middle else 0.2)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(target, y, steps=4)
    page.mouse.up()


def shoot(page, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.parametrize(
    "lab, name", [*((True, name) for name in NOTEBOOKS), (False, NOTEBOOKS[0])], indirect=["lab"])
def test_it_runs_and_its_widgets_answer(lab: str, page, name: str) -> None:
    for cell in open_and_run(page, lab.format(name)):
        assert not any(out["output_type"] == "error" for out in cell["outputs"]), cell["outputs"]
    assert page.locator(".jupyter-widgets-error-widget").count() == 0
    widgets, chips = page.locator(WIDGET), page.locator(CHIPS)
    assert widgets.count() + chips.count() > 0, "no widget on this page"
    for i in range(chips.count()):
        _chips_answer(chips.nth(i))
        shoot(page, f"{name}-chips")
    for i in range(widgets.count()):
        widget = widgets.nth(i)
        widget.scroll_into_view_if_needed()
        settled(widget)
        shoot(page, f"{name}-{i}")
        sliders = widget.locator("[role=slider]:visible")
        for k in range(sliders.count()):
            before = settled(widget)
            by_keyboard(sliders.nth(k))
            changed(widget, before)
        for press in widget.locator(PRESSED).all():
            before = settled(widget)
            press.click()
            changed(widget, before)
        if sliders.count():
            _answers(page, widget, sliders.first)
        else:
            before = settled(widget)
            widget.locator(".minisd-prompt input").fill("a pink heart")
            changed(widget, before)
        if widget.locator(".minisd-cells button").count():
            _cells_answer(widget)
        shoot(page, f"{name}-{i}-moved")
        assert "Error" not in widget.locator(".minisd-status").inner_text()


def _chips_answer(widget) -> None:
    """Every token is a button, pressed by the mouse or the space bar, and says its place."""
    buttons, text = widget.locator(".minisd-token button"), widget.locator(".minisd-text")
    buttons.nth(1).click()
    text.get_by_text("Place 1 of").wait_for()
    buttons.nth(2).focus()
    buttons.nth(2).press("Space")
    text.get_by_text("Place 2 of").wait_for()
    widget.locator(".minisd-prompt input").fill("fish")
    text.get_by_text("Place 2 of").wait_for()
    assert buttons.count() >= 3


def _cells_answer(widget) -> None:
    """A click on a cell chooses it; the buttons lie where the cells are seen."""
    before, areas = settled(widget), widget.locator(".minisd-cells .widget-gridbox")
    cells = areas.last.locator("button")
    cell = cells.nth(cells.count() // 2 + 1)
    cell.click()
    changed(widget, before)
    place = cell.get_attribute("title") or "?"              # row 1, column 2
    says(widget, place, place.replace("row ", "").replace(" column ", ""))
    picture, first, last = (part.bounding_box() for part in (
        widget.locator(".minisd-picture img"), areas.first.locator("button").first, cells.last))
    assert first["x"] == pytest.approx(picture["x"], abs=1) and first["y"] >= picture["y"] - 1
    assert last["x"] + last["width"] <= picture["x"] + picture["width"] + 1
    bottom = last["y"] + last["height"]         # of the picture, or else the cells are its top
    assert bottom == pytest.approx(picture["y"] + picture["height"], abs=1) or (
        areas.count() == 1 and first["y"] == pytest.approx(picture["y"], abs=1))


def _answers(page, widget, slider) -> None:
    """To the mouse, to keys while the kernel is busy, and to many keys at once."""
    before = settled(widget)
    by_mouse(page, slider)
    changed(widget, before)
    before = settled(widget)
    page.evaluate(BUSY, 2)
    by_keyboard(slider, 2)
    changed(widget, before)
    settled(widget)
    by_keyboard(slider, QUICK)
    says(widget, (slider.get_attribute("aria-valuenow") or "?").rstrip("0").rstrip("."))


@pytest.mark.parametrize("lab", [True], indirect=True)
def test_many_quick_moves_end_in_the_picture_of_the_last(lab: str, page) -> None:
    """The same picture as when the slider comes there slowly, from the other side."""
    open_and_run(page, lab.format(NOTEBOOKS[0]))
    widget = page.locator(WIDGET).first
    slider = widget.locator("[role=slider]").first
    before = settled(widget)
    by_keyboard(slider, QUICK)
    changed(widget, before)
    quick = settled(widget)
    slider.press("ArrowLeft")
    changed(widget, quick)
    before = settled(widget)
    slider.press("ArrowRight")
    changed(widget, before)
    assert settled(widget) == quick
