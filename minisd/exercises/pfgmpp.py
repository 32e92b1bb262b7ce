"""Exercises on PFGM++: the weights of its kernel.

Points are rows, x (b, N) and data (m, N).
"""

import torch
from torch import Tensor

from minisd.exercises.checking import Check, drawn


def shares(x: Tensor, data: Tensor, r: float, power: float, dim: int = 1) -> Tensor:
    """1 / (|x - y|^2 + r^2)^power for every x and y, made to add up to 1 along a dimension."""
    return (-power * (torch.cdist(x, data).square() + r ** 2).log()).softmax(dim)


check_kernel_weights = Check(
    "my_weights(x, data, sigma, D)", "returns how much each data point weighs at each x, (b, m): "
    "1 / (|x - y|**2 + r**2)**((N + D) / 2) with r = sigma sqrt(D), rows adding up to 1",
    right=lambda x, y, s, D: shares(x, y, s * D ** 0.5, (x.shape[1] + D) / 2),
    cases=[(drawn(1, 4, 3), drawn(2, 6, 3), 0.7, 5), (drawn(3, 4, 2), drawn(4, 6, 2), 1.3, 1)],
    praise="These weights times the data are the exact denoiser.",
    mistakes={
        "r is sigma sqrt(D): without the root, sigma means another level for each D.":
            lambda x, y, s, D: shares(x, y, s, (x.shape[1] + D) / 2),
        "The power is half of N + D, for |x - y|**2 + r**2 is a square already.":
            lambda x, y, s, D: shares(x, y, s * D ** 0.5, x.shape[1] + D),
        "The weights of one x over all data points add up to 1.":
            lambda x, y, s, D: shares(x, y, s * D ** 0.5, (x.shape[1] + D) / 2, dim=0)},
    hints=("a distance for every pair, (b, m); a power of it; then every row divided by its sum.",
           "torch.cdist(x, data).square() + sigma**2 * D, and N is x.shape[1]."),
    solution="""\
        squares = torch.cdist(x, data).square() + `sigma ** 2 * D`
        weights = squares ** (-(`x.shape[1] + D`) / 2)
        return weights / weights.sum(`1`, keepdim=True)""")
