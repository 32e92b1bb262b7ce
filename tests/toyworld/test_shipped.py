"""The model that ships: its sizes, and the least that training must have brought."""

import numpy as np

import minisd
from minisd.checkpoints.config_file import read_own_config
from minisd.checkpoints.places import SHIPPED
from minisd.config import TOYWORLD


def test_it_is_the_preset_and_small() -> None:
    assert read_own_config(SHIPPED / "config.json") == TOYWORLD
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*.safetensors")) < 70e6


def test_it_paints_the_background_that_it_is_told() -> None:
    """Sand is yellow, the sea is blue, night is dark."""
    sd, means = minisd.load("toyworld", device="cpu", dtype="float32"), {}
    for place in ("on the sand", "at sea", "at night", "on a white background"):
        picture, = sd.text_to_image(f"a red car {place}", seed=0, steps=20, guidance_scale=5)
        means[place] = np.asarray(picture, float)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0)
    assert means["on the sand"][0] > means["on the sand"][2] + 20
    assert means["at sea"][2] > means["at sea"][0] + 40
    assert means["at night"].mean() < 100 < 190 < means["on a white background"].mean()
