"""Captions: true of their scenes, varied, and made of known words."""

import re

import numpy as np
import pytest

from minisd.toyworld.captions import caption, full_caption, vocabulary
from minisd.toyworld.scenes import COLOURS, KINDS, Scene, Thing, sample_scene

README_SCENE = Scene((Thing("car", "red", 0.5, 0.75, 0.4),
                      Thing("balloon", "yellow", 0.5, 0.27, 0.4)), "sky", "below", 7)
# Written out here, not derived from the module, so that a wrong phrase there is caught.
DIRECTIONS = {"above": "above", "over": "above", "below": "below", "under": "below",
              "beneath": "below", "underneath": "below", "left of": "left of",
              "right of": "right of"}
BACKGROUND_WORDS = {"white background": "white", "on white": "white",
                    "black background": "black", "on black": "black", "gray": "gray",
                    "grey": "gray", "sky": "sky", "sand": "sand", "desert": "sand",
                    "grass": "grass", "meadow": "grass", "night": "night", "sea": "sea"}
MENTION = rf"(?:(?P<colour{{0}}>{'|'.join(COLOURS)}) )?(?P<kind{{0}}>{'|'.join(KINDS)})"
DIRECTION = rf"(?:(?:to|on) the )?(?P<direction>{'|'.join(sorted(DIRECTIONS, reverse=True))})"
STATEMENT = re.compile(rf"{MENTION.format(1)} (?:is )?{DIRECTION} (?:an? )?{MENTION.format(2)}")
WITH = re.compile(rf"{MENTION.format(2)} with (?:an? )?{MENTION.format(1)} {DIRECTION} it")
WORDS_OF_DIRECTION = re.compile(r"\b(above|over|below|under|beneath|underneath|left|right)\b")


@pytest.fixture(scope="module")
def said() -> list[tuple[Scene, str]]:
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, held_out=i % 5 == 0) for i in range(5000)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def mentions(text: str) -> list[tuple[str | None, str]]:
    return [(m["colour0"], m["kind0"]) for m in re.finditer(rf"\b{MENTION.format(0)}\b", text)]


def stands(a: Thing, b: Thing, direction: str) -> bool:
    """Whether a lies in that direction of b, from the coordinates alone."""
    dx, dy = b.x - a.x, b.y - a.y
    along, across = {"above": (dy, dx), "below": (-dy, dx),
                     "left of": (dx, dy), "right of": (-dx, dy)}[direction]
    return along > abs(across)


def said_background(text: str) -> str | None:
    """The background a caption names, after its articles and mentions are taken out."""
    rest = re.sub(r"\b(an?|the) ", "", re.sub(rf"\b{MENTION.format(0)}\b", "", text))
    names = {name for words, name in BACKGROUND_WORDS.items() if words in rest}
    assert len(names - {"sky"}) <= 1, text
    return next(iter(names - {"sky"} or names), None)           # "the night sky" is night


def test_the_canonical_caption_says_everything_and_differs_for_different_scenes(said) -> None:
    assert full_caption(README_SCENE) == "a red car below a yellow balloon in the sky"
    one = Scene((Thing("umbrella", "orange", 0.5, 0.5, 0.5),), "white", None, 0)
    assert full_caption(one) == "an orange umbrella on a white background"
    seen = {}
    for scene, _ in said:
        content = ([(t.kind, t.colour) for t in scene.things], scene.background, scene.relation)
        assert seen.setdefault(full_caption(scene), content) == content


def test_captions_vary_and_follow_from_the_generator() -> None:
    first, again = ([caption(README_SCENE, rng) for _ in range(500)]
                    for rng in (np.random.default_rng(0), np.random.default_rng(0)))
    assert first == again and len(set(first)) > 150 and full_caption(README_SCENE) in first


def test_captions_name_only_what_is_there(said) -> None:
    for scene, text in said:
        there = [(t.colour, t.kind) for t in scene.things]
        for colour, kind in mentions(text):
            assert any(kind == k and colour in (None, c) for c, k in there), (text, scene)
        assert len(mentions(text)) <= len(there)
        assert said_background(text) in (None, scene.background), (text, scene)
        if "beside" in text or "next to" in text:               # true only of things side by side
            assert scene.relation in ("left of", "right of")


def test_said_relations_agree_with_the_geometry(said) -> None:
    checked = 0
    for scene, text in said:
        match = WITH.search(text) or STATEMENT.search(text)
        # No relation is claimed in a form that this test does not read.
        assert bool(WORDS_OF_DIRECTION.search(text)) == bool(match), text
        if match is None:
            continue
        checked += 1
        direction = DIRECTIONS[match["direction"]]
        # With a colour unsaid a mention may fit both things: one true reading has to exist.
        fits = [(a, b) for a, b in (scene.things, scene.things[::-1])
                if (match["kind1"], match["kind2"]) == (a.kind, b.kind)
                and match["colour1"] in (None, a.colour) and match["colour2"] in (None, b.colour)]
        assert any(stands(a, b, direction) for a, b in fits), (text, scene)
    assert checked > 2000


def test_articles_are_right_and_the_vocabulary_is_exact(said) -> None:
    for scene, text in said:
        assert not re.search(r"\ba [aeiou]", text) and not re.search(r"\ban [^aeiou]", text), text
        assert text == text.strip().lower() and "  " not in text
        assert set(full_caption(scene).split()) <= vocabulary()
    assert {word for _, text in said for word in re.findall(r"[^\s,]+", text)} == vocabulary()
