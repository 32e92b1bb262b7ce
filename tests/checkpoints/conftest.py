"""What these tests share: one small model of v1's topology, and its words."""

import json
from pathlib import Path

import pytest
import v1_files
from torch import Tensor

from minisd.pipeline import StableDiffusion
from minisd.tokenizer import END, START


@pytest.fixture(scope="session")
def v1sd() -> StableDiffusion:
    """v1's topology in small, in float16's numbers, so that half-precision files hold the same."""
    return v1_files.small().half().float()


@pytest.fixture(scope="session")
def tensors(v1sd) -> dict[str, Tensor]:
    """The same under CompVis's names. Not to be changed."""
    return v1_files.compvis(v1sd)


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> Path:
    """A tokenizer/ of the small model: 99 tokens, as its text encoder knows."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokens = [*map(str, range(v1_files.SMALL.text.vocab_size - 2)), START, END]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
