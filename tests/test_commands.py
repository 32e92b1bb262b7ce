"""The subcommands, and what painting writes beside its pictures."""

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jupyter_client.kernelspec import KernelSpecManager
from PIL import Image
from test_cli import error_line

import minisd
from minisd import __main__ as cli
from minisd import config, images
from minisd.checkpoints import download, known
from minisd.checkpoints import registry as catalogue
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.hub import Place
from minisd.checkpoints.known import File, Model
from minisd.cli import arguments, lab, replay
from minisd.cli.options import TOYWORLD_GUIDANCE
from minisd.observe import pictures, png
from minisd.observe import summary as anatomy
from minisd.observe.trace import Trace

ROOT = Path(__file__).parents[1]
TOYWORLD = ROOT / "weights" / "toyworld"
FAST = ["a red car", "--steps", "5", "-H", "64", "-W", "64"]
ASKED = {"guidance_scale": TOYWORLD_GUIDANCE, "steps": 5, "seed": 42, "height": 64, "width": 64}
SUBCOMMANDS = ("info", "models", "download", "verify", "replay", "lab", "doctor")


@pytest.fixture(scope="module")
def shipped() -> minisd.StableDiffusion:
    return minisd.load("toyworld", device="cpu", dtype="float32")


@pytest.fixture
def place(shipped, monkeypatch, tmp_path) -> Path:
    """An empty working directory, where the model that ships is loaded already."""
    monkeypatch.setattr(minisd, "load", lambda model="auto", *, device="auto", dtype="auto":
                        shipped)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photo(place) -> str:
    ramp = np.arange(64, dtype=np.uint8) * 4
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 99), -1).astype(np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return "photo.png"


@pytest.fixture
def mask(place) -> str:
    """White on the left half."""
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, :32] = 255
    Image.fromarray(pixels).save("mask.png")
    return "mask.png"


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(images.to_rgb(path))


def painted(*options: str, output: str = "out.png") -> dict[str, Any]:
    """Paint quickly; returns the record in the file."""
    assert cli.main([*FAST, *options, "-o", output]) == 0
    return png.read_metadata(output)


def refused(capsys: pytest.CaptureFixture, *argv: str, status: int = 2) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    assert cli.main([*argv]) == status
    return error_line(capsys)


# All of them

def test_the_help_lists_them(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and set(cli.SUBCOMMANDS) == set(SUBCOMMANDS)
    for name, meaning in cli.SUBCOMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(meaning)}$", text, re.M)
    for option in ("--mask", "--paste", "--snapshots", "--steps-dir", "--trace"):
        assert option in text


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0 and f"usage: minisd {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_refuses_an_unknown_option(name, capsys, monkeypatch):
    needed = {"download": ["tokenizer"], "verify": ["x"], "replay": ["x.png"]}.get(name, [])
    assert "unknown option '--wide'" in refused(capsys, name, *needed, "--wide")


BAD = {
    "info of nothing": (["info", "nope"], "MODEL: expected auto, .* or the path of a model, got"),
    "info of nobody": (["info", "~nobody-here/x"], "MODEL: expected auto, .* path of a model, got"),
    "info of two": (["info", "v1", "v1-5"], "unexpected 'v1-5': see --help"),
    "info of text": (["info", "text.txt"], "text.txt"),
    "info of a folder": (["info", "folder"], "folder"),
    "models of what": (["models", "v1"], "unexpected 'v1': see --help"),
    "download nothing": (["download"], "arguments are required: v1-5|"),
    "download another": (["download", "sdxl"], "'sdxl' .choose from '?v1-5"),
    "download half of nothing": (["download", "tokenizer", "--half"], "no float16 version"),
    "download from nowhere": (["download", "tokenizer", "--endpoint", "hub"],
                              "--endpoint: expected an address such as"),
    "download into a file": (["download", "tokenizer", "--folder", "text.txt/x"],
                             "choose another with --folder"),
    "verify nothing": (["verify"], "arguments are required: FILE"),
    "verify no file": (["verify", "nope"], "expected a file to verify, got 'nope'"),
    "verify a folder": (["verify", "folder"], "got 'folder', which is a folder"),
    "replay nothing": (["replay"], "arguments are required: PNG"),
    "replay no file": (["replay", "nope.png"], "no picture at 'nope.png'"),
    "replay text": (["replay", "text.txt"], "'text.txt' cannot be read"),
    "replay a stranger": (["replay", "photo.png"], "'photo.png' carries no metadata of minisd"),
    "replay to jpg": (["replay", "photo.png", "-o", "x.jpg"], "ends in .png, got 'x.jpg'"),
    "lab on port 0": (["lab", "--port", "0"], "--port: expected a whole number from 1 to 65535"),
    "lab with a word": (["lab", "00_quickstart"], "what is JupyterLab's goes after --"),
    "doctor with a word": (["doctor", "torch"], "unexpected 'torch'"),
    "mask alone": (["x", "--mask", "photo.png"], "--mask: expected --init-image FILE with it"),
    "paste alone": (["x", "--paste"], "--paste: expected --mask FILE with it"),
    "paste without a mask": (["x", "--init-image", "photo.png", "--paste"], "expected --mask FILE"),
    "no such mask": (["x", "--init-image", "photo.png", "--mask", "nope.png"],
                     "no picture at 'nope.png'"),
    "mask of another size": (["x", "--init-image", "photo.png", "--mask", "small.png"],
                             "--mask: expected a picture of 64 x 64 pixels .* got 8 x 16"),
    "snapshots of what": (["--snapshots", "a red car"],
                          "above 0 and at most 1, or nothing and the prompt before it, got 'a red"),
    "snapshots 0": (["x", "--snapshots", "0"], "above 0 and at most 1"),
    "snapshots NaN": (["x", "--snapshots", "nan"], "above 0 and at most 1"),
    "steps into a file": (["x", "--steps-dir", "text.txt"], "expected a folder, got 'text.txt'"),
    "steps among files": (["x", "--steps-dir", "folder"], "expected a new or empty folder"),
    "steps below a file": (["x", "--steps-dir", "text.txt/x"], "choose another with --steps-dir"),
    "trace into a folder": (["x", "--trace", "folder"], "--trace: expected the name of a file"),
    "trace below a file": (["x", "--trace", "text.txt/x"], "choose another with --trace"),
    "trace of no step": (["x", "--init-image", "photo.png", "--strength", "0.01", "--trace", "t"],
                         "--trace: expected a run of at least one step, got strength 0.01 of 25"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, photo, capsys, monkeypatch):
    Path("text.txt").write_text("hello")
    Path("folder").mkdir()
    Path("folder", "file").touch()
    Image.new("L", (8, 16)).save("small.png")
    before = sorted(os.listdir())
    argv, phrase = BAD[case]
    assert re.search(phrase, refused(capsys, *argv))
    assert sorted(os.listdir()) == before


def test_mistakes_answer_without_torch(tmp_path):
    """Importing it takes seconds."""
    script = ("import sys; from minisd.__main__ import main\n"
              "for argv in sys.argv[1:]: main(argv.split())\n"
              "print('torch' in sys.modules)")
    lines = ["info nope", "download sdxl", "verify nope", "replay nope.png", "lab --port x",
             "doctor x", "models x", "x --mask m.png", "x --trace ."]
    done = subprocess.run([sys.executable, "-c", script, *lines], capture_output=True, text=True,
                          cwd=tmp_path, timeout=120)
    assert done.stdout == "False\n" and len(done.stderr.splitlines()) == len(lines), done.stderr


def test_the_names_are_those_of_the_package():
    assert set(arguments.MODELS) == {"auto", catalogue.SHIPPED, *known.VERSIONS}
    assert arguments.WEIGHTS == catalogue.WEIGHTS == download.WEIGHTS


def test_a_reader_that_leaves_is_no_error(tmp_path):
    """As `minisd info | head -1`: nothing is said about the closed pipe."""
    script = ("import sys; from minisd.__main__ import main; from minisd.cli import terminal\n"
              "sys.stdin.read(); sys.exit(main(['verify', sys.argv[1]]))")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(TOYWORLD / "config.json")], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait(60) == 1


# Painting: what is written beside the pictures

def test_nothing_that_is_kept_changes_the_picture(place, capsys):
    painted(output="plain.png")
    record = painted("--snapshots", "--steps-dir", "steps", "--trace", "run.safetensors")
    assert record == png.read_metadata("plain.png")
    assert (pixels("out.png") == pixels("plain.png")).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:-1] == ["out.png", "out-snapshots.png", "run.safetensors", "steps"]


def test_snapshots(place, shipped):
    painted("--snapshots")
    trace = shipped.trace(FAST[0], **ASKED)
    strip = pixels("out-snapshots.png")
    assert strip.shape == (2 * 64 + 2, 5 * 64 + 4 * 2, 3)
    for column, snapshot in enumerate(trace.snapshots(0.25)):
        for row, picture in enumerate((snapshot.x_t_picture, snapshot.x0_picture)):
            cell = strip[66 * row:66 * row + 64, 66 * column:66 * column + 64]
            assert (cell == np.asarray(picture)).all()
    assert (strip[:64, -64:] == pixels("out.png")).all()


def test_snapshots_of_several_pictures_at_another_ratio(place):
    assert cli.main([*FAST, "--snapshots", "0.5", "--num-images", "2", "-o", "a.png"]) == 0
    assert sorted(os.listdir()) == ["a-1-snapshots.png", "a-1.png", "a-2-snapshots.png", "a-2.png"]
    for i in "12":
        strip = pixels(f"a-{i}-snapshots.png")
        assert strip.shape == (130, 3 * 64 + 4, 3)
        assert (strip[66:, -64:] == pixels(f"a-{i}.png")).all()


def test_snapshots_of_default_names_never_overwrite(place):
    Path("outputs").mkdir()
    Path("outputs/a-red-car-42-snapshots.png").write_text("precious")
    assert cli.main([*FAST, "--snapshots", "1"]) == 0
    assert sorted(os.listdir("outputs")) == [
        "a-red-car-42-snapshots-2.png", "a-red-car-42-snapshots.png", "a-red-car-42.png"]
    assert Path("outputs/a-red-car-42-snapshots.png").read_text() == "precious"


@pytest.mark.parametrize(("count", "numbers"), [("1", [""]), ("2", ["-1", "-2"])])
def test_a_picture_of_every_step(place, shipped, count, numbers):
    assert cli.main([*FAST, "--steps-dir", "new/steps", "--num-images", count]) == 0
    names = [f"{i:03d}{number}.png" for i in range(5) for number in numbers]
    assert sorted(os.listdir("new/steps")) == names
    run = shipped.steps(FAST[0], **ASKED, num_images=int(count))
    for step, first in zip(run, names[::len(numbers)], strict=True):
        expected = np.asarray(shipped.decode(step.x0)[0])
        assert (pixels(f"new/steps/{first}") == expected).all()


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
def test_the_trace_is_that_of_the_library(place, photo, mask, shipped, task):
    options = {"text_to_image": {}, "image_to_image": {"image": photo, "strength": 0.6},
               "inpaint": {"image": photo, "mask": mask, "strength": 0.9}}[task]
    extra = [f"--{'init-image' if name == 'image' else name}={value}"
             for name, value in options.items()]
    painted("--trace", "new/run.safetensors", "--snapshots", "0.5", *extra)
    mine = Trace.load("new/run.safetensors")
    theirs = shipped.trace(FAST[0], **ASKED, **options)
    assert mine.about == theirs.about and mine.about["task"] == task
    assert len(mine) == len(theirs) and mine.enlarge == theirs.enlarge
    assert torch.equal(mine.latents, theirs.latents) and torch.equal(mine.factors, theirs.factors)
    assert set(mine.pictures) == {0, len(mine) // 2, len(mine)}
    assert (np.asarray(mine.snapshots(1)[-1].x_t_picture) == pixels("out.png")).all()


# Painting: with a mask

def test_inpainting(place, photo, mask, shipped):
    record = painted("--init-image", photo, "--mask", mask)
    assert record["strength"] == 1.0 and record["paste"] is False
    assert record["mask_sha256"] == pictures.pixel_sha256(images.to_rgb(mask))
    again, = shipped.inpaint(FAST[0], photo, mask, **ASKED)
    assert (pixels("out.png") == np.asarray(again)).all()


def test_pasting_keeps_the_rest_exactly(place, photo, mask):
    painted("--init-image", photo, "--mask", mask, output="free.png")
    assert painted("--init-image", photo, "--mask", mask, "--paste")["paste"] is True
    result, free, original = (pixels(name) for name in ("out.png", "free.png", photo))
    assert (result[:, 32:] == original[:, 32:]).all() and (free[:, 32:] != original[:, 32:]).any()
    assert (result[:, :32] == free[:, :32]).all()


# replay

def rewrite(path: str, *, without: str = "", **changes: object) -> None:
    """Change the record of a picture and nothing else."""
    record = {k: v for k, v in (png.read_metadata(path) | changes).items() if k != without}
    png.save_png(images.to_rgb(path), path, record)


def last_line(capsys: pytest.CaptureFixture) -> str:
    return capsys.readouterr().out.splitlines()[-1]


SAME = "the same picture, pixel for pixel"


@pytest.mark.parametrize("options", [
    [], ["--negative-prompt=-sand, \"grass\"", "--seed", "7", "--guidance-scale", "3.1"],
    ["--sampler", "euler_a", "--steps", "3"], ["--eta", "0.3"], ["-W", "72"],
    ["--init-image", "photo.png", "--strength", "0.5"],
    ["--init-image", "photo.png", "--mask", "mask.png", "--strength", "0.9"],
    ["--init-image", "photo.png", "--mask", "mask.png", "--paste"]],
    ids=lambda options: " ".join(options) or "plain")
def test_a_picture_is_painted_again(place, photo, mask, capsys, options):
    record = painted(*options)
    inputs = [word for name in ("--init-image", "--mask") if name in options
              for word in options[options.index(name):][:2]]
    assert cli.main(["replay", "out.png", *inputs, "-o", "again.png"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == ["again.png", SAME] and "warning" not in err
    assert png.read_metadata("again.png") == record
    assert (pixels("again.png") == pixels("out.png")).all()


def test_the_default_name_of_a_replay_never_overwrites(place, capsys):
    assert cli.main(FAST) == 0
    assert cli.main(["replay", "outputs/a-red-car-42.png"]) == 0
    assert sorted(os.listdir("outputs")) == ["a-red-car-42-2.png", "a-red-car-42.png"]


def test_a_replay_wants_the_pictures_that_were_used(place, photo, mask, capsys):
    painted(output="free.png")
    painted("--init-image", photo, "--mask", mask)
    asked = refused(capsys, "replay", "out.png")
    assert "painted with --init-image: name that file again" in asked
    assert pictures.pixel_sha256(images.to_rgb(photo)) in asked
    assert "with --mask: name that" in refused(capsys, "replay", "out.png", "--init-image", photo)
    both = ("--init-image", mask, "--mask", mask)
    assert "--init-image: expected the picture that was used then" in refused(
        capsys, "replay", "out.png", *both)
    both = ("--init-image", photo, "--mask", photo)
    assert "--mask: expected the picture that was used" in refused(
        capsys, "replay", "out.png", *both)
    assert "'free.png' was painted without --init-image" in refused(
        capsys, "replay", "free.png", "--init-image", photo)
    Image.open(photo).save("same pixels.bmp")       # another file, the same picture
    assert cli.main(["replay", "out.png", "--init-image", "same pixels.bmp", "--mask", mask]) == 0
    assert last_line(capsys) == SAME


def test_a_replay_by_other_weights_or_in_another_dtype_warns(place, capsys):
    painted()
    rewrite("out.png", fingerprint="0123456789ab", dtype="float16")
    assert cli.main(["replay", "out.png", "-o", "again.png"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 2 and "fingerprint 0123456789ab" in warned[0]
    assert "painted in float16, and this is float32" in warned[1]


def test_a_replay_takes_the_recorded_model_and_dtype(place, shipped, monkeypatch):
    painted()
    asked: list[dict[str, object]] = []

    def load(model: str, *, device: str, dtype: str) -> object:
        asked.append({"model": model, "device": device, "dtype": dtype})
        return shipped

    monkeypatch.setattr(minisd, "load", load)
    assert cli.main(["replay", "out.png"]) == 0
    assert cli.main(["replay", "out.png", "-m", ".", "--device", "cpu", "--dtype=bfloat16"]) == 0
    rewrite("out.png", model="v1", without="weights")       # as they were once: which of v1's?
    assert cli.main(["replay", "out.png"]) == 0
    assert asked == [{"model": "toyworld", "device": "auto", "dtype": "float32"},
                     {"model": ".", "device": "cpu", "dtype": "bfloat16"},
                     {"model": "auto", "device": "auto", "dtype": "float32"}]


def test_a_replay_looks_for_the_recorded_weights(place, shipped, capsys, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(minisd, "load", lambda model, **_: asked.append(model) or shipped)
    monkeypatch.setattr(replay, "WEIGHTS", place)
    painted()
    assert png.read_metadata("out.png")["weights"] == "toyworld"
    rewrite("out.png", model="v1", weights="v1-4")
    assert cli.main(["replay", "out.png"]) == 0
    rewrite("out.png", weights="mine.safetensors")
    line = refused(capsys, "replay", "out.png")
    assert line == (f"'out.png' was painted by 'mine.safetensors' (fingerprint "
                    f"{shipped.fingerprint}), which is not in weights/: name them again with -m "
                    f"MODEL")
    assert cli.main(["replay", "out.png", "-m", "."]) == 0
    Path("mine.safetensors").touch()
    assert cli.main(["replay", "out.png"]) == 0
    monkeypatch.setattr(replay, "WEIGHTS", place / "elsewhere")
    monkeypatch.setenv("MINISD_MODEL", "/models/mine.safetensors/")     # as a tab key ends it
    assert cli.main(["replay", "out.png"]) == 0
    assert asked[1:] == ["v1-4", ".", "mine.safetensors", "auto"]
    for name in ("../out.png", "", None, ["toyworld"]):
        rewrite("out.png", weights=name)
        assert "name them again with -m" in refused(capsys, "replay", "out.png")


def test_a_replay_says_when_the_file_was_touched(place, capsys):
    record = painted()
    touched = pixels("out.png").copy()
    touched[:16, :, 0] ^= 1                     # a twelfth of the values, by one grey level
    png.save_png(Image.fromarray(touched), "out.png", record)
    assert cli.main(["replay", "out.png"]) == 0
    assert last_line(capsys) == "the same picture up to rounding: 8.33% of its values differ by 1"
    touched[:32] = 255 - touched[:32]
    png.save_png(Image.fromarray(touched), "out.png", record)
    assert cli.main(["replay", "out.png"]) == 0
    assert re.fullmatch(r"not the same picture: (49|50)\.\d\d% of its values differ, by at most "
                        r"\d+ of 255", last_line(capsys))
    png.save_png(images.to_rgb("out.png").resize((32, 32)), "out.png", record)
    assert cli.main(["replay", "out.png"]) == 0
    assert last_line(capsys) == ("not compared: the file is 32 x 32 pixels, and its record says "
                                 "64 x 64")


@pytest.mark.parametrize(("changes", "phrase"), [
    ({"steps": "many"}, "--steps.*'many'"), ({"steps": 0}, "--steps"), ({"steps": None}, "None"),
    ({"seed": -3}, "--seed"), ({"height": 63}, "multiple of 8"), ({"sampler": "magic"}, "'magic'"),
    ({"guidance_scale": float("nan")}, "finite"), ({"dtype": "float8"}, "float8"),
    ({"strength": 0.5}, "--init-image"), ({"paste": True}, "--mask"), ({"eta": [1]}, "--eta"),
    ({"without": "seed"}, "lacks seed; nothing can be painted"),
    ({"without": "fingerprint"}, "lacks fingerprint")])
def test_a_record_that_makes_no_sense(place, capsys, changes, phrase):
    painted()
    rewrite("out.png", **changes)
    line = refused(capsys, "replay", "out.png")
    assert line.startswith("the record in 'out.png' ") and re.search(phrase, line)
    assert os.listdir() == ["out.png"]


# info and models

@pytest.mark.parametrize(("model", "sizes", "origin"), [
    ("v1", config.V1, "Stable Diffusion v1, by its sizes; no file was looked at"),
    ("v1-2", config.V1, "v1-2, by its sizes; not at hand: put sd-v1-2.ckpt "),
    ("toyworld", None, f"minisd model with text_encoder, unet, vae: {TOYWORLD}"),
    (str(TOYWORLD / "vae.safetensors"), None, "minisd model with vae: ")])
def test_info_knows_the_sizes(capsys, monkeypatch, tmp_path, model, sizes, origin):
    if model == "v1-2":                         # whatever lies in weights/ here
        monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    monkeypatch.setattr(anatomy, "info", lambda config, *, arrays: f"{config == expected} {arrays}")
    expected = sizes or checkpoint.read_config(TOYWORLD)
    assert cli.main(["info", model]) == 0
    first, empty, rest = capsys.readouterr().out.splitlines()
    assert first.startswith(origin) and (empty, rest) == ("", "True False")


def test_info_says_all_of_it(capsys):
    assert cli.main(["info", "toyworld", "--arrays"]) == 0
    text = capsys.readouterr().out
    assert text.endswith(anatomy.info(checkpoint.read_config(TOYWORLD), arrays=True) + "\n")
    assert len(re.findall(r"^unet\.\S+ +[\d x]+ +[\d,]+$", text, re.M)) == 326


def test_info_checks_that_the_names_fit(capsys, tmp_path):
    checkpoint.write_config(tmp_path, config.TOYWORLD)
    for part in ("text_encoder", "unet", "vae"):
        (tmp_path / f"{part}.safetensors").symlink_to(TOYWORLD / f"{part}.safetensors")
    wider = json.loads((tmp_path / "config.json").read_text())
    wider["unet"]["channels"][0] += 16
    (tmp_path / "config.json").write_text(json.dumps(wider))
    assert re.search(r"of another shape: .*unet.conv_in.weight \(64, 4, 3, 3\) instead of \(80,",
                     refused(capsys, "info", str(tmp_path)))


def test_models(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["models"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(str(minisd.models()))
    assert text.endswith(f"taken where none is named: {catalogue.find('auto')}\n")
    assert all(name in text for name in arguments.MODELS)


def test_models_names_auto_as_it_can_be_typed_here(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "weights" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MINISD_MODEL", str(folder))
    for here, shown in ((tmp_path, Path("weights/mine")), (folder, Path()), (ROOT, folder)):
        monkeypatch.chdir(here)
        assert cli.main(["models"]) == 0
        assert capsys.readouterr().out.endswith(f"where none is named: {shown}\n")


# download and verify

@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """A vocabulary of two small files that lies in a hub cache; no way to any network."""
    cache, files = tmp_path / "cache", []
    for name, data in (("vocab.json", b'{"a": 0}'), ("merges.txt", b"a b\n")):
        digest = hashlib.sha256(data).hexdigest()
        blob = cache / "models--owner--model" / "blobs" / digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        files.append(File(Place("owner/model", "main", f"tokenizer/{name}"), len(data), digest))
    monkeypatch.setitem(known.KNOWN, "tokenizer", Model("", tuple(files), restricted=False))
    monkeypatch.setitem(known.KNOWN, "v1-5", Model("v1-5", tuple(files)))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "*")
    return cache


def test_download(hub, tmp_path, capsys):
    folder = tmp_path / "weights"
    assert cli.main(["download", "tokenizer", "--folder", str(folder)]) == 0
    assert (folder / "tokenizer" / "vocab.json").read_bytes() == b'{"a": 0}'
    *files, last = capsys.readouterr().out.splitlines()
    assert len(files) == 2 and all("checksum right" in line for line in files)
    assert last == f"the vocabulary is in {folder / 'tokenizer'}"


def test_every_option_of_download_arrives(monkeypatch, tmp_path, capsys):
    asked: dict[str, object] = {}

    def fetch(name: str, root: Path, **options: object) -> Path:
        asked.update(options, name=name, root=root)
        return root / name

    monkeypatch.setattr(download, "fetch", fetch)
    assert cli.main(["download", "v1-4", "--half", "--endpoint", "http://hub", "--token", "t",
                     "--accept-licence", "--folder", str(tmp_path)]) == 0
    del asked["say"]
    assert asked == {"name": "v1-4", "root": tmp_path, "half": True, "endpoint": "http://hub",
                     "token": "t", "accept_licence": True}
    assert capsys.readouterr().out.endswith(f"-m {tmp_path / 'v1-4'}\n")
    assert cli.main(["download", "v1-4"]) == 0
    assert asked["root"] == download.WEIGHTS and not asked["accept_licence"]
    assert capsys.readouterr().out.endswith("-m v1-4\n")


def test_the_licence_is_asked_for_once(hub, tmp_path, capsys, monkeypatch):
    argv = ["download", "v1-5", "--folder", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "stdin", io.StringIO())            # no terminal
    assert re.search("no terminal to ask on: read http.* and add --accept-licence",
                     refused(capsys, *argv))
    answers = SimpleNamespace(isatty=lambda: True, readline=lambda: "n\n")
    monkeypatch.setattr(sys, "stdin", answers)
    assert cli.main(argv) == 1
    assert capsys.readouterr().err.endswith("was not accepted: nothing was downloaded\n")
    answers.readline = lambda: "y\n"
    assert cli.main(argv) == 0
    answers.readline = lambda: pytest.fail("asked again")
    assert cli.main(argv) == 0


def test_without_a_network_it_is_one_line(hub, tmp_path, capsys):
    for blob in hub.rglob("blobs/*"):
        blob.unlink()
    line = refused(capsys, "download", "tokenizer", "--folder", str(tmp_path / "weights"),
                   "--endpoint", "http://127.0.0.1:9", status=1)
    assert re.fullmatch(r"cannot reach http://127.0.0.1:9 \(.*\): go online, or check .*", line)


def test_verify(tmp_path, capsys, monkeypatch):
    path = TOYWORLD / "vae.safetensors"
    assert cli.main(["verify", str(path)]) == 0
    assert "is readable, but none of the files known here" in capsys.readouterr().out
    monkeypatch.setitem(known.NAMES, known.verify(path).sha256, "a published file")
    assert cli.main(["verify", str(path)]) == 0
    assert "is a published file" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "phrase"), [
    (b"", "is empty"), (b"<!DOCTYPE html>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    (b"\0" * 100, "is damaged or cut short")])
def test_verify_refuses_what_cannot_be_read(tmp_path, capsys, content, phrase):
    path = tmp_path / "unet.safetensors"
    path.write_bytes(content)
    assert phrase in refused(capsys, "verify", str(path))


# lab

@pytest.fixture
def jupyter(monkeypatch) -> dict[str, Any]:
    """What would have been run in place of JupyterLab, and the kernel python3 as seen from it."""
    seen: dict[str, Any] = {}

    def wait_for(command: list[str], environment: dict[str, str]) -> int:
        with monkeypatch.context() as patch:
            patch.setenv("JUPYTER_PATH", environment["JUPYTER_PATH"])
            kernel = KernelSpecManager().get_kernel_spec("python3")
        seen.update(command=command, environment=environment, kernel=kernel)
        return 3

    monkeypatch.setattr(lab, "wait_for", wait_for)
    return seen


def test_lab(jupyter, monkeypatch, tmp_path):
    elsewhere = tmp_path / "kernels" / "python3"        # of another Python, and not to be taken
    elsewhere.mkdir(parents=True)
    (elsewhere / "kernel.json").write_text(json.dumps(
        {"argv": ["/elsewhere/python"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "is_root", lambda: True)
    assert cli.main(["lab", "--port", "9001", "--no-browser", "--", "--x", "--y=--"]) == 3
    started = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}",
               "--LabApp.default_url=/lab/tree/notebooks"]
    assert jupyter["command"] == [
        *started, "--port=9001", "--no-browser", "--allow-root", "--x", "--y=--"]
    monkeypatch.setattr(lab, "is_root", lambda: False)
    assert cli.main(["lab"]) == 3
    assert jupyter["command"] == started
    kernel = jupyter["kernel"]
    assert kernel.argv[0] == sys.executable and "ipykernel_launcher" in kernel.argv
    done = subprocess.run(
        [kernel.argv[0], "-c", "import minisd; print(minisd.__file__)"], cwd=tmp_path, text=True,
        env=os.environ | kernel.env, capture_output=True, timeout=60)
    assert done.stdout.strip() == minisd.__file__
    folder = jupyter["environment"]["JUPYTER_PATH"].split(os.pathsep)
    assert folder[1:] == [str(tmp_path)] and not Path(folder[0]).exists()


def test_lab_says_what_is_missing(jupyter, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(lab.importlib.util, "find_spec", lambda name: None)
        line = refused(capsys, "lab", status=1)
    assert f"the Python at {sys.executable}, got no jupyterlab, no ipykernel" in line
    monkeypatch.setattr(lab, "NOTEBOOKS", tmp_path)
    assert "an installed minisd brings none, so run `python -m minisd lab` in a copy" in refused(
        capsys, "lab", status=1)
    assert jupyter == {}


@pytest.mark.slow
def test_lab_in_earnest(tmp_path):
    """Seen from another folder, with another kernel of that name installed for this user."""
    kernel = tmp_path / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(
        {"argv": ["/elsewhere/python"], "display_name": "x", "language": "python"}))
    private = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
               for name in ("CONFIG", "DATA", "RUNTIME")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "minisd", "lab", "--port", str(port), "--no-browser", "--",
         "--ServerApp.token=secret", "--ServerApp.port_retries=0"],
        cwd=tmp_path, env={**os.environ, **private, "JUPYTER_PREFER_ENV_PATH": "0"})

    def get(path: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{port}{path}?token=secret"
        return json.loads(urllib.request.urlopen(address, timeout=60).read())

    try:
        for _ in range(600):
            assert process.poll() is None
            with contextlib.suppress(OSError):
                get("/api/status")
                break
            time.sleep(0.2)
        spec = get("/api/kernelspecs")["kernelspecs"]["python3"]["spec"]
        assert spec["argv"][0] == sys.executable
        names = [entry["name"] for entry in get("/api/contents/notebooks")["content"]]
        assert "00_quickstart.ipynb" in names
        assert get("/api/contents/minisd/unet.py")["type"] == "file"    # a notebook links to it
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_lab_leaves_ctrl_c_to_jupyter(tmp_path):
    """And what ends us ends it: nothing is left running."""
    child = ("import signal, sys, time\n"
             "signal.signal(signal.SIGINT, lambda *_: print('asks', flush=True))\n"
             "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
             "print('ready', flush=True)\n"
             "while True: time.sleep(0.05)")
    script = ("import os, sys; from minisd.cli import lab\n"
              "sys.exit(lab.wait_for([sys.executable, '-c', sys.argv[1]], dict(os.environ)))")
    process = subprocess.Popen([sys.executable, "-c", script, child], stdout=subprocess.PIPE,
                               start_new_session=True, text=True)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)               # as a terminal does
    assert process.stdout.readline() == "asks\n"
    process.send_signal(signal.SIGTERM)                 # to us alone
    assert process.wait(60) == 5
