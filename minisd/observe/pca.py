"""Principal components: the plane in which a cloud of points is spread most (Pearson 1901)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plane:
    """A centre and axes at right angles to each other, the one with most variance first."""

    centre: Tensor              # (d,)
    axes: Tensor                # (k, d), each of length 1
    shares: Tensor              # (k,), of all variance, each from 0 to 1

    def project(self, points: Tensor) -> Tensor:
        """Points (n, d) -> their coordinates (n, k) on the axes, in the points' own unit."""
        return (points - self.centre) @ self.axes.T


def principal_plane(points: Tensor, count: int = 2) -> Plane:
    """The `count` axes along which points (n, d) vary most, by singular value decomposition.

    An axis may point either way; here its largest number is positive, so that the same points
    always give the same map. Raises ValueError for fewer points than axes, or points all alike.
    """
    if points.ndim != 2 or min(points.shape) < count:
        raise ValueError(f"expected points (n, d), with n and d at least {count}, got "
                         f"{tuple(points.shape)}: give one row per point")
    centre = points.mean(0)
    _, sizes, axes = torch.linalg.svd(points - centre, full_matrices=False)
    if not sizes[0] > 0:
        raise ValueError(f"all {len(points)} points are alike: there is nothing to lay a plane "
                         f"through")
    axes = axes[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))                # k 1
    return Plane(centre, axes * largest.sign(), (sizes.square() / sizes.square().sum())[:count])
