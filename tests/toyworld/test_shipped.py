"""The model that ships: its sizes, and the least that training must have brought."""

import numpy as np
import pytest
import torch

import minisd
from minisd.checkpoints.config_file import read_own_config
from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD
from minisd.toyworld import data
from minisd.toyworld.captions import full_caption
from minisd.toyworld.clip import load_clip


@pytest.fixture(scope="module")
def sd() -> minisd.StableDiffusion:
    return minisd.load("toyworld", device="cpu", dtype="float32")


def test_it_is_the_preset_and_small() -> None:
    assert read_own_config(SHIPPED / "config.json") == TOYWORLD
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*.safetensors")) < 70e6


def test_it_paints_the_background_that_it_is_told(sd) -> None:
    """Sand is yellow, the sea is blue, night is dark."""
    means = {}
    for place in ("on the sand", "at sea", "at night", "on a white background"):
        picture, = sd.text_to_image(f"a red car {place}", seed=0, steps=20, guidance_scale=5)
        means[place] = np.asarray(picture, float)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0)
    assert means["on the sand"][0] > means["on the sand"][2] + 20
    assert means["at sea"][2] > means["at sea"][0] + 40
    assert means["at night"].mean() < 100 < 190 < means["on a white background"].mean()


def test_its_towers_find_the_caption_of_a_picture(sd) -> None:
    scenes = [data.scene(i, split=data.UNSEEN) for i in range(40)]
    pictures = data.to_tensor(data.pictures(range(40), size=128, split=data.UNSEEN))
    clip = load_clip(sd)
    with torch.no_grad():
        similarity = clip.embed_images(pictures) @ clip.embed_text(
            sd.tokenizer([full_caption(scene) for scene in scenes])).T
    found = (similarity.argmax(1) == torch.arange(40)).float().mean()
    assert found > 0.6                          # by chance 1 in 40
