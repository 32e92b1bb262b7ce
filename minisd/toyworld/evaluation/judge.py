"""The judge: reads a picture back into things, colours, relation and background.

A small detector in the manner of CenterNet (Zhou et al. 2019, "Objects as points"). On a grid of
16 x 16 cells it says where the centre of a thing is, and there what thing and which colour. It
shares no layer and no weight with the generator, and it is trained on drawn scenes alone. Every
place is judged by itself, so no combination is more likely to it than another, and what is half
there, blended or smeared counts as nothing. Relations are computed from the centres, not learned.
Its pooled features also measure how far generated pictures are from drawn ones.
"""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, KINDS, Scene

SIDE = 64               # pixels along each side of what the judge looks at
GRID = 16               # cells along each side of its maps
GROUPS = 8              # of every GroupNorm
THRESHOLD = 0.5         # of the probability that a cell holds the centre of a thing
APART = 2               # cells around a thing in which no second one is seen
MOST = 3                # things read from one picture: one more than a scene has
CLEAR = 0.5             # a background less probable than this is none


@dataclass(frozen=True)
class Seen:
    """A thing read from a picture; `x`, `y` (its centre) are fractions of the picture's side."""
    kind: str
    colour: str
    x: float
    y: float
    confidence: float       # that a whole thing is there, 0.5 .. 1


@dataclass(frozen=True)
class Reading:
    """What a picture shows; things with the highest confidence first, background "" if unclear."""
    things: tuple[Seen, ...]
    background: str


class Maps(NamedTuple):
    """What the network says of each cell, as logits."""
    centre: Tensor          # (b, GRID, GRID)
    kind: Tensor            # (b, len(KINDS), GRID, GRID)
    colour: Tensor          # (b, len(COLOURS), GRID, GRID)
    background: Tensor      # (b, len(BACKGROUNDS))


class Block(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(h)))


class Judge(nn.Module):
    """Pictures -> `Maps`; `read` makes sense of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=2, padding=1)
        self.down1 = nn.Conv2d(32, 64, 4, stride=2, padding=1)
        self.fine1 = Block(64)
        self.down2 = nn.Conv2d(64, 96, 2, stride=2)
        self.coarse = nn.Sequential(Block(96), Block(96))
        self.up = nn.Conv2d(96, 64, 1)
        self.fine2 = Block(64)
        self.last = nn.Conv2d(64, 96, 1)
        self.place = nn.Conv2d(96, 1 + len(KINDS) + len(COLOURS), 1)
        self.background = nn.Linear(96, len(BACKGROUNDS))

    def forward(self, images: Tensor) -> Maps:
        """images (b, 3, h, w) in [-1, 1], of any size."""
        h = self._last_map(images)
        centre, kind, colour = self.place(h).split([1, len(KINDS), len(COLOURS)], dim=1)
        return Maps(centre[:, 0], kind, colour, self.background(h.mean((2, 3))))

    def features(self, images: Tensor) -> Tensor:
        """images (b, 3, h, w) in [-1, 1] -> (b, 96) float32: the last map, pooled."""
        return self._last_map(images).float().mean((2, 3))

    def _last_map(self, images: Tensor) -> Tensor:
        small = F.interpolate(images.float().clamp(-1, 1), size=SIDE, mode="area")
        h = F.relu(self.stem(small))                        # b 32 32 32
        fine = self.fine1(self.down1(h))                    # b 64 16 16
        coarse = self.coarse(self.down2(fine))              # b 96  8  8
        fine = fine + F.interpolate(self.up(coarse), scale_factor=2.0)
        return F.relu(self.last(F.relu(self.fine2(fine))))  # b 96 16 16

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Reading]:
        """What each picture (b, 3, h, w) shows: at most `MOST` things, and the background."""
        maps = Maps(*(x.float().cpu() for x in self(images)))
        return [_read(Maps(*one)) for one in zip(*maps, strict=True)]


def _read(maps: Maps) -> Reading:
    """The reading of one picture's maps (without the batch dimension)."""
    sure = maps.centre.sigmoid()
    cells = (sure > THRESHOLD).nonzero().tolist()
    peaks: list[tuple[int, int]] = []
    for row, column in sorted(cells, key=lambda cell: -float(sure[cell[0], cell[1]])):
        if all(max(abs(row - r), abs(column - c)) > APART for r, c in peaks):
            peaks.append((row, column))
    things = []
    for row, column in peaks[:MOST]:
        kind, colour = (int(x[:, row, column].argmax()) for x in (maps.kind, maps.colour))
        things.append(Seen(KINDS[kind], tuple(COLOURS)[colour],
                           *_centre_of_mass(sure, row, column), float(sure[row, column])))
    clearness, best = maps.background.softmax(0).max(0)
    return Reading(tuple(things), BACKGROUNDS[int(best)] if clearness > CLEAR else "")


def _centre_of_mass(sure: Tensor, row: int, column: int) -> tuple[float, float]:
    """Where a thing is, finer than the grid: (x, y) of the mass in the 3 x 3 cells of a peak."""
    top, left = max(row - 1, 0), max(column - 1, 0)
    mass = sure[top:row + 2, left:column + 2]
    x = (mass.sum(0) * (torch.arange(mass.shape[1]) + left + 0.5)).sum() / mass.sum() / GRID
    y = (mass.sum(1) * (torch.arange(mass.shape[0]) + top + 0.5)).sum() / mass.sum() / GRID
    return float(x), float(y)


def load_judge(path: Path) -> Judge:
    """The judge of a file, in float32 and ready to read."""
    judge = Judge()
    checkpoint.load_into(judge, path)
    return judge.eval().requires_grad_(False)


def in_words(reading: Reading) -> str:
    """A reading in one line, such as "red car and yellow balloon, sky"."""
    things = " and ".join(f"{seen.colour} {seen.kind}" for seen in reading.things) or "nothing"
    return f"{things}, {reading.background or 'unclear'}"


# What a reading says about a scene

def relation(first: Seen, second: Seen) -> str:
    """How `first` stands to `second`: the one relation along the axis of the longer way."""
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dy) > abs(dx):
        return "above" if dy > 0 else "below"
    return "left of" if dx > 0 else "right of"


def agrees(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Whether a picture shows exactly a scene.

    Every thing of the scene is matched with another thing of the reading: so that most kinds
    agree, then most colours, then the relation.

    Returns:
        "things": the right kinds, none missing, none extra; "colours": each thing is there in its
        colour; "relation": both things are there and stand so (true for a scene without relation);
        "background"; "all": all of these.
    """
    count = len(scene.things)
    candidates = (*reading.things, *[None] * max(0, count - len(reading.things)))
    said = (0, 0, False)
    for matched in permutations(candidates, count):
        pairs = list(zip(scene.things, matched, strict=True))
        kinds = [seen is not None and seen.kind == thing.kind for thing, seen in pairs]
        colours = [kind and seen is not None and seen.colour == thing.colour
                   for kind, (thing, seen) in zip(kinds, pairs, strict=True)]
        stand = scene.relation is None
        if scene.relation is not None and all(kinds):
            first, second = (seen for seen in matched if seen is not None)
            stand = relation(first, second) == scene.relation
        said = max(said, (sum(kinds), sum(colours), stand))
    answers = {"things": said[0] == count == len(reading.things), "colours": said[1] == count,
               "relation": said[2], "background": reading.background == scene.background}
    return {**answers, "all": all(answers.values())}


# The Frechet distance

def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """The distance of two sets of features, each taken as a Gaussian (Heusel et al. 2017, eq. 6).

    |mean_a - mean_b|^2 + trace(S_a + S_b - 2 (S_a S_b)^(1/2)), where the trace of the root is that
    of the symmetric (S_a^(1/2) S_b S_a^(1/2))^(1/2).

    Args:
        features_a, features_b: (n, f) and (m, f); means something with n and m well above f, or
            where both show the same scenes (the paired distance).
    """
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_a.shape[1]:
            raise ValueError(f"expected features (n, f) and (m, f) with n and m at least 2, got "
                             f"{tuple(features_a.shape)} and {tuple(features_b.shape)}")
    a, b = features_a.double(), features_b.double()
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return float(distance.clamp_min(0))
