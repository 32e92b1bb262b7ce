"""PFGM++ (Xu et al. 2023): data as charges in D more dimensions, from electrostatics to diffusion.

Every data point y in N dimensions is a charge in N + D dimensions, at 0 in the D new ones. Only the
distance r from the data in these enters, and it plays the part of the noise level. The field at
(x, r) is the mean of the directions away from the charges, weighted by

    p_r(x | y)  proportional to  1 / (|x - y|^2 + r^2)^((N + D) / 2)

and paths along it lead to the data. D = 1 is the Poisson field of PFGM (Xu et al. 2022). With
r = sigma sqrt(D) the kernel tends to the Gaussian of diffusion as D grows, so that every setting
of diffusion carries over. Seen from statistics, x - y follows Student's t distribution with D
degrees of freedom and scale sigma: heavy tails for small D, none at infinity.

Dims: b samples, m data points, N numbers in each.
"""

import math

import numpy as np
import torch
from torch import Tensor

from minisd.beyond.denoising import Denoise, column

AT_ONCE = 2 ** 22               # numbers of the differences between x and the data, 32 MB
LARGEST = torch.finfo(torch.float64).max
CLIP = (1e-3, 1 - 1e-3)         # of the Beta variable in training


def exact_denoiser(x: Tensor, data: Tensor, sigma: float, D: float) -> Tensor:
    """The mean of the data given x: each point weighted by the kernel at r = sigma sqrt(D).

    x (b, N), data (m, N), floating; sigma above 0; D from 1 on, or math.inf for the Gaussian
    exp(-|x - y|^2 / (2 sigma^2)). Returns (b, N) in x's dtype; computed in float64.

    Only ratios of weights count. Against the nearest point y_0 the logarithm of a ratio is
    -(N + D) / 2 log1p(q) with q = (|x - y|^2 - |x - y_0|^2) / (|x - y_0|^2 + r^2). Far from the
    data, or for a large D, q is far smaller than 1, and a difference of two squares would leave
    nothing of it; so it is written as the product (y_0 - y)(x - y_0 + x - y).

    Raises ValueError for other shapes, dtypes, numbers, and what is not finite.
    """
    _check(sigma, D)
    if x.ndim != 2 or data.ndim != 2 or x.shape[1] != data.shape[1] or 0 in data.shape:
        raise ValueError(f"x {tuple(x.shape)}, data {tuple(data.shape)}: expected (b, N) and "
                         f"(m, N), with at least one data point")
    if not (x.is_floating_point() and data.is_floating_point()):
        raise ValueError(f"x is {x.dtype}, data is {data.dtype}: expected floating numbers")
    if not (x.isfinite().all() and data.isfinite().all()):
        raise ValueError("x or data holds NaN or infinite numbers")
    parts = x.double().split(max(1, AT_ONCE // data.numel()))
    return torch.cat([_mean(part, data.to(part), sigma, D) for part in parts]).to(x.dtype)


def _mean(x: Tensor, data: Tensor, sigma: float, D: float) -> Tensor:
    away = x[:, None] - data                                                # b m N
    nearest, index = away.norm(dim=-1).min(1)                               # b
    y0 = data[index][:, None]                                               # b 1 N
    r = sigma if math.isinf(D) else sigma * math.sqrt(D)
    unit = torch.hypot(nearest, torch.full_like(nearest, r))[:, None]       # b 1
    sums = x[:, None] - y0 + away                                           # b m N
    growth = ((y0 - data) / unit[..., None] * (sums / unit[..., None])).sum(-1)     # q, b m
    if math.isinf(D):                   # 0 for the nearest point, also where sigma is tiny
        logs = growth * (unit / sigma).square().clamp(max=LARGEST) / 2
    else:
        logs = growth.log1p() * ((x.shape[1] + D) / 2)
    return (-logs).softmax(1) @ data                                        # b N


def exact_ode(data: Tensor, D: float) -> Denoise:
    """The exact denoiser of finite data, as `denoising.solve` takes it."""
    return lambda x, sigma: exact_denoiser(x, data, sigma, D)


# Sampling the kernel

def draw_radius(count: int, N: int, D: float, generator: torch.Generator, *,
                clip: tuple[float, float] | None = None) -> Tensor:
    """|x - y| / sigma of `count` points of the kernel, (count,) float64.

    R = r sqrt(b / (1 - b)), b ~ Beta(N / 2, D / 2), where b / (1 - b) is a quotient of two
    chi-squared numbers, with N and with D degrees of freedom. Written so it loses no digits where b
    is near 1, and D = infinity, where the lower one over D is 1, needs no case of its own.
    clip: bounds of b, where D is finite; training clips to CLIP, sampling does not.
    """
    _check(1.0, D)
    rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=generator)))
    upper = rng.chisquare(N, count)
    lower = np.ones(count) if math.isinf(D) else rng.chisquare(D, count) / D
    squared = upper / lower
    if clip is not None and not math.isinf(D):
        low, high = (D * b / (1 - b) for b in clip)
        squared = squared.clip(low, high)
    return torch.from_numpy(np.sqrt(squared))


def perturb(y: Tensor, sigma: Tensor | float, D: float, generator: torch.Generator, *,
            clip: tuple[float, float] | None = None) -> Tensor:
    """x ~ p_r(x | y) at r = sigma sqrt(D): a radius, and a direction uniform on the sphere.

    y (b, ...), sigma a number or (b,) -> x in y's shape and dtype.
    """
    levels = torch.as_tensor(sigma, dtype=torch.float64).expand(len(y))
    radius = draw_radius(len(y), y[0].numel(), D, generator, clip=clip)
    direction = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    length = direction.flatten(1).norm(dim=1)
    offset = direction * column(levels * radius / length, direction)
    return y + offset.to(y)


def prior(shape: tuple[int, ...], sigma_max: float, D: float, generator: torch.Generator
          ) -> Tensor:
    """Where the ODE starts, (b, ...) float32: the kernel around 0, so wide that no y matters.

    At D = infinity it is the noise of the book's runs, so one seed is one picture here too.
    """
    if math.isinf(D):
        return sigma_max * torch.randn(shape, generator=generator)
    return perturb(torch.zeros(shape), sigma_max, D, generator)


def _check(sigma: float, D: float) -> None:
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be above 0 and finite, got {sigma}")
    if not D >= 1:
        raise ValueError(f"D must be from 1 on, or math.inf, got {D}")
