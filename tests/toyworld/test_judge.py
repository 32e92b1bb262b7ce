"""The judge: what a reading says about a scene, distances of features, and the shipped weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import minisd
from minisd.toyworld import data, loop, train_judge
from minisd.toyworld.judge import (
    GRID,
    MOST,
    SIDE,
    Judge,
    Maps,
    Reading,
    Seen,
    _read,
    agrees,
    frechet_distance,
    load_judge,
    relation,
    save_judge,
)
from minisd.toyworld.recipe import RECIPE, Part
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, KINDS, Scene, Thing

WEIGHTS = Path(minisd.__file__).parents[1] / "weights" / "toyworld"

CAR, BALLOON = Thing("car", "red", 0.5, 0.75, 0.4), Thing("balloon", "yellow", 0.5, 0.27, 0.4)
SCENE = Scene((CAR, BALLOON), "sky", "below", 7)


def seen(thing: Thing, **changes) -> Seen:
    return replace(Seen(thing.kind, thing.colour, thing.x, thing.y, 0.9), **changes)


def read(*things: Seen, background: str = "sky") -> Reading:
    return Reading(things, background)


def wrong(reading: Reading, scene: Scene = SCENE) -> set[str]:
    return {name for name, right in agrees(reading, scene).items() if not right}


# What a reading says about a scene.

def test_a_right_reading_agrees_in_any_order():
    assert list(agrees(read(), SCENE)) == ["things", "colours", "relation", "background", "all"]
    assert not wrong(read(seen(CAR), seen(BALLOON)))
    assert not wrong(read(seen(BALLOON), seen(CAR)))


def test_swapped_colours_are_wrong():
    swapped = read(seen(CAR, colour="yellow"), seen(BALLOON, colour="red"))
    assert wrong(swapped) == {"colours", "all"}


def test_a_wrong_colour_of_one_thing_is_wrong():
    assert wrong(read(seen(CAR, colour="pink"), seen(BALLOON))) == {"colours", "all"}


def test_a_wrong_relation_is_wrong():
    assert wrong(read(seen(CAR, y=0.1), seen(BALLOON))) == {"relation", "all"}
    assert wrong(read(seen(CAR, x=0.95, y=0.4), seen(BALLOON))) == {"relation", "all"}


def test_an_extra_thing_is_wrong_though_the_rest_is_there():
    extra = read(seen(CAR), seen(BALLOON), Seen("star", "red", 0.1, 0.1, 0.6))
    assert wrong(extra) == {"things", "all"}
    twice = read(seen(CAR), seen(BALLOON), seen(CAR, x=0.1))
    assert wrong(twice) == {"things", "all"}


def test_a_missing_or_other_thing_is_wrong_with_all_it_had():
    assert wrong(read(seen(CAR))) == {"things", "colours", "relation", "all"}
    assert wrong(read()) == {"things", "colours", "relation", "all"}
    other = read(seen(CAR, kind="boat"), seen(BALLOON))
    assert wrong(other) == {"things", "colours", "relation", "all"}


def test_a_wrong_or_unclear_background_is_wrong():
    for background in ("sea", ""):
        assert wrong(read(seen(CAR), seen(BALLOON), background=background)) == {"background", "all"}


def test_two_things_of_one_kind_are_told_apart_by_colour():
    low, high = Thing("car", "red", 0.5, 0.75, 0.4), Thing("car", "blue", 0.5, 0.25, 0.4)
    scene = Scene((low, high), "sky", "below", 0)
    assert not wrong(read(seen(low), seen(high)), scene)
    assert not wrong(read(seen(high), seen(low)), scene)
    upside_down = read(seen(low, y=0.25), seen(high, y=0.75))
    assert wrong(upside_down, scene) == {"relation", "all"}
    assert wrong(read(seen(low), seen(high, colour="red")), scene) == {"colours", "all"}
    assert wrong(read(seen(low)), scene) == {"things", "colours", "relation", "all"}


def test_two_things_of_one_colour_are_told_apart_by_kind():
    scene = replace(SCENE, things=(CAR, replace(BALLOON, colour="red")))
    reading = read(seen(CAR), seen(BALLOON, colour="red"))
    assert not wrong(reading, scene)
    assert wrong(reading, replace(scene, relation="above")) == {"relation", "all"}


def test_a_scene_of_one_thing_has_every_relation():
    scene = Scene((CAR,), "sky", None, 0)
    assert not wrong(read(seen(CAR)), scene)
    assert wrong(read(seen(CAR, kind="boat")), scene) == {"things", "colours", "all"}
    assert wrong(read(seen(CAR), seen(BALLOON)), scene) == {"things", "all"}


def test_the_relation_is_that_of_the_longer_axis():
    here = seen(CAR, x=0.5, y=0.5)
    for x, y, name in ((0.6, 0.9, "above"), (0.4, 0.2, "below"), (0.9, 0.4, "left of"),
                       (0.2, 0.6, "right of")):
        assert relation(here, seen(CAR, x=x, y=y)) == name


# From maps to readings.

def maps_of(things: list[Thing], background: str = "sky") -> Maps:
    """What a perfect network would say."""
    centre, kind, colour = train_judge._answers(things)
    one_hot = torch.nn.functional.one_hot
    return Maps((centre - 0.5) * 20, one_hot(kind.clamp_min(0), len(KINDS)).permute(2, 0, 1),
                one_hot(colour.clamp_min(0), len(COLOURS)).permute(2, 0, 1),
                20.0 * one_hot(torch.tensor(BACKGROUNDS.index(background)), len(BACKGROUNDS)))


def test_perfect_maps_are_read_right():
    for i in range(200):
        scene = data.scene(i, split=data.UNSEEN)
        reading = _read(maps_of(list(scene.things), scene.background))
        assert agrees(reading, scene)["all"], scene
        for thing in scene.things:
            assert min(max(abs(s.x - thing.x), abs(s.y - thing.y))
                       for s in reading.things) < 0.5 / GRID


def test_empty_maps_and_crowded_maps():
    assert _read(maps_of([])).things == ()
    corners = [replace(CAR, x=x, y=y) for x in (0.03, 0.97) for y in (0.03, 0.97)]
    assert len(_read(maps_of(corners)).things) == MOST


def test_an_unclear_background_is_none():
    maps = maps_of([CAR])
    assert _read(maps).background == "sky"
    assert _read(maps._replace(background=torch.zeros(len(BACKGROUNDS)))).background == ""


# The network.

@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge().eval()


def test_the_judge_is_small(judge):
    assert 200_000 < sum(p.numel() for p in judge.parameters()) < 600_000


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (40, 72)])
def test_shapes(judge, size):
    images = torch.rand(2, 3, *size) * 2 - 1
    maps = judge(images)
    assert maps.centre.shape == (2, GRID, GRID)
    assert maps.kind.shape == (2, len(KINDS), GRID, GRID)
    assert maps.colour.shape == (2, len(COLOURS), GRID, GRID)
    assert maps.background.shape == (2, len(BACKGROUNDS))
    features = judge.features(images)
    assert features.shape == (2, 96) and features.dtype == torch.float32
    readings = judge.read(images)
    assert len(readings) == 2 and all(len(r.things) <= MOST for r in readings)


def test_pictures_are_judged_one_by_one_and_clamped(judge):
    images = torch.randn(3, 3, SIDE, SIDE)
    alone = judge(images[1:2].clamp(-1, 1))
    for together, single in zip(judge(images), alone, strict=True):
        torch.testing.assert_close(together[1:2], single, atol=1e-5, rtol=0)    # float32 sums


def test_weights_survive_a_file(judge, tmp_path):
    save_judge(judge, tmp_path / "judge.safetensors")
    loaded = load_judge(tmp_path / "judge.safetensors").state_dict()
    for name, value in judge.state_dict().items():
        torch.testing.assert_close(loaded[name], value.half().float(), atol=0, rtol=0)


# Training.

def test_examples_are_deterministic_and_of_all_sorts():
    examples = [train_judge.example(seed) for seed in range(150)]
    for a, b in zip(examples[3], train_judge.example(3), strict=True):
        assert torch.equal(a, b)
    whole = [_read(Maps((e.centre - 0.5) * 20, *maps_of([])[1:])).things for e in examples]
    assert {len(things) for things in whole} == {0, 1, 2, 3}
    assert all(e.picture.shape == (3, SIDE, SIDE) for e in examples)
    assert all(((e.kind >= 0) == (e.colour >= 0)).all() for e in examples)
    assert all((e.centre[e.kind >= 0] == 1).all() for e in examples)


@pytest.mark.parametrize("flaw", train_judge.FLAWS)
def test_spoiling_changes_one_thing_and_leaves_the_other(flaw, monkeypatch):
    monkeypatch.setattr(train_judge, "FLAWS", (flaw,))
    whole = train_judge._drawn(SCENE)
    spoilt = train_judge._spoil(whole, SCENE, 1, np.random.default_rng(0))
    change = (spoilt - whole).abs().sum(0)
    assert change[:SIDE // 2].max() > 0.3 and change[40:].max() == 0    # the car is from row 40 on


def test_nothing_to_blur_or_warp_changes_nothing():
    images = train_judge._drawn(SCENE)[None]
    torch.testing.assert_close(train_judge.blur(images, torch.zeros(1)), images, atol=1e-5, rtol=0)
    still = train_judge.warp(images, torch.zeros(1, 2, 5, 5))
    torch.testing.assert_close(still, images, atol=1e-4, rtol=0)        # bilinear at grid points


def test_a_blur_spreads_a_point_as_wide_as_it_says():
    point = torch.zeros(2, 3, 33, 33)
    point[:, :, 16, 16] = 1
    row = train_judge.blur(point, torch.tensor([1.0, 2.0]))[:, 0].sum(1)        # 2 33
    variance = (row * (torch.arange(33) - 16.0).square()).sum(1)
    # The kernel ends at about 3 sigma, so a little is missing.
    torch.testing.assert_close(variance, torch.tensor([1.0, 4.0]), atol=0.1, rtol=0)


def test_two_steps_of_training(tmp_path):
    recipe = replace(RECIPE, judge=Part(steps=2, batch=4, lr=1e-3))
    judge = train_judge.train(recipe, tmp_path, share=loop.Share())
    assert isinstance(judge, Judge) and (tmp_path / "judge.csv").read_text().count("\n") == 3


# The Frechet distance.

def test_a_distance_to_itself_is_zero():
    a = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a) < 1e-9
    assert frechet_distance(a, a[torch.randperm(200)]) < 1e-9


def test_shifted_and_scaled_gaussians_have_the_known_distance():
    a = torch.randn(300, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift, scale = torch.arange(7.0), 1.7
    assert frechet_distance(a, a + shift) == pytest.approx(float(shift.square().sum()))
    # Equal covariances up to a factor: |m|^2 + (scale - 1)^2 trace(S).
    centred = a - a.mean(0)
    expected = float(shift.square().sum() + (scale - 1)**2 * torch.cov(a.T).trace())
    assert frechet_distance(centred, scale * centred + shift) == pytest.approx(expected)


def test_the_root_is_right_where_covariances_do_not_commute():
    g = torch.Generator().manual_seed(2)
    a = torch.randn(100, 5, generator=g).double() @ torch.randn(5, 5, generator=g).double()
    b = torch.randn(90, 5, generator=g).double() @ torch.randn(5, 5, generator=g).double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + (cov_a + cov_b).trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(expected))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_fewer_samples_than_features_still_give_a_number():
    a, b = torch.randn(5, 20), torch.randn(6, 20)
    assert 0 < frechet_distance(a, b) < float("inf")


def test_features_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"expected features .* got \(5, 3\) and \(5, 4\)"):
        frechet_distance(torch.randn(5, 3), torch.randn(5, 4))


# The shipped weights.

@pytest.mark.skipif(not WEIGHTS.exists(), reason="weights/toyworld is not part of this install")
def test_the_shipped_judge_reads_unseen_scenes():
    judge = load_judge(WEIGHTS / "judge.safetensors")
    images = data.to_tensor(data.pictures(range(300), size=128, split=data.UNSEEN))
    scenes = [data.scene(i, split=data.UNSEEN) for i in range(300)]
    right = [agrees(r, s)["all"] for r, s in zip(judge.read(images), scenes, strict=True)]
    assert sum(right) >= 297                                            # 99 %
    nothing = [Scene((), b, None, seed) for seed, b in enumerate(BACKGROUNDS)]
    empty = torch.stack([train_judge._drawn(s) for s in nothing])
    assert [r.things for r in judge.read(empty)] == [()] * len(nothing)
