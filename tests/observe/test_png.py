"""PNG files with their records, and the names that nobody chose."""

import os
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from minisd.observe import png

METADATA = {"prompt": "a \"red\" car\nbelow 一只猫 😀 caf\udce9", "seed": 2 ** 63 - 1, "eta": 0.1,
            "strength": None, "negative_prompt": ""}


def test_metadata_round_trip(tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / "a" / "b" / "out.PNG"
    assert png.save_png(picture, path, METADATA) == path
    assert png.read_metadata(path) == METADATA
    assert png.read_metadata(str(path))["seed"] == 2 ** 63 - 1
    with Image.open(path) as opened:
        assert opened.tobytes() == picture.tobytes()
        assert opened.info["parameters"] == (
            "prompt: a \"red\" car below 一只猫 😀 caf?, seed: 9223372036854775807, eta: 0.1, "
            "strength: None, negative_prompt:")
    assert os.listdir(path.parent) == ["out.PNG"]


def test_no_metadata(tmp_path: Path, picture: Image.Image) -> None:
    plain, jpeg, other = (tmp_path / name for name in ("a.png", "a.jpg", "b.png"))
    png.save_png(picture, plain)
    picture.save(jpeg)
    for content in ("{not JSON", "[" * 100_000, "7"):
        text = PngImagePlugin.PngInfo()
        text.add_text("minisd", content)
        picture.save(other, pnginfo=text)
        for path in (plain, jpeg, other):
            with pytest.raises(ValueError, match="carries no metadata of minisd: expected"):
                png.read_metadata(path)
    other.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        png.read_metadata(other)
    with pytest.raises(FileNotFoundError, match="no picture at"):
        png.read_metadata(tmp_path / "nope.png")


def test_what_cannot_be_written_writes_nothing(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(TypeError):
        png.save_png(picture, tmp_path / "new" / "a.png", {"prompt": object()})
    for name in ("a.jpg", "a", "a.png.bak"):
        with pytest.raises(ValueError, match="expected a file name that ends in .png, got"):
            png.save_png(picture, tmp_path / name)
    assert os.listdir(tmp_path) == []


# Names that nobody chose

@pytest.mark.parametrize(("prompt", "words"), [
    ("A RED car, at NIGHT!", "a-red-car-at-night"),
    ("", "picture"), ("?!../\\", "picture"), ("😀❤️", "picture"), ("हिन्दी में", "हिन्दी-में"),
    ("a/b\\c:d\0e", "a-b-c-d-e"), ("-rf .hidden", "rf-hidden"), ("\u202egnp.exe", "gnp-exe"),
    ("x" * 300, "x" * 40)])
def test_default_names(prompt: str, words: str) -> None:
    path = png.default_path(prompt, 42)
    assert path == Path("outputs") / f"{words}-42.png"
    assert 0 < len(path.name) <= 60


def test_the_longest_name_fits_a_file_system(tmp_path: Path, picture: Image.Image) -> None:
    path = png.default_path("𝔸𐐀𐐀𐐀" * 50, 2 ** 63 - 1, tmp_path)
    assert len(os.fsencode(path.name)) <= 255
    png.save_png(picture, path)
