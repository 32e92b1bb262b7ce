"""A run that widgets look back into: steps are computed when first asked for, then kept."""

from collections.abc import Callable, Generator, Iterator

from minisd.samplers import SampleStep
from minisd.widgets.engine import Frame, heard

Start = Callable[[], Iterator[SampleStep]]


class Recorded:
    """The steps so far of one run, of which no more is computed than somebody wants to see.

    start: begins the run, such as lambda: sd.steps(...). Work goes on where it stopped, on the
    worker thread only; a run that failed begins anew.
    """

    def __init__(self, start: Start) -> None:
        self.steps: list[SampleStep] = []
        self.notes: list[str] = []              # warnings the run gave when it began
        self._start = start
        self._run: Iterator[SampleStep] | None = None

    def until(self, index: int) -> Generator[Frame, None, None]:
        """Compute the missing steps up to number `index`; a frame without a value for each."""
        while len(self.steps) <= index:
            try:
                self.steps.append(self._next())
            except Exception:
                self._run = None
                self.steps.clear()
                raise
            yield Frame(len(self.steps), index + 2)

    def _next(self) -> SampleStep:
        if self._run is not None:
            return next(self._run)
        run, early = heard(self._start)
        first, late = heard(lambda: next(run))              # reads the prompts
        self._run, self.notes = run, list(dict.fromkeys(early + late))      # each once, in order
        return first
