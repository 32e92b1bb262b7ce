"""The step scrubber and the trajectory map replay recordings; no model is needed."""

import numpy as np
import pytest
from hands import enlarged, ready, tile, turn

from minisd import Trace
from minisd.widgets import step_scrubber, trajectory_map
from minisd.widgets.drawing import LABEL_HIGH


@pytest.fixture(scope="module")
def traces(toy) -> dict[str, Trace]:
    """All pictures are kept of the first, none of the others."""
    return {f"seed {seed}": toy.trace("a red car", seed=seed, steps=6,
                                      pictures="none" if seed else "all") for seed in range(3)}


def size(values) -> float:
    return values.square().mean().sqrt().item()


def test_the_scrubber_shows_every_step(traces) -> None:
    trace, seen = traces["seed 0"], set()
    with ready(step_scrubber(trace)) as widget:
        for done in range(len(trace) + 1):
            t, x_t, x0 = trace.at(done)
            text = turn(widget, done=done)
            assert f"{done} of 6 steps done ({done / 6:.0%}), t = {t:.0f}." in text
            assert f"x_t {size(x_t - trace.latents):.3f}, x0 {size(x0 - trace.latents):.3f}" in text
            assert "decoded" in text and f"done {done}" in widget.picture.value
            seen.add(widget.seen.picture.tobytes())
        assert len(seen) == len(trace) + 1
        assert "x_t 0.000, x0 0.000" in text and "still change by 0.000" in text


def test_the_scrubber_works_from_a_file_and_shows_the_first_of_a_batch(toy, tmp_path) -> None:
    both = toy.trace("a red car", seed=0, steps=5, num_images=2, pictures="all")
    both.save(tmp_path / "run.safetensors")
    with ready(step_scrubber(Trace.load(tmp_path / "run.safetensors"))) as widget:
        assert turn(widget, done=5).startswith("5 of 5 steps")
        shown = tile(widget, 0, LABEL_HIGH, 256)
        away = np.asarray(shown, int) - np.asarray(enlarged(toy.decode(both.latents)[0], 256), int)
        assert np.abs(away).max() <= 1


def test_play_is_linked_to_the_slider_in_the_browser(traces) -> None:
    with ready(step_scrubber(traces["seed 1"])) as widget:
        assert widget.link.source == (widget.play, "value")
        assert widget.link.target == (widget.knobs["done"], "value")
        assert (widget.play.min, widget.play.max) == (0, 6)
        assert widget.buttons.children == (widget.play,)
        assert "linear previews" in turn(widget, done=3)


def test_the_map_says_how_far_the_chosen_run_is(traces) -> None:
    _, x_t, x0 = traces["seed 2"].at(2)
    with ready(trajectory_map(traces)) as widget:
        away = [size(state - traces["seed 2"].latents) for state in (x_t, x0)]
        assert "x_t {:.3f}, x0 {:.3f}".format(*away) in turn(widget, run="seed 2", done=2)
        assert turn(widget, done=6).startswith("6 of 6 steps done, t = 0.")


def test_runs_that_do_not_match_are_refused(toy, traces) -> None:
    longer = toy.trace("a red car", seed=0, steps=7, pictures="none")
    for wrong in ({}, traces | {"longer": longer}):
        with pytest.raises(ValueError, match="runs of one length and one size"):
            trajectory_map(wrong)
