"""One table of what can be wrong with a prompt: what the user has, and what minisd must say.

What can be wrong with a model is in tests/checkpoints/test_load.py. On the command line a refusal
is one line on stderr and exit status 2.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import minisd
from minisd import config
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.places import SHIPPED as TOYWORLD
from minisd.cli import main as cli
from minisd.observe.reading import to_rgb
from minisd.pipeline import StableDiffusion


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """A working directory where nothing may appear."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield tmp_path / "there"
    assert os.listdir(here) == []


# Prompts

@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a small random model that knows toyworld's words."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tokenizer").symlink_to(TOYWORLD / "tokenizer")
    sizes = replace(config.TOYWORLD, name="tiny", image_size=32,
                    vae=replace(config.TOYWORLD.vae, channels=(8, 8, 8, 8)),
                    unet=replace(config.TOYWORLD.unet, channels=(16, 32, 32)))
    checkpoint.write_config(folder, sizes)
    torch.manual_seed(0)
    model = StableDiffusion(sizes)
    for part in checkpoint.PARTS:
        checkpoint.save(model.get_submodule(part), folder / f"{part}.safetensors")
    return folder


SURROGATE = "half of a surrogate pair"
REFUSED: dict[str, tuple[object, type[Exception], str]] = {
    "nothing": (None, TypeError, "prompt must be text, got NoneType: None"),
    "a number": (7, TypeError, "prompt must be text, got int: 7"),
    "bytes": (b"a car", TypeError, "prompt must be text, got bytes: b'a car'"),
    "a lone surrogate": ("a \ud83d car", TypeError, SURROGATE),
    "the other half": ("\ude00", TypeError, SURROGATE),
}
TAKEN: dict[str, tuple[str, str]] = {       # and what is warned of
    "empty": ("", ""), "blank": (" \t\n", ""), "known words": ("a red car", ""),
    "75 tokens": ("car " * 75, ""),
    "76 tokens": ("car " * 75 + "Yellow", "longer than 75 tokens; dropped 6 characters: 'yellow'"),
    "a book": ("car " * 20_000, "longer than 75 tokens; dropped 79,699 characters: 'car c"),
    "emoji": ("a 😀 car 👩\u200d👧", ""), "Chinese": ("一只猫", "tiny never saw '一只猫'"),
    "control characters": ("a\x00red\x1b[0m car", ""),
    "private and last code points": ("\ue000 \U0010ffff", ""),
    "a control token": ("a car <|endoftext|> sea", "are control tokens, not words"),
}


@pytest.fixture(scope="module")
def painter(tiny) -> StableDiffusion:
    return minisd.load(tiny, device="cpu", dtype="float32")


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("argument", ["prompt", "negative_prompt"])
def test_a_prompt_that_is_no_text_is_refused(painter, argument, case) -> None:
    prompt, kind, message = REFUSED[case]
    if (argument, case) == ("negative_prompt", "nothing"):
        return                                          # None stands for the default
    for method in (painter.text_to_image, painter.steps):
        with pytest.raises(kind, match=message):
            list(method(**{"prompt": "a car", "steps": 5, "seed": 0} | {argument: prompt}))


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("case", TAKEN)
def test_any_text_is_a_prompt(painter, tiny, tmp_path, monkeypatch, capsys, case) -> None:
    prompt, warning = TAKEN[case]
    monkeypatch.chdir(tmp_path)
    picture, = painter.text_to_image(prompt, steps=5, seed=42)
    arguments = ["--steps", "5", "-m", str(tiny), "--dtype", "float32", "-o", "x.png"]
    assert cli.main(["--prompt", prompt, *arguments]) == 0
    warned = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "warning" in line]
    assert warning in "".join(warned) and bool(warned) == bool(warning)
    assert to_rgb("x.png").tobytes() == picture.tobytes()


def test_half_a_surrogate_on_the_command_line(tiny, place, capsys) -> None:
    assert cli.main(["a \ud83d car", "-m", str(tiny)]) == 2
    assert cli.main(["a car", "--negative-prompt", "\udcff", "-m", str(tiny)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert r"expected text in UTF-8, got 'a \ud83d car'" in lines[0]
    assert r"--negative-prompt: expected text in UTF-8, got '\udcff'" in lines[1]
    assert json.loads((tiny / "config.json").read_text())["name"] == "tiny"
