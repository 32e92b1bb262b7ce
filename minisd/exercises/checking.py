"""How an exercise is checked: the answer beside the right one, and beside mistakes people make.

    check_guide = Check(
        "my_guide(eps_uncond, eps_cond, guidance_scale)", "returns the guided eps",
        right=guide, cases=[(drawn(1), drawn(2), 7.5)],
        mistakes={"You wrote (guidance_scale - 1).": ("guidance_scale", "(guidance_scale - 1)")},
        hints=("a first nudge", "the idea"),
        solution="return eps_uncond + `guidance_scale` * (`eps_cond` - eps_uncond)")

A mistake is the solution with a slip in it: other words in the place of some, or another last line.
`check_guide(my_guide)` says what to do where nothing is written yet. It says what is wrong with a
wrong answer, and gives each new one the next hint: the nudge, the idea, the solution with gaps at
the backticks, and last the solution. It raises only while MINISD_GRADING is set, for nbgrader.
"""

import copy
import itertools
import math
import os
import re
import reprlib
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-4                # relative, of the largest value; learners compute in float32
WIDTH = 96                      # letters in a line; JupyterLab breaks longer ones inside words
EMPTY = (lambda: None).__code__     # of a function that does nothing, as the body `...` does
SIZES = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)")

Answer = Callable[..., Any]
Slip = tuple[str, str] | str    # words of the solution and those in their place, or its last line


@dataclass(frozen=True)
class Verdict:
    """What a check says; shown by Jupyter, in lines broken between words."""

    right: bool
    message: str

    def __post_init__(self) -> None:
        if not self.right and os.environ.get("MINISD_GRADING", "0") not in ("", "0"):
            raise AssertionError(str(self))

    def __repr__(self) -> str:
        return "\n".join(textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
                         for line in self.message.split("\n"))

    def __bool__(self) -> bool:
        return self.right


@dataclass
class Check:
    """One exercise. Cases must tell each mistake from the right answer."""

    call: str                   # the function to write
    task: str                   # what it returns
    cases: Sequence[tuple[Any, ...]]
    mistakes: Mapping[str, Slip | list[Slip]]   # a sentence -> the slips that it names
    hints: tuple[str, str]
    solution: str               # the function's body
    right: Answer | None = None     # the package's function; None: there is only the solution
    praise: str = "It agrees with the package."
    tolerance: float = TOLERANCE
    view: Answer = lambda value: value      # what of a tensor counts, where several are right
    tries: int = field(default=0, init=False)               # different wrong answers so far
    last: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.name = self.call.partition("(")[0]
        self.__doc__ = f"{self.call} {self.task}."

    def __call__(self, answer: Answer | None) -> Verdict:
        """Whether `answer` gives the right value in every case, and if not, what may help."""
        fault = self._fault(answer)
        if fault is None:
            return Verdict(True, f"Right. {self.praise}")
        if not fault:
            return Verdict(False, f"Not yet. Write it: {self.__doc__}")
        if answer is not self.last:             # the same answer again is no further try
            self.tries, self.last = self.tries + 1, answer
        if self.tries > 3:
            return Verdict(False, f"Not yet. {fault}\nThe answer:\n{self.answer()}")
        hint = (*self.hints, f"fill the gaps.\n{self.answer(gap='___')}")[self.tries - 1]
        return Verdict(False, f"Not yet. {fault}\nHint {self.tries} of 3: {hint}")

    def answer(self, gap: str = r"\1", slip: Slip = ("", "")) -> str:
        """The solution as a function to run, with `gap` for what stands between backticks."""
        body = re.sub("`(.*?)`", gap, textwrap.dedent(self.solution))
        if isinstance(slip, str):
            body = "\n".join([*body.split("\n")[:-1], slip])
        else:
            assert slip[0] in body, f"{self.name}: {slip[0]!r} is not in the solution"
            body = body.replace(*slip)
        return f"def {self.call}:\n" + textwrap.indent(body, " " * 4)

    def function(self, slip: Slip = ("", "")) -> Answer:
        """The solution, or a mistaken one."""
        names = {"F": F, "itertools": itertools, "math": math, "torch": torch}
        exec(self.answer(slip=slip), names)
        return names[self.name]         # type: ignore[return-value]

    def _fault(self, answer: Any) -> str | None:
        """None: it is right; nothing: it is not begun; else what is wrong, in a sentence."""
        if answer is None or answer is Ellipsis:
            return ""
        if not callable(answer):
            return f"Hand over the function itself, {self.name}, without brackets."
        found, right = self._values(answer), self._values(self.right or self.function())
        if all(map(self._agree, found, right)):
            return None
        for sentence, slips in self.mistakes.items():
            for slip in slips if isinstance(slips, list) else [slips]:
                if all(map(self._agree, found, self._values(self.function(slip)))):
                    return sentence
        if all(value is None or value is Ellipsis or isinstance(value, Raised)
               and value.kind == "NotImplementedError" for value in found):
            forgotten = len(getattr(answer, "__code__", EMPTY).co_code) > len(EMPTY.co_code)
            return "Your function returns nothing: add a `return`." if (
                forgotten and found[0] is None) else ""
        if not all(map(self._agree, found, self._values(answer, seed=1))):
            return ("Called twice with the same arguments, your function gives two results: it "
                    "draws random numbers of its own. Use those that it is handed.")
        return next(difference(f"{self.name}({', '.join(map(reprlib.repr, case))})", a, b)
                    for case, a, b in zip(self.cases, found, right, strict=True)
                    if not self._agree(a, b))

    def _values(self, function: Answer, seed: int = 0) -> list[Any]:
        """What a function gives in each case, or how it fails; nothing outside it changes."""
        values = []
        for case in self.cases:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                try:
                    values.append(plain(function(*copy.deepcopy(case))))
                except Exception as error:      # whatever a learner's code does, the lesson goes on
                    values.append(Raised.by(error, function))
        return values

    def _agree(self, found: Any, expected: Any) -> bool:
        """Equal, or for numbers and tensors of one shape, within the tolerance everywhere."""
        a, b = as_tensor(found), as_tensor(expected)
        if a is None or b is None:
            with suppress(Exception):           # of arrays that stand in lists
                return type(found) is type(expected) and bool(found == expected)
            return False
        finite = b.isfinite()
        if a.shape != b.shape or not a.isfinite().equal(finite):
            return False
        a, b = self.view(a[finite]), self.view(b[finite])
        return not b.numel() or float((a - b).abs().max()) <= self.tolerance * float(b.abs().max())


@dataclass
class Words:
    """A question to answer in a sentence of one's own; any will do, and then ours is shown."""

    question: str
    ours: str

    def __call__(self, sentence: str | None) -> Verdict:
        """sentence: five different words, or where a script has no spaces twelve letters."""
        text = sentence if isinstance(sentence, str) else ""
        if len(set(text.split())) < 5 and (text.isascii() or len(set(text)) < 12):
            return Verdict(False, f"Not yet. Write a whole sentence, in quotes: {self.question}")
        return Verdict(True, f"Thank you. Compare it with ours: {self.ours}")


@dataclass(frozen=True)
class Raised:
    """An exception in the place of a value; two are alike where kind and text are."""

    kind: str
    text: str
    line: str = field(compare=False)        # of the learner's cell, the last one on its way

    @classmethod
    def by(cls, error: Exception, answer: Answer) -> "Raised":
        file = getattr(getattr(answer, "__code__", None), "co_filename", None)
        at = [x for x in traceback.extract_tb(error.__traceback__) if x.filename == file]
        line = f"Line {at[-1].lineno}" if at else "Your function"
        line += f", `{at[-1].line}`," if at and at[-1].line else ""
        return cls(type(error).__name__, str(error).partition("\n")[0], line)

    def __str__(self) -> str:
        if sizes := SIZES.search(self.text):
            return (f"{self.line} combines tensors whose sizes {sizes[1]} and {sizes[2]} do not "
                    f"match. Does one hold a number for each sample? a[:, None] makes a column "
                    f"(b, 1) of it, which multiplies whole rows.")
        if "cannot be multiplied" in self.text or "batch2" in self.text:
            return (f"{self.line} multiplies matrices whose inner sizes differ: is a transpose "
                    f"missing, .T or .transpose(-1, -2)?")
        return f"{self.line} raises {self.kind}: {self.text}"


def drawn(seed: int, *shape: int) -> Tensor:
    """Numbers from a standard normal distribution, the same for a seed; no two sizes are alike."""
    return torch.randn(shape or (1, 4, 3, 5), generator=torch.Generator().manual_seed(seed))


def plain(value: Any) -> Any:
    """Tuples, ranges and generators are as good as a list; sets are put in order."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple | range | Iterator) else value


def as_tensor(value: Any) -> Tensor | None:
    """Numbers, tensors, arrays and nested lists of numbers, in float64; None for all else."""
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64)
    except Exception:       # of torch, for whatever a learner's function gives
        return None


def difference(call: str, found: Any, expected: Any) -> str:
    """How a value differs from the right one, which is told where it is no tensor."""
    x, y = as_tensor(found), as_tensor(expected)
    if isinstance(found, Raised):
        return str(found)
    if not isinstance(expected, Tensor):
        return f"{call} gives {reprlib.repr(found)}, but {reprlib.repr(expected)} is right."
    if x is None or y is None:
        return f"Your answer is {reprlib.repr(found)}, expected a tensor."
    if x.shape != y.shape:
        asked = " Is a sum or mean taken over too much, or a [:, None] missing?"
        return (f"Your answer has shape {tuple(x.shape)}, expected {tuple(y.shape)}."
                f"{asked if x.ndim < y.ndim else ''}")
    if not x.isfinite().all():
        return "Your answer holds values that are not finite: is something divided by zero?"
    for related, values in (("times", x / y), ("more than", x - y)):
        if y.numel() > 1 and values.std() < 1e-3 * values.mean().abs():
            return f"Your answer is everywhere {float(values.mean()):.3g} {related} the right one."
    return (f"The shape is right, but values differ by up to {float((x - y).abs().max()):.3g}, "
            f"and the largest is {float(y.abs().max()):.3g}.")
