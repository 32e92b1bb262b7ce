"""How an exercise is checked: the answer beside the right one, and beside known wrong ones.

    def check_guidance(answer: Callable[..., Tensor] | None) -> Verdict:
        return compare(answer, right=guide, cases=[(uncond, cond, 7.5)], mistakes=[
            Mistake("you wrote (s - 1)", lambda u, c, g: u + (g - 1) * (c - u))],
            hint="start from eps_uncond")

A learner's answer may be anything: nothing yet, a function that raises, one that returns the
wrong shape. A check says so in one sentence and never raises.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4                # relative, of the largest value; learners compute in float32
FEW_LATENTS = 1, 4, 3, 5        # a shape in which every size is another
WIDTH = 96                      # letters in a line; JupyterLab breaks longer ones inside words

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """What a check says; shown by Jupyter, in lines broken between words."""

    right: bool
    message: str

    def __repr__(self) -> str:
        said = f"{'Right.' if self.right else 'Not yet.'} {self.message}"
        return textwrap.fill(said, WIDTH, break_long_words=False, break_on_hyphens=False)

    def __bool__(self) -> bool:
        return self.right


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give, and the hint that names it."""

    hint: str
    answer: Answer


def drawn(seed: int, *shape: int) -> Tensor:
    """Numbers from a standard normal distribution, the same for a seed; a few latents unless told.
    """
    return torch.randn(shape or FEW_LATENTS, generator=torch.Generator().manual_seed(seed))


def compare(answer: Answer | None, *, right: Answer, cases: Sequence[tuple[Any, ...]], hint: str,
            mistakes: Sequence[Mistake] = (), praise: str = "It agrees with the package.",
            tolerance: float = TOLERANCE) -> Verdict:
    """Whether `answer` gives what `right` gives in every case.

    hint: for an answer that is not there yet. mistakes: the first that the answer agrees with in
    every case is named. Cases must tell each mistake from the right answer.
    """
    if answer is None:
        return Verdict(False, f"There is no answer yet. Hint: {hint}")
    expected = [right(*case) for case in cases]
    try:
        found = [answer(*case) for case in cases]
    except NotImplementedError:
        return Verdict(False, f"There is no answer yet. Hint: {hint}")
    except Exception as error:          # whatever a learner's code does, the lesson goes on
        return Verdict(False, f"Your function raises {type(error).__name__}: {error}")
    if all(value is None or value is Ellipsis for value in found):
        return Verdict(False, f"There is no answer yet. Hint: {hint}")
    if all(agree(a, b, tolerance) for a, b in zip(found, expected, strict=True)):
        return Verdict(True, praise)
    for mistake in mistakes:
        wrong = [mistake.answer(*case) for case in cases]
        if all(agree(a, b, tolerance) for a, b in zip(found, wrong, strict=True)):
            return Verdict(False, mistake.hint)
    return Verdict(False, difference(found, expected, tolerance))


def agree(found: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    """Equal, or for numbers and tensors of one shape, within the tolerance everywhere."""
    a, b = as_tensor(found), as_tensor(expected)
    if a is None or b is None:
        return type(found) is type(expected) and bool(found == expected)
    if a.shape != b.shape or not a.isfinite().all():
        return False
    if not a.numel():                           # an empty list is as good as another
        return True
    return bool((a - b).abs().max() <= tolerance * max(1e-12, float(b.abs().max())))


def as_tensor(value: Any) -> Tensor | None:
    """Numbers, tensors, arrays and nested lists of numbers, in float64; None for all else."""
    if value is None or isinstance(value, str):
        return None
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def difference(found: Sequence[Any], expected: Sequence[Any], tolerance: float) -> str:
    """The first case that differs, in words."""
    a, b = next((a, b) for a, b in zip(found, expected, strict=True)
                if not agree(a, b, tolerance))
    x, y = as_tensor(a), as_tensor(b)
    if x is None or y is None:
        return f"Your answer is {a!r}, expected {type(b).__name__}." if y is not None else (
            f"Your answer is {a!r}, expected {b!r}.")
    if x.shape != y.shape:
        return f"Your answer has shape {tuple(x.shape)}, expected {tuple(y.shape)}."
    if not x.isfinite().all():
        return "Your answer holds values that are not finite: is something divided by zero?"
    return (f"The shape is right, but values differ by up to {float((x - y).abs().max()):.3g}, "
            f"and the largest is {float(y.abs().max()):.3g}.")
