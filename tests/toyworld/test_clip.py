"""What CLIP is trained with: hard negatives, foils of captions, and the contrastive loss."""

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from minisd.toyworld import captions, data
from minisd.toyworld.captions import RELATION_PHRASES, full_caption
from minisd.toyworld.evaluation.judge import relation
from minisd.toyworld.scenes import VISIBLE, Scene, is_held_out
from minisd.toyworld.training import clip as training
from minisd.toyworld.training import hard_negatives

TWO = [scene for scene in map(data.scene, range(400)) if len(scene.things) == 2]


def respects(scene: Scene) -> dict[str, object]:
    return {"background": scene.background, "colour": [t.colour for t in scene.things],
            "kind": [t.kind for t in scene.things],
            "place": [(t.x, t.y, t.size) for t in scene.things]}


def test_a_hard_negative_differs_in_one_respect_and_could_be_a_training_scene() -> None:
    rng, seen = np.random.default_rng(0), Counter()
    for i in range(2000):
        scene = data.scene(i)
        other = hard_negatives.hard_negative(scene, rng)
        changed, = (name for name, value in respects(scene).items()
                    if respects(other)[name] != value)
        looks = {(thing.colour, thing.kind) for thing in other.things}
        assert len(looks) == len(scene.things) and not is_held_out(other)
        assert all(thing.colour in VISIBLE[other.background] for thing in other.things)
        if other.relation:                      # still true
            assert other.relation == relation(*other.things)
        assert other.seed == scene.seed
        seen[len(scene.things), changed, other.relation == scene.relation] += 1
    assert seen.keys() == {*((count, name, True) for count in (1, 2)
                             for name in ("colour", "kind", "background")), (2, "place", False)}
    assert min(seen.values()) > 50


def meaning(text: str) -> tuple:
    """What a whole caption says of things and relation, whichever way round it is put."""
    things = re.findall(rf"({'|'.join(captions.COLOURS)}) ({'|'.join(captions.KINDS)})", text)
    if len(things) == 1:
        return tuple(things)
    said = next(relation for relation, phrases in RELATION_PHRASES.items()
                if re.search(rf"\b({'|'.join(phrases)})\b", text))
    first, second = things
    if re.search(r"\bwith\b", text):          # "A with B above it": B stands above A
        first, second = second, first
    if said in ("below", "right of"):
        first, second, said = second, first, captions.INVERSE[said]
    return first, said, second


@pytest.mark.parametrize("plain", [0.0, 1.0])
def test_the_second_caption_is_true_and_the_first_says_whether_the_foils_are_false(plain) -> None:
    rng, sure, openings = np.random.default_rng(4), [], 0
    for i in range(400):
        (first, again, *others), enough = training.with_foils(data.scene(i), plain, rng)
        assert meaning(again) == meaning(full_caption(data.scene(i)))
        assert len(others) == 4 and all(meaning(other) != meaning(again) for other in others)
        if enough:
            assert meaning(first) == meaning(again)
        sure.append(enough)
        openings += again.startswith(("there is", "a picture of", "a drawing of", "an image of"))
    assert abs(sum(sure) / 400 - 0.8) < 0.07
    assert openings == 0 if plain else openings > 20


UNIT = torch.eye(3)


def test_foils_count_where_the_caption_says_enough_and_only_for_their_own_picture() -> None:
    """One foil as like the first picture as its caption; nothing else feels it."""
    foils = torch.stack([UNIT[0], -UNIT[1], -UNIT[2]])[:, None]
    plain, foiled = math.log(1 + 2 * math.exp(-2)), math.log(2 + 2 * math.exp(-2))
    faint = math.log(1 + 2 * math.exp(-2) + math.exp(-4))
    for enough, expected in (([True] * 3, ((foiled + 2 * faint) / 3 + plain) / 2),
                             ([False, True, True], ((plain + 2 * faint) / 3 + plain) / 2),
                             ([False] * 3, plain)):
        loss, _ = training.contrastive_loss(UNIT, UNIT, torch.tensor(2.0), foils,
                                            torch.tensor(enough))
        assert loss.item() == pytest.approx(expected)
    loss, found = training.contrastive_loss(UNIT, UNIT, torch.tensor(2.0))
    assert loss.item() == pytest.approx(plain) and found == 1
    mixed = torch.nn.functional.normalize(UNIT + 0.5, dim=-1)      # a foil that is more like it
    _, found = training.contrastive_loss(UNIT, mixed, torch.tensor(9.0), UNIT[:, None],
                                         torch.tensor([True, False, False]))
    assert found == pytest.approx(2 / 3)


# Search

@pytest.mark.parametrize("words", captions.QUERY_WORDS)
def test_queries_are_true_where_all_their_words_are_and_in_words_that_clip_knows(words) -> None:
    rng, scenes = np.random.default_rng(5), TWO[:50]

    def fitting(scene: Scene) -> set[str]:
        phrase = captions.BACKGROUND_PHRASES[scene.background][0]
        return {{1: t.kind, 2: f"{t.colour} {t.kind}", 5: f"{t.colour} {t.kind}{phrase}"}[words]
                for t in scene.things}

    said, true = captions.queries(scenes, words, rng, plainly=True)
    assert true.tolist() == [[query in fitting(scene) for scene in scenes] for query in said]
    assert true.any(0).all() and len(set(said)) == len(said)
    varied, _ = captions.queries(scenes, words, rng)
    assert set(" ".join(varied).replace(",", "").split()) <= captions.vocabulary()


def test_the_search_loss_by_hand() -> None:
    """Two pictures of three fit the first query, and the worst one the second."""
    true = torch.tensor([[True, True, False], [False, False, True]])
    loss, found = training.search_loss(UNIT[:2], UNIT, true, torch.tensor(2.0))
    total = math.log(math.exp(2) + 2)
    assert loss.item() == pytest.approx((((total - 2) + total) / 2 + total) / 2)
    assert found == 0.5
