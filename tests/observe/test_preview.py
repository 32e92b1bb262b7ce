"""Previews: the linear map from latents to colours, fitted and applied."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import minisd
from minisd.config import TOYWORLD, V1
from minisd.observe import preview


def test_the_published_map_of_v1() -> None:
    factors = preview.factors_of(V1.vae)
    assert factors.shape == (5, 3) and factors[4].tolist() == [0, 0, 0]
    assert factors[0].tolist() == pytest.approx([0.3512, 0.2297, 0.3227])
    assert factors[3].tolist() == pytest.approx([-0.2120, -0.2616, -0.7177])


def test_a_preview_is_the_linear_map_enlarged() -> None:
    latents = torch.zeros(2, 4, 5, 7)
    latents[1, 2, :, 3:] = 0.5
    factors = preview.factors_of(TOYWORLD.vae)
    first, second = preview.to_pictures(latents, factors)
    assert first.size == second.size == (56, 40)

    def level(colour: torch.Tensor) -> list[int]:
        return ((colour.clamp(-1, 1) + 1) * 127.5).round().int().tolist()

    assert list(first.getpixel((20, 20))) == level(factors[4])
    assert list(second.getpixel((50, 3))) == level(0.5 * factors[2] + factors[4])
    assert list(second.getpixel((3, 3))) == level(factors[4])


def test_unknown_latents_show_their_first_three_channels(tiny) -> None:
    latents = torch.randn(1, 5, 6, 6) / 3
    picture, = preview.to_pictures(latents, preview.factors_of(tiny.vae), 1)
    expected = ((latents[0, :3].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    assert np.array_equal(np.asarray(picture), expected.numpy())


def test_toyworlds_map_fits_its_shipped_encoder() -> None:
    """On scenes it was not fitted to, as well as a map fitted to just these; see preview.py."""
    from minisd.toyworld import data

    sd = minisd.load("toyworld", device="cpu", dtype="float32")
    pictures = data.to_tensor(data.pictures(range(900, 932), size=128, split=data.UNSEEN))
    latents = torch.cat([sd.encode_image(picture[None]) for picture in pictures])
    colours = F.adaptive_avg_pool2d(pictures, latents.shape[-2:])

    cells = F.pad(latents.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)      # b*h*w c+1
    wanted = colours.movedim(1, -1).flatten(0, 2)                               # b*h*w 3

    def error(factors: torch.Tensor) -> float:
        return float((cells @ factors - wanted).square().mean() / wanted.var(0).mean())

    best = error(torch.linalg.lstsq(cells, wanted).solution)
    assert error(preview.factors_of(sd.config.vae)) < 1.1 * best < 0.15
