"""What all tests share: tiny networks, no two sizes alike; seeds; two threads; no downloads."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"          # before transformers or diffusers can be imported

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from minisd.config import Config, ImageTowerConfig, TextConfig, UNetConfig, VAEConfig
from minisd.diffusion import Schedule, make_schedule

if TYPE_CHECKING:
    from minisd.pipeline import StableDiffusion

torch.set_num_threads(min(2, torch.get_num_threads()))

# No two axes of one tensor agree in length, so a swapped axis fails; widths divide by their heads
# and groups. Test inputs keep clear of these sizes too: batches of 3 or 4, latents of 7x9 or 5x11.
TINY = Config(
    name="tiny",
    text=TextConfig(vocab_size=59, width=21, layers=2, heads=3, max_length=13, projection_dim=17),
    vae=VAEConfig(channels=(8, 16, 20, 28), layers_per_block=1, groups=4, scale_factor=0.7,
                  latent_channels=5),
    unet=UNetConfig(channels=(12, 18, 30), attention=(True, False, True), layers_per_block=1,
                    heads=2, context_dim=21, groups=6, latent_channels=5),
    image_size=48,
    image_tower=ImageTowerConfig(image_size=20, patch_size=4, width=32, layers=3, heads=4,
                                 projection_dim=17),
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> Config:
    return TINY


@pytest.fixture(scope="session")
def schedule() -> Schedule:
    """v1's and toyworld's."""
    return make_schedule(TINY.schedule)


@pytest.fixture(scope="session")
def sd() -> "StableDiffusion":
    """A whole pipeline of TINY's sizes and random weights; leave it as you found it."""
    from parity import scramble

    from minisd.checkpoints.vocabulary import ModelTokenizer, clip_vocabulary
    from minisd.pipeline import StableDiffusion

    merges = [("r", "e"), ("re", "d</w>")]
    vocab = clip_vocabulary(merges)
    config = replace(TINY, text=replace(TINY.text, vocab_size=len(vocab)))
    model = StableDiffusion(config, ModelTokenizer(
        vocab, merges, known_words=frozenset({"a", "red", "car", "blue", "fish"}), model="tiny",
        max_length=config.text.max_length))
    scramble(model)
    return model.eval()


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A weights/ of our own with nothing but toyworld in it, each of its files a link."""
    from minisd.checkpoints import load, places, registry, vocabulary
    from minisd.cli import doctor

    folder, shipped = tmp_path / "weights", places.SHIPPED
    for path in shipped.rglob("*.*"):
        link = folder / "toyworld" / path.relative_to(shipped)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    for module in (doctor, places, registry, vocabulary):
        monkeypatch.setattr(module, "WEIGHTS", folder)
    for module in (doctor, places, registry, load):
        monkeypatch.setattr(module, "SHIPPED", folder / "toyworld")
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    return folder


@pytest.fixture
def picture() -> Image.Image:
    """Noise of 72 x 40 pixels: nine by five latent cells."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 72, 3), dtype=np.uint8))
