"""The mathematics of diffusion, as functions of plain numbers and tensors.

Noise is added to a picture x_0 over T = 1000 timesteps (Ho et al. 2020, eq. 4):

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,    eps ~ N(0, I)

and everything else is this line solved for another letter. alpha_bar_t falls from 1 to 0, nearly,
and x_t has variance about 1 at every t (variance-preserving). Coefficients are float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minisd.config import ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """betas and alpha_bar, each (T,) float64, for t = 0 .. T - 1."""

    betas: Tensor
    alpha_bar: Tensor

    def __len__(self) -> int:
        return len(self.betas)

    def at(self, t: float) -> float:
        """alpha_bar at timestep t, 0 .. T - 1; between two, sigma is interpolated linearly."""
        assert 0 <= t < len(self), f"t must be from 0 to {len(self) - 1}, got {t}"
        low, high = self.sigma()[[math.floor(t), math.ceil(t)]].tolist()
        return 1 / (1 + (low + (high - low) * (t - math.floor(t))) ** 2)

    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), (T,)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def sigma(self) -> Tensor:
        """Noise relative to the signal, 1 / sqrt(snr), (T,): the sigma of Karras et al. 2022."""
        return self.snr().rsqrt()


def make_schedule(config: ScheduleConfig) -> Schedule:
    """Betas linear in their square root (Rombach et al. 2022, `v1-inference.yaml`)."""
    betas = torch.linspace(config.beta_start ** 0.5, config.beta_end ** 0.5, config.timesteps,
                           dtype=torch.float64) ** 2
    return Schedule(betas, (1 - betas).cumprod(0))


# One line, solved for each letter

def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """q(x_t | x_0) (Ho et al. 2020, eq. 4); alpha_bar a number, or one per picture (b,)."""
    signal, sigma = _roots(alpha_bar, x0)
    return signal * x0 + sigma * noise


def predict_x0(x_t: Tensor, eps: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The clean latents that noise eps in x_t implies (Ho et al. 2020, eq. 15)."""
    signal, sigma = _roots(alpha_bar, x_t)
    return (x_t - sigma * eps) / signal


def predict_eps(x_t: Tensor, x0: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The noise that clean latents x0 in x_t imply."""
    signal, sigma = _roots(alpha_bar, x_t)
    return (x_t - signal * x0) / sigma


def _roots(alpha_bar: Tensor | float, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar), shaped to multiply `like` (b, c, h, w)."""
    if not isinstance(alpha_bar, Tensor):
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    per_picture = alpha_bar.double().view(-1, *[1] * (like.ndim - 1))
    return per_picture.sqrt().to(like), (1 - per_picture).sqrt().to(like)


def guide(eps_uncond: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): 1 is eps_cond, more exaggerates the prompt."""
    return eps_uncond + guidance_scale * (eps_cond - eps_uncond)


# One step back, as coefficients

@dataclass(frozen=True)
class StepCoefficients:
    """What one step takes of the present latents, of the predicted noise, and of fresh noise.

    x_prev = x_t * self.x_t + eps * self.eps + noise * self.noise, for some samplers plus `ahead` of
    a second prediction at the next level and `past` of earlier ones (newest first; eps or x_0).
    """

    x_t: float
    eps: float
    noise: float = 0.0
    ahead: float = 0.0
    past: tuple[float, ...] = ()


def ddim_coefficients(alpha_bar: float, alpha_bar_prev: float, eta: float = 0.0
                      ) -> StepCoefficients:
    """DDIM (Song et al. 2021, eq. 12): predict x_0, then noise it again to the earlier level.

    eta scales the fresh noise: at 0 the step is deterministic, at 1 it is DDPM's, with mean and
    variance of q(x_prev | x_t, x_0) (Ho et al. 2020, eq. 6 and 7).
    """
    sigma = eta * math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)
                            * (1 - alpha_bar / alpha_bar_prev))
    to_x0 = math.sqrt(alpha_bar_prev / alpha_bar)
    direction = math.sqrt(max(1 - alpha_bar_prev - sigma ** 2, 0.0))
    return StepCoefficients(to_x0, direction - to_x0 * math.sqrt(1 - alpha_bar), sigma)


def take_step(c: StepCoefficients, x_t: Tensor, eps: Tensor, *, noise: Tensor | None = None,
              ahead: Tensor | None = None, past: Sequence[Tensor] = ()) -> Tensor:
    """The sum that the coefficients describe; what is left out counts as zero."""
    terms = [(c.noise, noise), (c.ahead, ahead), *zip(c.past, past, strict=False)]
    x_prev = c.x_t * x_t + c.eps * eps
    for weight, term in terms:
        if term is not None:
            x_prev = x_prev + weight * term
    return x_prev
