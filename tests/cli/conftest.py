"""What the tests of the command line share: models that answer at once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import minisd
from minisd.cli.main import main
from minisd.config import TOYWORLD
from minisd.pipeline import StableDiffusion
from minisd.settings import plan


class Stub(StableDiffusion):
    """Stands in for a model: takes the same settings, paints flat pictures at once."""

    def __init__(self) -> None:
        with torch.device("meta"):
            super().__init__(TOYWORLD)
        self.to(torch.bfloat16).weights = "toyworld"
        self.run = None
        self.loaded = {}
        self.error = None
        self.before_painting = self.during_painting = lambda: None

    def load(self, model="auto", *, device="auto", dtype="auto"):
        self.loaded = {"model": model, "device": device, "dtype": dtype}
        return self

    def text_to_image(self, prompt, **settings):
        self.run = run = plan(self.config, prompt, settings)
        self.before_painting()
        if self.error is not None:
            raise self.error
        for index in range(run.steps_to_run):
            run.on_step(SimpleNamespace(index=index, total=run.steps_to_run))
        self.during_painting()
        return [Image.new("RGB", (run.width or 128, run.height or 128), (10 * i, 0, 0))
                for i in range(len(run.prompts))]


@pytest.fixture
def stub(monkeypatch, tmp_path) -> Stub:
    """A model that answers at once, in an empty working directory."""
    stub = Stub()
    monkeypatch.setattr(minisd, "load", stub.load)
    monkeypatch.chdir(tmp_path)
    return stub


@pytest.fixture(scope="session")
def shipped() -> StableDiffusion:
    return minisd.load("toyworld", device="cpu", dtype="float32")


@pytest.fixture
def place(shipped, monkeypatch, tmp_path) -> Path:
    """An empty working directory, where the model that ships is loaded already."""
    monkeypatch.setattr(minisd, "load", lambda model="auto", *, device="auto", dtype="auto":
                        shipped)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photo(tmp_path) -> str:
    ramp = np.arange(64, dtype=np.uint8) * 4
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 99), -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return "photo.png"


@pytest.fixture
def mask(tmp_path) -> str:
    """White on the left half."""
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, :32] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return "mask.png"


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Runs the command line, and returns the one line that its refusal leaves."""
    def run(*argv: str, status: int = 2) -> str:
        capsys.readouterr()
        assert main([*argv]) == status
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("minisd: error: ") and len(err.splitlines()) == 1, err
        assert err.endswith("\n")
        return err.removeprefix("minisd: error: ").rstrip("\n")
    return run
