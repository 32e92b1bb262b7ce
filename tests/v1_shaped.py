"""A random model of v1's shape, its channels cut down: what must not depend on toyworld's sizes.

    python tests/v1_shaped.py FOLDER

Levels, layers and heads are v1's, and so are the 49,408 tokens of the true CLIP vocabulary, from
the data of the open_clip package. Its pictures are noise.
"""

import gzip
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import torch

from minisd import StableDiffusion, checkpoint
from minisd.config import V1, Config
from minisd.toyworld import train_tokenizer

SIDE = 128          # pixels: v1's 512 would only take longer
MERGES = 48_894     # of the file's lines, after its first


def small_v1() -> Config:
    return replace(
        V1, name="v1", image_size=SIDE, text=replace(V1.text, width=96),
        vae=replace(V1.vae, channels=(32, 32, 64, 64)),
        unet=replace(V1.unet, channels=(32, 64, 96, 96), context_dim=96))


def clip_merges() -> list[tuple[str, str]]:
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()[1:MERGES + 1]
    return [(first, second) for first, second in (line.split() for line in lines)]


def write(folder: Path) -> Path:
    """A whole model in this project's layout."""
    train_tokenizer.save(folder / "tokenizer", clip_merges(), [])
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
