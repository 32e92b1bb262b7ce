"""The engine under every widget: the latest wins, nothing goes unseen, the thread survives."""

import re
import subprocess
import sys
import threading
import warnings

import ipywidgets
import pytest
import torch
from hands import SOON

from minisd.tokenizer import warn
from minisd.widgets.engine import KEPT, WORKER, Engine, Frame, KeptRun, Memory, heard


class Bench:
    """An engine whose work counts steps and, if asked, waits at a gate before each of them."""

    def __init__(self, steps: int = 10, gated: bool = False) -> None:
        self.steps, self.shown, self.worked = steps, [], []
        self.gate, self.at_gate = threading.Semaphore(0), threading.Semaphore(0)
        self.gated, self.bad = gated, ValueError("guidance <b>must</b> be a number")
        self.engine = Engine(self.work, lambda request, frame: self.shown.append(
            (request, frame.value)))

    def work(self, request):
        for step in range(1, self.steps + 1):
            if self.gated:
                self.at_gate.release()
                assert self.gate.acquire(timeout=SOON)
            self.worked.append((request, step))
            if request == "bad":
                raise self.bad
            yield Frame(step, self.steps, step, "done" if step == self.steps else "")

    def reach_gate(self) -> None:
        assert self.at_gate.acquire(timeout=SOON)

    def open(self, steps: int = 1000) -> None:
        self.gate.release(steps)

    def finish(self, request=None) -> str:
        """Submit, wait, and read the status line."""
        if request is not None:
            self.engine.submit(request)
        assert self.engine.wait(SOON)
        return re.sub("<[^>]*>", "", self.engine.status.value)


def settle() -> None:
    """Until the worker has done everything that was asked of it before."""
    passed = threading.Event()
    WORKER.post(passed.set)
    assert passed.wait(SOON)


def test_frames_arrive_in_order_with_progress_and_status() -> None:
    bench = Bench(steps=3)
    assert bench.finish("a") == "done" and 'role="status"' in bench.engine.status.value
    assert bench.shown == [("a", 1), ("a", 2), ("a", 3)]
    assert (bench.engine.progress.value, bench.engine.progress.max) == (3, 3)
    bench.engine.work = lambda request: (Frame(n, 2, request) for n in (1, 2))
    assert re.fullmatch(r"Done in \d+\.\d s\.", bench.finish("b"))


def test_of_26_quick_requests_the_latest_wins() -> None:
    bench = Bench(gated=True)
    bench.engine.submit(0)
    bench.reach_gate()
    for request in range(1, 26):
        bench.engine.submit(request)
    bench.open()
    bench.finish()
    assert {request for request, _ in bench.worked} == {0, 25} and len(bench.worked) == 11
    # The stale run shows the preview that it owes, and stops.
    assert bench.shown[:2] == [(0, 1), (25, 1)] and bench.shown[-1] == (25, 10)


def test_errors_land_on_the_status_line_as_text_and_the_next_request_works(capfd) -> None:
    bench = Bench()
    assert bench.finish("bad") == "Error (ValueError): guidance &lt;b&gt;must&lt;/b&gt; be a number"
    assert bench.engine.error is bench.bad
    assert bench.finish("good") == "done" and bench.engine.error is None
    bench.finish("bad")                                 # an error is not kept: it is tried again
    assert bench.worked.count(("bad", 1)) == 2
    bench.engine.show = lambda request, frame: 1 / 0
    assert "ZeroDivisionError" in bench.finish("other")
    assert capfd.readouterr() == ("", "")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(("error", "said"), [
    (Unspeakable(), "Error (Unspeakable): (its text cannot be made)"),
    (SystemExit(3), "Error (SystemExit): 3"), (KeyboardInterrupt(), "Error (KeyboardInterrupt): "),
    (ValueError("x" * 10 ** 6), f"Error (ValueError): {'x' * 1000}"), (GeneratorExit(), "Error")])
def test_the_thread_survives_whatever_the_work_raises(error: BaseException, said: str) -> None:
    bench, other = Bench(), Bench()
    bench.bad = error
    assert bench.finish("bad").startswith(said)
    thread = next(t for t in threading.enumerate() if t.name == "minisd-worker")
    assert other.finish("a") == "done" and thread.is_alive()
    assert bench.finish("good") == "done"


def test_the_error_of_a_stale_run_is_not_shown() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("bad")
    bench.reach_gate()
    bench.engine.submit("good")
    bench.open()
    assert bench.finish() == "done" and bench.engine.error is None


def test_finished_results_are_shown_again_without_work_and_end_what_is_under_way() -> None:
    bench = Bench(gated=True)
    bench.open(bench.steps)
    bench.finish("a")
    bench.engine.submit("b")
    for _ in range(bench.steps + 1):
        bench.reach_gate()
    bench.engine.submit("a")                            # at once, though the worker is busy
    assert bench.finish() == "done Shown from memory."
    bench.open()
    settle()
    assert bench.shown[-1] == ("a", 10)
    assert [step for request, step in bench.worked if request == "b"] == [1]
    bench.gated = False
    for request in range(KEPT + 5):
        bench.finish(request)
    assert "memory" not in bench.finish("a")            # it is bounded


def test_asking_again_for_what_is_under_way_does_not_start_over() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("a")
    bench.reach_gate()
    bench.engine.submit("a")
    bench.open()
    bench.finish()
    assert len(bench.worked) == 10


def test_cancel_ends_a_run_and_says_so() -> None:
    bench = Bench(gated=True)
    bench.engine.submit("a")
    bench.reach_gate()
    bench.engine.cancel()
    assert bench.finish() == "Stopped."
    bench.open()
    settle()
    assert len(bench.worked) == 1 and not bench.shown
    bench.finish("a")
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


def test_all_engines_share_one_thread_and_take_turns() -> None:
    before, threads = threading.active_count(), set()
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


# Warnings

def test_warnings_of_the_work_stand_on_the_status_line_each_once(recwarn) -> None:
    bench = Bench(steps=2)

    def work(request):
        warn("it is late")
        yield Frame(1, 2, "x")
        warn("it is late")
        yield Frame(2, 2, "x")

    bench.engine.work = work
    assert bench.finish("a").endswith(" s. Note: it is late.") and not recwarn.list


def test_heard_takes_the_warnings_of_its_own_thread_and_leaves_the_filters() -> None:
    filters = list(warnings.filters)
    for _ in range(2):
        with pytest.warns(UserWarning, match="elsewhere"), heard() as messages:
            other = threading.Thread(target=warn, args=("elsewhere",))
            other.start()
            other.join()
            with heard() as inner:
                warn("inside")
            warn("here")
        assert messages == ["here"] and inner == ["inside"]
    with pytest.warns(UserWarning, match="afterwards"):
        warn("afterwards")
    assert warnings.filters == filters


# What is remembered

@pytest.mark.parametrize("change", [lambda p: p.mul_(2), lambda p: p.data.fill_(7.0)])
def test_memory_is_of_the_weights_it_was_made_with(change) -> None:
    model = torch.nn.Linear(3, 2)
    memory, made = Memory(model, most=2), []
    for key in ("a", "a", "b", "c", "b"):
        memory.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c"] and memory.find("a") is None
    with torch.no_grad():
        change(model.weight)
    assert memory.find("b") is None and memory.find("c") is None


def test_a_recorded_run_goes_on_where_it_stopped_and_repeats_its_warnings() -> None:
    asked = []

    def steps():
        warn("a word of warning")
        for i in range(9):
            asked.append(i)
            yield i

    run = KeptRun(steps, lambda steps: 10 * next(steps))
    with heard() as notes:
        assert [(f.done, f.total) for f in run.until(2)] == [(1, 4), (2, 4), (3, 4)]
    with heard() as again:
        assert list(run.until(1)) == [] and [f.done for f in run.until(4)] == [4, 5]
    assert run.steps == [0, 10, 20, 30, 40] and asked == [0, 1, 2, 3, 4]
    assert notes == ["a word of warning"] and set(again) == {"a word of warning"}
    next(run.until(6))                                  # somebody turned another knob
    list(run.until(7))
    assert len(run.steps) == 8


def test_a_recorded_run_that_failed_begins_anew() -> None:
    fails = iter([True, False])

    def steps():
        yield 0
        if next(fails):
            raise FloatingPointError("latents")
        yield 1

    run = KeptRun(steps)
    with pytest.raises(FloatingPointError):
        list(run.until(1))
    list(run.until(1))
    assert run.steps == [0, 1]
