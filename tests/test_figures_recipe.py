"""The figures of recipes: lineages of versions, and shares."""

import pytest

from minisd.figures import COLOURS, Stretch, lineage, share_bars, training_curves

FIRST = Stretch("a", "", 100, 256, "all")
SECOND = Stretch("b", "a", 50, 512, "the best of it", dropped=0.1)


def test_a_version_begins_where_the_one_before_it_ends() -> None:
    figure = lineage([FIRST, SECOND, Stretch("c", "a", 200, 512, "another")], 2_000_000)
    assert figure.get_suptitle() == "c went through 600 million pictures in 300 steps"
    bars = {label.get_text(): (bar.get_x(), bar.get_width())
            for label, bar in zip(figure.axes[0].get_yticklabels(), figure.axes[0].patches,
                                  strict=True)}
    assert bars == {"a": (0, 100), "b": (100, 50), "c": (100, 200)}
    assert [bool(bar.get_hatch()) for bar in figure.axes[0].patches] == [False, True, False]


def test_a_version_that_follows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="b follows 'a', which is not there yet"):
        lineage([SECOND], 1)


def test_shares_stand_side_by_side() -> None:
    figure = share_bars({"one": {"x": 0.25, "y": 0.75}, "two": {"y": 1.0}}, "mine", what="share")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [0.25, 0.75, 0.0, 1.0] and figure.get_suptitle() == "mine"


def test_each_curve_says_where_it_begins_and_ends() -> None:
    figure = training_curves({"vae": (range(3), [4.0, 2.0, 1.0]), "unet": ([5, 6], [1.0, 0.5])},
                             "mine")
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["vae: 4 to 1", "unet: 1 to 0.5"]
    assert figure.axes[0].get_yscale() == "log"


def test_what_was_set_is_drawn_as_it_was() -> None:
    """A learning rate has no noise; a mean would round off its corners."""
    rates = [0.0, 1.0, 1.0, 0.0] * 20
    figure = training_curves({"second unet": (range(80), rates)}, "mine", log=False, noisy=False)
    assert all(list(line.get_ydata()) == rates for line in figure.axes[0].lines)
    assert figure.axes[0].lines[-1].get_color() == COLOURS["noise"]


@pytest.mark.parametrize("run", [([], []), ([1, 2], [1.0])])
def test_a_curve_needs_a_value_for_each_step(run) -> None:
    with pytest.raises(ValueError, match="vae: expected a value for each of some steps"):
        training_curves({"vae": run}, "mine")
