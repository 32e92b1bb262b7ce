"""Counted answers: how often something is right, how surely that is known, and tables of both."""

import math
from collections.abc import Iterable, Sequence
from typing import TypedDict

Z_95 = 1.959964                 # a standard normal lies within +-1.96 in 95 % of all cases


class Rate(TypedDict):
    """Right answers among all, and the 95 % confidence interval of their share."""

    right: int
    of: int
    share: float
    low: float
    high: float


def wilson_interval(right: int, of: int, z: float = Z_95) -> tuple[float, float]:
    """Where the true share lies (Wilson 1927): sensible near 0 and 1, and where `of` is small.

    The shares p with |right / of - p| <= z sqrt(p (1 - p) / of), solved for p; all of them, (0, 1),
    where nothing was counted.
    """
    if of == 0:
        return 0.0, 1.0
    share, shrink = right / of, 1 + z ** 2 / of
    centre = (share + z ** 2 / (2 * of)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / of + z ** 2 / (4 * of ** 2))
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return (0.0 if right == 0 else centre - half), (1.0 if right == of else centre + half)


def rate(answers: Iterable[bool | None]) -> Rate:
    """The rate of right answers; None is no answer and does not count."""
    counted = [answer for answer in answers if answer is not None]
    right, of = sum(counted), len(counted)
    low, high = wilson_interval(right, of)
    return Rate(right=right, of=of, share=right / max(of, 1), low=low, high=high)


def as_text(r: Rate) -> str:
    """96.2 (94.1-97.6), in percent; "-" where nothing was counted."""
    if r["of"] == 0:
        return "-"
    return f"{100 * r['share']:.1f} ({100 * r['low']:.1f}-{100 * r['high']:.1f})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(
        cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines)
