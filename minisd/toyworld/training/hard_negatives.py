"""Scenes that differ from another in one respect: what teaches CLIP to read word order.

A hard negative is drawn and captioned like any scene. Foils are only captioned: false captions of
a picture, in which places, colours, direction or one word have been exchanged (Yuksekgonul et al.
2023, who found that CLIP without such captions reads a prompt as a bag of words).
"""

from dataclasses import replace

import numpy as np

from minisd.toyworld.captions import INVERSE
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, HIDDEN, KINDS, Scene, is_held_out, pick

# For scenes of one thing and of two.
RESPECTS = {1: ("colour", "kind", "background"),
            2: ("both colours", "places", "axis", "colour", "kind", "background")}
FOILS = {1: ("colour", "kind", "colour", "kind"), 2: ("places", "both colours", "axis", "kind")}
TRIES = 8                       # in one respect for a foil before others are tried
TURNED = {"above": "left of", "below": "right of", "left of": "above", "right of": "below"}


def changed(scene: Scene, respect: str, rng: np.random.Generator) -> Scene:
    """The scene with one thing about it changed or exchanged, perhaps into itself."""
    if respect == "background":
        return replace(scene, background=str(rng.choice(BACKGROUNDS)))
    a, b, relation = scene.things[0], scene.things[-1], scene.relation
    if respect == "colour":
        things = (replace(a, colour=str(rng.choice(list(COLOURS)))), *scene.things[1:])
    elif respect == "kind":
        things = (*scene.things[:-1], replace(b, kind=str(rng.choice(KINDS))))
    elif respect == "both colours":
        things = (replace(a, colour=b.colour), replace(b, colour=a.colour))
    elif respect == "places":
        relation = INVERSE[relation or ""]
        things = (replace(a, x=b.x, y=b.y, size=b.size), replace(b, x=a.x, y=a.y, size=a.size))
    else:                       # what was above or below is left or right, and the other way round
        relation = TURNED[relation or ""]
        things = tuple(replace(thing, x=thing.y, y=thing.x) for thing in scene.things)
    return replace(scene, things=things, relation=relation)


def hard_negative(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene changed in one respect, still visible and still not held out."""
    respects = RESPECTS[len(scene.things)]
    while True:
        other = changed(scene, pick(rng, respects), rng)
        if is_sound(other) and other != scene:
            return other


def foils(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """Four other scenes, of which no caption that names the things is true of this one."""
    found = []
    for respect in FOILS[len(scene.things)]:
        others = (changed(scene, one, rng) for one in (respect,) * TRIES + ("kind", "colour") * 100)
        found.append(next(other for other in others if is_sound(other) and other != scene))
    return found


def is_sound(scene: Scene) -> bool:
    """Whether it could be a training scene: all visible, nothing twice, nothing held out."""
    looks = {(thing.colour, thing.kind) for thing in scene.things}
    visible = all(thing.colour not in HIDDEN[scene.background] for thing in scene.things)
    return visible and len(looks) == len(scene.things) and not is_held_out(scene)
