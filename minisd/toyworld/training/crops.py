"""The crops of a scene that the UNet learns from: the whole of it, or a close-up of one thing.

A close-up is a window of half the side around one of two things, with a caption of that thing
alone. It costs a quarter of the whole scene, and nearly all of it depends on the words: what
"star" means is learned several times faster so, before whole scenes teach where things stand.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minisd.toyworld import data
from minisd.toyworld.scenes import Scene, Thing


@dataclass(frozen=True)
class Crop:
    """A square of latent cells of scene `number`, and a scene of what can be said about it."""

    number: int
    scene: Scene
    top: int
    left: int
    side: int


def whole(numbers: range, cells: int, *, split: int = data.TRAIN, seed: int = 0) -> list[Crop]:
    """Every scene, all of it; `cells` along each side."""
    return [Crop(i, data.scene(i, split=split, seed=seed), 0, 0, cells) for i in numbers]


def close_ups(numbers: range, cells: int, *, split: int = data.TRAIN, seed: int = 0) -> list[Crop]:
    """Each thing of every scene that has two, in a window of half the side.

    The window holds the thing and as little as possible of the other one; among equals one is
    drawn. Large things that stand alone have no close-up: they would not fit.
    """
    found = []
    for i in numbers:
        scene = data.scene(i, split=split, seed=seed)
        rng = np.random.default_rng([seed, split, i])
        pairs = (scene.things, scene.things[::-1]) if len(scene.things) == 2 else ()
        for shown, hidden in pairs:
            alone = Scene((shown,), scene.background, None, scene.seed)
            found.append(Crop(i, alone, *_window(shown, hidden, cells, rng), cells // 2))
    return found


def cut(posteriors: Tensor, crops: list[Crop]) -> Tensor:
    """(scenes, ..., cells, cells) -> (len(crops), ..., side, side); the crops have one side."""
    return torch.stack([posteriors[c.number, ..., c.top:c.top + c.side, c.left:c.left + c.side]
                        for c in crops])


def _window(shown: Thing, hidden: Thing, cells: int, rng: np.random.Generator) -> tuple[int, int]:
    """The top left cell of the window."""
    half = cells // 2

    def seen(start: int, middle: float) -> float:
        """How much of the other thing's box is in the window, along one axis."""
        low, high = (middle - hidden.size / 2) * cells, (middle + hidden.size / 2) * cells
        return max(0.0, min(start + half, high) - max(start, low))

    tops, lefts = _starts(shown.y, shown.size, cells), _starts(shown.x, shown.size, cells)
    area = np.outer([seen(top, hidden.y) for top in tops], [seen(left, hidden.x) for left in lefts])
    row, column = rng.choice(np.argwhere(area <= area.min() + 1e-9))
    return tops[row], lefts[column]


def _starts(middle: float, size: float, cells: int) -> range:
    """Where a window of half the side may start to hold a thing, along one axis."""
    half = cells // 2
    first = max(0, math.ceil((middle + size / 2) * cells) - half)
    last = min(cells - half, math.floor((middle - size / 2) * cells))
    if first > last:            # wider than the window: the middle of one on that of the other
        first = last = min(max(round(middle * cells - half / 2), 0), cells - half)
    return range(first, last + 1)
