"""The curves of a training, thinned to what a figure shows: `losses.json` beside the weights.

Of each part: how many samples a step looked at, the seconds it took in all, and for each of up to
`POINTS` windows of steps the last step and the mean of every metric.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minisd.observe.files import written_whole
from minisd.toyworld.training import clip, unet, vae
from minisd.toyworld.training.recipe import Part, Recipe

POINTS = 120                    # of a curve; a figure has few more columns of pixels
SPEED = "images_per_second"     # shown as seconds in all instead
FILE = "losses.json"
PARTS = (*vae.STAGES, *clip.STAGES, *unet.STAGES, "judge")      # in the order of training

Curves = dict[str, Any]


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a `loop.Fit`'s CSV, each (n,), without lines that a kill cut short.

    A resumed training repeats steps: what follows replaces every later row.
    """
    lines = path.read_text(encoding="utf-8").splitlines() or [""]
    header = lines[0].split(",")
    rows = [row for row in map(_numbers, lines) if len(row) == len(header)]
    table = np.array(rows).reshape(-1, len(header))
    later = np.minimum.accumulate(table[::-1, 0])[::-1]         # the lowest step from each row on
    return dict(zip(header, table[table[:, 0] < np.append(later[1:], np.inf)[:len(table)]].T,
                    strict=True))


def _numbers(line: str) -> list[float]:
    """Those of a line; none where anything else stands in it."""
    try:
        return [float(value) for value in line.split(",")]
    except ValueError:
        return []


def thinned(metrics: Mapping[str, np.ndarray], part: Part, points: int = POINTS) -> Curves:
    """The curves of one part that has begun."""
    steps, samples = metrics["step"], part.batch * part.accumulate
    windows = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    seconds = float((samples / metrics[SPEED]).sum()) if SPEED in metrics else None
    return {"samples_per_step": samples, "seconds": seconds and round(seconds),
            "step": [int(steps[window[-1]]) for window in windows],
            **{name: [float(f"{values[window].mean():.4g}") for window in windows]
               for name, values in metrics.items() if name not in ("step", SPEED)}}


def export(folder: Path, recipe: Recipe, target: Path) -> None:
    """Write the curves of a folder; parts that were trained elsewhere keep those they had."""
    path = target / FILE
    curves = read(path) if path.exists() else {}
    for name in PARTS:
        metrics = read_metrics(folder / f"{name}.csv") if (folder / f"{name}.csv").exists() else {}
        if len(metrics.get("step", ())):
            curves[name] = thinned(metrics, getattr(recipe, name))
    with written_whole(path) as part:
        part.write_text(json.dumps(curves) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Curves]:
    return json.loads(path.read_text(encoding="utf-8"))
