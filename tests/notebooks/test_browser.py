"""The notebooks in a real browser: everything runs, and every widget answers keys and mouse.

MINISD_SCREENSHOTS=FOLDER keeps a picture of every notebook and widget, to be looked at.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from lab import BUSY, PIXELS, browser_page, open_and_run, serve  # noqa: E402

FOLDER = Path(__file__).parents[2] / "notebooks"
CHOSEN = ("00", "03", "04", "06")   # 09 and 12 are to come: a seed repaints a whole strip there
NOTEBOOKS = [path.stem for path in sorted(FOLDER.glob("*.ipynb")) if path.stem[:2] in CHOSEN]
ALSO_SERIAL = ("00",)      # these too where widgets wait for busy cells
SHOTS = os.environ.get("MINISD_SCREENSHOTS")

WIDGET = "[class*=minisd-]:has(> * .minisd-picture, > .minisd-picture)"
CHIPS = ".minisd-token-explorer"
WAIT = 120.0                # seconds for a picture to change on a busy machine
QUIET = 1.5                 # seconds after which a picture counts as the last
QUICK = 26                  # slider moves in a row

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    shutil.which("chromium") is None, reason="there is no chromium: install Debian's package")]


def served(tmp_path_factory, *, subshells: bool):
    scratch = tmp_path_factory.mktemp("lab")
    shutil.copytree(FOLDER, scratch / "notebooks")
    with serve(scratch / "notebooks", scratch, subshells=subshells) as url:
        yield url


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Widgets speak to the kernel beside a busy cell: JupyterLab's way."""
    yield from served(tmp_path_factory, subshells=True)


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """Widgets wait until the kernel is free."""
    yield from served(tmp_path_factory, subshells=False)


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
    """The picture's pixels, once they stay."""
    deadline, last, since = time.monotonic() + WAIT, pixels(widget), time.monotonic()
    while time.monotonic() - since < QUIET:
        time.sleep(0.05)
        if (now := pixels(widget)) != last:
            last, since = now, time.monotonic()
        assert time.monotonic() < deadline, "the picture does not come to rest"
    return last


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
    track = slider.locator("xpath=..").bounding_box()
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


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_its_widgets_answer(beside: str, page, name: str) -> None:
    look_through(page, beside, name)


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name[:2] in ALSO_SERIAL])
def test_so_they_do_where_widgets_wait_for_the_kernel(behind: str, page, name: str) -> None:
    look_through(page, behind, name)


def look_through(page, lab: str, name: str) -> None:
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
        if sliders.count():
            _answers(page, widget, sliders.first)
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
    settled(widget)
    alt = widget.locator(".minisd-picture img").get_attribute("alt")
    place = cell.get_attribute("title")                     # row 1, column 2
    assert place and (place in alt or place.replace("row ", "").replace(" column ", "") in alt)
    picture, first, last = (part.bounding_box() for part in (
        widget.locator(".minisd-picture img"), areas.first.locator("button").first, cells.last))
    assert first["x"] == pytest.approx(picture["x"], abs=1) and first["y"] >= picture["y"] - 1
    assert last["x"] + last["width"] <= picture["x"] + picture["width"] + 1
    assert last["y"] + last["height"] == pytest.approx(picture["y"] + picture["height"], abs=1)


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
    settled(widget)
    position = slider.get_attribute("aria-valuenow")
    alt = widget.locator(".minisd-picture img").get_attribute("alt")
    assert position and position.rstrip("0").rstrip(".") in alt, (position, alt)


@pytest.mark.parametrize("name", NOTEBOOKS[:1])
def test_many_quick_moves_end_in_the_picture_of_the_last(beside: str, page, name: str) -> None:
    """The same picture as when the slider comes there slowly, from the other side."""
    open_and_run(page, beside.format(name))
    widget = page.locator(WIDGET).first
    slider = widget.locator("[role=slider]").first
    settled(widget)
    by_keyboard(slider, QUICK)
    quick = settled(widget)
    slider.press("ArrowLeft")
    assert settled(widget) != quick
    slider.press("ArrowRight")
    assert settled(widget) == quick
