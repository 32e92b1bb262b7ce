"""What the command line refuses, how it fails, and that nothing painted is lost on the way."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import minisd
from minisd.cli import memory
from minisd.cli.main import SUBCOMMANDS, main
from minisd.observe import png, trace

SCRIPT = "import sys; from minisd.cli.main import main; "


# Help and subcommands

def test_help_names_every_subcommand(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name, meaning in SUBCOMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(meaning)}$", text, re.M)
    text = " ".join(text.split())
    for said in ("own, 7.5)", "own, 50; 25 with toyworld", "exit status: 0 done"):
        assert said in text


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_has_a_help_and_refuses_an_unknown_option(name, capsys, refused):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0 and f"usage: minisd {name}" in capsys.readouterr().out
    assert refused(name, "--wide") == "unknown option '--wide': see --help"


def test_a_prompt_may_begin_with_a_subcommand_s_name(stub):
    assert main(["info about cars"]) == 0 and main(["--prompt", "info"]) == 0
    assert stub.run.prompts == ("info",)


# What it refuses

BAD = {
    "no prompt": (["--seed", "3"], "expected a prompt, got none: say what to paint"),
    "two prompts": (["x", "--prompt", "y"], "expected one prompt, got two"),
    "no quotes": (["a", "red", "car"], "unexpected 'red' after the prompt: put .* in quotes"),
    "prompt of bytes": (["caf\udce9"], r"expected text in UTF-8, got 'caf\\udce9'"),
    "unknown option": (["x", "--stepz", "3"], "unknown option '--stepz': see --help"),
    "steps 0": (["x", "--steps", "0"], "steps must be from 1 to 1000, got 0"),
    "steps of many lines": (["x", "--steps", "1\n2"], r"got '1\\n2'"),
    "count 2e9": (["x", "--num-images", "2000000000"], "num_images must be from 1 to 1048576"),
    "strength alone": (["x", "--strength", "0.5"], "--strength: expected --init-image FILE"),
    "sampler": (["x", "--sampler", "magic"], "--sampler.*'magic' .choose from '?ddim'?, '?ddpm"),
    "output folder": (["x", "-o", "folder"], "--output: expected the name of a file that ends in"),
    "second output a folder": (["x", "-o", "f.png", "--num-images", "2"], "got 'f-2.png', which"),
    "output below a file": (["x", "-o", "text.txt/a/out.png"],
                            "expected a folder that can be written, got '.*text.txt'"),
    "picture at an address": (["x", "--init-image", "https://x.org/a.png"],
                              "--init-image: expected a file that is there: download it first, got"
                              " 'https://x.org/a.png'"),
    "no picture": (["x", "--init-image", "text.txt"], "'text.txt' cannot be read"),
    "mask alone": (["x", "--mask", "photo.png"], "--mask: expected --init-image FILE with it"),
    "paste alone": (["x", "--paste"], "--paste: expected --mask FILE with it"),
    "snapshots of what": (["--snapshots", "a red car"],
                          "above 0 and at most 1, or nothing and the prompt before it, got 'a red"),
    "steps into a file": (["x", "--steps-dir", "text.txt"], "new or empty folder, got 'text.txt'"),
    "trace into a folder": (["x", "--trace", "folder"], "--trace: expected the name of a file"),
    # Two things in one place
    "one file for two": (["x", "-o", "same.png", "--trace", "same.png"], "got 'same.png' twice"),
    "the same by a link": (["x", "-o", "link.png", "--trace", "photo.png"], "'photo.png' twice"),
    "one of several": (["x", "-o", "a.png", "--num-images", "2", "--trace", "./a-2.png"], "twice"),
    "a strip": (["x", "-o", "a.png", "--snapshots", "--trace", "a-snapshots.png"], "twice"),
    "among the steps": (["x", "--steps-dir", "d", "-o", "d/002.png"], "--steps-dir: expected a fo"),
    # Links to what is not there
    "output a dead link": (["x", "-o", "dead.png"], "written, got '/nowhere/at/all'"),
    "output below one": (["x", "-o", "gone/out.png"], "written, got '.*gone'.*choose another with"),
    # Subcommands
    "info of nothing": (["info", "nope"], "unknown model 'nope': expected 'auto', .* or the path"),
    "info of a folder": (["info", "folder"], "folder is no model|folder: "),
    "models of what": (["models", "v1"], "unexpected 'v1': see --help"),
    "download another": (["download", "sdxl"], "'sdxl' .choose from '?v1-5"),
    "download half of nothing": (["download", "tokenizer", "--half"], "no float16 version"),
    "download into a file": (["download", "tokenizer", "--folder", "text.txt/x"],
                             "choose another with --folder"),
    "verify a folder": (["verify", "folder"], "expected a file that is there, got 'folder'"),
    "replay text": (["replay", "text.txt"], "'text.txt' cannot be read"),
    "replay a stranger": (["replay", "photo.png"], "'photo.png' carries no metadata of minisd"),
    "replay to jpg": (["replay", "photo.png", "-o", "x.jpg"], "ends in .png, got 'x.jpg'"),
    "lab on port 0": (["lab", "--port", "0"], "--port: expected 1 to 65535, got 0"),
    "lab with a word": (["lab", "00_quickstart"], "what is JupyterLab's goes after --"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(stub, photo, refused, case):
    for name in ("folder", "f-2.png"):
        Path(name).mkdir()
    Path("folder", "file").touch()
    Path("text.txt").write_text("hello")
    Path("link.png").symlink_to(photo)
    Path("dead.png").symlink_to("/nowhere/at/all/x.png")
    Path("gone").symlink_to("/nowhere/at/all")
    before = sorted(os.listdir())
    argv, phrase = BAD[case]
    line = refused(*argv)
    assert re.search(phrase, line), line
    assert stub.loaded == {} and sorted(os.listdir()) == before


def test_what_only_the_library_knows(place, photo, refused, monkeypatch):
    Image.new("L", (8, 16)).save("small.png")
    assert "steps must be from 1 to 999 for ddim, got 1000" in refused("x", "--steps", "1000")
    assert "the mask is 8 x 16 pixels and the picture 64 x 64" in refused(
        "x", "--init-image", photo, "--mask", "small.png")
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert refused("x", "-m", "nope").startswith("unknown model 'nope': expected 'auto'")
    assert refused("x", "-m", "a\x1b[2J\u202eb").startswith(r"unknown model 'a\x1b[2J\u202eb'")
    if not torch.backends.mps.is_available():
        line = refused("x", "--device", "mps")
        assert line.startswith("device 'mps' is not at hand (") and len(line) < 200
    assert "device 'abacus' is not at hand" in refused("x", "--device", "abacus")
    monkeypatch.setenv("MINISD_MODEL", "nosuch")
    assert refused("x").startswith("MINISD_MODEL in the environment: unknown model 'nosuch'")
    assert sorted(os.listdir()) == ["photo.png", "small.png"]


def test_mistakes_answer_without_torch(tmp_path):
    """Importing it takes seconds, also where nothing else does."""
    lines = ["", "x --steps 0", "x -H 100", "x --init-image nope.png", "x --mask m.png", "x -o x",
             "x --trace .", "info v1 v2", "download sdxl", "verify nope", "replay nope.png",
             "lab --port x", "doctor x", "models x"]
    done = subprocess.run([sys.executable, "-c", SCRIPT + "[main(line.split()) for line in "
                           "sys.argv[1:]]; print('torch' in sys.modules)", *lines],
                          capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout == "False\n" and len(done.stderr.splitlines()) == len(lines), done.stderr


@pytest.mark.parametrize("argv", [
    ["download", "--tokn", "s3cr3t", "v1-5"], ["download", "hf_s3cr3tS3CR3Ts3cr3t"],
    ["download", "--endpont", "https://user:s3cr3t@hub.org", "v1-5"],
    ["lab", "--ServerApp.token=s3cr3t"], ["x", "-m", "https://user:s3cr3t@hub.org/model"],
    ["x", "--trace", "https://user:s3cr3t@hub.org/"]])
def test_secrets_are_not_repeated(tmp_path, monkeypatch, refused, argv):
    monkeypatch.chdir(tmp_path)
    Path("https:").touch()
    assert "s3cr3t" not in refused(*argv).lower()


def test_what_comes_from_outside_is_shown_escaped(stub, capsys, refused):
    name = "a\x1b[31m\u202eb\r\nc.png"
    assert main(["x", "-o", name]) == 0
    assert capsys.readouterr().out.splitlines()[0] == r"a\x1b[31m\u202eb\r"     # and a line below
    assert os.listdir() == [name]
    assert r"got 'a\x1b[31m\u202eb'" in refused("x", "--init-image", "a\x1b[31m\u202eb")
    stub.config = SimpleNamespace(**vars(stub.config) | {"name": "\x9b2Jevil"})
    assert main(["x", "-o", "x.png"]) == 0
    assert r"\x9b2Jevil in bfloat16" in capsys.readouterr().out


def test_a_tilde_is_the_home_folder(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert main(["x", "--output=~/x.png"]) == 0
    assert main(["x", "--init-image=~/x.png", "-o", "~/y.png"]) == 0
    assert os.listdir() == ["home"] and sorted(os.listdir("home")) == ["x.png", "y.png"]


def test_a_link_is_written_through(stub):
    Path("there").mkdir()
    for target in ("there/new.png", "there/old.png"):
        Path("link.png").unlink(missing_ok=True)
        Path("link.png").symlink_to(target)
        for seed in ("1", "2"):
            assert main(["x", "-o", "link.png", "--seed", seed]) == 0
        assert Path("link.png").is_symlink() and png.read_metadata(target)["seed"] == 2


# How it fails

FRAMES = ("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
          "memory: you tried to allocate 17179869184 bytes. Error code 12\nException raised from "
          "c10::alloc_cpu\nframe #0: c10::Error::Error()")


@pytest.mark.parametrize(("error", "status", "said"), [
    (ValueError("weights:\nexpected a UNet, got none"), 2, "weights: expected a UNet, got none"),
    (TypeError("no text"), 2, "no text"), (FileNotFoundError("no weights"), 2, "no weights"),
    (RuntimeError("shapes differ\nframe #0: c10"), 1, "shapes differ"),
    (RuntimeError(FRAMES), 1,
     f"out of memory (tried to allocate 17179869184 bytes): {memory.ADVICE}"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
     1, f"out of memory (tried to allocate 2.00 gib): {memory.ADVICE}"),
    (MemoryError(), 1, f"out of memory: {memory.ADVICE}"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "[Errno 12] Cannot allocate memory"),
    (ImportError("no torch", name="torch"), 1,
     f"no torch, in the Python at {sys.executable}: `python -m minisd doctor` says more")])
def test_an_error_is_one_line_and_a_status(stub, refused, error, status, said):
    stub.error = error
    assert refused("x", status=status) == said
    assert os.listdir() == []


@pytest.mark.parametrize("error", [KeyError("bug"), AssertionError(),
                                   ImportError("bug", name="minisd.novelty")])
def test_bugs_keep_their_traceback(stub, error):
    stub.error = error
    with pytest.raises(type(error)):
        main(["x"])


@pytest.mark.parametrize(("dtype", "advised"), [(torch.float16, True), (torch.float32, False),
                                                (torch.bfloat16, False)])
def test_float32_is_advised_to_float16_alone(stub, refused, dtype, advised):
    stub.to(dtype).error = FloatingPointError("the latents stopped being finite at step 3 of 25")
    line = refused("x", status=1)
    assert line.startswith("the latents stopped") and ("--dtype float32" in line) == advised


@pytest.mark.parametrize(("argv", "needed"), [
    (["-H", "8192", "-W", "8192"], "21.1"), (["--num-images", "100000", "--scale", "1"], "43.3")])
def test_a_run_beyond_the_memory_is_refused_before_it_starts(stub, refused, monkeypatch, argv,
                                                            needed):
    monkeypatch.setattr(memory, "free_memory", lambda: 5 * 10 ** 9)
    monkeypatch.setattr(type(stub), "device", torch.device("cpu"))
    assert refused("x", *argv, status=1) == (
        f"this run needs at least {needed} GB of memory, and 5.0 GB are free: {memory.ADVICE}")
    assert main(["x"]) == 0
    monkeypatch.setattr(memory, "free_memory", lambda: None)            # nobody tells
    assert main(["x", "-H", "8192", "-W", "64"]) == 0


# Nothing painted is lost

@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids=str)
def test_pictures_are_written_where_there_is_no_terminal(stub, monkeypatch, names):
    """As in services, and under pythonw."""
    for name in names:
        monkeypatch.setattr(sys, name, None)
    stub.before_painting = lambda: minisd.tokenizer.warn("never saw 'zebra'")
    assert main(["x", "-o", "a.png", "--num-images", "3"]) == 0
    assert sorted(os.listdir()) == ["a-1.png", "a-2.png", "a-3.png"]


@pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
@pytest.mark.parametrize("redirection", ["| head -1", ">&- 2>&-"])
def test_streams_as_a_shell_closes_them(tmp_path, redirection):
    command = '"$0" -m minisd "a car" --steps 1 -H 8 -W 8 -o a.png --num-images 3 '
    done = subprocess.run(["sh", "-c", command + redirection, sys.executable], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120)
    assert sorted(os.listdir(tmp_path)) == ["a-1.png", "a-2.png", "a-3.png"]
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout in ("a-1.png\n", "")


@pytest.mark.parametrize("what", ["out.png", "steps/000.png", "out-snapshots.png", "t.st"])
def test_a_full_disk_is_one_line_with_the_file_s_name(place, refused, monkeypatch, capsys, what):
    save = png.save_png

    def full(image, path, *args, **options):
        if str(path) == what:
            monkeypatch.setattr(os, "fsync", no_space)
        return save(image, path, *args, **options)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(png, "save_png", full)
    if what == "t.st":
        saved = trace.Trace.save
        monkeypatch.setattr(trace.Trace, "save", lambda *given: (
            monkeypatch.setattr(os, "fsync", no_space), saved(*given)))
    assert main(["x", "--steps", "5", "-H", "8", "-W", "8", "-o", "out.png", "--snapshots",
                 "--trace", "t.st", "--steps-dir", "steps"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("minisd: error: ") and what in line and "No space left" in line
    assert not Path(what).exists() and not list(Path().rglob(".minisd-*"))


# Interrupted

def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["before_painting", "during_painting", "saving"])
def test_ctrl_c(stub, capsys, monkeypatch, moment):
    if moment == "saving":
        monkeypatch.setattr(os, "fsync", interrupt)
    else:
        setattr(stub, moment, interrupt)
    assert main(["x", "-o", "out.png"]) == 130
    out, err = capsys.readouterr()
    lines = [line for line in re.split("[\r\n]", err) if line.strip() and "step/s" not in line
             and "?step" not in line]
    assert lines == ["minisd: interrupted"] and out == ""
    assert os.listdir() == []
