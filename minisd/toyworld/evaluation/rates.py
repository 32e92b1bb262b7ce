"""Counted answers: how often something is right, how surely that is known, and tables of both."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from minisd.observe.tables import aligned

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


def as_text(value: Any) -> str:
    """Of a rate, 96.2 (94.1-97.6), in percent; "-" where nothing was counted. Of a number, it."""
    if not isinstance(value, Mapping):
        return "-" if value is None else f"{value:.4g}"
    if not value["of"]:
        return "-"
    return f"{100 * value['share']:.1f} ({100 * value['low']:.1f}-{100 * value['high']:.1f})"


def table(what: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Named rows with the same keys, of which rates (in percent) and numbers are shown.

    Of rates of several attributes, "all" is shown.
    """
    shown = {name: {key: value.get("all", value) if isinstance(value, Mapping) else value
                    for key, value in row.items()} for name, row in rows.items()}
    keys = [key for key, value in next(iter(shown.values())).items()
            if isinstance(value, int | float) or isinstance(value, Mapping) and "share" in value]
    return aligned([(what, *keys), *((name, *(as_text(row[key]) for key in keys))
                                     for name, row in shown.items())])
