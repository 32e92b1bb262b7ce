"""A picture is painted again from its own record, or it is said why not."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minisd
from minisd.checkpoints.weights import fingerprint
from minisd.cli import replay
from minisd.cli.main import main
from minisd.observe import png
from minisd.observe.pictures import pixel_sha256
from minisd.observe.reading import to_rgb

FAST = ["a red car", "--steps", "5", "-H", "64", "-W", "64"]
SAME = "the same picture, pixel for pixel"


def painted(*options: str, output: str = "out.png") -> dict[str, object]:
    """Paint quickly; returns the record in the file."""
    assert main([*FAST, *options, "-o", output]) == 0
    return png.read_metadata(output)


def rewrite(path: str, *, without: str = "", **changes: object) -> None:
    """Change the record of a picture and nothing else."""
    record = {k: v for k, v in (png.read_metadata(path) | changes).items() if k != without}
    png.save_png(to_rgb(path), path, record)


def last_line(capsys: pytest.CaptureFixture) -> str:
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("options", [
    [], ["--negative-prompt=-sand, \"grass\"", "--seed", "7", "--guidance-scale", "3.1"],
    ["--sampler", "euler_a", "--steps", "3"], ["--eta", "0.3", "-W", "72"],
    ["--init-image", "photo.png", "--strength", "0.5"],
    ["--init-image", "photo.png", "--mask", "mask.png", "--paste"]],
    ids=lambda options: " ".join(options) or "plain")
def test_a_picture_is_painted_again(place, photo, mask, capsys, options):
    record = painted(*options)
    inputs = [word for name in ("--init-image", "--mask") if name in options
              for word in options[options.index(name):][:2]]
    assert main(["replay", "out.png", *inputs, "-o", "again.png"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == ["again.png", SAME] and "warning" not in err
    assert png.read_metadata("again.png") == record
    assert to_rgb("again.png").tobytes() == to_rgb("out.png").tobytes()


def test_a_pasted_picture_keeps_its_references_size_and_is_painted_again(place, capsys):
    """90 x 70 pixels, painted in 88 x 64: the record says the latter, or no replay could."""
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    white = np.zeros((70, 90), bool)
    white[20:50, 20:60] = True
    Image.fromarray(noise).save("odd.png")
    Image.fromarray(white).save("white.png")
    inputs = ["--init-image", "odd.png", "--mask", "white.png"]
    assert main(["a red car", "--steps", "5", *inputs, "--paste", "-o", "out.png"]) == 0
    record, painted = png.read_metadata("out.png"), np.asarray(to_rgb("out.png"))
    assert (record["width"], record["height"]) == (88, 64) and painted.shape == noise.shape
    assert (painted[~white] == noise[~white]).all() and (painted[white] != noise[white]).any()
    assert main(["replay", "out.png", *inputs, "-o", "again.png"]) == 0
    assert last_line(capsys) == SAME


def test_a_replay_wants_the_pictures_that_were_used(place, photo, mask, capsys, refused):
    painted(output="free.png")
    painted("--init-image", photo, "--mask", mask)
    asked = refused("replay", "out.png")
    assert "painted with --init-image: name that file again" in asked
    assert pixel_sha256(to_rgb(photo)) in asked
    assert "with --mask: name that" in refused("replay", "out.png", "--init-image", photo)
    for given, option in ((("--init-image", mask, "--mask", mask), "--init-image"),
                          (("--init-image", photo, "--mask", photo), "--mask")):
        assert f"{option}: expected the picture that was used then" in refused(
            "replay", "out.png", *given)
    assert "'free.png' was painted without --init-image" in refused(
        "replay", "free.png", "--init-image", photo)
    Image.open(photo).save("same pixels.bmp")       # another file, the same picture
    assert main(["replay", "out.png", "--init-image", "same pixels.bmp", "--mask", mask]) == 0
    assert last_line(capsys) == SAME


def test_other_weights_and_another_dtype_warn(place, capsys):
    painted()
    rewrite("out.png", fingerprint="0123456789ab", dtype="float16")
    assert main(["replay", "out.png", "-o", "again.png"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 2 and "fingerprint 0123456789ab" in warned[0]
    assert "painted in float16, and this is float32" in warned[1]


def test_the_recorded_model_and_dtype_are_taken(place, shipped, monkeypatch):
    painted()
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr(minisd, "load", lambda model, *, device, dtype:
                        asked.append((model, device, dtype)) or shipped)
    assert main(["replay", "out.png"]) == 0
    assert main(["replay", "out.png", "-m", ".", "--device", "cpu", "--dtype=bfloat16"]) == 0
    rewrite("out.png", model="v1", without="weights")       # as they were once: which of v1's?
    assert main(["replay", "out.png"]) == 0
    assert asked == [("toyworld", "auto", "float32"), (".", "cpu", "bfloat16"),
                     ("auto", "auto", "float32")]


def test_the_recorded_weights_are_looked_for(place, shipped, monkeypatch, refused):
    asked: list[str] = []
    monkeypatch.setattr(minisd, "load", lambda model, **_: asked.append(model) or shipped)
    monkeypatch.setattr(replay, "WEIGHTS", place)
    painted()
    rewrite("out.png", model="v1", weights="v1-4")
    assert main(["replay", "out.png"]) == 0
    rewrite("out.png", weights="mine.safetensors")
    assert refused("replay", "out.png") == (
        f"'out.png' was painted by 'mine.safetensors' (fingerprint {fingerprint(shipped)}), which "
        f"is not in weights/: name them again with -m MODEL")
    assert main(["replay", "out.png", "-m", "."]) == 0
    Path("mine.safetensors").touch()
    assert main(["replay", "out.png"]) == 0
    monkeypatch.setattr(replay, "WEIGHTS", place / "elsewhere")
    monkeypatch.setenv("MINISD_MODEL", "/models/mine.safetensors/")     # as a tab key ends it
    assert main(["replay", "out.png"]) == 0
    assert asked[1:] == ["v1-4", ".", "mine.safetensors", "auto"]
    for name in ("../out.png", "", None, ["toyworld"]):
        rewrite("out.png", weights=name)
        assert "name them again with -m" in refused("replay", "out.png")


def test_it_says_when_the_file_was_touched(place, capsys):
    record = painted()
    touched = np.array(to_rgb("out.png"))
    touched[:16, :, 0] ^= 1                     # a twelfth of the values, by one grey level
    png.save_png(Image.fromarray(touched), "out.png", record)
    assert main(["replay", "out.png"]) == 0
    assert last_line(capsys) == "the same picture up to rounding: 8.33% of its values differ by 1"
    touched[:32] = 255 - touched[:32]
    png.save_png(Image.fromarray(touched), "out.png", record)
    assert main(["replay", "out.png"]) == 0
    assert re.fullmatch(r"not the same picture: (49|50)\.\d\d% of its values differ, by at most "
                        r"\d+ of 255", last_line(capsys))


@pytest.mark.parametrize("size", [(64, 32), (8_000_000, 64)])
def test_a_record_of_another_size_paints_nothing(place, refused, monkeypatch, size):
    painted()
    rewrite("out.png", width=size[0], height=size[1])
    monkeypatch.setattr(minisd, "load", None)
    line = refused("replay", "out.png")
    assert (f"is 64 x 64 pixels, and its record says {size[0]} x {size[1]}: it was resized" in line
            or "width must be from 1 to 1048576, got 8000000" in line)


@pytest.mark.parametrize(("changes", "phrase"), [
    ({"steps": "many"}, "steps must be an integer, got 'many'"), ({"steps": None}, "lacks steps"),
    ({"height": 63}, "multiple of 8"), ({"dtype": "float8"}, "float8"),
    ({"strength": 0.5}, "--init-image"), ({"without": "fingerprint"}, "lacks fingerprint")])
def test_a_record_that_makes_no_sense(place, refused, changes, phrase):
    painted()
    rewrite("out.png", **changes)
    line = refused("replay", "out.png")
    assert line.startswith("the record in 'out.png' ") and re.search(phrase, line)
    assert os.listdir() == ["out.png"]


def test_what_a_record_holds_is_shown_escaped(place, capsys, refused):
    painted()
    rewrite("out.png", fingerprint="\x1b[2J\u202e12")
    assert main(["replay", "out.png"]) == 0
    assert r"with the fingerprint \x1b[2J\u202e12, and toyworld has" in capsys.readouterr().err
    rewrite("out.png", weights="\x1b]0;x\x07")
    assert r"painted by '\x1b]0;x\x07' (finger" in refused("replay", "out.png")
