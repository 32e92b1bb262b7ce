"""Training both towers of CLIP to find which caption belongs to which scene.

InfoNCE (van den Oord et al. 2018) as in Radford et al. 2021, figure 3. In a random batch a bag of
words is enough to find the partner; so some of the scenes are hard negatives of another, and in a
second stage every picture has to know its caption among foils (`hard_negatives.py`), which only
the order of the words tells apart. Last, with the text tower frozen, pictures learn to be found
by one word, by two and by about five: of a batch, all those that a query is true of.
"""

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from minisd.tokenizer import Tokenizer
from minisd.toyworld import captions, data
from minisd.toyworld.clip import CLIP
from minisd.toyworld.scenes import Scene
from minisd.toyworld.training import loop
from minisd.toyworld.training.hard_negatives import foils, hard_negative
from minisd.toyworld.training.recipe import Recipe


def make_scenes(batch: int, hard: float, rng: np.random.Generator) -> list[Scene]:
    """Random training scenes; so many of them, a fraction, belong to pairs of hard negatives."""
    scenes: list[Scene] = []
    while len(scenes) < batch:
        scenes.append(data.random_scene(rng))
        if rng.random() < hard / (2 - hard):
            scenes.append(hard_negative(scenes[-1], rng))
    return scenes[:batch]


def with_foils(scene: Scene, plain: float, rng: np.random.Generator) -> tuple[list[str], bool]:
    """A caption, a second one in other words, and its foils.

    plain: how often all of them are put plainly. A model finds out there what word order means,
        and takes it over to varied English, from which alone it learned little in 350 steps.
    Returns:
        the captions, and whether the first one says enough for the foils to be false.
    """
    content = captions.choose_content(scene, rng)
    enough = content in captions.WHOLE
    put = captions.plain_caption if rng.random() < plain else captions.caption
    first = put(scene, rng, content) if enough else captions.caption(scene, rng, content)
    same = content if enough else captions.WHOLE[0]
    return [first, *(put(other, rng, same) for other in (scene, *foils(scene, rng)))], enough


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, foils: Tensor | None = None,
                     enough: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy over all pairs, and how many pictures find their caption.

    A picture looks for its caption among all captions and its own foils; a caption looks for its
    picture among all pictures. Where a caption says too little, its foils are not counted.

    image, text (b, p), foils (b, f, p): unit vectors, row i of each belonging to row i of the
    others; enough (b,) booleans.
    """
    logits = scale * image @ text.T                                         # b b
    target = torch.arange(len(logits), device=logits.device)
    among = logits
    if foils is not None and enough is not None:
        own = scale * (image[:, None] * foils).sum(-1)                      # b f
        among = torch.cat([logits, own.masked_fill(~enough[:, None], -torch.inf)], 1)
    loss = (F.cross_entropy(among, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (among.argmax(1) == target).float().mean()


def search_loss(text: Tensor, image: Tensor, true: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of queries over pictures, and how many of the first ones found are right.

    Each query has to find several pictures, all alike (Khosla et al. 2020, eq. 2).

    text (q, p), image (b, p): unit vectors; true (q, b): at least one picture for every query.
    """
    found = (scale * text @ image.T).log_softmax(1)
    loss = -(found * true).sum(1) / true.sum(1)
    return loss.mean(), true.gather(1, found.argmax(1, keepdim=True)).float().mean()


def gather(x: Tensor) -> Tensor:
    """The rows of all processes: contrast needs the whole batch.

    Each process has the whole loss and the gradients of its own rows. The mean over processes,
    which data-parallel training takes, would make these too small.
    """
    if loop.world_size() == 1:
        return x
    rows = [torch.empty_like(x) for _ in range(loop.world_size())]
    dist.all_gather(rows, x.detach())
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * loop.world_size())
    rows[loop.rank()] = x
    return torch.cat(rows)


class Stage:
    """One stage of the training.

    `clip`: pictures and captions. `clip_words`: captions alone, each to be known among its foils
    by a second one that means the same. `clip_foils`: pictures and second captions, both with
    foils. `clip_search`: pictures alone, with foils and with queries of several lengths.
    """

    sheet = None

    def __init__(self, name: str, clip: CLIP, recipe: Recipe, tokenizer: Tokenizer, size: int
                 ) -> None:
        self.name, self.clip, self.recipe = name, clip, recipe
        self.tokenizer, self.size = tokenizer, size
        self.part = getattr(recipe, name)
        clip.text.requires_grad_(name != "clip_search")
        loop.explicit_attention(clip)

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """The loss of one batch, how many choices are right, and 1 / temperature."""
        rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
        scenes = make_scenes(self.part.batch, self.recipe.hard_negatives, rng)
        scale = self.clip.scale()
        if self.name == "clip":
            text = self.embed_text([[captions.caption(scene, rng)] for scene in scenes])[:, 0]
            loss, found = contrastive_loss(self.embed_images(scenes), text, scale)
            return {"loss": loss, "accuracy": found, "scale": scale}
        said, says = zip(*(with_foils(scene, self.recipe.plain_captions, rng)
                           for scene in scenes), strict=True)
        embedded = self.embed_text(list(said))
        text, again, foils = embedded[:, 0], embedded[:, 1], embedded[:, 2:]
        enough = gather(loop.shard(torch.tensor(says)))
        if self.name == "clip_search":
            return self.search(scenes, rng, text, foils, enough)
        loss, understood = contrastive_loss(again, text, scale, foils, enough)
        if self.name == "clip_words":
            return {"loss": loss, "understood": understood, "scale": scale}
        seen, found = contrastive_loss(self.embed_images(scenes), text, scale, foils, enough)
        return {"loss": loss + seen, "accuracy": found, "understood": understood, "scale": scale}

    def search(self, scenes: list[Scene], rng: np.random.Generator, text: Tensor, foils: Tensor,
               enough: Tensor) -> dict[str, Tensor]:
        """Of pictures that know their captions among foils, and are found by queries."""
        image, scale = self.embed_images(scenes), self.clip.scale()
        loss, found = contrastive_loss(image, text, scale, foils, enough)
        logged = {"accuracy": found, "scale": scale.detach()}
        for words in captions.QUERY_WORDS:
            asked, true = captions.queries(scenes, words, rng)
            with loop.autocast():
                query = self.clip.embed_text(self.tokenizer(asked).to(loop.device()))
            true = gather(loop.shard(true.T.contiguous())).T        # in the order of the pictures
            more, logged[f"found by {words}"] = search_loss(
                query.to(scale.dtype), image, true, scale)
            loss = loss + more
        return {"loss": loss, **logged}

    def embed_images(self, scenes: list[Scene]) -> Tensor:
        """Unit vectors (b, p) of the drawn scenes, gathered from all processes."""
        drawn = data.drawn(scenes[loop.mine()], self.size)
        with loop.autocast():
            image = self.clip.embed_images(drawn.to(loop.device(), torch.get_default_dtype()))
        return gather(image.to(self.clip.logit_scale.dtype))

    def embed_text(self, said: list[list[str]]) -> Tensor:
        """Unit vectors (b, captions, p), gathered from all processes."""
        ids = self.tokenizer([text for texts in said for text in texts])
        longest = int((ids != self.tokenizer.end_id).sum(1).max()) + 1  # the end token included
        ids = loop.shard(ids[:, :longest].unflatten(0, (len(said), -1)))
        with loop.autocast():
            text = self.clip.embed_text(ids.flatten(0, 1))
        return gather(text.to(self.clip.logit_scale.dtype).unflatten(0, ids.shape[:2]))
