"""Training both towers of CLIP to tell which caption belongs to which scene.

InfoNCE (van den Oord et al. 2018) as in Radford et al. 2021, figure 3. In a random batch a bag of
words is enough to find the partner; so a share of the scenes are near twins of another, and in a
second stage every picture has to tell its caption from foils (`twins.py`), which only the order of
the words tells apart (the hard negative captions of Yuksekgonul et al. 2023).
"""

from pathlib import Path

import numpy as np
import torch
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor

from minisd.config import Config
from minisd.tokenizer import Tokenizer
from minisd.toyworld import data, loop
from minisd.toyworld.captions import WHOLE, caption, choose_telling, plain_caption
from minisd.toyworld.clip import CLIP
from minisd.toyworld.recipe import Recipe
from minisd.toyworld.scenes import Scene, draw
from minisd.toyworld.twins import foils, twin


def make_scenes(batch: int, hard: float, rng: np.random.Generator) -> list[Scene]:
    """Random training scenes, of which a share `hard` are a near twin of another."""
    scenes: list[Scene] = []
    while len(scenes) < batch:
        scenes.append(data.random_scene(rng))
        if rng.random() < hard / (2 - hard):
            scenes.append(twin(scenes[-1], rng))
    return scenes[:batch]


def with_foils(scene: Scene, plain: float, rng: np.random.Generator) -> tuple[list[str], bool]:
    """A caption, a second one in other words, and `FOILS` false ones.

    plain: how often all of them are put plainly. A model finds out there what word order means,
        and takes it over to varied English, from which alone it learned little in 350 steps.
    Returns:
        the captions, and whether the first one tells enough for the foils to be false.
    """
    telling = choose_telling(scene, rng)
    told = telling in WHOLE
    alike = telling if told else WHOLE[0]
    put = plain_caption if rng.random() < plain else caption
    first = put(scene, rng, telling) if told else caption(scene, rng, telling)
    return [first, *(put(other, rng, alike) for other in (scene, *foils(scene, rng)))], told


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, foils: Tensor | None = None,
                     told: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy over all pairs, and the share of captions found for their picture.

    A picture looks for its caption among all captions and its own foils; a caption looks for its
    picture among all pictures. Where a caption tells too little, its foils are not counted.

    image, text (b, p), foils (b, f, p): unit vectors, row i of each belonging to row i of the
    others; told (b,) booleans.
    """
    logits = scale * image @ text.T                                         # b b
    target = torch.arange(len(logits), device=logits.device)
    among = logits
    if foils is not None and told is not None:
        own = scale * (image[:, None] * foils).sum(-1)                      # b f
        among = torch.cat([logits, own.masked_fill(~told[:, None], -torch.inf)], 1)
    loss = (F.cross_entropy(among, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (among.argmax(1) == target).float().mean()


def gather(x: Tensor, share: loop.Share) -> Tensor:
    """The rows of all processes, differentiably: contrast needs the whole batch."""
    return x if share.world == 1 else torch.cat(dist_nn.all_gather(x))


class Stage:
    """One stage of the training.

    `clip`: pictures and captions. `clip_words`: captions alone, each to be told from its foils by
    a second one that means the same. `clip_foils`: pictures and second captions, both with foils.
    """

    def __init__(self, name: str, clip: CLIP, recipe: Recipe, tokenizer: Tokenizer, size: int
                 ) -> None:
        self.name, self.clip, self.recipe = name, clip, recipe
        self.tokenizer, self.size = tokenizer, size
        self.part = getattr(recipe, name)

    def loss(self, g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        """The loss of one batch, the share of right choices, and 1 / temperature."""
        rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
        scenes = make_scenes(self.part.batch, self.recipe.hard_negatives, rng)
        scale = self.clip.scale()
        if self.name == "clip":
            text = self.embed_text([[caption(scene, rng)] for scene in scenes], share)[:, 0]
            loss, found = contrastive_loss(self.embed_images(scenes, share), text, scale)
            return {"loss": loss, "accuracy": found, "scale": scale}
        captions, told = zip(*(with_foils(scene, self.recipe.plain_captions, rng)
                               for scene in scenes), strict=True)
        embedded = self.embed_text(list(captions), share)
        text, again, foils = embedded[:, 0], embedded[:, 1], embedded[:, 2:]
        enough = gather(share.of(torch.tensor(told)).to(loop.device()), share)
        loss, understood = contrastive_loss(again, text, scale, foils, enough)
        if self.name == "clip_words":
            return {"loss": loss, "understood": understood, "scale": scale}
        seen, found = contrastive_loss(self.embed_images(scenes, share), text, scale, foils, enough)
        return {"loss": loss + seen, "accuracy": found, "understood": understood, "scale": scale}

    def embed_images(self, scenes: list[Scene], share: loop.Share) -> Tensor:
        """Unit vectors (b, p) of the drawn scenes, gathered from all processes."""
        drawn = np.stack([draw(scene, self.size) for scene in share.of(scenes)])
        with loop.autocast():
            image = self.clip.embed_images(data.to_tensor(drawn).to(loop.device()))
        return gather(image.float(), share)

    def embed_text(self, captions: list[list[str]], share: loop.Share) -> Tensor:
        """Unit vectors (b, captions, p), gathered from all processes."""
        ids = self.tokenizer([text for texts in captions for text in texts])
        longest = int((ids != self.tokenizer.end_id).sum(1).max()) + 1  # the end token included
        ids = share.of(ids[:, :longest].unflatten(0, (len(captions), -1))).to(loop.device())
        with loop.autocast():
            text = self.clip.embed_text(ids.flatten(0, 1))
        return gather(text.float().unflatten(0, ids.shape[:2]), share)


STAGES = ("clip", "clip_words", "clip_foils")


def train(config: Config, recipe: Recipe, folder: Path, tokenizer: Tokenizer, *,
          share: loop.Share, minutes: float | None = None,
          start: dict[str, Tensor] | None = None) -> CLIP:
    """The trained towers.

    start: weights to begin the last stage with; those before it are then skipped.
    """
    assert config.image_tower is not None
    torch.manual_seed(recipe.seed)
    clip = CLIP(config.text, config.image_tower).to(loop.device())
    if loop.device().type == "cpu":
        loop.lay_open(clip)
    for name in STAGES if start is None else STAGES[-1:]:
        if start is not None:
            clip.load_state_dict(start)
        stage = Stage(name, clip, recipe, tokenizer, config.image_size)
        fit = loop.Fit(name, clip, stage.part, stage.loss, folder, seed=recipe.seed, share=share)
        average = fit.run(minutes)
        if fit.step < stage.part.steps:
            break
        start = average.state_dict()
    return average
