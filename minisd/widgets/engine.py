"""What every widget stands on: one worker thread, the latest request wins, nothing goes unseen.

A widget's callback may run on any thread, even beside a busy cell (JupyterLab's subshells), and
must return at once; so all it does is leave a request with its `Engine`. The work is a generator
of `Frame`s, consumed on one daemon thread that all engines share. Between two frames the engine
looks whether the request is still the latest; if not, the run ends there and costs nothing more.
On that thread only trait values are written: nothing is printed, pyplot is not touched, and an
error becomes a line of text below the picture.
"""

import atexit
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, replace
from html import escape
from queue import SimpleQueue
from typing import Any, TypeVar

import ipywidgets

from minisd.tokenizer import HEARD
from minisd.widgets.pictures import COLOURS

T = TypeVar("T")

KEPT = 64                       # finished results an engine remembers
GOODBYE = 2.0                   # seconds that a step under way is given when Python exits


@dataclass(frozen=True)
class Frame:
    """One moment of a run; the last one carries the finished result."""

    done: int                   # of `total`, for the progress bar
    total: int
    value: Any = None           # what to show now; None: nothing new
    note: str = ""              # for the status line; "": leave it as it is, in the end "Done."


Work = Callable[[Any], Generator[Frame, None, None]]        # request -> frames
Show = Callable[[Any, Frame], None]                         # request, frame with a value


class Worker:
    """One daemon thread that makes calls in the order they come in; it starts with the first."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.leaving = False

    def post(self, call: Callable[[], None]) -> None:
        self._calls.put(call)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="minisd-worker",
                                                daemon=True)
                self._thread.start()

    def leave(self) -> None:
        """At Python's exit: end between two frames, for a thread killed inside torch aborts."""
        self.leaving = True
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join(GOODBYE)

    def _loop(self) -> None:
        while (call := self._calls.get()) is not None and not self.leaving:
            call()
            del call            # while it waits, the thread keeps nobody's model alive


WORKER = Worker()
atexit.register(WORKER.leave)


class Engine:
    """One widget's way to the worker: `submit` requests, see frames; `progress` and `status`.

    work: request -> a generator of frames, run on the worker thread.
    show: called with the request and each of its frames that has a value; writes traits.
    Requests are hashable; what finished is kept and shown again without work.
    """

    def __init__(self, work: Work, show: Show) -> None:
        self.work, self.show = work, show
        self.progress = ipywidgets.IntProgress(
            max=1, style={"bar_color": COLOURS["time"], "description_width": "6em"},
            layout={"width": "auto"})
        self.status = ipywidgets.HTML()
        self.counts: Counter[str] = Counter()       # started, finished, cancelled, failed, hits
        self.error: Exception | None = None         # what the status line tells, whole
        self._lock = threading.RLock()              # a trait's observer may submit again
        self._generation = 0                        # of the latest request; older ones are stale
        self._waiting: Hashable | None = None       # asked for, not yet taken by the worker
        self._latest: Hashable | None = None        # waiting or running
        self._finished: OrderedDict[Hashable, Frame] = OrderedDict()
        self._idle = threading.Event()
        self._idle.set()
        self._closed = False

    def submit(self, request: Hashable, note: str = "Working ...") -> None:
        """Show this request's result: from memory, else by work that ends all earlier work.

        Returns at once, from whatever thread. A request that is already under way goes on.
        note: for the status line until there is more to tell.
        """
        with self._lock:
            if self._closed or request == self._latest:
                return
            self.error = None
            self._generation += 1
            if request in self._finished:
                self._latest = self._waiting = None
                self._idle.set()
                self._recall(request)
                return
            self._latest = self._waiting = request
            self._idle.clear()
            self.say(note)
        WORKER.post(self._run_waiting)

    def cancel(self, note: str = "Stopped.") -> None:
        """End what is under way at its next frame."""
        with self._lock:
            if self._latest is not None:
                self._forget_latest()
                self.say(note)

    def close(self) -> None:
        """No work from now on; what is under way ends at its next frame."""
        with self._lock:
            self._closed = True
            self._finished.clear()
            self._forget_latest()

    def follow(self, view: ipywidgets.Widget) -> None:
        """Close with this widget: nobody would see the work."""
        view.observe(lambda change: self.close() if change.new is None else None, "comm")

    def wait(self, timeout: float) -> bool:
        """Until the latest request is shown, has failed or was cancelled; False: not in time."""
        return self._idle.wait(timeout)

    def say(self, text: str, *, error: bool = False) -> None:
        """The status line, as plain text; a screen reader speaks it."""
        colour = f"; color: var(--jp-error-color1, {COLOURS['error']})" if error else ""
        self.status.value = (f'<div role="status" style="line-height: 1.4{colour}">'
                             f'{escape(text, quote=False)}</div>')

    def _forget_latest(self) -> None:
        self._generation += 1
        self._latest = self._waiting = None
        self._idle.set()

    def _recall(self, request: Hashable) -> None:
        self._finished.move_to_end(request)
        frame = self._finished[request]
        self.counts["hits"] += 1
        try:
            self._present(request, frame)
            self.say(f"{frame.note} Shown from memory.".lstrip())
        except Exception as error:
            self._fail(error)

    def _present(self, request: Hashable, frame: Frame) -> None:
        self.progress.max, self.progress.value = frame.total, frame.done
        self.progress.description = f"{frame.done} / {frame.total}"
        if frame.value is not None:
            self.show(request, frame)
        if frame.note:
            self.say(frame.note)

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.counts["failed"] += 1
        self.say(f"Error ({type(error).__name__}): {error}", error=True)

    # On the worker thread

    def _run_waiting(self) -> None:
        with self._lock:
            request, generation = self._waiting, self._generation
            self._waiting = None
        if request is None:                 # a later call has taken it, or it was cancelled
            return
        self.counts["started"] += 1
        try:
            self._consume(request, generation)
        except Exception as error:
            with self._lock:
                if generation == self._generation:
                    self._fail(error)
        finally:
            with self._lock:
                if generation == self._generation:
                    self._latest = None
                    self._idle.set()

    def _consume(self, request: Hashable, generation: int) -> None:
        frames, frame, shown = self.work(request), None, False
        try:
            for frame in frames:
                with self._lock:
                    if self._wanted(generation, shown):
                        stale = generation != self._generation
                        self._present(request, replace(frame, note="") if stale else frame)
                        shown = shown or frame.value is not None
                    if not self._wanted(generation, shown):
                        self.counts["cancelled"] += 1
                        return
        finally:
            frames.close()
        with self._lock:
            if frame is not None and generation == self._generation:
                if not frame.note:
                    self.say("Done.")
                self.counts["finished"] += 1
                self._finished[request] = frame
                if len(self._finished) > KEPT:
                    self._finished.popitem(last=False)

    def _wanted(self, generation: int, shown: bool) -> bool:
        """Whether a run goes on: the latest one does.

        While a slider is dragged, every run is overtaken at once; one that the next waits for
        still owes its first preview, or nothing would be seen to move.
        """
        owed = not shown and self._waiting is not None
        return not WORKER.leaving and (generation == self._generation or owed)


def heard(call: Callable[[], T]) -> tuple[T, list[str]]:
    """What the call returns, and what the package warned of meanwhile, for the status line."""
    thread = threading.get_ident()
    before: list[str] | None = HEARD.get(thread)
    HEARD[thread] = messages = []
    try:
        return call(), messages
    finally:
        HEARD.pop(thread)
        if before is not None:
            HEARD[thread] = before
