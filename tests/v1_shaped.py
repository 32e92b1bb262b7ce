"""A random model of v1's shape, its channels cut down: what must not depend on toyworld's sizes.

    python tests/v1_shaped.py FOLDER

Levels, layers and heads are v1's, and so are the 49,408 tokens of the true CLIP vocabulary, from
a development package's data. Its pictures are noise.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from minisd import StableDiffusion
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.vocabulary import packaged_tokenizer
from minisd.config import V1, Config
from minisd.toyworld.training import tokenizer as vocabulary

SIDE = 128          # pixels: v1's 512 would only take longer


def small_v1() -> Config:
    return replace(
        V1, name="v1", image_size=SIDE, text=replace(V1.text, width=96),
        vae=replace(V1.vae, channels=(32, 32, 64, 64)),
        unet=replace(V1.unet, channels=(32, 64, 96, 96), context_dim=96))


def write(folder: Path) -> Path:
    """A whole model in this project's layout."""
    true = packaged_tokenizer()
    assert true is not None, "install requirements-dev.txt, which brings CLIP's vocabulary"
    vocabulary.save(folder / "tokenizer", list(true.merges), [])
    (folder / "tokenizer" / "words.txt").unlink()           # v1 knows no list of its words
    config = small_v1()
    torch.manual_seed(0)
    sd = StableDiffusion(config)
    for part in ("text_encoder", "unet", "vae"):
        checkpoint.save(getattr(sd, part), folder / f"{part}.safetensors")
    checkpoint.write_config(folder, config)
    return folder


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
