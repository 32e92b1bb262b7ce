"""Tensors to pictures and back: to_pil and from_pil."""

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import images

LEVELS = np.arange(256, dtype=np.uint8)


def test_every_grey_level_survives_the_round_trip() -> None:
    array = np.stack([LEVELS, LEVELS[::-1], np.roll(LEVELS, 7)], -1)[None]
    tensor = images.from_pil(Image.fromarray(array))
    assert tensor.shape == (1, 3, 1, 256) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    np.testing.assert_array_equal(np.asarray(images.to_pil(tensor)[0]), array)


def test_to_pil_clamps_and_rounds() -> None:
    values = torch.tensor([-7.0, -1.0, -0.001, 0.001, 0.0049, 1.0, 9.0])
    picture = images.to_pil(values.expand(2, 3, 1, 7).clone().requires_grad_())[1]
    expected = [0, 0, round(127.5 * 0.999), round(127.5 * 1.001), round(127.5 * 1.0049), 255, 255]
    assert np.asarray(picture)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_to_pil_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pictures of shape \(b, 3, h, w\), got"):
        images.to_pil(torch.zeros(shape))


def test_to_pil_never_paints_nan_black() -> None:
    with pytest.raises(ValueError, match="NaN"):
        images.to_pil(torch.full((1, 3, 2, 2), float("nan")))
