"""Painting from the command line: what it passes on, what it writes and says."""

import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import minisd
from minisd import samplers, settings
from minisd.checkpoints import load, weights
from minisd.checkpoints.known import VERSIONS
from minisd.cli import arguments, options
from minisd.cli.main import main
from minisd.config import TOYWORLD
from minisd.observe import png
from minisd.observe.pictures import pixel_sha256
from minisd.observe.reading import to_rgb
from minisd.observe.trace import Trace

PROMPT = "a red car below a yellow balloon"
FAST = ["a red car", "--steps", "5", "-H", "64", "-W", "64"]
ASKED = {"steps": 5, "seed": 42, "height": 64, "width": 64}
DEFAULTS = {"prompts": ("x",), "negative_prompt": "", "guidance_scale": 7.5, "steps": 25,
            "sampler": "ddim", "eta": 0.0, "seeds": (42,), "height": None, "width": None}


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(to_rgb(path))


# What it passes on

def test_defaults_are_the_model_s_own(stub):
    assert main(["x"]) == 0
    assert {name: getattr(stub.run, name) for name in DEFAULTS} == DEFAULTS
    assert stub.loaded == {"model": "auto", "device": "auto", "dtype": "auto"}
    stub.config = replace(TOYWORLD, name="v1", guidance_scale=7.5, steps=50)
    assert main(["x", "-o", "v1.png"]) == 0
    record = png.read_metadata("v1.png")
    assert stub.run.steps == record["steps"] == 50
    assert stub.run.guidance_scale == record["guidance_scale"] == 7.5


@pytest.mark.parametrize(("words", "name", "value"), [
    (["--negative-prompt", "sand"], "negative_prompt", "sand"),
    (["--guidance-scale", "3"], "guidance_scale", 3.0),
    (["--cfg-scale", "3.5"], "guidance_scale", 3.5), (["--scale", "-1"], "guidance_scale", -1.0),
    (["--steps", "7"], "steps", 7), (["--ddim_steps", "999"], "steps", 999),
    (["--seed", str(2 ** 63 - 1)], "seeds", (2 ** 63 - 1,)),
    (["-H", "64"], "height", 64), (["--width", "8"], "width", 8),
    (["--sampler", "plms"], "sampler", "plms"), (["--num-images", "3"], "prompts", ("x",) * 3),
    (["--eta", "1"], "eta", 1.0)])
def test_every_option_arrives(stub, words, name, value):
    assert main([*words, "x"]) == 0
    assert getattr(stub.run, name) == value
    changed = {name, *({"seeds"} if name == "prompts" else ())}
    assert all(getattr(stub.run, key) == DEFAULTS[key] for key in DEFAULTS.keys() - changed)


def test_every_option_of_loading_arrives(stub):
    assert main(["x", "-m", ".", "--device", "cuda:1", "--dtype", "bfloat16"]) == 0
    assert stub.loaded == {"model": ".", "device": "cuda:1", "dtype": "bfloat16"}


def test_the_tables_are_those_of_the_package():
    """They stand here once more because torch is not waited for."""
    assert set(arguments.SAMPLERS) == set(samplers.SAMPLERS)
    assert set(arguments.DTYPES) == {"auto", *load.DTYPES}
    assert set(arguments.MODELS) == {"auto", TOYWORLD.name, *VERSIONS}
    asked = options.settings(options.parse(["x"])).keys()
    assert {*settings.LIMITS, "negative_prompt", "sampler", "image", "mask"} == asked


# What it writes and says

def test_the_record_in_a_picture(stub, capsys):
    assert main([PROMPT, "-o", "new/out.png", "--negative-prompt", "sand", "-H", "64"]) == 0
    assert png.read_metadata("new/out.png") == {
        "prompt": PROMPT, "negative_prompt": "sand", "guidance_scale": 7.5, "steps": 25,
        "sampler": "ddim", "eta": 0.0, "dtype": "bfloat16", "model": "toyworld",
        "weights": "toyworld", "fingerprint": weights.fingerprint(stub),
        "minisd_version": minisd.__version__, "seed": 42, "height": 64, "width": 128}
    out, err = capsys.readouterr()
    path, summary = out.splitlines()
    assert Path(path) == Path("new/out.png")
    assert re.fullmatch(r"1 picture in \d+\.\d s: 25 ddim steps, guidance 7.5, seed 42, toyworld "
                        r"in bfloat16", summary)
    assert "25/25" in err and "100%" in err
    assert os.listdir("new") == ["out.png"]


def test_default_names_never_overwrite_and_an_explicit_one_does(stub, capsys):
    for seed in ("42", "42", "7"):
        assert main([PROMPT, "--seed", seed, *["-o", "out.png"] * (seed == "7")]) == 0
    stem = "a-red-car-below-a-yellow-balloon-42"
    assert sorted(os.listdir("outputs")) == [f"{stem}-2.png", f"{stem}.png"]
    assert f"{stem}-2.png" in capsys.readouterr().out
    assert main([PROMPT, "--seed", "8", "-o", "out.png"]) == 0
    assert png.read_metadata("out.png")["seed"] == 8


def test_several_pictures_are_numbered(stub, capsys):
    assert main(["x", "-o", "a.b.png", "--num-images", "3", "--seed", "5"]) == 0
    names = ["a.b-1.png", "a.b-2.png", "a.b-3.png"]
    assert sorted(os.listdir()) == names
    assert [png.read_metadata(name)["seed"] for name in names] == [5, 6, 7]
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == names and out[3].startswith("3 pictures in ")
    assert main(["x", "--num-images", "2", "--seed", "5"]) == 0
    assert sorted(os.listdir("outputs")) == ["x-5.png", "x-6.png"]


def test_warnings_are_one_clean_line_each_and_given_back(stub, capsys):
    before = warnings.showwarning
    stub.before_painting = lambda: [
        warnings.warn(text, stacklevel=1) for text in ("never saw\n 'zebra'", "cut off: 'sky'")]
    assert main(["x"]) == 0
    warned = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "warning" in line]
    assert warned == ["minisd: warning: never saw 'zebra'", "minisd: warning: cut off: 'sky'"]
    assert warnings.showwarning is before


def test_a_path_that_the_terminal_cannot_show(stub, monkeypatch, capfdbinary):
    with open(1, "w", encoding="ascii", closefd=False) as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert main(["一", "-o", "一.png"]) == 0
    assert capfdbinary.readouterr().out.splitlines()[0] == rb"\u4e00.png"
    assert os.listdir() == ["一.png"]


def test_a_run_without_steps_says_so(place, photo, capsys):
    argv = ["x", "--init-image", photo, "--strength", "0.01", "--steps", "5"]
    assert main([*argv, "-o", "o.png"]) == 0
    out, err = capsys.readouterr()
    assert "minisd: note: strength 0.01 of 5 steps runs none of them: the picture is only" in err
    assert ": 0 of 5 ddim steps" in out
    for option in (["--trace", "t"], ["--snapshots"], ["--steps-dir", "d"]):
        assert main([*argv, *option]) == 2
        assert "there is nothing to record, take a larger" in capsys.readouterr().err
    assert main(["x", "--init-image", photo, "--strength", "0.5", "--steps", "6"]) == 0
    assert ": 3 of 6 ddim steps" in capsys.readouterr().out


# What is written beside the pictures

def test_nothing_that_is_kept_changes_the_picture(place, capsys):
    assert main([*FAST, "-o", "plain.png"]) == 0
    assert main([*FAST, "-o", "out.png", "--snapshots", "--steps-dir", "steps", "--trace",
                 "run.safetensors"]) == 0
    assert png.read_metadata("out.png") == png.read_metadata("plain.png")
    assert (pixels("out.png") == pixels("plain.png")).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:-1] == ["out.png", "out-snapshots.png", "run.safetensors", "steps"]


def test_snapshots(place, shipped):
    """Of one picture in full, of several at another ratio; never over what is there."""
    Path("outputs").mkdir()
    Path("outputs/a-red-car-42-snapshots.png").write_text("precious")
    assert main([*FAST, "--snapshots"]) == 0
    assert sorted(os.listdir("outputs")) == [
        "a-red-car-42-snapshots-2.png", "a-red-car-42-snapshots.png", "a-red-car-42.png"]
    assert Path("outputs/a-red-car-42-snapshots.png").read_text() == "precious"
    trace = shipped.trace(FAST[0], **ASKED)
    strip = pixels("outputs/a-red-car-42-snapshots-2.png")
    assert strip.shape == (2 * 64 + 2, 5 * 64 + 4 * 2, 3)
    assert (strip[66:, :64] == np.asarray(trace.snapshots(0.25)[0].x0_picture)).all()
    assert (strip[:64, -64:] == pixels("outputs/a-red-car-42.png")).all()
    assert main([*FAST, "--snapshots", "0.5", "--num-images", "2", "-o", "a.png"]) == 0
    for i in "12":
        strip = pixels(f"a-{i}-snapshots.png")
        assert strip.shape == (130, 3 * 64 + 4, 3)
        assert (strip[66:, -64:] == pixels(f"a-{i}.png")).all()


@pytest.mark.parametrize(("count", "numbers"), [("1", [""]), ("2", ["-1", "-2"])])
def test_a_picture_of_every_step(place, shipped, count, numbers):
    assert main([*FAST, "--steps-dir", "new/steps", "--num-images", count]) == 0
    names = [f"{i:03d}{number}.png" for i in range(5) for number in numbers]
    assert sorted(os.listdir("new/steps")) == names
    run = shipped.steps(FAST[0], **ASKED, num_images=int(count))
    for step, first in zip(run, names[::len(numbers)], strict=True):
        assert (pixels(f"new/steps/{first}") == np.asarray(shipped.decode(step.x0)[0])).all()


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
def test_the_trace_is_that_of_the_library(place, photo, mask, shipped, task):
    given = {"text_to_image": {}, "image_to_image": {"image": photo, "strength": 0.6},
             "inpaint": {"image": photo, "mask": mask, "strength": 0.9}}[task]
    extra = [f"--{'init-image' if name == 'image' else name}={value}"
             for name, value in given.items()]
    assert main([*FAST, "--trace", "new/run.st", "--snapshots", "0.5", "-o", "out.png", *extra]
                ) == 0
    mine, theirs = Trace.load("new/run.st"), shipped.trace(FAST[0], **ASKED, **given)
    assert mine.about == theirs.about and mine.about["task"] == task
    assert len(mine) == len(theirs) and mine.enlarge == theirs.enlarge
    assert torch.equal(mine.latents, theirs.latents) and torch.equal(mine.factors, theirs.factors)
    assert set(mine.pictures) == {0, len(mine) // 2, len(mine)}
    assert (np.asarray(mine.snapshots(1)[-1].x_t_picture) == pixels("out.png")).all()


def test_inpainting_and_pasting(place, photo, mask, shipped):
    editing = [*FAST, "--init-image", photo, "--mask", mask]
    assert main([*editing, "-o", "free.png"]) == 0
    record = png.read_metadata("free.png")
    assert record["strength"] == 1.0 and record["paste"] is False and photo not in str(record)
    assert record["mask_sha256"] == pixel_sha256(to_rgb(mask))
    again, = shipped.inpaint(FAST[0], photo, mask, **ASKED)
    assert (pixels("free.png") == np.asarray(again)).all()
    assert main([*editing, "--paste", "-o", "out.png"]) == 0
    assert png.read_metadata("out.png")["paste"] is True
    result, free, original = (pixels(name) for name in ("out.png", "free.png", photo))
    assert (result[:, 32:] == original[:, 32:]).all() and (free[:, 32:] != original[:, 32:]).any()
    assert (result[:, :32] == free[:, :32]).all()


# As a user runs it

def test_the_first_command_of_the_readme(tmp_path):
    done = subprocess.run([sys.executable, "-m", "minisd", PROMPT], capture_output=True, text=True,
                          cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    path, summary = done.stdout.splitlines()
    assert Path(path) == Path("outputs") / "a-red-car-below-a-yellow-balloon-42.png"
    assert re.match(r"1 picture in \d+\.\d s: 25 ddim steps, guidance 7.5, seed 42", summary)
    assert "25/25" in done.stderr and "warning" not in done.stderr
    record = png.read_metadata(tmp_path / path)
    assert record["prompt"] == PROMPT and record["model"] == "toyworld"
    assert record["fingerprint"] == weights.fingerprint(minisd.load("toyworld"))
    assert to_rgb(tmp_path / path).size == (TOYWORLD.image_size, TOYWORLD.image_size)


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize(("prompt", "warning"), [
    ("", ""), ("car " * 20_000, "longer than 75 tokens; dropped 79,699 characters: 'car car"),
    ("一只猫", "toyworld never saw '一只猫'"), ("a\x00red\x1b[0m car 👧", "")], ids=range(4))
def test_any_text_is_a_prompt(place, shipped, capsys, prompt, warning):
    picture, = shipped.text_to_image(prompt, steps=5, seed=42, height=8, width=8)
    small = ["--steps", "5", "-H", "8", "-W", "8", "-o", "x.png"]
    assert main(["--prompt", prompt, *small]) == 0
    warned = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "warning" in line]
    assert warning in "".join(warned) and bool(warned) == bool(warning)
    assert to_rgb("x.png").tobytes() == picture.tobytes()
