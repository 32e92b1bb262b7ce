"""What people type to find a picture: a thing, its colour, what it stands on; and where it is true.

A caption says most of its picture; a query says one word, two or about five, and many pictures fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minisd.toyworld.captions import BACKGROUND_PHRASES, with_article
from minisd.toyworld.scenes import Scene, pick

LENGTHS = (1, 2, 5)     # words, about: "house", "red house", "red house on the grass"


@dataclass(frozen=True)
class Query:
    """A thing to look for; None stands for any colour, any background."""

    kind: str
    colour: str | None = None
    background: str | None = None

    def said(self, rng: np.random.Generator | None = None) -> str:
        """In words: plainly, or with the articles and phrases that rng chooses."""
        name = f"{self.colour} {self.kind}" if self.colour else self.kind
        if rng is not None and rng.random() < 0.6:
            name = with_article(name)
        if self.background is None:
            return name
        phrases = BACKGROUND_PHRASES[self.background]
        return name + (phrases[0] if rng is None else pick(rng, phrases))

    def is_true_of(self, scene: Scene) -> bool:
        """Whether some thing of the scene has the kind and the colour, on the background."""
        return self.background in (None, scene.background) and any(
            thing.kind == self.kind and self.colour in (None, thing.colour)
            for thing in scene.things)


def queries(scenes: Sequence[Scene], words: int, rng: np.random.Generator, *,
            plainly: bool = False) -> tuple[list[str], Tensor]:
    """One of so many words (see LENGTHS) that is true of each scene; of equal ones, the last.

    Returns:
        the n texts, and (n, len(scenes)) booleans: of which scenes each is true.
    """
    made: dict[str, Query] = {}
    for scene in scenes:
        thing = pick(rng, scene.things)
        one = Query(thing.kind, thing.colour if words > 1 else None,
                    scene.background if words > 2 else None)
        made[one.said(None if plainly else rng)] = one
    return list(made), torch.tensor([[one.is_true_of(scene) for scene in scenes]
                                     for one in made.values()])
