"""A recorded run and its snapshots."""

import pytest
import torch

from minisd.diffusion import StepCoefficients
from minisd.samplers import SampleStep
from minisd.trace import Trace


def run(total: int) -> list[SampleStep]:
    """Steps whose tensors hold the step's number: x_t = i, x0 = 100 + i, x_prev = i + 1."""
    def full(value: float) -> torch.Tensor:
        return torch.full((1, 5, 7, 9), float(value))

    coefficients = StepCoefficients(1.0, 0.0, 0.0)
    return [SampleStep(i, total, 10.0 * (total - i), full(i), full(0), None, None, full(100 + i),
                       full(i + 1), coefficients, i + 1) for i in range(total)]


def test_snapshots_stand_at_quarters_and_begin_with_noise() -> None:
    snapshots = Trace.record(run(50)).snapshots(0.25)
    assert [s.done for s in snapshots] == [0, 12, 25, 37, 50]
    assert [s.t for s in snapshots] == [500, 380, 250, 130, 0]
    assert [s.x_t.mean().item() for s in snapshots] == [0, 12, 25, 37, 50]
    assert [s.x0.mean().item() for s in snapshots] == [100, 112, 125, 137, 50]
    assert snapshots[0].share == 0 and snapshots[-1].share == 1


@pytest.mark.parametrize(("ratio", "total", "count"),
                         [(0.25, 50, 5), (0.1, 50, 11), (1 / 3, 30, 4), (0.3, 10, 5), (1, 7, 2),
                          (0.25, 2, 3), (0.01, 3, 4)])
def test_any_ratio_begins_at_the_noise_and_ends_at_the_result(ratio, total, count) -> None:
    snapshots = Trace.record(run(total)).snapshots(ratio)
    assert len(snapshots) == count
    assert snapshots[0].done == 0 and snapshots[-1].done == total
    assert snapshots[-1].x_t is snapshots[-1].x0


@pytest.mark.parametrize("ratio", [0, -0.25, 1.5, float("nan")])
def test_ratios_that_make_no_sense_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Trace.record(run(3)).snapshots(ratio)


def test_a_run_without_steps_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="no steps to record"):
        Trace.record([])
