"""Pictures in and out: every mode, every kind of damage, files written whole or not at all."""

import io
import os
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minisd import images
from minisd.observe import pictures, png

LEVELS = np.arange(256, dtype=np.uint8)
ORIENTATION = 0x0112


def noise_picture(height: int = 24, width: int = 40) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def levels(tensor: torch.Tensor) -> np.ndarray:
    """(1, 3, h, w) in [-1, 1] -> (h, w, 3) grey levels 0 .. 255, not rounded."""
    return ((tensor[0].permute(1, 2, 0) + 1) * 127.5).numpy()


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# Tensors to pictures

def test_every_grey_level_survives_the_round_trip():
    array = np.stack([LEVELS, LEVELS[::-1], np.roll(LEVELS, 7)], -1)[None]
    tensor = images.from_pil(array)
    assert tensor.shape == (1, 3, 1, 256) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    np.testing.assert_array_equal(np.asarray(images.to_pil(tensor)[0]), array)


def test_to_pil_clamps_and_rounds():
    values = torch.tensor([-7.0, -1.0, -0.001, 0.001, 0.0049, 1.0, 9.0])
    picture = images.to_pil(values.expand(2, 3, 1, 7).clone().requires_grad_())[1]
    expected = [0, 0, round(127.5 * 0.999), round(127.5 * 1.001), round(127.5 * 1.0049), 255, 255]
    assert np.asarray(picture)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_to_pil_takes_any_floating_dtype(dtype):
    assert images.to_pil(torch.ones(1, 3, 2, 2, dtype=dtype))[0].getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_to_pil_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"expected pictures of shape \(b, 3, h, w\), got"):
        images.to_pil(torch.zeros(shape))


def test_to_pil_never_paints_nan_black():
    with pytest.raises(ValueError, match="NaN"):
        images.to_pil(torch.full((1, 3, 2, 2), float("nan")))


def test_grid_places_row_by_row_on_white():
    pictures = [Image.new("RGB", (4, 3), (10 * i, 0, 0)) for i in range(5)]
    sheet = pictures.grid(pictures, 2, gap=1)
    assert sheet.size == (2 * 5 - 1, 3 * 4 - 1)
    for i in range(5):
        assert sheet.getpixel((i % 2 * 5, i // 2 * 4)) == (10 * i, 0, 0)
    assert sheet.getpixel((4, 0)) == sheet.getpixel((5, 8)) == (255,) * 3
    assert pictures.grid(pictures[:1], 8).size == (4, 3)


@pytest.mark.parametrize(("sizes", "columns"), [([], 2), ([(2, 2), (2, 3)], 2), ([(2, 2)], 0)])
def test_grid_refuses_what_makes_none(sizes, columns):
    with pytest.raises(ValueError, match="a grid takes pictures of one size"):
        pictures.grid([Image.new("RGB", size) for size in sizes], columns)


def test_save_grid(tmp_path):
    pictures.save_grid(tmp_path / "new" / "sheet.png", torch.zeros(3, 3, 8, 8), 3)
    assert Image.open(tmp_path / "new" / "sheet.png").size == (28, 8)


# Modes

WHITE, RED, HALF_RED = [255, 255, 255], [255, 0, 0], [255, 128, 128]


def rgba(*pixels: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([pixels], dtype=np.uint8))


def palette_with_transparency() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    picture.info["transparency"] = 1
    return picture


def reopened(image: Image.Image, format: str, **options: object) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, format, **options)))


RED_PICTURE = Image.new("RGB", (1, 1), "red")
CASES = {
    "RGBA": (rgba((255, 0, 0, 255), (255, 0, 0, 127), (9, 9, 9, 0)), [RED, HALF_RED, WHITE]),
    "RGBa": (rgba((255, 0, 0, 255), (9, 9, 9, 0)).convert("RGBa"), [RED, WHITE]),
    "LA": (rgba((0, 0, 0, 255), (0, 0, 0, 0)).convert("LA"), [[0, 0, 0], WHITE]),
    "La": (rgba((0, 0, 0, 255), (0, 0, 0, 0)).convert("LA").convert("La"), [[0, 0, 0], WHITE]),
    "PA": (rgba((255, 0, 0, 255), (255, 0, 0, 0)).convert("PA"), [RED, WHITE]),
    "P with transparency": (palette_with_transparency(), [RED, WHITE]),
    "P with transparency, GIF": (reopened(palette_with_transparency(), "GIF"), [RED, WHITE]),
    "P with transparency, PNG": (reopened(palette_with_transparency(), "PNG"), [RED, WHITE]),
    "P": (RED_PICTURE.convert("P"), [RED]),
    "1": (Image.fromarray(np.array([[True, False]])), [WHITE, [0, 0, 0]]),
    "L": (Image.new("L", (1, 1), 77), [[77] * 3]),
    "L with a transparent level, PNG": (
        reopened(Image.new("L", (1, 1), 77), "PNG", transparency=77), [WHITE]),
    "RGB with a transparent colour, PNG": (
        reopened(RED_PICTURE, "PNG", transparency=(255, 0, 0)), [WHITE]),
    "RGBX": (RED_PICTURE.convert("RGBX"), [RED]),
    "CMYK": (RED_PICTURE.convert("CMYK"), [RED]),
    "CMYK, JPEG": (reopened(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "JPEG"), [WHITE]),
    "YCbCr": (RED_PICTURE.convert("YCbCr"), [[254, 0, 0]]),
    "HSV": (RED_PICTURE.convert("HSV"), [RED]),
    "LAB": (Image.new("LAB", (1, 1), (255, 128, 128)), [WHITE]),
    "I;16": (Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)),
             [[0] * 3, [1] * 3, [128] * 3, WHITE]),
    "I;16, dark": (Image.fromarray(np.array([[0, 200]], np.uint16)), [[0] * 3, [1] * 3]),
    "I;16, PNG": (reopened(Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)), "PNG"),
                  [[0] * 3, [128] * 3, WHITE]),
    "I;16 with a transparent level, PNG": (
        reopened(Image.fromarray(np.array([[0, 700]], np.uint16)), "PNG", transparency=700),
        [[0] * 3, WHITE]),
    "I;16B": (Image.frombytes("I;16B", (2, 1), bytes([128, 128, 255, 255])), [[128] * 3, WHITE]),
    "I;16, TIFF": (reopened(Image.fromarray(np.array([[0, 65535]], np.uint16)), "TIFF"),
                   [[0] * 3, WHITE]),
    "I;16, PGM": (reopened(Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)), "PPM"),
                  [[0] * 3, [128] * 3, WHITE]),
    "I in 8 bits": (Image.fromarray(np.array([[-3, 77, 255]], np.int32)),
                    [[0] * 3, [77] * 3, WHITE]),
    "I in 16 bits": (Image.fromarray(np.array([[0, 65535]], np.int32)), [[0] * 3, WHITE]),
    "F from 0 to 1": (Image.fromarray(np.array([[0, 0.5, 1]], np.float32)),
                      [[0] * 3, [128] * 3, WHITE]),
    "F in 8 bits": (Image.fromarray(np.array([[0, 77, 255]], np.float32)),
                    [[0] * 3, [77] * 3, WHITE]),
    "F in 16 bits": (Image.fromarray(np.array([[0, 65535]], np.float32)), [[0] * 3, WHITE]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mode_becomes_rgb(case):
    picture, expected = CASES[case]
    mode = case.partition(" ")[0].partition(",")[0]
    assert picture.mode in (mode, "I" if "PGM" in case else mode)
    # A level of tolerance, for blending with transparency and for colour spaces.
    got = levels(images.from_pil(picture))
    np.testing.assert_allclose(got, [expected], atol=1.001 if len(mode) > 2 else 0.001)


def test_the_picture_given_is_left_as_it_was():
    picture = rgba((255, 0, 0, 127))
    before = picture.tobytes()
    tensor = images.from_pil(picture)
    tensor.zero_()
    assert picture.tobytes() == before and picture.mode == "RGBA"
    array = np.zeros((2, 2, 3), np.uint8)
    images.from_pil(array).add_(1)
    assert not array.any()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, format, orientation):
    picture = Image.new("RGB", (32, 16), "white")
    picture.paste("black", (0, 0, 16, 8))               # black in the top left quarter
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "picture"
    picture.save(path, format, exif=exif)
    with Image.open(path) as opened:
        opened.load()
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"), np.float32)
    upright = images.to_rgb(path)
    np.testing.assert_allclose(levels(images.from_pil(path)), expected, atol=0.001)
    np.testing.assert_array_equal(np.asarray(images.to_rgb(upright)), np.asarray(upright))
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1),
              8: (1, 0)}[orientation]                   # where it must be: (row, column)
    row, column = (-4 if side else 4 for side in corner)
    assert upright.size == ((32, 16) if orientation < 5 else (16, 32))
    assert np.asarray(upright)[row, column, 0] < 50 < 200 < np.asarray(upright)[-row, -column, 0]


def test_a_sixteen_bit_picture_is_turned_too():
    picture = Image.fromarray(np.array([[0, 65535]], np.uint16))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = images.to_rgb(reopened(picture, "PNG", exif=exif))
    assert turned.size == (1, 2) and turned.getpixel((0, 1)) == (255,) * 3


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    noise_picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert images.from_pil(tmp_path / "a.jpg").shape == (1, 3, 24, 40)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / "animation"
    frames[0].save(path, format, save_all=True, append_images=frames[1:], lossless=True)
    assert Image.open(path).n_frames == 3
    assert images.to_rgb(path).getpixel((3, 3)) == (255, 0, 0)


def test_paths_pictures_and_arrays_are_the_same(tmp_path):
    picture = noise_picture()
    path = tmp_path / "a.png"
    picture.save(path)
    with Image.open(path) as opened:
        for given in (path, str(path), opened, picture, np.asarray(picture)):
            np.testing.assert_allclose(levels(images.from_pil(given)), np.asarray(picture),
                                       atol=0.001)


# Sizes

def test_a_size_crops_around_the_centre():
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, :8, 0], stripes[:, 8:16, 1], stripes[:, 16:, 2] = 255, 255, 255
    got = levels(images.from_pil(stripes, size=(8, 8)))
    np.testing.assert_allclose(got, np.broadcast_to([0, 255, 0], (8, 8, 3)), atol=0.001)
    tall = levels(images.from_pil(stripes.transpose(1, 0, 2), size=(8, 8)))
    np.testing.assert_allclose(tall, np.broadcast_to([0, 255, 0], (8, 8, 3)), atol=0.001)


def test_a_size_is_height_then_width():
    assert images.from_pil(noise_picture(), size=(16, 56)).shape == (1, 3, 16, 56)
    assert images.from_pil(noise_picture(1, 500), size=(64, 8)).shape == (1, 3, 64, 8)


def test_the_same_size_changes_nothing():
    picture = noise_picture()
    assert torch.equal(images.from_pil(picture, size=(24, 40)), images.from_pil(picture))


@pytest.mark.parametrize("size", [(0, 8), (8, -8), (8,), (8, 8, 3)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"size is \(height, width\) in pixels"):
        images.from_pil(noise_picture(), size=size)


# What is refused

def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture at '.*nope\.png': check the path"):
        images.from_pil(tmp_path / "nope.png")


@pytest.mark.parametrize(("content", "phrase"), [
    (b"", "is an empty file"),
    (b"<html>404 Not Found</html>", "no known picture format"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "no known picture"),
    (b"\x89PNG\r\n\x1a\n", "cannot be read"),
    (b"GIF89a", "cannot be read"),
    (b"\xff\xd8\xff", "cannot be read"),
])
def test_no_picture(tmp_path, content, phrase):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.png' .*{phrase}.*expected a .*picture"):
        images.from_pil(tmp_path / "a.png")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match="is not a file: expected a picture"):
        images.from_pil(tmp_path)


@pytest.mark.parametrize(("format", "options"), [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("WEBP", {}),
    ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("TGA", {})])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, format, options):
    data = encoded(noise_picture(), format, **options)
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = images.to_rgb(path).tobytes()
    refused = 0
    for length in range(1, len(data), 41):
        path.write_bytes(data[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("error")              # one error, and no warnings beside it
            try:
                assert images.to_rgb(path).tobytes() == whole   # only the trailer is missing
            except ValueError as error:
                refused += 1
                assert re.search(r"cut' cannot be read \(.+\): expected a whole", str(error))
    assert refused > 0.95 * len(range(1, len(data), 41))


def test_an_open_truncated_picture_is_refused():
    data = encoded(noise_picture(), "JPEG")
    with pytest.raises(ValueError, match="the picture cannot be read"):
        images.from_pil(Image.open(io.BytesIO(data[:len(data) // 2])))


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    noise_picture().save(tmp_path / "a.png")
    for limit in (24 * 40 - 1, 24 * 40 // 3):           # Pillow warns of the first
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match="too large to unpack safely .*: make it smaller"):
            images.from_pil(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(0, 3), (3, 0)])
def test_zero_size_is_refused(size):
    with pytest.raises(ValueError, match="the picture is . x . pixels: expected at least one"):
        images.from_pil(Image.new("RGB", size))


@pytest.mark.parametrize("array", [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match=r"expected a picture as a uint8 array .* got \w+ \("):
        images.from_pil(array)


@pytest.mark.parametrize("values", [[[np.nan, 0]], [[np.inf, 0]], [[1e6, 0]]])
def test_unusual_floats_are_refused(values):
    with pytest.raises(ValueError, match="mode F with values up to .* scale it first"):
        images.from_pil(Image.fromarray(np.array(values, np.float32)))


@pytest.mark.parametrize("thing", [None, 7, b"a.png", [[0]]])
def test_other_things_are_refused(thing):
    with pytest.raises(TypeError, match="expected a PIL picture, a path or a uint8 array, got"):
        images.from_pil(thing)


# Files

METADATA = {"prompt": "a \"red\" car\nbelow 一只猫 😀", "seed": 2 ** 63 - 1, "eta": 0.1,
            "strength": None, "negative_prompt": ""}


def test_metadata_round_trip(tmp_path):
    path = tmp_path / "a" / "b" / "out.PNG"
    png.save_png(noise_picture(), path, METADATA)
    assert png.read_metadata(path) == METADATA
    assert png.read_metadata(str(path))["seed"] == 2 ** 63 - 1
    with Image.open(path) as opened:
        assert opened.tobytes() == noise_picture().tobytes()
        assert opened.info["parameters"] == (
            "prompt: a \"red\" car below 一只猫 😀, seed: 9223372036854775807, eta: 0.1, "
            "strength: None, negative_prompt:")
    assert os.listdir(path.parent) == ["out.PNG"]


def test_a_lone_surrogate_in_the_metadata_survives(tmp_path):
    png.save_png(noise_picture(), tmp_path / "a.png", {"prompt": "caf\udce9"})
    assert png.read_metadata(tmp_path / "a.png") == {"prompt": "caf\udce9"}


def test_no_metadata(tmp_path):
    plain, jpeg, other = (tmp_path / name for name in ("a.png", "a.jpg", "b.png"))
    png.save_png(noise_picture(), plain)
    noise_picture().save(jpeg)
    text = images.PngImagePlugin.PngInfo()
    text.add_text("minisd", "{not JSON")
    noise_picture().save(other, pnginfo=text)
    for path in (plain, jpeg, other):
        with pytest.raises(ValueError, match="carries no metadata of minisd: expected"):
            png.read_metadata(path)
    other.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        png.read_metadata(other)
    with pytest.raises(FileNotFoundError, match="no picture at"):
        png.read_metadata(tmp_path / "nope.png")


def test_metadata_that_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        png.save_png(noise_picture(), tmp_path / "new" / "a.png", {"prompt": object()})
    assert os.listdir(tmp_path) == []


def test_saving_overwrites_and_keeps_ordinary_permissions(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    png.save_png(noise_picture(), path)
    assert Image.open(path).size == (40, 24)
    reference = tmp_path / "reference"
    reference.touch()
    assert path.stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fault, call):
    def fail(*_: object) -> None:
        raise fault

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(fault)):
        png.save_png(noise_picture(), path)
    assert os.listdir(tmp_path) == ["a.png"] and path.read_bytes() == b"old"


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real:
                            (calls.append(name), real(*args)))
    png.save_png(noise_picture(), tmp_path / "a.png")
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.bak"])
def test_only_png_names_are_written(tmp_path, name):
    with pytest.raises(ValueError, match="expected a file name that ends in .png, got"):
        png.save_png(noise_picture(), tmp_path / name)


def test_pixel_sha256_names_pixels_not_files(tmp_path):
    picture = noise_picture()
    for name in ("a.png", "a.bmp"):
        picture.save(tmp_path / name)
    shas = {pictures.pixel_sha256(images.to_rgb(tmp_path / name)) for name in ("a.png", "a.bmp")}
    assert shas == {pictures.pixel_sha256(picture)} and len(shas.pop()) == 64
    picture.putpixel((0, 0), (1, 2, 3))
    assert pictures.pixel_sha256(picture) != pictures.pixel_sha256(noise_picture())


@pytest.mark.parametrize(("prompt", "words"), [
    ("a red car below a yellow balloon", "a-red-car-below-a-yellow-balloon"),
    ("A RED car, at NIGHT!", "a-red-car-at-night"),
    ("", "picture"), ("   \n", "picture"), ("?!../\\", "picture"), ("😀❤️", "picture"),
    ("../../etc/passwd", "etc-passwd"), ("a/b\\c:d\0e", "a-b-c-d-e"),
    ("一只猫", "一只猫"), ("Ünïcode ſtraße", "ünïcode-straße"), ("ｆｕｌｌ width", "full-width"),
    ("हिन्दी में", "हिन्दी-में"), ("caf\udce9", "caf"), ("-rf .hidden", "rf-hidden"),
    ("\u202egnp.exe", "gnp-exe"), ("word " * 40, "word-word-word-word-word-word-word-word"),
    ("x" * 300, "x" * 40),
])
def test_default_names(prompt, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)             # where no outputs/ holds a picture of that name
    path = png.default_path(prompt, 42)
    assert path == images.Path("outputs") / f"{words}-42.png"
    assert 0 < len(path.name) <= 60


def test_the_longest_name_fits_a_file_system(tmp_path):
    path = png.default_path("𝔸𐐀𐐀𐐀" * 50, 2 ** 63 - 1, tmp_path)
    assert len(os.fsencode(path.name)) <= 255
    png.save_png(noise_picture(), path)


def test_default_names_are_numbered_rather_than_reused(tmp_path):
    names = []
    for _ in range(3):
        path = png.default_path("a fish", 7, tmp_path)
        png.save_png(noise_picture(), path)
        names.append(path.name)
    assert names == ["a-fish-7.png", "a-fish-7-2.png", "a-fish-7-3.png"]
    (tmp_path / "b-7.png").symlink_to(tmp_path / "nowhere")
    assert png.default_path("b", 7, tmp_path).name == "b-7-2.png"
