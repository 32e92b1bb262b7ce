"""CLIP's text transformer: parity with transformers, who sees whom, error texts."""

from functools import partial

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, moved_by_eps, relative_error, scramble
from torch import Tensor

from minisd.clip import CLIPTextTransformer
from minisd.config import Config, TextConfig


def prompts(config: TextConfig) -> Tensor:
    """Four prompts as the tokenizer pads them: start, words, end, end, ... (4, max_length)."""
    start, end = config.vocab_size - 2, config.vocab_size - 1
    ids = torch.full((4, config.max_length), end)
    for row, words in zip(ids, (0, 1, 5, config.max_length - 2), strict=True):
        row[0] = start
        row[1:1 + words] = torch.randint(start, (words,))
    return ids


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_like_transformers(tiny: Config, quiet: bool) -> None:
    ours, theirs = CLIPTextTransformer(tiny.text), parity.clip_text(tiny.text)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.TEXT)
    for ids in (prompts(tiny.text), torch.randint(tiny.text.vocab_size, (4, 6))):
        expected = theirs(ids).last_hidden_state
        assert expected.shape == (4, ids.shape[1], tiny.text.width)
        assert relative_error(ours(ids), expected) < TOLERANCE
    if quiet:
        moved = moved_by_eps(ours, partial(ours, ids))
        assert min(moved.values()) > 10 * TOLERANCE, moved


def test_a_token_sees_only_what_came_before(tiny: Config) -> None:
    model = CLIPTextTransformer(tiny.text)
    scramble(model)
    ids = prompts(tiny.text)
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % tiny.text.vocab_size
    before, after = model(ids), model(changed)
    assert relative_error(after[:, :5], before[:, :5]) < TOLERANCE
    assert ((after - before)[:, 5:].norm(dim=-1) > 1e-3).all()


@pytest.mark.parametrize("shape", [(5,), (2, 14), (1, 2, 3)])
def test_token_ids_of_a_wrong_shape_are_refused(tiny: Config, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected token ids \(b, n\), n at most 13, got \(.*\): "
                                         r"encode prompts with the model's tokenizer"):
        CLIPTextTransformer(tiny.text)(torch.zeros(shape, dtype=torch.long))
