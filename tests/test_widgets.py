"""The engine under every widget, and the playground on a tiny random model; no browser."""

import base64
import io
import re
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion, Tokenizer
from minisd.checkpoints.load import WEIGHTS
from minisd.config import Config
from minisd.tokenizer import warn
from minisd.widgets import examples, playground
from minisd.widgets.engine import KEPT, WORKER, Engine, Frame, heard
from minisd.widgets.pictures import VIEW, card, mimebundle, picture_html

SOON = 300.0        # seconds for what takes milliseconds when the machine is free


class Bench:
    """An engine whose work counts steps and, if asked, waits at a gate before each of them."""

    def __init__(self, steps: int = 10, gated: bool = False) -> None:
        self.steps, self.shown, self.worked = steps, [], []
        self.gate = threading.Semaphore(0)
        self.at_gate = threading.Semaphore(0)
        self.gated = gated
        self.engine = Engine(self.work, lambda request, frame: self.shown.append(
            (request, frame.value)))

    def work(self, request):
        for step in range(1, self.steps + 1):
            if self.gated:
                self.at_gate.release()
                assert self.gate.acquire(timeout=SOON)
            self.worked.append((request, step))
            if request == "bad":
                raise ValueError("guidance <b>must</b> be a number")
            yield Frame(step, self.steps, step, "done" if step == self.steps else "")

    def reach_gate(self) -> None:
        assert self.at_gate.acquire(timeout=SOON)

    def open(self, steps: int = 1000) -> None:
        self.gate.release(steps)

    def finish(self) -> None:
        assert self.engine.wait(SOON)


def text(widget: ipywidgets.HTML) -> str:
    return re.sub("<[^>]*>", "", widget.value)


# The engine

def test_frames_arrive_in_order_with_progress_and_status() -> None:
    bench = Bench(steps=3)
    bench.engine.submit("a")
    bench.finish()
    assert bench.shown == [("a", 1), ("a", 2), ("a", 3)]
    assert (bench.engine.progress.value, bench.engine.progress.max) == (3, 3)
    assert text(bench.engine.status) == "done" and 'role="status"' in bench.engine.status.value


def test_work_without_notes_is_said_to_be_done() -> None:
    engine = Engine(lambda request: (Frame(n, 2, request) for n in (1, 2)),
                    lambda request, frame: None)
    engine.submit("a")
    assert engine.wait(SOON) and text(engine.status) == "Done."


def test_of_26_quick_requests_the_latest_wins() -> None:
    bench = Bench(gated=True)
    bench.engine.submit(0)
    bench.reach_gate()
    for request in range(1, 26):
        bench.engine.submit(request)
    bench.open()
    bench.finish()
    assert {request for request, _ in bench.worked} == {0, 25}
    assert bench.shown[-1] == (25, 10)
    assert bench.engine.counts == {"started": 2, "cancelled": 1, "finished": 1}


def test_a_stale_run_shows_the_preview_it_owes_and_stops() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("old")
    bench.reach_gate()
    bench.engine.submit("new")
    bench.open()
    bench.finish()
    assert [step for request, step in bench.worked if request == "old"] == [1]
    assert bench.shown[:2] == [("old", 1), ("new", 1)]


def test_a_run_that_has_shown_something_stops_at_its_next_frame() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("old")
    bench.open(1)
    bench.reach_gate()
    bench.reach_gate()                                  # step 1 is shown, step 2 about to begin
    bench.engine.submit("new")
    bench.open()
    bench.finish()
    assert [step for request, step in bench.worked if request == "old"] == [1, 2]
    assert [value for request, value in bench.shown if request == "old"] == [1]


def test_errors_land_on_the_status_line_as_text_and_the_next_request_works(capfd) -> None:
    bench = Bench()
    bench.engine.submit("bad")
    bench.finish()
    assert text(bench.engine.status) == ("Error (ValueError): guidance &lt;b&gt;must&lt;/b&gt; be "
                                         "a number")
    assert isinstance(bench.engine.error, ValueError) and bench.engine.counts["failed"] == 1
    bench.engine.submit("good")
    bench.finish()
    assert text(bench.engine.status) == "done" and bench.engine.error is None
    bench.engine.submit("bad")                          # an error is not kept: it is tried again
    bench.finish()
    assert bench.engine.counts["failed"] == 2
    assert capfd.readouterr() == ("", "")


def test_an_error_while_showing_is_seen_too() -> None:
    bench = Bench()
    bench.engine.show = lambda request, frame: 1 / 0
    bench.engine.submit("a")
    bench.finish()
    assert "ZeroDivisionError" in text(bench.engine.status)


def test_the_error_of_a_stale_run_is_not_shown() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("bad")
    bench.reach_gate()
    bench.engine.submit("good")
    bench.open()
    bench.finish()
    assert text(bench.engine.status) == "done" and bench.engine.error is None


def test_finished_results_are_shown_again_without_work() -> None:
    bench = Bench(steps=3)
    for request in ("a", "b", "a"):
        bench.engine.submit(request)
        bench.finish()
    assert len(bench.worked) == 6 and bench.engine.counts["hits"] == 1
    assert bench.shown[-1] == ("a", 3)
    assert text(bench.engine.status) == "done Shown from memory."


def test_a_hit_ends_what_is_under_way() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("a")
    bench.open(bench.steps)
    bench.finish()
    bench.engine.submit("b")
    for _ in range(bench.steps + 1):
        bench.reach_gate()
    bench.engine.submit("a")                            # at once, though the worker is busy
    bench.finish()
    assert bench.shown[-1] == ("a", 10)
    bench.open()
    settle()
    assert bench.shown[-1] == ("a", 10)
    assert [step for request, step in bench.worked if request == "b"] == [1]


def test_memory_is_bounded() -> None:
    bench = Bench(steps=1)
    for request in range(KEPT + 5):
        bench.engine.submit(request)
        bench.finish()
    assert len(bench.engine._finished) == KEPT
    bench.engine.submit(0)
    bench.finish()
    assert bench.engine.counts["hits"] == 0


def test_asking_again_for_what_is_under_way_does_not_start_over() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("a")
    bench.reach_gate()
    bench.engine.submit("a")
    bench.open()
    bench.finish()
    assert len(bench.worked) == 10 and bench.engine.counts["started"] == 1


def test_cancel_ends_a_run_and_says_so() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("a")
    bench.reach_gate()
    bench.engine.cancel()
    bench.finish()
    assert text(bench.engine.status) == "Stopped."
    bench.open()
    settle()
    assert len(bench.worked) == 1 and not bench.shown
    bench.engine.submit("a")
    bench.finish()
    assert bench.shown[-1] == ("a", 10)


def test_no_work_once_the_widget_is_closed() -> None:
    bench = Bench(gated=True)
    view = ipywidgets.VBox([bench.engine.progress])
    bench.engine.follow(view)
    bench.engine.submit("a")
    bench.reach_gate()
    view.close()
    bench.finish()
    bench.open()
    settle()
    bench.engine.submit("b")
    settle()
    assert bench.worked == [("a", 1)] and not bench.shown


def settle() -> None:
    """Until the worker has done everything that was asked of it before."""
    passed = threading.Event()
    WORKER.post(passed.set)
    assert passed.wait(SOON)


def test_all_engines_share_one_thread_and_take_turns() -> None:
    before = threading.active_count()
    threads = set()
    benches = [Bench(steps=3) for _ in range(5)]
    for bench in benches:
        bench.engine.show = lambda *_: threads.add(threading.current_thread())
    for i in range(5):
        for bench in benches:
            bench.engine.submit(i)
    for bench in benches:
        bench.finish()
    assert len(threads) == 1 and threads.pop().daemon
    assert threading.active_count() <= before + 1
    assert [t.name for t in threading.enumerate()].count("minisd-worker") == 1


def test_a_trait_observer_may_submit_again_from_the_worker() -> None:
    bench = Bench(steps=2)
    bench.engine.progress.observe(
        lambda change: bench.engine.submit("b") if change.new == 2 else None, "value")
    bench.engine.submit("a")
    deadline = time.monotonic() + SOON
    while bench.shown[-1:] != [("b", 2)] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.shown[-1] == ("b", 2)


def test_python_leaves_in_the_middle_of_a_run_without_a_word() -> None:
    program = """
import torch, time
from minisd.widgets.engine import Engine, Frame
def work(request):
    for i in range(100_000):
        torch.randn(200, 200) @ torch.randn(200, 200)
        yield Frame(i, 100_000)
Engine(work, print).submit("a")
time.sleep(0.2)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                         timeout=600, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_heard_takes_the_warnings_of_its_own_thread_every_time() -> None:
    def speak(word: str) -> str:
        warn(f"the word {word}")
        return word

    def beside() -> str:
        with_other = threading.Thread(target=speak, args=("elsewhere",))
        with_other.start()
        with_other.join()
        return speak("here")

    filters = list(warnings.filters)
    for _ in range(2):
        with pytest.warns(UserWarning, match="elsewhere"):
            assert heard(beside) == ("here", ["the word here"])
    with pytest.warns(UserWarning, match="afterwards"):
        speak("afterwards")
    assert warnings.filters == filters


def test_heard_leaves_the_filters_that_another_thread_is_about_to_put_back() -> None:
    inside, outside = threading.Event(), threading.Event()

    def on_the_worker() -> None:
        heard(lambda: (inside.set(), outside.wait(SOON)))

    filters, worker = list(warnings.filters), threading.Thread(target=on_the_worker)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worker.start()
        assert inside.wait(SOON)
    outside.set()
    worker.join()
    assert warnings.filters == filters


# Pictures

def decoded(html_or_png: str) -> Image.Image:
    data = html_or_png.rpartition("base64,")[2].rstrip('">')
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_carry_alternative_text_that_cannot_break_out() -> None:
    picture = Image.new("RGB", (16, 8), "red")
    html = picture_html(picture, alt='"><script>x</script>', width=99)
    assert html.count("<") == html.count(">") == 1 and 'width="99"' in html
    assert decoded(html).size == (16, 8)


def test_the_bundle_holds_the_widget_and_a_picture() -> None:
    view, picture = ipywidgets.VBox(), Image.new("RGB", (30, 20), "red")
    data, metadata = mimebundle(view, picture, "a red field")
    assert data[VIEW]["model_id"] == view.model_id and data["text/plain"] == "a red field"
    assert decoded(data["image/png"]).size == (30, 20)
    assert metadata["image/png"] == {"width": 30, "alt": "a red field"}
    view.close()
    assert VIEW not in mimebundle(view, picture, "")[0]


def test_a_card_grows_with_its_text_and_takes_any_picture() -> None:
    small = card(None, {"Prompt": "a"}, "footer")
    tall = card(Image.new("RGB", (8, 16), "red"), {"Prompt": "a long prompt " * 40}, "footer")
    assert small.width == tall.width and tall.height > small.height
    assert tall.getpixel((100, 100)) == (255, 0, 0) and small.getpixel((100, 100)) == (255,) * 3


# The playground

@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    from conftest import TINY
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_folder(WEIGHTS / "toyworld" / "tokenizer", max_length=13)
    config: Config = replace(TINY, name="toyworld",
                             text=replace(TINY.text, vocab_size=len(tokenizer.vocab)))
    return StableDiffusion(config, tokenizer).eval()


@pytest.fixture
def play(sd):
    play = playground(sd)
    assert play.engine.wait(SOON)
    yield play
    play.view.close()


def status(play) -> str:
    assert play.engine.wait(SOON)
    return text(play.engine.status)


def test_a_small_model_paints_at_once(play, sd) -> None:
    assert play.live.value and play.image.size == (48, 48)
    seed = examples("toyworld").seed
    assert re.fullmatch(rf"Painted in \d+\.\d s: seed {seed}, guidance 7\.5, 25 steps of ddim\.",
                        status(play))
    alt = play.picture.value.partition('alt="')[2].partition('"')[0]
    assert examples("toyworld").prompt in alt and f"seed {seed}" in alt
    expected, = sd.text_to_image(play.prompt.value, seed=seed, steps=25)
    assert decoded(play.picture.value).tobytes() == expected.tobytes() == play.image.tobytes()


def test_previews_come_before_the_picture(sd) -> None:
    play = playground(sd, live=False)
    alts = []
    play.picture.observe(lambda change: alts.append(change.new.partition('alt="')[2]), "value")
    play.generate.click()
    status(play)
    assert alts[0].startswith("step 1 of 25 towards") and not alts[-1].startswith("step")


@pytest.mark.parametrize(("knob", "value", "said"), [
    ("guidance", 3.0, "guidance 3,"), ("steps", 6, "6 steps"), ("seed", 8, "seed 8"),
    ("sampler", "plms", "of plms"), ("prompt", "a blue fish", "Painted"),
    ("negative_prompt", "red", "Painted")])
def test_every_knob_paints_anew(play, knob, value, said) -> None:
    before = play.image
    getattr(play, knob).value = value
    assert said in status(play) and play.image is not before
    assert play.engine.counts["started"] == 2


def test_generate_and_next_seed(play) -> None:
    play.generate.click()
    assert "Shown from memory." in status(play)
    play.next_seed.click()
    after = examples("toyworld").seed + 1
    assert f"seed {after}" in status(play) and play.seed.value == after


def test_warnings_appear_on_the_status_line(play, recwarn) -> None:
    play.prompt.value = "a red car below a blue fish on the sand with a red dragon"
    assert "toyworld never saw 'dragon':" in status(play) and "dropped: " in status(play)
    play.prompt.value, play.steps.value = "a red car", 2
    assert "take at least 5 steps" in status(play)
    assert not recwarn.list


def test_errors_of_the_pipeline_appear_there_too(play, monkeypatch) -> None:
    monkeypatch.setattr(play.sd, "tokenizer", None)
    play.seed.value = 99
    assert status(play).startswith("Error (ValueError): this model has no tokenizer")


def test_a_large_model_waits_for_generate(sd) -> None:
    play = playground(sd, live=False)
    assert status(play) == "Press Generate to paint."
    play.guidance.value = 2.0
    assert status(play) == "Changed: press Generate to paint."
    assert not play.engine.counts and not play.guidance.continuous_update
    play.generate.click()
    assert "guidance 2" in status(play)
    play.steps.value = 10
    assert re.fullmatch(r"Changed: press Generate to paint, about \d+\.\d s\.", status(play))
    play.live.value = True
    assert "10 steps" in status(play) and play.guidance.continuous_update


def test_size_decides_what_a_large_model_is(sd) -> None:
    big = torch.nn.Module()
    big.weight = torch.nn.Parameter(torch.empty(200_000_000, device="meta"))
    play = playground(SimpleNamespace(unet=big, config=replace(sd.config, name="v1")))
    assert not play.live.value and "croissant" in play.prompt.value


def test_on_paper_it_shows_what_was_painted(sd) -> None:
    play = playground(sd)
    data, _ = play._repr_mimebundle_()                  # waits for the first picture
    assert play.image is not None and VIEW in data
    seed = f"seed {play.seed.value}"
    assert data["text/plain"] == repr(play) == (
        f"Playground: {play.prompt.value!r}, {seed}, guidance 7.5, 25 steps of ddim")
    play.live.value = False
    play.seed.value = 12                                # not painted, so not claimed
    assert seed in play._repr_mimebundle_()[0]["text/plain"]


def test_no_widget_has_what_breaks_rendering(play) -> None:
    """ipywidgets 8.1.9 draws an error where an Image or a box has a tooltip."""
    def inside(widget: ipywidgets.Widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from inside(child)

    found = list(inside(play.view))
    assert len(found) > 12
    for widget in found:
        assert not isinstance(widget, ipywidgets.Image)
        assert not (isinstance(widget, ipywidgets.Box) and widget.tooltip)
