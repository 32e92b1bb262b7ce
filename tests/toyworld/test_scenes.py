"""The drawn world: what is sampled, what is held out, and what the pictures show."""

import numpy as np
import pytest
from PIL import Image

from minisd.toyworld.scenes import (
    BACKGROUNDS,
    COLOURS,
    GAP,
    HELD_OUT_COLOURED,
    HELD_OUT_PAIRS,
    KINDS,
    OFFSET,
    RELATIONS,
    VISIBLE,
    Scene,
    Thing,
    draw,
    is_held_out,
    sample_scene,
)

README_SCENE = Scene((Thing("car", "red", 0.5, 0.75, 0.4),
                      Thing("balloon", "yellow", 0.5, 0.27, 0.4)), "sky", "below", 7)
VISIBLE_ON = {c: [b for b in BACKGROUNDS if c in VISIBLE[b]] for c in COLOURS}


def scenes(count: int, seed: int, held_out: bool = False) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held_out) for _ in range(count)]


@pytest.fixture(scope="module")
def training() -> list[Scene]:
    return scenes(3000, seed=1)


@pytest.fixture(scope="module")
def unseen() -> list[Scene]:
    return scenes(3000, seed=2, held_out=True)


def alone(kind: str, colour: str, background: str, *, size: float = 0.5, seed: int = 0) -> Scene:
    return Scene((Thing(kind, colour, 0.5, 0.5, size),), background, None, seed)


# What is sampled.

def test_training_scenes_show_everything_but_what_is_held_out(training):
    assert scenes(50, seed=1) == training[:50] != scenes(50, seed=4)
    assert not any(map(is_held_out, training)) and not is_held_out(README_SCENE)
    coloured = {(t.colour, t.kind) for s in training for t in s.things}
    assert len(coloured) == len(KINDS) * len(COLOURS) - len(HELD_OUT_COLOURED)
    assert {s.background for s in training} == set(BACKGROUNDS)
    assert {s.relation for s in training} == {None, *RELATIONS}
    assert 0.30 < np.mean([len(s.things) == 1 for s in training]) < 0.40


def test_held_out_scenes_hold_something_of_both_sorts(unseen):
    assert all(map(is_held_out, unseen))
    coloured = {(t.colour, t.kind) for s in unseen for t in s.things} & HELD_OUT_COLOURED
    pairs = {frozenset(t.kind for t in s.things) for s in unseen} & HELD_OUT_PAIRS
    assert coloured == HELD_OUT_COLOURED and pairs == HELD_OUT_PAIRS


def test_things_are_whole_visible_and_of_two_looks(training, unseen):
    """Two may share a kind or a colour, but not both."""
    for scene in training + unseen:
        assert len({(t.kind, t.colour) for t in scene.things}) == len(scene.things)
        for thing in scene.things:
            assert thing.colour in VISIBLE[scene.background]
            assert thing.size / 2 < min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
    pairs = [s.things for s in training if len(s.things) == 2]
    assert any(a.kind == b.kind for a, b in pairs) and any(a.colour == b.colour for a, b in pairs)


def test_relations_are_true_and_unambiguous(training, unseen):
    for scene in training + unseen:
        if scene.relation is None:
            assert len(scene.things) == 1
            continue
        a, b = scene.things
        dx, dy = b.x - a.x, b.y - a.y
        along, across = {"above": (dy, dx), "below": (-dy, dx),
                         "left of": (dx, dy), "right of": (-dx, dy)}[scene.relation]
        assert along >= (a.size + b.size) / 2 + GAP - 1e-9      # apart, with a gap
        assert abs(across) <= OFFSET


# What is drawn.

def test_pictures_are_deterministic_and_vary_with_the_seed():
    first = draw(README_SCENE)
    assert first.shape == (128, 128, 3) and first.dtype == np.uint8 and first.flags.writeable
    np.testing.assert_array_equal(first, draw(README_SCENE))
    other = Scene(README_SCENE.things, "sky", "below", 8)
    assert np.abs(first.astype(int) - draw(other)).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_named_colour_dominates(kind):
    palette = np.array(list(COLOURS.values()), float)
    for i, colour in enumerate(COLOURS):
        background = VISIBLE_ON[colour][i % len(VISIBLE_ON[colour])]
        scene = alone(kind, colour, background, seed=i)
        picture = draw(scene).astype(float)
        covered = np.abs(picture - draw(Scene((), background, None, i))).max(2) > 6
        nearest = np.square(picture[covered][:, None] - palette).sum(2).argmin(1)
        counts = np.bincount(nearest, minlength=10)
        assert counts.argmax() == i and counts[i] > 0.45 * counts.sum(), (colour, background)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_visible_colours_stand_out(background):
    behind = draw(Scene((), background, None, 0)).reshape(-1, 3).astype(float)
    for colour in VISIBLE[background]:
        distance = np.linalg.norm(behind - COLOURS[colour], axis=1)
        assert np.quantile(distance, 0.02) > 60, colour         # of 441 from black to white


def test_sizes_agree(training):
    for scene in training[:5]:
        large = np.asarray(Image.fromarray(draw(scene, 256)).reduce(4), float)
        difference = np.abs(large - draw(scene, 64))
        assert difference.mean() < 1.0 and np.quantile(difference, 0.99) < 30


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown kind 'dog': choose one of circle"):
        draw(alone("dog", "red", "white"))
    with pytest.raises(ValueError, match="unknown colour"):
        draw(alone("car", "beige", "white"))
    with pytest.raises(ValueError, match="unknown background"):
        draw(alone("car", "red", "moon"))
    with pytest.raises(ValueError, match="at least 8"):
        draw(alone("car", "red", "white"), size=4)
