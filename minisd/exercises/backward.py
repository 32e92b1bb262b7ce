"""Exercises on backward diffusion: when snapshots are taken, and a map of runs."""

import torch
from torch import Tensor

from minisd.exercises.checking import Check, drawn
from minisd.observe.pca import principal_plane
from minisd.observe.trace import snapshot_marks

CLOUD = drawn(9, 11, 5) * torch.tensor([3, 0.5, 2, 0.2, 1]) + torch.tensor([2, -6, 0.5, 4, 1])


def marks(n: int, r: float, dust: float = 1e-9) -> list[int]:
    return [int(i * r * n + dust) for i in range(int(1 / r + 1e-9) + 1)]


def axes(points: Tensor) -> Tensor:
    return torch.linalg.svd(points, full_matrices=False)[2][:2].T


check_snapshot_marks = Check(
    "my_marks(steps, ratio)", "returns the steps done at 0, ratio, 2 ratio, ... and 100 %",
    right=snapshot_marks, cases=[(50, 0.25), (10, 0.3), (100, 0.29), (40, 0.1)],
    mistakes={
        "Float dust: 0.29 * 100 is 28.999999999999996. Add a little, 1e-9, before you round.":
            lambda n, r: sorted({*marks(n, r, dust=0), n}),
        "An end is missing: 0 is the starting noise, and 100 % belongs to the list for any ratio.":
            (marks, lambda n, r: snapshot_marks(n, r)[1:])},
    hints=("multiply shares of the run by the number of steps.",
           "0, ratio, 2 ratio, ... times steps, rounded down; and steps itself at the end."),
    solution="""\
        marks = [int(i * ratio * steps + `1e-9`) for i in range(int(1 / ratio + 1e-9) + 1)]
        return sorted({*marks, `steps`})""")

check_pca = Check(
    "my_map(points)", "returns points (n, d) on their two principal axes, (n, 2)",
    right=lambda p: principal_plane(p).project(p), cases=[(CLOUD,), (CLOUD[:7] * 2,)],
    view=abs,                   # axes may point either way
    mistakes={
        "The points are not centred: subtract points.mean(0) before the svd, and for the map too.":
            lambda p: p @ axes(p),
        "U alone has lost the distances: multiply it by S, or project the points on the axes.":
            lambda p: torch.linalg.svd(p - p.mean(0), full_matrices=False)[0][:, :2]},
    hints=("the axes belong to the cloud: where is its middle?",
           "subtract the mean point; the first two rows of Vh, from torch.linalg.svd, are axes."),
    solution="""\
        centred = points - `points.mean(0)`
        return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[`:2`].T""")
