"""Runs as ways on a plane: the lines are the projected states, the title compares seeds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import ink, title

from minisd import figures
from minisd.figures.runs import parting
from minisd.observe.pca import principal_plane


@pytest.fixture(scope="module")
def traces(sd):
    return {f"seed {seed}, guidance {scale}": sd.trace(
        "a red car", seed=seed, guidance_scale=scale, steps=8, pictures="none")
        for seed in (3, 4) for scale in (1, 7.5)}


@pytest.mark.parametrize("done", [None, 3])
def test_trajectory_maps_draw_every_run_on_both_planes(traces, tmp_path: Path, done) -> None:
    figure = figures.trajectory_maps(traces, done)
    for part, axes in enumerate(figure.axes[:2]):
        states = {run: torch.stack([trace.at(n)[1 + part][0] for n in range(9)]).flatten(1)
                  for run, trace in traces.items()}
        plane = principal_plane(torch.cat(list(states.values())))
        whole = [line for line in axes.lines if len(line.get_xdata()) == 9 and line.get_alpha()]
        for line, state in zip(whole, states.values(), strict=True):
            np.testing.assert_allclose(np.stack(line.get_data()).T, plane.project(state), atol=1e-4)
        assert f"holds {100 * plane.shares.sum():.0f} % of the variance" in axes.get_title("left")
        assert len(axes.artists) == len(traces)         # a picture where each run is now
        assert len({line.get_color() for line in whole}) == len(traces)
    assert 0.01 < ink(figure, tmp_path) < 0.7 and title(figure).startswith("Between two runs")


def test_the_title_compares_the_runs() -> None:
    still, rising = torch.zeros(3, 4, 2, 2), torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 2, 2)
    assert parting([(still, still), (rising + 1, rising + 5)]) == (
        "Between two runs the noise differs by 1.00, the first prediction x0 by 5.00, the result "
        "by 3.00")
    assert parting([(still, still)]).startswith("One run")
