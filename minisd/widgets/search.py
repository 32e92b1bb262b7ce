"""Searching pictures with words: both towers of CLIP at work."""

from collections.abc import Generator, Sequence

import torch
from PIL import Image
from torch import Tensor

from minisd.images import from_pil
from minisd.tokenizer import Tokenizer
from minisd.toyworld.clip import CLIP
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.explorer import Explorer, Values, View

COLUMNS, ROWS, SIDE = 4, 2, 140         # of the pictures found, and pixels along each


def picture_search(clip: CLIP, tokenizer: Tokenizer, pictures: Sequence[Image.Image],
                   prompt: str) -> Explorer:
    """Type a sentence, and see which of the pictures are closest to it, the closest first.

    pictures: at least one, of the size that clip's image tower takes. prompt: the first sentence.
    """
    if not pictures:
        raise ValueError("there are no pictures to search: pass at least one")
    memory = Memory(clip)

    @torch.no_grad()
    def frames(at: Values) -> Generator[Frame, None, None]:
        weight = clip.text_projection.weight
        vectors: Tensor = memory.get("vectors", lambda: clip.embed_images(
            torch.cat([from_pil(picture) for picture in pictures]).to(weight)).float())
        sentence = clip.embed_text(tokenizer(at["prompt"]).to(weight.device)).float()
        best = (vectors @ sentence.T)[:, 0].topk(min(COLUMNS * ROWS, len(pictures)))
        found = [(pictures[i], f"cosine {value:.2f}") for value, i in zip(
            best.values.tolist(), best.indices.tolist(), strict=True)]
        rows = [(SIDE, found[i:i + COLUMNS]) for i in range(0, len(found), COLUMNS)]
        yield Frame(1, 1, View(sheet(*rows), "Above each: its cosine similarity to the sentence."),
                    f"The closest {len(found)} of {len(pictures)} pictures.")

    return Explorer("picture search", {"prompt": knobs.words("Sentence", prompt, live=True)},
                    frames, width=COLUMNS * (SIDE + GAP) - GAP, memory=memory,
                    about="the closest pictures")
