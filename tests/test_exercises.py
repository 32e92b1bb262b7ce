"""What every check of an exercise does with an answer that is none, whatever it asks for."""

import pytest
import torch

from minisd import exercises

CHECKS = [getattr(exercises, name) for name in exercises.__all__ if name.startswith("check_")]
# Checks whose right answer is a tensor or a number, or is taken for one; the others want lists.
SHAPED = {
    (2, 7): ["best_guidance", "carbon", "ema", "frechet", "info_nce", "interval", "kl",
             "noise_loss", "samples_seen"],
    (2, 2): ["add_noise", "causal_attention", "cosine", "loss", "negative_prompt",
             "posterior_sample", "predict_x0", "predictions", "psnr", "quick_gelu", "snr", "to_z"],
    (2, 3, 2): ["blend", "pca", "snapshot_marks", "steps_run"]}


def raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("answer", [None, lambda *_: None, lambda *_: ..., raises])
def test_what_is_not_answered_gets_a_hint(check, answer) -> None:
    verdict = check(answer)
    assert not verdict and verdict.message.startswith("There is no answer yet. Hint: ")


@pytest.mark.parametrize(("name", "shape"), [
    (name, shape) for shape, names in SHAPED.items() for name in names])
def test_a_wrong_shape_is_called_so(name: str, shape: tuple[int, ...]) -> None:
    verdict = getattr(exercises, f"check_{name}")(lambda *_: torch.zeros(*shape))
    assert not verdict and f"shape {shape}" in verdict.message


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("answer", "error"), [
    (lambda *_: [][0], "IndexError"), (lambda *_: 1 / 0, "ZeroDivisionError")])
def test_an_error_is_shown_and_not_raised(check, answer, error: str) -> None:
    verdict = check(answer)
    assert not verdict and error in verdict.message
