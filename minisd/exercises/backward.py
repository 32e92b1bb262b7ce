"""Exercises on backward diffusion: when snapshots are taken, and a map of runs."""

import torch

from minisd.exercises.checking import Check, drawn
from minisd.observe.pca import principal_plane
from minisd.observe.trace import snapshot_marks

CLOUD = drawn(9, 11, 5) * torch.tensor([3, 0.5, 2, 0.2, 1]) + torch.tensor([2, -6, 0.5, 4, 1])

check_snapshot_marks = Check(
    "my_marks(steps, ratio)", "returns the steps done at 0, ratio, 2 ratio, ... and 100 %",
    right=snapshot_marks, cases=[(50, 0.25), (10, 0.3), (100, 0.29), (40, 0.1)],
    mistakes={
        "Float dust: 0.29 * 100 is 28.999999999999996. Add a little, 1e-9, before you round.":
            ("steps + 1e-9", "steps"),
        "An end is missing: 0 is the starting noise, and 100 % belongs to the list for any ratio.":
            [("sorted({*marks, steps})", "marks"), ("steps})", "steps})[1:]")]},
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
            (" - points.mean(0)", ""),
        "U alone has lost the distances: multiply it by S, or project the points on the axes.":
            "return torch.linalg.svd(centred, full_matrices=False).U[:, :2]"},
    hints=("the axes belong to the cloud: where is its middle?",
           "subtract the mean point; the first two rows of Vh, from torch.linalg.svd, are axes."),
    solution="""\
        centred = points - `points.mean(0)`
        return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[`:2`].T""")
