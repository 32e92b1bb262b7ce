"""Pictures of every mode and every kind of damage; masks; what was painted, put back."""

import io
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from minisd.observe import reading

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


# Modes

WHITE, RED, HALF_RED = [255, 255, 255], [255, 0, 0], [255, 128, 128]


def rgba(*pixels: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([pixels], dtype=np.uint8))


def reopened(image: Image.Image, format: str, **options: object) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, format, **options)))


def grey(*values: float, dtype: type = np.uint16) -> Image.Image:
    """One row; the dtype decides on the mode: uint16 I;16, int32 I, float32 F."""
    return Image.fromarray(np.array([values], dtype))


DARK, MIDDLE = [0, 0, 0], [128, 128, 128]
HOLED = rgba((255, 0, 0, 255), (9, 9, 9, 0))
CASES = {
    "RGBA": (rgba((255, 0, 0, 255), (255, 0, 0, 127), (9, 9, 9, 0)), [RED, HALF_RED, WHITE]),
    "RGBa": (HOLED.convert("RGBa"), [RED, WHITE]),
    "La": (rgba((0, 0, 0, 255), (0, 0, 0, 0)).convert("LA").convert("La"), [DARK, WHITE]),
    "P with transparency, GIF": (reopened(HOLED, "GIF"), [RED, WHITE]),
    "L with a transparent level, PNG": (
        reopened(Image.new("L", (1, 1), 77), "PNG", transparency=77), [WHITE]),
    "1": (Image.fromarray(np.array([[True, False]])), [WHITE, DARK]),
    "CMYK, JPEG": (reopened(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "JPEG"), [WHITE]),
    "I;16, PNG": (reopened(grey(0, 32896, 65535), "PNG"), [DARK, MIDDLE, WHITE]),
    "I;16, dark": (grey(0, 200), [DARK, [1] * 3]),
    "I;16 with a transparent level, PNG": (
        reopened(grey(0, 700), "PNG", transparency=700), [DARK, WHITE]),
    "I;16B": (Image.frombytes("I;16B", (2, 1), bytes([128, 128, 255, 255])), [MIDDLE, WHITE]),
    "I in 8 bits": (grey(-3, 77, 255, dtype=np.int32), [DARK, [77] * 3, WHITE]),
    "I in 16 bits": (grey(0, 65535, dtype=np.int32), [DARK, WHITE]),
    "F from 0 to 1": (grey(0, 0.5, 1, dtype=np.float32), [DARK, MIDDLE, WHITE]),
    "F in 16 bits": (grey(0, 65535, dtype=np.float32), [DARK, WHITE]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mode_becomes_rgb(case) -> None:
    """To a level, for blending with transparency and for colour spaces."""
    picture, expected = CASES[case]
    got = levels(reading.to_tensor(picture))
    np.testing.assert_allclose(got, [expected], atol=1.001)


def test_the_picture_given_is_left_as_it_was() -> None:
    picture, array = rgba((255, 0, 0, 127)), np.zeros((2, 2, 3), np.uint8)
    before = picture.tobytes()
    for given in (picture, array):
        reading.to_tensor(given).add_(1)
    assert picture.tobytes() == before and picture.mode == "RGBA" and not array.any()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])            # Pillow itself turns a TIFF
def test_exif_orientation_is_applied_once(tmp_path, format) -> None:
    """A telephone held upright, 6: the top left corner is shown at the top right."""
    picture, exif = Image.new("RGB", (32, 16), "white"), Image.Exif()
    picture.paste("black", (0, 0, 16, 8))
    exif[ORIENTATION] = 6
    picture.save(tmp_path / "picture", format, exif=exif)
    upright = reading.to_rgb(tmp_path / "picture")
    np.testing.assert_array_equal(np.asarray(reading.to_rgb(upright)), np.asarray(upright))
    assert upright.size == (16, 32)
    assert np.asarray(upright)[4, -4, 0] < 50 < 200 < np.asarray(upright)[-4, 4, 0]
    assert reading.to_rgb(reopened(grey(0, 65535), "PNG", exif=exif)).size == (1, 2)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path) -> None:
    noise_picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert reading.to_tensor(tmp_path / "a.jpg").shape == (1, 3, 24, 40)


def test_paths_pictures_and_arrays_are_the_same(tmp_path) -> None:
    picture = noise_picture()
    path = tmp_path / "a.png"
    picture.save(path)
    with Image.open(path) as opened:
        for given in (path, str(path), opened, picture, np.asarray(picture)):
            np.testing.assert_allclose(levels(reading.to_tensor(given)), np.asarray(picture),
                                       atol=0.001)


# Sizes

def test_a_size_is_height_then_width_around_the_centre() -> None:
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, :8, 0], stripes[:, 8:16, 1], stripes[:, 16:, 2] = 255, 255, 255
    for array in (stripes, stripes.transpose(1, 0, 2)):
        got = levels(reading.to_tensor(array, size=(8, 8)))
        np.testing.assert_allclose(got, np.broadcast_to([0, 255, 0], (8, 8, 3)), atol=0.001)
    picture = noise_picture()
    assert reading.to_tensor(picture, size=(16, 56)).shape == (1, 3, 16, 56)
    assert torch.equal(reading.to_tensor(picture, size=(24, 40)), reading.to_tensor(picture))
    for size in ((0, 8), (8, -8), (8,), (8, 8, 3)):
        with pytest.raises(ValueError, match=r"size is \(height, width\) in pixels"):
            reading.to_tensor(picture, size=size)


# What is refused

def test_what_is_no_file_of_a_picture(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no picture at '.*nope\.png': check the path"):
        reading.to_tensor(tmp_path / "nope.png")
    with pytest.raises(ValueError, match="is not a file: expected a picture"):
        reading.to_tensor(tmp_path)
    for content in (b"", b"<html>404 Not Found</html>", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match="a.png' cannot be read .*expected a whole picture"):
            reading.to_tensor(tmp_path / "a.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, format) -> None:
    data = encoded(noise_picture(), format)
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = reading.to_rgb(path).tobytes()
    refused = 0
    for length in range(1, len(data), 41):
        path.write_bytes(data[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("error")              # one error, and no warnings beside it
            try:
                assert reading.to_rgb(path).tobytes() == whole   # only the trailer is missing
            except ValueError as error:
                refused += 1
                assert re.search(r"cut' cannot be read \(.+\): expected a whole", str(error))
    assert refused > 0.95 * len(range(1, len(data), 41))
    if format == "JPEG":                                # opened by somebody else
        with pytest.raises(ValueError, match="the picture cannot be read"):
            reading.to_tensor(Image.open(io.BytesIO(data[:len(data) // 2])))


def test_pictures_of_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path) -> None:
    """Of 51 million on, and those that Pillow itself calls a bomb; the files are small."""
    for side, phrase in ((7200, "is 7200 x 7200 pixels: .* at most 51,380,224"),
                         (14_000, "could be decompression bomb")):
        Image.new("1", (side, side)).save(tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size < 50_000
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=f"a.png' {phrase}|cannot be read .*{phrase}"):
                reading.to_rgb(tmp_path / "a.png")


def test_no_other_program_is_started_for_a_picture(tmp_path, monkeypatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file's name is."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    noise_picture().save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="photo.png' cannot be read .no known picture format"):
        reading.to_rgb(tmp_path / "photo.png")


NO_PICTURES = [
    *((Image.new("RGB", size), ValueError, "the picture is . x . pixels: expected at least one")
      for size in ((0, 3), (3, 0))),
    *((np.zeros(shape, np.uint8), ValueError, r"expected a picture as a uint8 array .* got \w+ \(")
      for shape in ((4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3))),
    (np.zeros((4, 4, 3), np.float32), ValueError, "expected a picture as a uint8 array .* got fl"),
    *((Image.fromarray(np.array([[value, 0]], np.float32)), ValueError,
       "mode F with values up to .* scale it first") for value in (np.nan, np.inf, 1e6)),
    *((thing, TypeError, "expected a PIL picture, a path or a uint8 array, got")
      for thing in (None, 7, b"a.png", [[0]]))]


@pytest.mark.parametrize("case", range(len(NO_PICTURES)))
def test_other_things_are_refused(case) -> None:
    thing, error, phrase = NO_PICTURES[case]
    with pytest.raises(error, match=phrase):
        reading.to_tensor(thing)


# Masks

def drawn(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array.astype(np.uint8))


WHERE = np.zeros((6, 8), bool)
WHERE[1:3, 2:7] = True
ALPHA = np.zeros((6, 8, 4), np.uint8)
ALPHA[WHERE] = 255                      # white strokes on transparent ground
MASKS = {
    "bool": WHERE, "uint8": WHERE * np.uint8(255), "grey": drawn(np.where(WHERE, 128, 127)),
    "rgb array": np.repeat(WHERE[:, :, None] * np.uint8(255), 3, 2),
    "white on transparent": drawn(ALPHA), "opaque": drawn(ALPHA | [0, 0, 0, 255]),
    "16 bits": Image.fromarray(WHERE * np.uint16(65535)),
}


@pytest.mark.parametrize("case", MASKS)
def test_white_is_repainted_however_it_is_written(tmp_path, case) -> None:
    assert np.array_equal(reading.is_white(reading.read_mask(MASKS[case])), WHERE)
    if isinstance(MASKS[case], Image.Image):
        MASKS[case].save(tmp_path / "mask.png")
        assert np.array_equal(reading.is_white(reading.read_mask(tmp_path / "mask.png")), WHERE)


def test_what_is_transparent_is_not_repainted() -> None:
    """Whatever colour it hides; so black strokes on transparent ground repaint nothing."""
    hidden = np.full((6, 8, 4), 255, np.uint8)
    hidden[..., 3] = 0
    strokes = hidden.copy()
    strokes[WHERE] = [0, 0, 0, 255]
    for array in (hidden, strokes):
        assert not reading.is_white(reading.read_mask(drawn(array))).any()
        assert not reading.is_white(reading.read_mask(drawn(array).convert("LA"))).any()


@pytest.mark.parametrize("mask", [WHERE.astype(np.uint8), drawn(WHERE),
                                  np.repeat(WHERE[:, :, None].astype(np.uint8), 3, 2),
                                  Image.fromarray(WHERE.astype(np.int32))])
def test_a_mask_of_zeros_and_ones_is_refused(mask) -> None:
    with pytest.raises(ValueError, match="mask's values are 0 and 1, and white is 255: give it"):
        reading.read_mask(mask)


@pytest.mark.parametrize(("mask", "text"), [(np.zeros((40, 72), bool), "repaints nothing, it has"),
                                            (np.ones((40, 72), bool), "repaints everything, all")])
def test_a_mask_that_repaints_nothing_or_everything_warns(sd, picture, mask, text) -> None:
    with pytest.warns(UserWarning, match=f"the mask {text}") as caught:
        sd.inpaint("a red car", picture, mask, steps=5, seed=0)
    assert [w.filename for w in caught] == [__file__]


def test_tensors_and_pictures_may_come_together(sd, picture) -> None:
    mask, settings = np.zeros((40, 72), bool), {"steps": 5, "seed": 0, "paste": True}
    mask[:24, 24:48] = True
    expected, = sd.inpaint("a red car", picture, mask, **settings)
    pixels = reading.to_tensor(picture)
    for image, where in ((pixels, mask), (picture, torch.from_numpy(mask)[None, None]),
                         (pixels, torch.from_numpy(mask)[None, None])):
        painted, = sd.inpaint("a red car", image, where, **settings)
        assert painted.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="the mask is 72 x 40 pixels and the picture 40 x 72"):
        sd.inpaint("a red car", pixels.transpose(2, 3), mask)


# What was painted, put back

@pytest.mark.parametrize(("size", "asked", "painted"), [
    ((72, 40), {}, (72, 40)), ((65, 65), {}, (64, 64)), ((75, 50), {}, (72, 48)),
    ((300, 300), {}, (96, 96)), ((72, 40), {"width": 48, "height": 48}, (48, 48)),
    ((50, 20), {"width": 96, "height": 48}, (96, 48))])
def test_pasted_into_a_picture_of_any_size_its_own_pixels_stay(sd, size, asked, painted) -> None:
    """A flat picture, painted grey by a model that paints nothing: what is put back is in place."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mask = np.zeros((size[1], size[0]), bool)
    mask[size[1] // 2 - 5:size[1] // 2 + 5, size[0] // 2 - 5:size[0] // 2 + 7] = True
    plain, = sd.inpaint("a red car", image, mask, steps=5, seed=0, **asked)
    pasted, = sd.inpaint("a red car", image, mask, steps=5, seed=0, paste=True, **asked)
    assert plain.size == painted and pasted.size == size
    same = (np.asarray(pasted) == np.asarray(image)).all(-1)
    assert same[~mask].all() and not same[mask].all()


@pytest.mark.parametrize(("size", "fitted"), [((130, 130), (128, 128)), ((40, 24), (80, 48))])
def test_what_was_painted_comes_back_where_it_was(size, fitted) -> None:
    """A smooth picture, fitted and put back unpainted: the same to a few levels, no shift."""
    ramp = np.stack(np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1])), -1)
    image = Image.fromarray(np.dstack([ramp, ramp[..., :1] * 0]).round().astype(np.uint8))
    small = reading.to_tensor(image, size=fitted[::-1])
    painted = Image.fromarray(levels(small).round().astype(np.uint8))
    put_back = np.asarray(reading.paste(painted, image, np.ones(size[::-1], bool)), float)
    step = 255 / (min(size) - 1)                # from one pixel to the next
    assert np.abs(put_back - np.asarray(image, float)).max() < step + 2


def test_a_border_that_was_cropped_stays_and_a_mask_over_it_warns(picture) -> None:
    painted = Image.new("RGB", (40, 40), "red")             # of 72 x 40 the middle
    with pytest.warns(UserWarning, match="72 x 40 pixels was cropped to be painted in 40 x 40"):
        pasted = np.asarray(reading.paste(painted, picture, np.ones((40, 72), bool)))
    assert (pasted[:, 16:56] == [255, 0, 0]).all()
    for border in (slice(16), slice(56, None)):
        assert np.array_equal(pasted[:, border], np.asarray(picture)[:, border])
