"""Training the judge on drawn scenes, softened as autoencoders do, and on spoilt ones.

The judge never sees a picture of the generator. Three sorts of examples prepare it: the world's
scenes (held-out combinations too, for it must read those as well as any others); free scenes of
no, one, two or three things anywhere; and in both things that are spoilt: half erased, faded,
smeared, melted, half or all another thing. Spoilt things do not count, and the judge has to say so.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.toyworld import data, scenes
from minisd.toyworld.evaluation.judge import GRID, SIDE, Judge, Maps
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, KINDS, VISIBLE, Scene, Thing, pick
from minisd.toyworld.training import loop
from minisd.toyworld.training.recipe import Recipe

FREE, HELD_OUT = 0.35, 0.2          # of all scenes, and of those that are not free
SPOILT = 0.3                        # of all things
FLAWS = ("half", "faded", "smeared", "melted", "chimera", "blend")
NEAR, FAR = 0.75, 1.5               # cells from a centre: surely one up to, surely none from here
NO_LABEL = -100                     # where there is no kind or colour
CENTRE_WEIGHT = 30.0                # of the mean over cells, most of which are easy


class Example(NamedTuple):
    """A picture and what the judge should say of it; or a batch of them."""
    picture: Tensor                 # (3, SIDE, SIDE) in [-1, 1]
    centre: Tensor                  # (GRID, GRID), the probability that a thing's centre is here
    kind: Tensor                    # (GRID, GRID) indices into KINDS, or NO_LABEL
    colour: Tensor                  # (GRID, GRID) indices into COLOURS, or NO_LABEL
    background: Tensor              # () index into BACKGROUNDS


def example(seed: int) -> Example:
    """The example of a number: a scene, some of its things spoilt, and the answers."""
    rng = np.random.default_rng(seed)
    scene = (_free_scene(rng) if rng.random() < FREE else
             scenes.sample_scene(rng, rng.random() < HELD_OUT))
    picture = data.drawn([scene], SIDE)[0]
    whole = []
    for i, thing in enumerate(scene.things):
        if rng.random() < SPOILT:
            picture = _spoil(picture, scene, i, rng)
        else:
            whole.append(thing)
    return Example(picture, *_answers(whole), torch.tensor(BACKGROUNDS.index(scene.background)))


def _free_scene(rng: np.random.Generator) -> Scene:
    """Up to three things, not touching but anywhere, so that the judge learns to count."""
    background = pick(rng, BACKGROUNDS)
    count = rng.choice(4, p=(0.2, 0.2, 0.3, 0.3))
    things: list[Thing] = []
    for _ in range(10 * count):
        size = rng.uniform(0.26, 0.44 if count > 1 else 0.72)
        x, y = rng.uniform(size / 2 + scenes.MARGIN, 1 - size / 2 - scenes.MARGIN, 2)
        if len(things) < count and all(max(abs(x - t.x), abs(y - t.y)) > (size + t.size) / 2 + 0.02
                                       for t in things):
            colour = pick(rng, VISIBLE[background])
            things.append(Thing(pick(rng, KINDS), colour, x, y, size))
    return Scene(tuple(things), background, None, int(rng.integers(2**31)))


def _answers(things: list[Thing]) -> tuple[Tensor, Tensor, Tensor]:
    """The maps of centres, kinds and colours for the things that are whole."""
    cells = torch.arange(GRID) + 0.5
    centre = torch.zeros(GRID, GRID)
    kind, colour = (torch.full((GRID, GRID), NO_LABEL) for _ in range(2))
    for thing in things:
        distance = torch.hypot(cells[:, None] - thing.y * GRID, cells - thing.x * GRID)
        centre = centre.maximum(((FAR - distance) / (FAR - NEAR)).clamp(0, 1))
        kind[distance < NEAR] = KINDS.index(thing.kind)
        colour[distance < NEAR] = tuple(COLOURS).index(thing.colour)
    return centre, kind, colour


# Spoiling

def _spoil(picture: Tensor, scene: Scene, i: int, rng: np.random.Generator) -> Tensor:
    """The picture with thing i mixed with something else, in full or on one side of its centre."""
    thing, flaw = scene.things[i], pick(rng, FLAWS)
    others = scene.things[:i], scene.things[i + 1:]
    if flaw == "smeared":
        width = torch.tensor([thing.size * SIDE * rng.uniform(0.16, 0.3)])
        other = blur(picture[None], width)[0]
    elif flaw == "melted":
        waves = torch.from_numpy(rng.standard_normal((1, 2, *[round(3 / thing.size)] * 2))).float()
        other = warp(picture[None], thing.size * rng.uniform(0.14, 0.22) * waves)[0]
    elif flaw in ("half", "faded"):
        other = data.drawn([replace(scene, things=(*others[0], *others[1]))], SIDE)[0]
    else:
        different = replace(thing, kind=pick(rng, [x for x in KINDS if x != thing.kind]))
        if rng.random() < 0.5:
            colours = [x for x in VISIBLE[scene.background] if x != thing.colour]
            different = replace(different, colour=pick(rng, colours))
        exchanged = replace(scene, things=(*others[0], different, *others[1]))
        other = data.drawn([exchanged], SIDE)[0]
    cells = (torch.arange(SIDE) + 0.5) / SIDE
    dx, dy = cells - thing.x, cells[:, None] - thing.y
    # Feathered by one pixel; 0.72 of the size reaches the corners of a thing's box.
    mask = ((thing.size * 0.72 - torch.hypot(dx, dy)) * SIDE).clamp(0, 1)
    if flaw in ("half", "chimera"):
        angle = np.pi * rng.integers(2) if flaw == "chimera" else rng.uniform(0, 2 * np.pi)
        beyond = dx * np.cos(angle) + dy * np.sin(angle) - thing.size * rng.uniform(-0.1, 0.1)
        mask = mask * (beyond * SIDE).clamp(0, 1)
    elif flaw in ("faded", "blend"):
        mask = mask * rng.uniform(*((0.65, 0.85) if flaw == "faded" else (0.4, 0.6)))
    return picture + mask * (other - picture)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Each picture (b, 3, h, w) under a Gaussian of its own width, sigma (b,) in pixels."""
    b, c, h, w = images.shape
    reach = int(3 * float(sigma.max())) + 1
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]    # bc 1 k
    x = F.pad(images, [reach] * 4, mode="replicate").reshape(1, b * c, h + 2 * reach, -1)
    x = F.conv2d(F.conv2d(x, kernel[..., None], groups=b * c), kernel[:, :, None], groups=b * c)
    return x.reshape(b, c, h, w)


def warp(images: Tensor, waves: Tensor) -> Tensor:
    """Pictures pulled about smoothly; waves (b, 2, n, n) are shifts, in sides of the picture."""
    b, _, h, w = images.shape
    shifts = F.interpolate(waves, size=(h, w), mode="bicubic", align_corners=True)
    still = F.affine_grid(torch.eye(2, 3).expand(b, 2, 3), [b, 3, h, w], align_corners=False)
    return F.grid_sample(images, still + 2 * shifts.permute(0, 2, 3, 1), padding_mode="border",
                         align_corners=False)


def soften(images: Tensor, g: torch.Generator) -> Tensor:
    """What a good autoencoder or generator does to a picture: all there, a little off.

    Wobbly outlines, blur, shrinking and enlarging, shifted colours, blotches and grain; each
    picture gets its own amount of each, near none for many.
    """
    b, _, h, w = images.shape

    def amount(most: float) -> Tensor:
        return most * torch.rand(b, 1, 1, 1, generator=g).square()

    def noise(channels: int, side: int) -> Tensor:
        return torch.randn(b, channels, side, side, generator=g)

    x = warp(images, amount(0.012) * noise(2, 9))
    x = blur(x, amount(1.5).flatten())
    small = F.interpolate(x, scale_factor=float(torch.empty(1).uniform_(0.45, 1, generator=g)),
                          mode="area")
    small = F.interpolate(small, size=(h, w), mode="bilinear")
    x = torch.where(torch.rand(b, 1, 1, 1, generator=g) < 0.25, small, x)
    x = x * (1 + amount(0.12) * torch.randn(b, 1, 1, 1, generator=g).clamp(-1.5, 1.5))
    blotches = F.interpolate(noise(3, 8), size=(h, w), mode="bicubic")
    return x + amount(0.10) * noise(3, 1) + amount(0.09) * blotches + amount(0.12) * noise(3, h)


# Training

class Stage:
    """The only stage: drawn on the fly, so nothing is seen twice."""

    sheet = None

    def __init__(self, name: str, judge: Judge, recipe: Recipe) -> None:
        self.judge, self.batch = judge, getattr(recipe, name).batch

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """The four cross-entropies on one batch."""
        seeds = torch.randint(2**62, (self.batch,), generator=g).tolist()
        batch = Example(*map(torch.stack, zip(*map(example, seeds), strict=True)))
        batch = batch._replace(picture=soften(batch.picture, g))
        wanted = Example(*map(loop.shard, batch))
        with loop.autocast():
            maps = Maps(*(x.float() for x in self.judge(wanted.picture)))
        centre = F.binary_cross_entropy_with_logits(maps.centre, wanted.centre)
        kind, colour = (F.cross_entropy(said, right, ignore_index=NO_LABEL) for said, right in
                        ((maps.kind, wanted.kind), (maps.colour, wanted.colour)))
        background = F.cross_entropy(maps.background, wanted.background)
        return {"loss": CENTRE_WEIGHT * centre + kind + 0.5 * colour + 0.5 * background,
                "centre": centre, "kind": kind, "colour": colour, "background": background}
