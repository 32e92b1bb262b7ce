"""Training both towers of CLIP to tell which caption belongs to which scene.

InfoNCE (van den Oord et al. 2018) as in Radford et al. 2021, figure 3. In a random batch a bag of
words is enough to find the partner; so a share of the scenes are near twins of another (colours
swapped, places swapped, one word changed), which only word order tells apart.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor

from minisd.clip import CLIP
from minisd.config import Config
from minisd.tokenizer import Tokenizer
from minisd.toyworld import data, loop
from minisd.toyworld.captions import INVERSE, caption
from minisd.toyworld.recipe import Recipe
from minisd.toyworld.scenes import BACKGROUNDS, COLOURS, HIDDEN, KINDS, Scene, draw, is_held_out

Twin = Callable[[Scene, np.random.Generator], Scene]


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


def recolour(scene: Scene, rng: np.random.Generator) -> Scene:
    thing = replace(scene.things[0], colour=str(rng.choice(list(COLOURS))))
    return replace(scene, things=(thing, *scene.things[1:]))


def rekind(scene: Scene, rng: np.random.Generator) -> Scene:
    thing = replace(scene.things[-1], kind=str(rng.choice(KINDS)))
    return replace(scene, things=(*scene.things[:-1], thing))


def move(scene: Scene, rng: np.random.Generator) -> Scene:
    return replace(scene, background=str(rng.choice(BACKGROUNDS)))


TWINS_OF_ONE: tuple[Twin, ...] = (recolour, rekind, move)
TWINS_OF_TWO: tuple[Twin, ...] = (swap_colours, swap_places, recolour, rekind, move)


def twin(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one thing about it changed, still visible and still not held out."""
    makers = TWINS_OF_ONE if len(scene.things) == 1 else TWINS_OF_TWO
    while True:
        other = makers[rng.integers(len(makers))](scene, rng)
        looks = {(t.colour, t.kind) for t in other.things}
        visible = all(t.colour not in HIDDEN[other.background] for t in other.things)
        sound = visible and len(looks) == len(scene.things) and not is_held_out(other)
        if sound and other != scene:
            return other


def make_batch(tokenizer: Tokenizer, batch: int, size: int, hard: float, g: torch.Generator
               ) -> tuple[Tensor, Tensor]:
    """Pictures (batch, 3, size, size) and token ids (batch, longest caption)."""
    rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
    scenes: list[Scene] = []
    while len(scenes) < batch:
        scenes.append(data.random_scene(rng))
        if rng.random() < hard / (2 - hard):            # then `hard` of the batch are twins
            scenes.append(twin(scenes[-1], rng))
    scenes = scenes[:batch]
    ids = tokenizer([caption(scene, rng) for scene in scenes])
    longest = int((ids != tokenizer.end_id).sum(1).max()) + 1       # the end token included
    return data.to_tensor(np.stack([draw(s, size) for s in scenes])), ids[:, :longest]


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy over all pairs, and the share of captions found for their picture.

    image, text: unit vectors (b, p), row i of one belonging to row i of the other.
    """
    logits = scale * image @ text.T                                         # b b
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(1) == target).float().mean()


def gather(x: Tensor, share: loop.Share) -> Tensor:
    """The rows of all processes, differentiably: contrast needs the whole batch."""
    return x if share.world == 1 else torch.cat(dist_nn.all_gather(x))


def train(config: Config, recipe: Recipe, folder: Path, tokenizer: Tokenizer, *,
          share: loop.Share, minutes: float | None = None,
          start: dict[str, Tensor] | None = None) -> CLIP:
    """The trained towers."""
    assert config.image_tower is not None
    torch.manual_seed(recipe.seed)
    clip = CLIP(config.text, config.image_tower).to(loop.device())
    if start:
        clip.load_state_dict(start)

    def loss(g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        pictures, ids = make_batch(tokenizer, recipe.clip.batch, config.image_size,
                                   recipe.hard_negatives, g)
        pictures, ids = (share.of(x).to(loop.device()) for x in (pictures, ids))
        with loop.autocast():
            image, text = clip.embed_images(pictures), clip.embed_text(ids)
        value, found = contrastive_loss(gather(image.float(), share), gather(text.float(), share),
                                        clip.scale())
        return {"loss": value, "accuracy": found, "scale": clip.scale()}

    return loop.Fit("clip", clip, recipe.clip, loss, folder, seed=recipe.seed,
                    share=share).run(minutes)
