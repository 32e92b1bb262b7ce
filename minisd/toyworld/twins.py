"""Scenes that differ from another in one respect: what teaches CLIP to read word order.

A near twin is drawn and captioned like any scene. Foils are only captioned: false captions of a
picture, in which places, colours, direction or one word have been exchanged (Yuksekgonul et al.
2023, who found that CLIP without such captions reads a prompt as a bag of words).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minisd.toyworld.captions import INVERSE
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, HIDDEN, KINDS, Scene, is_held_out

Twin = Callable[[Scene, np.random.Generator], Scene]

TURNED = {"above": "left of", "below": "right of", "left of": "above", "right of": "below"}


def swap_colours(scene: Scene, rng: np.random.Generator) -> Scene:
    first, second = scene.things
    return replace(scene, things=(replace(first, colour=second.colour),
                                  replace(second, colour=first.colour)))


def swap_places(scene: Scene, rng: np.random.Generator) -> Scene:
    assert scene.relation is not None
    return replace(scene, things=_exchange(scene), relation=INVERSE[scene.relation])


def _exchange(scene: Scene) -> tuple:
    a, b = scene.things
    return replace(a, x=b.x, y=b.y, size=b.size), replace(b, x=a.x, y=a.y, size=a.size)


def turn(scene: Scene, rng: np.random.Generator) -> Scene:
    """What was above or below is left or right, and the other way round."""
    assert scene.relation is not None
    things = tuple(replace(thing, x=thing.y, y=thing.x) for thing in scene.things)
    return replace(scene, things=things, relation=TURNED[scene.relation])


def recolour(scene: Scene, rng: np.random.Generator) -> Scene:
    thing = replace(scene.things[0], colour=str(rng.choice(list(COLOURS))))
    return replace(scene, things=(thing, *scene.things[1:]))


def rekind(scene: Scene, rng: np.random.Generator) -> Scene:
    thing = replace(scene.things[-1], kind=str(rng.choice(KINDS)))
    return replace(scene, things=(*scene.things[:-1], thing))


def move(scene: Scene, rng: np.random.Generator) -> Scene:
    return replace(scene, background=str(rng.choice(BACKGROUNDS)))


TWINS_OF_ONE: tuple[Twin, ...] = (recolour, rekind, move)
TWINS_OF_TWO: tuple[Twin, ...] = (swap_colours, swap_places, turn, recolour, rekind, move)
FOILS = 4                       # of each picture, from these, in turn
FOILS_OF_ONE: tuple[Twin, ...] = (recolour, rekind, recolour, rekind)
FOILS_OF_TWO: tuple[Twin, ...] = (swap_places, swap_colours, turn, rekind)
PATIENCE = 8                    # tries of one way to make a foil before another way is taken


def twin(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one thing about it changed, still visible and still not held out."""
    makers = TWINS_OF_ONE if len(scene.things) == 1 else TWINS_OF_TWO
    while True:
        other = makers[rng.integers(len(makers))](scene, rng)
        if is_sound(other) and other != scene:
            return other


def foils(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """`FOILS` other scenes, of which no caption that tells the things is true of this one."""
    makers = FOILS_OF_ONE if len(scene.things) == 1 else FOILS_OF_TWO
    found = []
    for make in makers:
        others = (way(scene, rng) for way in (make,) * PATIENCE + (rekind, recolour) * 100)
        found.append(next(other for other in others if is_sound(other) and other != scene))
    return found


def is_sound(scene: Scene) -> bool:
    """Whether it could be a training scene: all visible, nothing twice, nothing held out."""
    looks = {(thing.colour, thing.kind) for thing in scene.things}
    visible = all(thing.colour not in HIDDEN[scene.background] for thing in scene.things)
    return visible and len(looks) == len(scene.things) and not is_held_out(scene)
