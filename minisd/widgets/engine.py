"""What every widget stands on: one worker thread, the latest request wins, nothing goes unseen.

A widget's callback may run on any thread, even beside a busy cell (JupyterLab's subshells), and
must return at once; so all it does is leave a request with its `Engine`. The work is a generator
of `Frame`s, consumed on one daemon thread that all engines share. Between two frames the engine
looks whether the request is still the latest; if not, the run ends there and costs nothing more.
On that thread only trait values are written: nothing is printed, pyplot is not touched, and
whatever the work raises becomes a line of text below the picture, as its warnings do.
"""

import atexit
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from queue import SimpleQueue
from typing import Any

import ipywidgets
from PIL import Image
from torch import nn

from minisd.checkpoints.weights import fingerprint
from minisd.figures.style import COLOURS, ERROR
from minisd.tokenizer import HEARD, warn

KEPT = 64                       # things that a widget remembers
GOODBYE = 2.0                   # seconds that a step under way is given when Python exits
LONGEST = 1000                  # letters of an error that are shown


@dataclass(frozen=True)
class Frame:
    """One moment of a run; the last one carries the finished result."""

    done: int                   # of `total`, for the progress bar
    total: int
    value: Any = None           # what to show now; None: nothing new
    note: str = ""              # for the status line; "": leave it as it is, in the end "Done"


Work = Callable[[Any], Generator[Frame, None, None]]        # request -> frames
Show = Callable[[Any, Frame], None]                         # request, frame with a value


class Worker:
    """One daemon thread that makes calls in the order they come in; it starts with the first."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
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
            with suppress(BaseException):       # an engine tells its own; others must still work
                call()
            del call            # while it waits, the thread keeps nobody's model alive


WORKER = Worker()
atexit.register(WORKER.leave)


class Memory:
    """What was computed with one model; all of it is forgotten when the model's weights change."""

    def __init__(self, model: nn.Module | None = None, most: int = KEPT) -> None:
        self.model, self.most, self._weights = model, most, ""
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def find(self, key: Hashable) -> Any:
        """What is kept under the key, or None."""
        weights = "" if self.model is None else fingerprint(self.model)
        if weights != self._weights:
            self._kept.clear()
            self._weights = weights
        if key in self._kept:
            self._kept.move_to_end(key)                 # the oldest are those not asked for
        return self._kept.get(key)

    def keep(self, key: Hashable, value: Any) -> None:
        self._kept[key] = value
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What is kept under the key; it is made where there is none."""
        if (found := self.find(key)) is None:
            self.keep(key, found := make())
        return found


class Engine:
    """One widget's way to the worker: `submit` requests, see frames; `progress` and `status`.

    work: request -> a generator of frames, run on the worker thread.
    show: called with the request and each of its frames that has a value; writes traits.
    Requests are hashable; what finished is kept in `memory` and shown again without work.
    """

    def __init__(self, work: Work, show: Show, memory: Memory | None = None) -> None:
        self.work, self.show, self.memory = work, show, memory or Memory()
        self.progress = ipywidgets.IntProgress(
            max=1, style={"bar_color": COLOURS["time"], "description_width": "6em"},
            layout={"width": "auto"})
        self.status = ipywidgets.HTML().add_class("minisd-status")
        self.error: BaseException | None = None     # what the status line tells, whole
        self.seconds: float | None = None           # that the last finished run took
        self._lock = threading.RLock()              # a trait's observer may submit again
        self._latest: Hashable | None = None        # the request that is waiting or under way
        self._ticket = 0                            # its number; runs with an older one are stale
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
            self._ticket += 1
            self._latest, self.error = request, None
            if (frame := self.memory.find(("shown", request))) is not None:
                self._end()
                self._present(request, frame)
                self.say(f"{frame.note} Shown from memory.".lstrip())
                return
            self._idle.clear()
            self.say(note)
            WORKER.post(partial(self._run, request, self._ticket))

    def cancel(self) -> None:
        """End what is under way at its next frame."""
        with self._lock:
            if self._latest is not None:
                self._end()
                self.say("Stopped.")

    def close(self) -> None:
        """No work from now on; what is under way ends at its next frame."""
        with self._lock:
            self._closed, self.memory = True, Memory()
            self._end()

    def follow(self, view: ipywidgets.Widget) -> None:
        """Close with this widget: nobody would see the work."""
        view.observe(lambda change: self.close() if change.new is None else None, "comm")

    def wait(self, timeout: float) -> bool:
        """Until the latest request is shown, has failed or was cancelled; False: not in time."""
        return self._idle.wait(timeout)

    def say(self, text: str, *, error: bool = False) -> None:
        """The status line, as plain text; a screen reader speaks it."""
        colour = f"; color: var(--jp-error-color1, {ERROR})" if error else ""
        self.status.value = (f'<div role="status" style="line-height: 1.4{colour}">'
                             f'{escape(text, quote=False)}</div>')

    def _end(self) -> None:
        """Nothing is under way any more: what runs is stale."""
        self._ticket += 1
        self._latest = None
        self._idle.set()

    def _present(self, request: Hashable, frame: Frame) -> None:
        self.progress.max, self.progress.value = frame.total, frame.done
        self.progress.description = f"{frame.done} / {frame.total}"
        if frame.value is not None:
            self.show(request, frame)
        if frame.note:
            self.say(frame.note)

    # On the worker thread

    def _run(self, request: Hashable, ticket: int) -> None:
        try:
            if ticket == self._ticket:
                self._consume(request, ticket)
        except BaseException as error:      # SystemExit in the work ends no thread
            with self._lock:
                if ticket == self._ticket:
                    self.error, text = error, "(its text cannot be made)"
                    with suppress(Exception):
                        text = str(error)[:LONGEST]
                    self.say(f"Error ({type(error).__name__}): {text}", error=True)
        finally:
            with self._lock:
                if ticket == self._ticket:
                    self._end()

    def _consume(self, request: Hashable, ticket: int) -> None:
        """Show the frames of a run; a stale one ends at once, or with the preview that it owes.

        While a slider is dragged, every run is overtaken at once; one that the next waits for
        still owes its first preview, or nothing would be seen to move.
        """
        began, frame, shown = time.perf_counter(), None, False
        with heard() as warnings, closing(self.work(request)) as frames:
            for frame in frames:
                with self._lock:
                    stale = ticket != self._ticket
                    owing = stale and not shown and self._latest is not None
                    if WORKER.leaving or (stale and not owing):
                        return
                    self._present(request, replace(frame, note="") if stale else frame)
                    shown = shown or frame.value is not None
                    if stale and shown:
                        return
        with self._lock:
            if frame is not None and ticket == self._ticket:
                self.seconds = time.perf_counter() - began
                notes = [f"Note: {warning}." for warning in dict.fromkeys(warnings)]
                said = " ".join([frame.note or f"Done in {self.seconds:.1f} s.", *notes])
                self.say(said)
                self.memory.keep(("shown", request), replace(frame, note=said))


@contextmanager
def heard() -> Iterator[list[str]]:
    """The package's warnings inside the `with`, on this thread, as a list instead of shown."""
    thread = threading.get_ident()
    before, messages = HEARD.get(thread), list[str]()
    HEARD[thread] = messages
    try:
        yield messages
    finally:
        HEARD.pop(thread)
        if before is not None:
            HEARD[thread] = before


class KeptRun:
    """A run that widgets look back into: steps are computed when first asked for, then kept.

    start: begins the run, such as lambda: sd.steps(...). advance: makes the next step of it. Work
    goes on where it stopped, on the worker thread only; a run that failed begins anew.
    """

    def __init__(self, start: Callable[[], Iterator[Any]],
                 advance: Callable[[Iterator[Any]], Any] = next) -> None:
        self.steps: list[Any] = []
        self.notes: list[str] = []              # its warnings, which every look repeats
        self.pictures: dict[int, Image.Image] = {}      # decoded, by the step's number
        self._start, self._advance = start, advance
        self._run: Iterator[Any] | None = None

    def until(self, index: int) -> Generator[Frame, None, None]:
        """Compute the missing steps up to number `index`; a frame without a value for each."""
        for note in self.notes:
            warn(note)
        while len(self.steps) <= index:
            try:
                with heard() as notes:
                    self._run = self._run or self._start()
                    self.steps.append(self._advance(self._run))
            except BaseException:
                self._run = None
                self.steps.clear()
                raise
            self.notes += notes
            for note in notes:
                warn(note)
            yield Frame(len(self.steps), index + 2)
