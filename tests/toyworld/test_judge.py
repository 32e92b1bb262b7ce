"""The judge: what a reading says about a scene, distances of features, and the shipped weights."""

from dataclasses import replace

import pytest
import torch
from tiny_training import words

from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.toyworld import data, train
from minisd.toyworld.evaluation.judge import (
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
)
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, KINDS, Scene, Thing
from minisd.toyworld.training import judge as training
from minisd.toyworld.training.recipe import RECIPE, Part

CAR, BALLOON = Thing("car", "red", 0.5, 0.75, 0.4), Thing("balloon", "yellow", 0.5, 0.27, 0.4)
SCENE = Scene((CAR, BALLOON), "sky", "below", 7)
LOW, HIGH = Thing("car", "red", 0.5, 0.75, 0.4), Thing("car", "blue", 0.5, 0.25, 0.4)
CARS = Scene((LOW, HIGH), "sky", "below", 0)
ALONE = Scene((CAR,), "sky", None, 0)


def seen(thing: Thing, **changes) -> Seen:
    return replace(Seen(thing.kind, thing.colour, thing.x, thing.y, 0.9), **changes)


# What a reading says about a scene.

@pytest.mark.parametrize("scene, things, wrong", [
    (SCENE, [seen(CAR), seen(BALLOON)], ""),
    (SCENE, [seen(BALLOON), seen(CAR)], ""),                                # in any order
    (SCENE, [seen(CAR, colour="yellow"), seen(BALLOON, colour="red")], "colours"),
    (SCENE, [seen(CAR, y=0.1), seen(BALLOON)], "relation"),
    (SCENE, [seen(CAR, x=0.95, y=0.4), seen(BALLOON)], "relation"),         # beside, not below
    (SCENE, [seen(CAR), seen(BALLOON), Seen("star", "red", 0.1, 0.1, 0.6)], "things"),
    (SCENE, [seen(CAR)], "things colours relation"),
    (SCENE, [seen(CAR, kind="boat"), seen(BALLOON)], "things colours relation"),
    (CARS, [seen(LOW), seen(HIGH)], ""),                            # told apart by their colours
    (CARS, [seen(LOW, y=0.25), seen(HIGH, y=0.75)], "relation"),
    (ALONE, [seen(CAR)], ""), (ALONE, [seen(CAR, kind="boat")], "things colours"),
    (ALONE, [seen(CAR), seen(BALLOON)], "things")])
def test_what_is_wrong_is_named(scene: Scene, things: list[Seen], wrong: str) -> None:
    found = agrees(Reading(tuple(things), "sky"), scene)
    assert list(found) == ["things", "colours", "relation", "background", "all"]
    assert [name for name in found if not found[name]] == [*wrong.split(), *["all"] * bool(wrong)]
    for background in ("sea", ""):
        assert not agrees(Reading(tuple(things), background), scene)["background"]


# From maps to readings.

def maps_of(things: list[Thing], background: str = "sky") -> Maps:
    """What a perfect network would say."""
    centre, kind, colour = training._answers(things)
    one_hot = torch.nn.functional.one_hot
    return Maps((centre - 0.5) * 20, one_hot(kind.clamp_min(0), len(KINDS)).permute(2, 0, 1),
                one_hot(colour.clamp_min(0), len(COLOURS)).permute(2, 0, 1),
                20.0 * one_hot(torch.tensor(BACKGROUNDS.index(background)), len(BACKGROUNDS)))


def test_perfect_maps_are_read_right_and_crowded_or_unclear_ones_with_care() -> None:
    for i in range(200):
        scene = data.scene(i, split=data.UNSEEN)
        reading = _read(maps_of(list(scene.things), scene.background))
        assert agrees(reading, scene)["all"], scene
        for thing in scene.things:
            assert min(max(abs(s.x - thing.x), abs(s.y - thing.y))
                       for s in reading.things) < 0.5 / GRID
    assert _read(maps_of([])).things == ()
    corners = [replace(CAR, x=x, y=y) for x in (0.03, 0.97) for y in (0.03, 0.97)]
    assert len(_read(maps_of(corners)).things) == MOST
    assert _read(maps_of([CAR])._replace(background=torch.zeros(8))).background == ""


# The network.

@pytest.mark.parametrize("size", [(128, 128), (40, 72)])
def test_pictures_of_any_size_are_judged_one_by_one_and_clamped(size) -> None:
    torch.manual_seed(0)
    judge, images = Judge().eval(), torch.randn(3, 3, *size)
    together, alone = judge(images), judge(images[1:2].clamp(-1, 1))
    assert [tuple(x.shape) for x in together] == [
        (3, GRID, GRID), (3, len(KINDS), GRID, GRID), (3, len(COLOURS), GRID, GRID),
        (3, len(BACKGROUNDS))]
    for several, single in zip(together, alone, strict=True):
        torch.testing.assert_close(several[1:2], single, atol=1e-5, rtol=0)    # float32 sums
    assert judge.features(images).shape == (3, 96) and len(judge.read(images)) == 3


# Training.

def test_examples_are_deterministic_and_of_all_sorts() -> None:
    examples = [training.example(seed) for seed in range(150)]
    for a, b in zip(examples[3], training.example(3), strict=True):
        assert torch.equal(a, b)
    whole = [_read(Maps((e.centre - 0.5) * 20, *maps_of([])[1:])).things for e in examples]
    assert {len(things) for things in whole} == {0, 1, 2, 3}
    assert all(((e.kind >= 0) == (e.colour >= 0)).all() for e in examples)
    assert all((e.centre[e.kind >= 0] == 1).all() for e in examples)


def test_two_steps_of_training(tmp_path) -> None:
    recipe = replace(RECIPE, judge=Part(steps=2, batch=4, lr=1e-3))
    train.fit("judge", TOYWORLD, recipe, tmp_path, words())
    assert (tmp_path / "judge.csv").read_text().count("\n") == 3
    assert (tmp_path / "judge-losses.png").exists()


# The Frechet distance.

def test_the_distance_is_the_formula_also_where_covariances_do_not_commute() -> None:
    g = torch.Generator().manual_seed(2)
    a = torch.randn(100, 5, generator=g).double() @ torch.randn(5, 5, generator=g).double()
    b = torch.randn(90, 5, generator=g).double() @ torch.randn(5, 5, generator=g).double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + (cov_a + cov_b).trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(expected))
    assert frechet_distance(b, a) == pytest.approx(float(expected))
    assert frechet_distance(a, a[torch.randperm(100)]) < 1e-9
    assert 0 < frechet_distance(a[:4], b[:4]) < float("inf")    # fewer samples than features
    with pytest.raises(ValueError, match=r"expected features .* got \(100, 5\) and \(5, 4\)"):
        frechet_distance(a, torch.randn(5, 4))


# The shipped weights.

def test_the_shipped_judge_reads_unseen_scenes() -> None:
    judge = load_judge(SHIPPED / "judge.safetensors")
    scenes = [data.scene(i, split=data.UNSEEN) for i in range(300)]
    right = [agrees(r, s)["all"]
             for r, s in zip(judge.read(data.drawn(scenes, 128)), scenes, strict=True)]
    assert sum(right) >= 297                                            # 99 %
    empty = data.drawn([Scene((), b, None, seed) for seed, b in enumerate(BACKGROUNDS)], SIDE)
    assert [r.things for r in judge.read(empty)] == [()] * len(BACKGROUNDS)
