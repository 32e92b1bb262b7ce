"""One recorded run: every step of a sampler, kept, to be looked at afterwards.

    trace = Trace.record(sd.steps("a red car"))
    for snapshot in trace.snapshots(ratio=0.25):
        sd.decode(snapshot.x_t), sd.decode(snapshot.x0)

A step's tensors are latents, a few kilobytes each, so a whole run fits into memory many times.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from minisd.samplers import SampleStep


@dataclass(frozen=True)
class Snapshot:
    """A run after `done` of its `total` steps."""

    done: int
    total: int
    t: float                        # the timestep of x_t; 0 at the end
    x_t: Tensor                     # (b, c, h, w): noise at first, the result at the end
    x0: Tensor                      # what the network takes for the result now

    @property
    def share(self) -> float:
        """From 0, nothing done yet, to 1."""
        return self.done / self.total


@dataclass(frozen=True)
class Trace:
    """The steps of one run, first to last."""

    steps: tuple[SampleStep, ...]

    @classmethod
    def record(cls, run: Iterable[SampleStep]) -> "Trace":
        """Consume a run, such as sd.steps(...). Raises ValueError for one without steps."""
        steps = tuple(run)
        if not steps:
            raise ValueError("this run has no steps to record: with a reference picture, take a "
                             "larger strength")
        return cls(steps)

    @property
    def latents(self) -> Tensor:
        """(b, c, h, w), the result."""
        return self.steps[-1].x_prev

    def snapshots(self, ratio: float = 0.25) -> list[Snapshot]:
        """The run at 0, ratio, 2 ratio, ... and 100 % of its steps, rounded down to whole steps.

        At 0 %, x_t is the starting noise and x0 the first prediction; at 100 % both are the
        result. Raises ValueError for a ratio outside (0, 1].
        """
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, such as 0.25, got {ratio}")
        total = len(self.steps)
        count = int(1 / ratio + 1e-9)               # 1 / 0.1 may fall short of 10 by a rounding
        marks = {int(i * ratio * total + 1e-9) for i in range(count + 1)} | {total}
        return [self._after(done) for done in sorted(marks)]

    def _after(self, done: int) -> Snapshot:
        total = len(self.steps)
        if done == total:
            return Snapshot(done, total, 0.0, self.latents, self.latents)
        step = self.steps[done]
        return Snapshot(done, total, step.t, step.x_t, step.x0)
