"""What a user asks of a run: masks of any kind, and the sizes of reference pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from minisd.request import Request, read_mask

SIZE = (40, 72)


@pytest.fixture
def drawn() -> np.ndarray:
    white = np.zeros(SIZE, bool)
    white[3:20, 10:11] = white[30:, 50:] = True
    return white


@pytest.mark.parametrize("kind", ["bool", "uint8", "rgb", "1", "L", "RGBA", "grey", "path"])
def test_a_mask_can_be_any_kind_of_picture(picture, drawn, tmp_path, kind) -> None:
    grey = drawn.astype(np.uint8) * 255
    forms = {"bool": drawn, "uint8": grey, "rgb": grey[..., None].repeat(3, 2),
             "1": Image.fromarray(drawn), "L": Image.fromarray(grey),
             "RGBA": Image.fromarray(grey).convert("RGBA"),
             "grey": Image.fromarray(np.where(drawn, 128, 127).astype(np.uint8)),
             "path": tmp_path / "mask.png"}
    Image.fromarray(grey).save(tmp_path / "mask.png")
    found = read_mask(forms[kind], picture, SIZE)
    assert found.dtype == torch.bool and np.array_equal(found[0, 0].numpy(), drawn)


def test_a_mask_is_cropped_and_resized_with_its_picture(picture) -> None:
    """To half the width, around the centre, and half the size: from 40 x 72 to 16 x 16."""
    white = np.zeros(SIZE, bool)
    white[:, :36] = True
    found = read_mask(white, picture, (16, 16))
    assert found.shape == (1, 1, 16, 16) and found[..., :8].all() and not found[..., 8:].any()


@pytest.mark.parametrize(("mask", "kind", "text"), [
    (np.zeros((72, 40), bool), ValueError, "the mask is 40 x 72 pixels and the picture 72 x 40"),
    (np.ones(SIZE, np.uint8), ValueError, "values are 0 and 1, and white is 255"),
    (np.ones(SIZE), ValueError, "expected a picture as a uint8 array"),
    ([[0, 1]], TypeError, "expected a PIL picture, a path or a uint8 array, got list")])
def test_what_is_no_mask_is_refused(picture, mask, kind, text) -> None:
    with pytest.raises(kind) as error:
        read_mask(mask, picture, SIZE)
    assert text in str(error.value)


def test_one_white_pixel_frees_its_cell() -> None:
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[0, 0, 16, 71] = mask[0, 0, 39, 0] = True
    request = Request("", "", 1.0, 5, "ddim", 0.0, 0, *SIZE, 1, mask=mask)
    cells = request.cells(8)
    assert cells.shape == (1, 1, 5, 9)
    assert cells[0, 0].nonzero().tolist() == [[2, 8], [4, 0]]
