"""What the tests of widgets share: a tiny model that speaks toyworld's words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion
from minisd.checkpoints.places import WEIGHTS
from minisd.checkpoints.vocabulary import read_tokenizer


@pytest.fixture(scope="package")
def toy() -> StableDiffusion:
    from conftest import TINY
    torch.manual_seed(0)
    tokenizer = read_tokenizer(WEIGHTS / "toyworld" / "tokenizer", 13, "toyworld")
    config = replace(TINY, name="toyworld", guidance_scale=3.0, steps=8,
                     text=replace(TINY.text, vocab_size=len(tokenizer.vocab)))
    return StableDiffusion(config, tokenizer).eval().requires_grad_(False)


@pytest.fixture(scope="package")
def soft() -> Image.Image:
    """Squares of colour, which survive being cropped and resized; wider than high."""
    levels = np.random.default_rng(3).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((60, 48), Image.Resampling.BICUBIC)
