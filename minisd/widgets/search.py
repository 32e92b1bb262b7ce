"""Searching pictures with words: both towers of CLIP at work."""

from collections.abc import Generator, Sequence

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.observe import pictures
from minisd.tokenizer import Tokenizer
from minisd.toyworld.clip import CLIP
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View

COLUMNS, ROWS = 4, 2            # of the pictures found


def picture_search(clip: CLIP, tokenizer: Tokenizer, pictures: Sequence[Image.Image],
                   prompt: str) -> Explorer:
    """Type a sentence, and see which of the pictures are closest to it, the closest first.

    pictures: at least one, of the size that clip's image tower takes. prompt: the first sentence.
    """
    if not pictures:
        raise ValueError("there are no pictures to search: pass at least one")
    searcher = Searcher(clip, tokenizer, pictures)
    knobs = {"prompt": ipywidgets.Text(prompt, description="Sentence", continuous_update=True,
                                       layout={"width": "auto"})}
    return Explorer("picture search", knobs, searcher, about="the closest pictures")


class Searcher:
    """Sentences to views of the closest pictures."""

    def __init__(self, clip: CLIP, tokenizer: Tokenizer, pictures: Sequence[Image.Image]) -> None:
        self.clip, self.tokenizer, self.pictures = clip, tokenizer, pictures
        self.vectors: Tensor | None = None              # (count, p), made at the first search

    def __call__(self, at: Values) -> Generator[Frame, None, None]:
        found, likeness = self.closest(at["prompt"])
        picture = pictures.grid([self.pictures[i] for i in found], COLUMNS)
        digits = [f"{value:.2f}" for value in likeness]
        unseen = self.tokenizer.unseen_words(at["prompt"])
        lines = [f"Cosine similarities, row by row: {', '.join(digits)}.",
                 *[f"Never seen in training: {', '.join(unseen)}."] * bool(unseen)]
        yield Frame(1, 1, View(picture, "\n".join(lines)),
                    f"The closest {len(found)} of {len(self.pictures)} pictures.")

    @torch.no_grad()
    def closest(self, prompt: str) -> tuple[list[int], list[float]]:
        """The numbers of the closest pictures, and how close each is, 1 being the same."""
        weight = self.clip.text_projection.weight
        if self.vectors is None:
            pixels = torch.cat([images.from_pil(picture) for picture in self.pictures])
            self.vectors = self.clip.embed_images(pixels.to(weight)).float()
        ids = torch.tensor([self.tokenizer.encode(prompt).ids], device=weight.device)
        likeness = (self.vectors @ self.clip.embed_text(ids).float().T)[:, 0]
        best = likeness.topk(min(COLUMNS * ROWS, len(self.pictures)))
        return best.indices.tolist(), best.values.tolist()
