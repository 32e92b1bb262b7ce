"""The command line: what it passes on, what it writes and says, and how it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import minisd
from minisd import __main__ as cli
from minisd import config, images, request, samplers
from minisd.checkpoints import load as loading
from minisd.checkpoints import weights as checkpoint
from minisd.cli import arguments, options
from minisd.cli.terminal import CtrlC
from minisd.diffusion import make_schedule
from minisd.observe import pictures, png

ROOT = Path(__file__).parents[1]
TOYWORLD = ROOT / "weights" / "toyworld"
UNET = TOYWORLD / "unet.safetensors"
PROMPT = "a red car below a yellow balloon"
DIGEST = re.compile("[0-9a-f]{64}")


class Stub:
    """Stands in for a model: takes the same arguments, paints flat pictures at once."""

    def __init__(self, name: str = "toyworld") -> None:
        self.config = SimpleNamespace(name=name)
        self.dtype = torch.bfloat16
        self.fingerprint = "0123456789ab"
        self.identity = {"model": name, "weights": name, "fingerprint": self.fingerprint,
                         "dtype": "bfloat16"}
        self.loaded: dict[str, object] = {}
        self.asked: dict[str, object] = {}
        self.before_painting = lambda: None
        self.during_painting = lambda: None

    def load(self, model: str = "auto", *, device: str = "auto", dtype: str = "auto") -> "Stub":
        self.loaded = {"model": model, "device": device, "dtype": dtype}
        return self

    def text_to_image(self, prompt, *, negative_prompt="", guidance_scale=7.5, steps=50,
                      sampler="ddim", eta=0.0, seed=None, height=None, width=None, num_images=1,
                      on_step=None):
        self.asked = {k: v for k, v in locals().items() if k not in ("self", "on_step")}
        self.before_painting()
        for index in range(steps):
            on_step(SimpleNamespace(index=index, total=steps))
        self.during_painting()
        return [Image.new("RGB", (width or 128, height or 128), (10 * i, 0, 0))
                for i in range(num_images)]

    def image_to_image(self, prompt, image, *, strength=0.75, **rest):
        pictures = self.text_to_image(prompt, **rest)
        self.asked |= {"strength": strength, "image": image}
        return pictures


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """A model that answers at once, in an empty working directory."""
    stub = Stub()
    monkeypatch.setattr(minisd, "load", stub.load)
    monkeypatch.chdir(tmp_path)
    return stub


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(24 * 16 * 4, dtype=np.uint8).reshape(24, 16, 4)).save(path)
    return path


def error_line(capsys) -> str:
    """The one line that a refusal leaves, without its opening."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minisd: error: ") and err.endswith("\n") and err.count("\n") == 1
    assert len(err.splitlines()) == 1
    return err.removeprefix("minisd: error: ").rstrip("\n")


# What it passes on

DEFAULTS = {"prompt": "x", "negative_prompt": "", "guidance_scale": 3.0, "steps": 25,
            "sampler": "ddim", "eta": 0.0, "seed": 42, "height": None, "width": None,
            "num_images": 1}


def test_defaults(stub):
    assert cli.main(["x"]) == 0
    assert stub.asked == DEFAULTS
    assert stub.loaded == {"model": "auto", "device": "auto", "dtype": "auto"}


@pytest.mark.parametrize(("arguments", "name", "value"), [
    (["--negative-prompt", "sand"], "negative_prompt", "sand"),
    (["--guidance-scale", "3"], "guidance_scale", 3.0),
    (["--cfg-scale", "3.5"], "guidance_scale", 3.5),
    (["--scale", "-1"], "guidance_scale", -1.0),
    (["--steps", "7"], "steps", 7),
    (["--ddim_steps", "999"], "steps", 999),
    (["--steps", "1000", "--sampler", "ddpm"], "steps", 1000),
    (["--seed", "0"], "seed", 0),
    (["--seed", str(2 ** 63 - 2)], "seed", 2 ** 63 - 2),
    (["-H", "64"], "height", 64), (["--height", "72"], "height", 72),
    (["-W", "64"], "width", 64), (["--width", "8"], "width", 8),
    (["--sampler", "plms"], "sampler", "plms"),
    (["--num-images", "3"], "num_images", 3),
    (["--eta", "1"], "eta", 1.0),
])
@pytest.mark.parametrize("prompt_first", [True, False])
def test_every_option_arrives(stub, arguments, name, value, prompt_first):
    assert cli.main(["x", *arguments] if prompt_first else [*arguments, "x"]) == 0
    assert stub.asked[name] == value
    rest = {key: stub.asked[key] for key in DEFAULTS if key not in (name, "sampler")}
    assert rest == {key: DEFAULTS[key] for key in rest}


@pytest.mark.parametrize(("arguments", "name", "value"), [
    (["-m", "toyworld"], "model", "toyworld"), (["--model", "."], "model", "."),
    (["--device", "cuda:1"], "device", "cuda:1"), (["--dtype", "bfloat16"], "dtype", "bfloat16")])
def test_every_option_of_loading_arrives(stub, arguments, name, value):
    assert cli.main(["x", *arguments]) == 0
    assert stub.loaded[name] == value


def test_the_prompt_as_an_option(stub):
    assert cli.main(["--prompt", PROMPT]) == 0
    assert stub.asked["prompt"] == PROMPT


def test_a_prompt_of_any_characters(stub):
    prompt = "一只猫 😀 \"quoted\" 100% -- a\tb"
    assert cli.main([prompt]) == 0
    assert stub.asked["prompt"] == prompt
    [path] = Path("outputs").iterdir()
    assert png.read_metadata(path)["prompt"] == prompt


def test_toyworld_takes_fewer_steps_by_default(stub):
    stub.config.name = "v1"
    assert cli.main(["x"]) == 0
    assert stub.asked["steps"] == 50


def test_the_tables_are_those_of_the_package():
    assert set(arguments.SAMPLERS) == set(samplers.SAMPLERS)
    assert set(arguments.DTYPES) == {"auto", *loading.DTYPES}
    assert options.LARGEST_SEED == request.MAX_SEED


@pytest.mark.parametrize("sampler", arguments.SAMPLERS)
def test_as_many_steps_as_the_sampler_can_take(sampler):
    schedule = make_schedule(config.V1.schedule)
    most = arguments.SAMPLERS[sampler]
    assert len(samplers.make_rule(sampler, schedule, most).timesteps) == most
    text = re.escape(f"steps must be from 1 to {most} for {sampler}")
    with pytest.raises(ValueError, match=text):
        samplers.make_rule(sampler, schedule, most + 1)


def test_image_to_image(stub, picture):
    assert cli.main(["x", "--init-image", str(picture), "--strength", "0.5", "-o", "o.png"]) == 0
    assert stub.asked["strength"] == 0.5
    given = stub.asked["image"]
    assert given.mode == "RGB" and given.size == (16, 24)
    record = png.read_metadata("o.png")
    assert record["strength"] == 0.5
    assert record["init_image_sha256"] == pictures.pixel_sha256(images.to_rgb(picture))
    assert DIGEST.fullmatch(record["init_image_sha256"])
    assert "photo" not in json.dumps(record)


def test_the_default_strength(stub, picture):
    assert cli.main(["x", "--init-image", str(picture)]) == 0
    assert stub.asked["strength"] == 0.75


# What it writes and says

def test_the_metadata_of_one_picture(stub, capsys):
    assert cli.main([PROMPT, "-o", "new/out.png", "--negative-prompt", "sand", "-H", "64"]) == 0
    assert png.read_metadata("new/out.png") == {
        "prompt": PROMPT, "negative_prompt": "sand", "guidance_scale": 3.0, "steps": 25,
        "sampler": "ddim", "eta": 0.0, "dtype": "bfloat16", "model": "toyworld",
        "weights": "toyworld", "fingerprint": "0123456789ab",
        "minisd_version": minisd.__version__, "seed": 42,
        "height": 64, "width": 128}
    out, err = capsys.readouterr()
    path, summary = out.splitlines()
    assert Path(path) == Path("new/out.png")
    assert re.fullmatch(r"1 picture in \d+\.\d s: 25 ddim steps, guidance 3, seed 42, toyworld "
                        r"in bfloat16", summary)
    assert "25/25" in err and "100%" in err
    assert os.listdir("new") == ["out.png"]


def test_default_names_never_overwrite(stub, capsys):
    for _ in range(2):
        assert cli.main([PROMPT]) == 0
    stem = "a-red-car-below-a-yellow-balloon-42"
    assert sorted(os.listdir("outputs")) == [f"{stem}-2.png", f"{stem}.png"]
    assert f"{stem}-2.png" in capsys.readouterr().out


def test_an_explicit_name_overwrites(stub):
    for seed in ("1", "2"):
        assert cli.main([PROMPT, "-o", "out.png", "--seed", seed]) == 0
    assert os.listdir() == ["out.png"] and png.read_metadata("out.png")["seed"] == 2


def test_several_pictures_are_numbered(stub, capsys):
    assert cli.main(["x", "-o", "a.b.png", "--num-images", "3", "--seed", "5"]) == 0
    names = ["a.b-1.png", "a.b-2.png", "a.b-3.png"]
    assert sorted(os.listdir()) == names
    assert [png.read_metadata(name)["seed"] for name in names] == [5, 6, 7]
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == names and out[3].startswith("3 pictures in ")


def test_several_pictures_of_default_names(stub):
    assert cli.main(["x", "--num-images", "2", "--seed", "5"]) == 0
    assert sorted(os.listdir("outputs")) == ["x-5.png", "x-6.png"]


def test_warnings_are_one_clean_line_each(stub, capsys):
    stub.before_painting = lambda: [
        warnings.warn(text, stacklevel=1) for text in ("never saw\n 'zebra'", "cut off: 'sky'")]
    assert cli.main(["x"]) == 0
    warned = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "warning" in line]
    assert warned == ["minisd: warning: never saw 'zebra'", "minisd: warning: cut off: 'sky'"]


def test_warnings_are_given_back(stub):
    before = warnings.showwarning
    assert cli.main(["x"]) == 0
    assert warnings.showwarning is before


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--prompt", "--negative-prompt", "--guidance-scale", "--cfg-scale", "--scale",
                   "--steps", "--ddim_steps", "--seed", "-H", "--height", "-W", "--width",
                   "--sampler", "--num-images", "-m", "--model", "-o", "--output", "--eta",
                   "--dtype", "--device", "--init-image", "--strength", "25 with toyworld"):
        assert option in text


def test_a_path_that_the_terminal_cannot_show(stub, monkeypatch, capfdbinary):
    with open(1, "w", encoding="ascii", closefd=False) as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert cli.main(["一", "-o", "一.png"]) == 0
    assert capfdbinary.readouterr().out.splitlines()[0] == rb"\u4e00.png"
    assert os.listdir() == ["一.png"]


# Subcommands

@pytest.fixture
def fake(monkeypatch) -> ModuleType:
    """A subcommand of this test, `fake`, that says 7 and remembers what it was given."""
    module = ModuleType("minisd.cli.fake")
    module.seen = []
    module.run = lambda argv: module.seen.append(argv) or 7
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.SUBCOMMANDS, "fake", "what a fake does")
    return module


def test_a_subcommand_runs_in_place_of_the_painter(stub, fake, capsys):
    assert cli.main(["fake"]) == 7 and cli.main(["fake", "toyworld", "--all"]) == 7
    assert fake.seen == [[], ["toyworld", "--all"]] and stub.asked == {}
    assert cli.main(["fake about cars"]) == 0 and cli.main(["--prompt", "fake"]) == 0
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert re.search("fake +what a fake does", capsys.readouterr().out)


def test_a_subcommand_refuses_like_the_painter(fake, capsys):
    def run(argv: list[str]) -> int:
        raise ValueError("expected a model,\ngot none")

    fake.run = run
    assert cli.main(["fake"]) == 2
    assert error_line(capsys) == "expected a model, got none"


def test_a_missing_package_is_one_line_and_a_mistake_of_ours_is_not(fake, capsys):
    def run(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name=argv[0])

    fake.run = run
    assert cli.main(["fake", "torch"]) == 1
    assert re.fullmatch("No module named 'torch', in the Python at .*: `python -m minisd doctor` "
                        "says what is missing", error_line(capsys))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["fake", "minisd.novelty"])


# What it refuses

LARGEST = str(2 ** 63 - 1)
BAD = {
    "no prompt": ([], "expected a prompt, got none: say what to paint"),
    "no prompt, options": (["--seed", "3"], "expected a prompt, got none"),
    "two prompts": (["x", "--prompt", "y"], "expected one prompt, got two"),
    "no quotes": (["a", "red", "car"], "unexpected 'red' after the prompt: put .* in quotes"),
    "prompt of bytes": (["caf\udce9"], r"expected text in UTF-8, got \\udce9 as character 4"),
    "negative of bytes": (["x", "--negative-prompt", "\udcff"], "--negative-prompt: expected text"),
    "prompt option of bytes": (["--prompt", "\udcff"], "--prompt: expected text in UTF-8"),
    "unknown option": (["x", "--stepz", "3"], "unknown option '--stepz': see --help"),
    "abbreviated option": (["x", "--step", "3"], "unknown option '--step'"),
    "option without value": (["x", "--steps"], "--steps.*expected one argument"),
    "steps 0": (["x", "--steps", "0"], "--steps.*whole number of at least 1, got '0'"),
    "steps negative": (["x", "--steps", "-5"], "--steps.*of at least 1, got '-5'"),
    "steps 1000": (["x", "--steps", "1000"], "--steps.*from 1 to 999 for ddim, got 1000"),
    "steps 1001": (["x", "--steps", "1001", "--sampler", "ddpm"], "from 1 to 1000 for ddpm, got"),
    "steps no number": (["x", "--steps", "many"], "--steps.*a whole number.*got 'many'"),
    "steps a fraction": (["x", "--ddim_steps", "2.5"], "--steps.*a whole number.*got '2.5'"),
    "steps of many lines": (["x", "--steps", "1\n2"], r"got '1\\n2'"),
    "steps endless": (["x", "--steps", "9" * 5000], r"got '9{57}\.\.\.'"),
    "guidance NaN": (["x", "--guidance-scale", "nan"], "expected a finite number, got 'nan'"),
    "guidance inf": (["x", "--cfg-scale", "inf"], "expected a finite number, got 'inf'"),
    "guidance overflow": (["x", "--scale", "1e999"], "expected a finite number, got '1e999'"),
    "guidance text": (["x", "--scale", "strong"], "expected a finite number, got 'strong'"),
    "eta": (["x", "--eta", "1.5"], "--eta: expected a number from 0 to 1, got '1.5'"),
    "eta NaN": (["x", "--eta", "nan"], "--eta: expected a number from 0 to 1, got 'nan'"),
    "strength alone": (["x", "--strength", "0.5"], "--strength: expected --init-image FILE"),
    "strength high": (["x", "--strength", "1.01"], "expected a number from 0 to 1, got '1.01'"),
    "strength negative": (["x", "--strength", "-0.1"], "a number from 0 to 1, got '-0.1'"),
    "strength NaN": (["x", "--strength", "nan"], "a number from 0 to 1, got 'nan'"),
    "height 100": (["x", "-H", "100"], "-H/--height: expected a multiple of 8 such as 96 or 104"),
    "width 7": (["x", "--width", "7"], "-W/--width: expected a multiple of 8 such as 8, got '7'"),
    "width 0": (["x", "-W", "0"], "-W/--width.*of at least 1, got '0'"),
    "height negative": (["x", "-H", "-64"], "-H/--height.*of at least 1, got '-64'"),
    "height text": (["x", "-H", "tall"], "-H/--height.*got 'tall'"),
    "seed text": (["x", "--seed", "lucky"], f"--seed.*from 0 to {LARGEST}, got 'lucky'"),
    "seed fraction": (["x", "--seed", "1.0"], "--seed.*a whole number.*got '1.0'"),
    "seed negative": (["x", "--seed", "-1"], "--seed.*got '-1'"),
    "seed 2**63": (["x", "--seed", str(2 ** 63)], f"from 0 to {LARGEST}, got '9223"),
    "seed + count": (["x", "--seed", str(2 ** 63 - 3), "--num-images", "3"],
                     f"expected seed \\+ num_images of at most {LARGEST}, got .* \\+ 3"),
    "count 0": (["x", "--num-images", "0"], "--num-images.*of at least 1, got '0'"),
    "sampler": (["x", "--sampler", "magic"], "--sampler.*'magic' .choose from 'ddim', 'ddpm'"),
    "dtype": (["x", "--dtype", "float8"], "--dtype.*'float8' .choose from 'auto', 'float32'"),
    "device": (["x", "--device", "abacus"], "--device: expected auto, cpu, .*got 'abacus'"),
    "model": (["x", "-m", "nope"],
              "--model: expected auto, toyworld, v1-1, .*, v1-5 or the path .* got 'nope'"),
    "output folder": (["x", "-o", "folder"], r"--output.*ends in .png, got 'folder \(a folder\)'"),
    "output folder.png": (["x", "-o", "folder.png"], r"got 'folder.png \(a folder\)'"),
    "output jpg": (["x", "-o", "out.jpg"], "--output.*ends in .png, got 'out.jpg'"),
    "output nothing": (["x", "-o", ""], "--output.*ends in .png"),
    "output below a file": (["x", "-o", "text.txt/out.png"],
                            "expected a folder that can be written, got 'text.txt'"),
    "output deep below a file": (["x", "-o", "text.txt/a/b/out.png"], "that can be written"),
    "no such picture": (["x", "--init-image", "nope.png"], "no picture at 'nope.png': check"),
    "no picture": (["x", "--init-image", "text.txt"], "'text.txt' cannot be read .no known"),
    "empty picture": (["x", "--init-image", "empty.png"], "'empty.png' is an empty file"),
    "truncated picture": (["x", "--init-image", "cut.png"], "'cut.png' cannot be read"),
    "folder as picture": (["x", "--init-image", "folder"], "'folder' is not a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(stub, picture, capsys, case):
    for name in ("folder", "folder.png"):
        Path(name).mkdir()
    Path("text.txt").write_text("hello")
    Path("empty.png").touch()
    Path("cut.png").write_bytes(picture.read_bytes()[:-40])
    before = sorted(os.listdir())
    arguments, phrase = BAD[case]
    assert cli.main(arguments) == 2
    assert re.search(phrase, error_line(capsys))
    assert stub.loaded == {} and sorted(os.listdir()) == before


def test_an_unwritable_default_folder(stub, capsys):
    Path("outputs").write_text("a file in the way")
    assert cli.main(["x"]) == 2
    assert "expected a folder that can be written, got 'outputs'" in error_line(capsys)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(stub, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert cli.main(["x", "-o", "locked/out.png"]) == 2
    assert "expected a folder that can be written, got 'locked'" in error_line(capsys)


@pytest.mark.parametrize(("error", "status"), [
    (ValueError("weights:\nexpected a UNet, got none"), 2), (TypeError("no text"), 2),
    (FileNotFoundError("no weights"), 2), (FloatingPointError("not finite at step 3"), 1),
    (RuntimeError("out of memory"), 1), (MemoryError(), 1)])
def test_what_the_model_refuses_is_one_line_too(stub, capsys, error, status):
    def fail() -> None:
        raise error

    stub.before_painting = fail
    assert cli.main(["x"]) == status
    assert error_line(capsys) == " ".join(str(error).split()) or "MemoryError"
    assert os.listdir() == []


def test_bugs_keep_their_traceback(stub):
    stub.before_painting = lambda: {}["bug"]
    with pytest.raises(KeyError):
        cli.main(["x"])


# Interrupted

def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["before_painting", "during_painting"])
def test_ctrl_c(stub, capsys, moment):
    setattr(stub, moment, interrupt)
    assert cli.main(["x", "-o", "out.png"]) == 130
    out, err = capsys.readouterr()
    lines = [line for line in re.split("[\r\n]", err) if line.strip() and "step/s" not in line
             and "?step" not in line]
    assert lines == ["minisd: interrupted"] and out == ""
    assert os.listdir() == []


def test_ctrl_c_while_writing(stub, monkeypatch):
    monkeypatch.setattr(os, "fsync", interrupt)
    assert cli.main(["x", "-o", "out.png"]) == 130
    assert os.listdir() == []


# As a user runs it

def run(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "minisd", *arguments], capture_output=True,
                          timeout=120, **options)


def test_a_mistake_answers_without_waiting_for_torch(tmp_path):
    """Importing torch takes seconds, also where nothing else does; it must not be imported."""
    script = ("import sys; from minisd.__main__ import main; status = main(sys.argv[1:]); "
              "print('torch' in sys.modules); sys.exit(status)")
    for argv in (["x", "--steps", "0"], ["x", "--init-image", "nope.png"], []):
        done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True,
                              cwd=tmp_path, timeout=120)
        assert (done.returncode, done.stdout) == (2, b"False\n")


def test_undecodable_arguments(tmp_path):
    done = run(b"caf\xe9", cwd=tmp_path, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and b"expected text in UTF-8" in done.stderr


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> str:
    """A folder with a small model of random weights: everything real but what it has learned."""
    folder = tmp_path_factory.mktemp("untrained")
    shutil.copytree(TOYWORLD / "tokenizer", folder / "tokenizer")
    small = replace(
        config.TOYWORLD, name="untrained", image_size=32,
        vae=replace(config.TOYWORLD.vae, channels=(8, 8, 8, 8)),
        unet=replace(config.TOYWORLD.unet, channels=(16, 32, 32)))
    checkpoint.write_config(folder, small)
    torch.manual_seed(0)
    sd = minisd.StableDiffusion(small)
    for part in checkpoint.PARTS:
        checkpoint.save(sd.get_submodule(part), folder / f"{part}.safetensors")
    return str(folder)


def test_a_real_run_and_one_from_its_picture(tmp_path, untrained):
    common = ("-m", untrained, "--dtype", "float32", "--steps", "6")
    done = run("a red zyzzyva", *common, "-W", "40", "--num-images", "2", cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    names = ["a-red-zyzzyva-42.png", "a-red-zyzzyva-43.png"]
    first, second, summary = done.stdout.splitlines()
    assert [Path(first), Path(second)] == [Path("outputs") / name for name in names]
    assert summary.endswith("6 ddim steps, guidance 7.5, seed 42, untrained in float32")
    warned, bar = done.stderr.split("\n", 1)
    assert warned.startswith("minisd: warning: ") and "'zyzzyva'" in warned and "6/6" in bar
    sd = minisd.load(untrained, dtype="float32")
    for name, seed in zip(names, (42, 43), strict=True):
        record = png.read_metadata(tmp_path / "outputs" / name)
        assert (record["seed"], record["height"], record["width"]) == (seed, 32, 40)
        assert record["fingerprint"] == sd.fingerprint
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again, = sd.text_to_image(record["prompt"], steps=6, seed=seed, width=40)
        written = images.to_rgb(tmp_path / "outputs" / name)
        # One grey level: alone or in a batch, on any number of threads, up to rounding.
        assert np.abs(np.int16(written) - np.int16(again)).max() <= 1

    done = run("a red car", *common, "--init-image", first, "--strength", "0.5", "-o", "out.png",
               cwd=tmp_path, text=True)
    assert done.returncode == 0 and "3/3" in done.stderr, done.stderr
    record = png.read_metadata(tmp_path / "out.png")
    assert (record["strength"], record["height"], record["width"]) == (0.5, 32, 40)
    assert record["init_image_sha256"] == pictures.pixel_sha256(images.to_rgb(tmp_path / first))


def test_what_only_the_model_knows_is_refused_in_one_line(tmp_path, untrained):
    (tmp_path / "folder").mkdir()
    for argv, phrase in ((["-m", "folder"], b"config.json"),
                         (["-m", untrained, "--device", "cuda:99"], b"cuda:99")):
        done = run("x", *argv, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == b"", done.stderr
        assert done.stderr.count(b"\n") == 1 and phrase in done.stderr
    assert os.listdir(tmp_path) == ["folder"]


@pytest.fixture
def interruptible():
    """A shell ignores Ctrl-C for what it starts in the background; so would we and our children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_a_real_ctrl_c(tmp_path, untrained, interruptible):
    process = subprocess.Popen([sys.executable, "-m", "minisd", "a car", "-o", "out.png",
                                "-m", untrained, "--steps", "999"],
                               cwd=tmp_path, stderr=subprocess.PIPE)
    seen = b""
    while b"/999" not in seen:
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and b"Traceback" not in rest
    assert rest.rstrip().endswith(b"minisd: interrupted") and os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_counts_also_where_python_drops_it(interruptible):
    class Fragile:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with CtrlC() as ctrl_c:
        ctrl_c.check()
        fragile = Fragile()
        del fragile                             # the exception ends in its destructor
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not UNET.exists(), reason="weights/toyworld has no UNet yet")
def test_the_first_command_of_the_readme(tmp_path):
    done = run(PROMPT, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    path, summary = done.stdout.splitlines()
    assert Path(path) == Path("outputs") / "a-red-car-below-a-yellow-balloon-42.png"
    assert re.match(r"1 picture in \d+\.\d s: 25 ddim steps", summary)
    assert "25/25" in done.stderr and "warning" not in done.stderr
    record = png.read_metadata(tmp_path / path)
    assert record["prompt"] == PROMPT and record["model"] == "toyworld"
    assert record["fingerprint"] == minisd.load("toyworld").fingerprint
    side = config.TOYWORLD.image_size
    assert images.to_rgb(tmp_path / path).size == (side, side)
