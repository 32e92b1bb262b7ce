"""What toyworld says about its scenes: captions that say more or less, and queries to find them.

Every phrase is data in this file; the code below only chooses. A caption never says anything
untrue of its scene, and about 60 % say everything: the things, their colours, how they stand to
each other, and the background. The others leave something out, as people do.
"""

import re
from bisect import bisect
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from minisd.toyworld.scenes import COLOURS, KINDS, Scene, Thing, pick

QUERY_WORDS = (1, 2, 5)         # about: "house", "red house", "red house on the grass"

# What a caption tells, and how often, for one thing and for two.
CONTENT_ONE = {"everything": 0.60, "no background": 0.25, "no colour": 0.11, "background": 0.04}
CONTENT_TWO = {"everything": 0.60, "no background": 0.18, "one colour": 0.07, "no relation": 0.10,
               "one thing": 0.03, "background": 0.02}
WHOLE = ("everything", "no background")     # contents of all things, colours and the relation

# Openings, for "a red car" and for "red car".
OPENINGS = {"": 0.66, "there is ": 0.08, "a picture of ": 0.10, "a drawing of ": 0.10,
            "an image of ": 0.06}
BARE_OPENINGS = {"": 0.84, "picture of ": 0.08, "drawing of ": 0.08}
BARE = 0.22                     # the share of captions without articles
FRONTED = 0.08                  # the share of said backgrounds that come first

# {first} stands {relation} {second}, so {second} stands {inverse} {first}.
STATEMENTS = {"{first} {relation} {second}": 0.54, "{second} {inverse} {first}": 0.30,
              "{first} with {second} {inverse} it": 0.08,
              "{second} with {first} {relation} it": 0.08}
SENTENCES = {"{first} is {relation} {second}": 0.6, "{second} is {inverse} {first}": 0.4}
SENTENCE = 0.12                 # the share of articled, unopened statements that are sentences
BARE_STATEMENTS = {"{first} {relation} {second}": 0.6, "{second} {inverse} {first}": 0.4}

# The first phrase of each tuple is the canonical one.
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "above": ("above", "over"),
    "below": ("below", "under", "beneath", "underneath"),
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of")}
CANONICAL = 0.55                # how often the canonical one of several phrases is taken
INVERSE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
JOINTS = (" and ", ", ", " and ")                     # these claim no relation
LEVEL_JOINTS = (" beside ", " next to ")              # true only of things side by side

BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "white": (" on a white background", " on white", ", white background",
              " on a plain white background"),
    "black": (" on a black background", " on black", ", black background",
              " on a plain black background"),
    "gray": (" on a gray background", " on gray", ", gray background", " on a grey background",
             ", grey background"),
    "sky": (" in the sky", " on a sky background", " up in the sky", ", sky background",
            " in a cloudy sky"),
    "sand": (" on the sand", " on sand", ", sand background", " on a sand background",
             " in the desert"),
    "grass": (" on the grass", " on grass", ", grass background", " on a grass background",
              " in a meadow"),
    "night": (" at night", " in the night", " in the night sky", ", night background",
              " on a starry night"),
    "sea": (" at sea", " in the sea", " on the sea", ", sea background", " on a sea background")}
BACKGROUNDS_ALONE: dict[str, tuple[str, ...]] = {
    "white": ("a white background", "a plain white background"),
    "black": ("a black background", "a plain black background"),
    "gray": ("a gray background", "a grey background"),
    "sky": ("the sky", "a cloudy sky"), "sand": ("the sand", "a desert"),
    "grass": ("the grass", "a meadow"), "night": ("the night", "the night sky", "a starry night"),
    "sea": ("the sea", "a sea background")}


def full_caption(scene: Scene) -> str:
    """The caption that says everything, as in "a red car below a yellow balloon in the sky"."""
    names = [_with_article(_name(thing)) for thing in scene.things]
    if scene.relation is not None:
        names.insert(1, RELATION_PHRASES[scene.relation][0])
    return " ".join(names) + BACKGROUND_PHRASES[scene.background][0]


def plain_caption(scene: Scene, rng: np.random.Generator, content: str = "everything") -> str:
    """`full_caption` or, as often, the same the other way round: "b below a" for "a above b".

    content: one of `WHOLE`.
    """
    if scene.relation is not None and rng.random() < 0.5:
        scene = replace(scene, things=scene.things[::-1], relation=INVERSE[scene.relation])
    said = full_caption(scene)
    if content == "no background":
        said = said.removesuffix(BACKGROUND_PHRASES[scene.background][0])
    return said


def choose_content(scene: Scene, rng: np.random.Generator) -> str:
    """What a caption of the scene will tell: a key of `CONTENT_ONE` or `CONTENT_TWO`."""
    return _weighted(rng, CONTENT_ONE if len(scene.things) == 1 else CONTENT_TWO)


def caption(scene: Scene, rng: np.random.Generator, content: str | None = None) -> str:
    """A true caption in varied English; 60 % say everything that `full_caption` says.

    Args:
        rng: chooses what is said and how; the same state gives the same caption.
        content: what is said, where that is already chosen (see `choose_content`).
    Returns:
        lower-case words, spaces and commas.
    """
    content = content or choose_content(scene, rng)
    if content == "background":
        alone = pick(rng, BACKGROUNDS_ALONE[scene.background])
        return _weighted(rng, OPENINGS) + alone
    bare = rng.random() < BARE
    opening = _weighted(rng, BARE_OPENINGS if bare else OPENINGS)
    said = opening + _things(scene, content, bare, bool(opening), rng)
    if content == "no background" or (content != "everything" and rng.random() < 0.5):
        return said
    phrases = BACKGROUND_PHRASES[scene.background]
    if rng.random() < FRONTED:
        return f"{phrases[0].strip()}, {said}"
    return said + _canonical_or_other(rng, phrases)


def queries(scenes: Sequence[Scene], words: int, rng: np.random.Generator, *,
            plainly: bool = False) -> tuple[list[str], Tensor]:
    """What people type to find each of the scenes; others may fit too.

    words: one of `QUERY_WORDS`. plainly: without articles, in canonical phrases; else rng chooses.
    Returns:
        the n different queries, and (n, len(scenes)) booleans: of which scenes each is true.
    """
    found: dict[str, list[bool]] = {}
    for scene in scenes:
        thing = pick(rng, scene.things)
        said = _name(thing) if words > 1 else thing.kind
        if not plainly and rng.random() < 0.6:
            said = _with_article(said)
        if words > 2:
            phrases = BACKGROUND_PHRASES[scene.background]
            said += phrases[0] if plainly else pick(rng, phrases)
        found[said] = [
            (words <= 2 or other.background == scene.background)
            and any(one.kind == thing.kind and (words <= 1 or one.colour == thing.colour)
                    for one in other.things) for other in scenes]
    return list(found), torch.tensor(list(found.values()))


def vocabulary() -> frozenset[str]:
    """Every lower-case word that a caption can contain, to name the words a model never saw."""
    phrases = [*KINDS, *COLOURS, *OPENINGS, *BARE_OPENINGS, *SENTENCES, *STATEMENTS,
               *BARE_STATEMENTS, *JOINTS, *LEVEL_JOINTS, "a", "an"]
    for table in (RELATION_PHRASES, BACKGROUND_PHRASES, BACKGROUNDS_ALONE):
        phrases += [phrase for options in table.values() for phrase in options]
    text = re.sub(r"\{\w+\}", " ", " ".join(phrases))
    return frozenset(re.findall("[a-z]+", text))


def _things(scene: Scene, content: str, bare: bool, opened: bool, rng: np.random.Generator) -> str:
    """The part of a caption about the things and their relation."""
    unsaid = rng.integers(len(scene.things)) if content in ("no colour", "one colour") else None
    names = [thing.kind if i == unsaid else _name(thing) for i, thing in enumerate(scene.things)]
    if not bare:
        names = [_with_article(name) for name in names]
    if scene.relation is None or content == "one thing":
        return pick(rng, names)
    if content == "no relation":
        level = scene.relation in ("left of", "right of")
        joint = pick(rng, JOINTS + LEVEL_JOINTS if level else JOINTS)
        return joint.join(names if rng.random() < 0.5 else names[::-1])
    if bare:
        template = _weighted(rng, BARE_STATEMENTS)
    else:
        sentence = not opened and rng.random() < SENTENCE
        template = _weighted(rng, SENTENCES if sentence else STATEMENTS)
    relation, inverse = (_canonical_or_other(rng, RELATION_PHRASES[r])
                         for r in (scene.relation, INVERSE[scene.relation]))
    return template.format(first=names[0], second=names[1], relation=relation, inverse=inverse)


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.kind}"


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _canonical_or_other(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[0] if rng.random() < CANONICAL else pick(rng, options[1:])


def _weighted(rng: np.random.Generator, weights: dict[str, float]) -> str:
    steps = list(accumulate(weights.values()))
    return list(weights)[bisect(steps, rng.random() * steps[-1])]
