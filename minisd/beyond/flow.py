"""Flow matching and rectified flow: a straight line from data to noise, and the field along it.

Lipman et al. 2023 and Liu et al. 2023; Stable Diffusion 3 (Esser et al. 2024) is trained so. On the
line z_t = (1 - t) x0 + t noise a point moves with the constant velocity noise - x0. A network that
predicts it with the least squared error knows the mean velocity at every z and t; its paths carry
noise to data, though they are not the lines it was trained on: where lines cross, paths must not.

t runs from 0, data, to 1, noise; sigma = t / (1 - t) leads to `denoising.predict_flow`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minisd.beyond.denoising import column

Velocity = Callable[[Tensor, Tensor], Tensor]       # z (b, ...) and t (b,) -> noise - x0


def interpolate(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t on the line from x0 to noise, both (b, ...), at t (b,)."""
    t = column(t, x0)
    return (1 - t) * x0 + t * noise


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """(count,) in (0, 1): the sigmoid of a standard normal number (Esser et al. 2024, eq. 19).

    Times in the middle come more often, for there the velocity is hardest to predict.
    """
    return torch.randn(count, generator=generator).sigmoid()


def flow_loss(velocity: Velocity, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The mean squared error of the predicted velocity (Lipman et al. 2023, eq. 23)."""
    return (velocity(interpolate(x0, noise, t), t) - (noise - x0)).square().mean()


@torch.no_grad()
def euler(velocity: Velocity, noise: Tensor, steps: int) -> Iterator[Tensor]:
    """noise (b, ...), then where it is after each of `steps` equal steps from t = 1 to 0."""
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    z = noise
    yield z
    for i in range(steps, 0, -1):
        z = z - velocity(z, z.new_full((len(z),), i / steps)) / steps
        yield z


def straightness(path: Tensor) -> Tensor:
    """How far paths (steps + 1, b, ...) at equal times are from straight lines (Liu et al. 2023).

    The mean over a path of |velocity - its mean velocity|^2, (b,); 0: one step is enough.
    """
    if len(path) < 2:
        raise ValueError("a path has two points or more")
    velocities = path.diff(dim=0) * (len(path) - 1)
    return (velocities - velocities.mean(0)).square().flatten(2).sum(2).mean(0)
