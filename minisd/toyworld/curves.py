"""The curves of a training, thinned to what a figure shows: `losses.json` beside the weights.

Of each part: how many samples a step looked at, the seconds it took in all, and for each of up to
`POINTS` windows of steps the last step and the mean of every metric.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minisd.observe.files import written_whole
from minisd.toyworld.recipe import Part, Recipe

POINTS = 120                    # of a curve; a figure has few more columns of pixels
SPEED = "images_per_second"     # told as seconds in all instead
FILE = "losses.json"
PARTS = ("vae", "decoder", "clip", "clip_words", "clip_foils", "unet_small", "unet",
         "judge")               # in the order of training
EARLIER = ("first ", "second ")      # before a part's name: an earlier training, gone on from

Curves = dict[str, Any]


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a `loop.Fit`'s CSV, each (n,), as they count in the end.

    A resumed training repeats steps: what follows replaces every later row. Lines that a kill cut
    short are skipped.
    """
    kept: list[list[float]] = []
    with path.open(newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        for line in lines:
            try:
                row = [float(value) for value in line]
            except ValueError:
                continue
            if len(row) != len(header):
                continue
            while kept and kept[-1][0] >= row[0]:
                kept.pop()
            kept.append(row)
    columns = np.array(kept).reshape(len(kept), len(header)).T
    return dict(zip(header, columns, strict=True))


def thinned(metrics: Mapping[str, np.ndarray], part: Part, points: int = POINTS) -> Curves:
    """The curves of one part. Raises ValueError where there are none."""
    steps = metrics.get("step", np.empty(0))
    if not len(steps):
        raise ValueError("no steps to thin: expected the columns of a training that has begun")
    samples = part.batch * part.accumulate
    windows = np.array_split(np.arange(len(steps)), min(points, len(steps)))
    seconds = float((samples / metrics[SPEED]).sum()) if SPEED in metrics else None
    return {"samples_per_step": samples, "seconds": seconds and round(seconds),
            "step": [int(steps[window[-1]]) for window in windows],
            **{name: [float(f"{values[window].mean():.4g}") for window in windows]
               for name, values in metrics.items() if name not in ("step", SPEED)}}


def collect(folder: Path, recipe: Recipe) -> dict[str, Curves]:
    """The thinned curves of every part that was trained in a folder."""
    found = {name: read_metrics(folder / f"{name}.csv") for name in PARTS
             if (folder / f"{name}.csv").exists()}
    return {name: thinned(metrics, getattr(recipe, name)) for name, metrics in found.items()
            if len(metrics.get("step", ()))}


def write(path: Path, curves: Mapping[str, Curves]) -> None:
    """Write them whole or not at all, a line for each curve."""
    lines = [f"  {json.dumps(name)}: {{\n" + ",\n".join(
        f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in part.items()) + "\n  }"
        for name, part in curves.items()]
    with written_whole(path) as part_file:
        part_file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(path: Path) -> dict[str, Curves]:
    """What `write` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
