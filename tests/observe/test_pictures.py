"""Pictures beside each other, compared and named."""

from pathlib import Path

import pytest
from PIL import Image

from minisd.observe import pictures, reading


def test_grid_places_row_by_row_on_white() -> None:
    row = [Image.new("RGB", (4, 3), (10 * i, 0, 0)) for i in range(5)]
    sheet = pictures.grid(row, 2, gap=1)
    assert sheet.size == (2 * 5 - 1, 3 * 4 - 1)
    for i in range(5):
        assert sheet.getpixel((i % 2 * 5, i // 2 * 4)) == (10 * i, 0, 0)
    assert sheet.getpixel((4, 0)) == sheet.getpixel((5, 8)) == (255,) * 3
    assert pictures.grid(row[:1], 8).size == (4, 3)


@pytest.mark.parametrize(("sizes", "columns"), [([], 2), ([(2, 2), (2, 3)], 2), ([(2, 2)], 0)])
def test_grid_refuses_what_makes_none(sizes: list[tuple[int, int]], columns: int) -> None:
    with pytest.raises(ValueError, match="a grid takes pictures of one size"):
        pictures.grid([Image.new("RGB", size) for size in sizes], columns)


def test_pixel_sha256_names_pixels_not_files(tmp_path: Path, picture: Image.Image) -> None:
    for name in ("a.png", "a.bmp"):
        picture.save(tmp_path / name)
    shas = {pictures.pixel_sha256(reading.to_rgb(tmp_path / name)) for name in ("a.png", "a.bmp")}
    assert shas == {pictures.pixel_sha256(picture)} and len(shas.pop()) == 64
    before = pictures.pixel_sha256(picture)
    picture.putpixel((0, 0), (1, 2, 3))
    assert pictures.pixel_sha256(picture) != before
