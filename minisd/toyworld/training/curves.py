"""The curves of a training, thinned to what a figure shows: `losses.json` beside the weights.

Of each part: how many samples a step looked at, the seconds it took in all, and for each of up to
`POINTS` windows of steps the last step and the mean of every metric.
"""

import csv
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from minisd.observe.files import written_whole
from minisd.toyworld.training.recipe import Part, Recipe

POINTS = 120                    # of a curve; a figure has few more columns of pixels
SPEED = "images_per_second"     # shown as seconds in all instead
FILE = "losses.json"

Curves = dict[str, Any]


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a `loop.Fit`'s CSV, each (n,); {} before the first step.

    A resumed training repeats steps, to the same numbers: each counts once.
    """
    rows: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        names, *lines = [*csv.reader(file)] or [[]]
    for line in lines:
        with suppress(ValueError):              # a line that a kill cut short
            rows[line[0]] = [float(value) for _, value in zip(names, line, strict=True)]
    return dict(zip(names, np.array(list(rows.values())).T, strict=True)) if rows else {}


def thinned(metrics: Mapping[str, np.ndarray], part: Part, points: int = POINTS) -> Curves:
    """The curves of one part that has begun."""
    steps, samples = metrics["step"], part.batch * part.accumulate
    windows = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    return {"samples_per_step": samples, "seconds": round((samples / metrics[SPEED]).sum()),
            "step": [int(steps[window[-1]]) for window in windows],
            **{name: [float(f"{values[window].mean():.4g}") for window in windows]
               for name, values in metrics.items() if name not in ("step", SPEED)}}


def export(folder: Path, recipe: Recipe, target: Path) -> None:
    """Write the curves of a folder; parts that were trained elsewhere keep those they had."""
    path = target / FILE
    curves = read(path) if path.exists() else {}
    for name, part in vars(recipe).items():
        logged = folder / f"{name}.csv"
        if isinstance(part, Part) and logged.exists() and (metrics := read_metrics(logged)):
            curves[name] = thinned(metrics, part)
    with written_whole(path) as file:
        file.write_text(json.dumps(curves) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Curves]:
    return json.loads(path.read_text(encoding="utf-8"))
