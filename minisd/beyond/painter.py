"""Objectives by name, and a pipeline that paints with a network trained on any of them.

A `Painter` is a StableDiffusion whose `unet` may be an MDT and whose answers mean what the
objective says. It solves the ODE of `denoising.solve`, takes the same settings and yields the same
steps as the book's runs. So pictures, traces, widgets and the judge of `toyworld/evaluation` work
with it as they are.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.beyond import flow
from minisd.beyond.denoising import (
    SCHEDULE,
    Coefficients,
    edm,
    edm_grid,
    predict_eps,
    predict_flow,
    predict_v,
    progress,
    solve,
)
from minisd.beyond.pfgmpp import prior
from minisd.config import Config
from minisd.diffusion import ddim_coefficients
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.settings import Run
from minisd.tokenizer import Tokenizer

LATENT_DATA = 1.0               # sigma_data of latents
WIDER = LATENT_DATA / 0.5       # EDM's levels are for sigma_data 0.5; relative to it they stay
LEVELS = (-1.2 + math.log(WIDER), 1.2)      # mean and std of ln sigma in training (EDM, table 1)
FLOW_START = 0.999              # t of the flow's first step; at 1 sigma is infinite
EMBEDDED = 1000                 # the networks' timestep embedding is made for 0 .. 999


@dataclass(frozen=True)
class Objective:
    """What a network predicts, at which noise levels it learns, and on which grid it paints."""

    coefficients: Callable[[Tensor], Coefficients]
    grid: Callable[[int], list[float]]          # steps -> sigmas
    levels: Callable[[int, torch.Generator], Tensor] | None = None  # None: toyworld's timesteps
    D: float = math.inf                         # of PFGM++'s kernel


def _schedule_grid(steps: int) -> list[float]:
    """Even in the timesteps, from the last one down to 0, which is no noise."""
    times = np.linspace(len(SCHEDULE) - 1, 0, steps, endpoint=False)
    return [math.sqrt(1 / SCHEDULE.at(t) - 1) for t in times.tolist()] + [0.0]


def _flow_grid(steps: int) -> list[float]:
    """Even in t, from 1 to 0."""
    t = np.linspace(1, 0, steps + 1).clip(max=FLOW_START)
    return (t / (1 - t)).tolist()


def _flow_levels(count: int, generator: torch.Generator) -> Tensor:
    t = flow.draw_times(count, generator)
    return t / (1 - t)


def _edm_levels(count: int, generator: torch.Generator) -> Tensor:
    """Log-normal."""
    mean, std = LEVELS
    return (mean + std * torch.randn(count, generator=generator)).exp()


def pfgmpp(D: float) -> Objective:
    """PFGM++ with EDM's preconditioning, levels and grid; at infinity it is EDM."""
    return Objective(lambda sigma: edm(sigma, LATENT_DATA),
                     lambda steps: edm_grid(steps, 0.002 * WIDER, 80.0 * WIDER), _edm_levels, D)


OBJECTIVES = {"eps": Objective(predict_eps, _schedule_grid),
              "v": Objective(predict_v, _schedule_grid),
              "flow": Objective(predict_flow, _flow_grid, _flow_levels),
              "pfgmpp-128": pfgmpp(128), "pfgmpp-2048": pfgmpp(2048), "edm": pfgmpp(math.inf)}


class Painter(StableDiffusion):
    """A model whose network was trained on an objective; settings as of `text_to_image`.

    The samplers are euler, which ddim also names, for between two levels they are one formula, and
    heun. A guidance scale that is a function is given the timestep of v1 that has the level's
    sigma, whatever the network is told of it.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer | None, objective: Objective) -> None:
        super().__init__(config, tokenizer)
        self.objective = objective

    def _start(self, run: Run) -> tuple[Tensor, Iterator[SampleStep]]:
        """The noise that a run begins with, and the steps that follow."""
        if run.sampler not in ("ddim", "euler", "heun") or run.eta:
            raise ValueError(f"sampler {run.sampler!r} with eta {run.eta:g}: this model paints "
                             f"with euler (ddim is the same here) or heun, and eta 0")
        if run.image is not None or run.latents is not None:
            raise ValueError("this model paints from noise alone: give neither image nor latents")
        sigmas = self.objective.grid(run.steps)
        sides = [(side or self.config.image_size) // self.config.vae.downscale
                 for side in (run.height, run.width)]
        shape = (1, self.config.unet.latent_channels, *sides)
        generators = (torch.Generator().manual_seed(seed) for seed in run.seeds)
        x = torch.cat([prior(shape, sigmas[0], self.objective.D, g) for g in generators])
        return x, self._solve(run, x.to(self.device), sigmas)

    @torch.no_grad()
    def _solve(self, run: Run, x: Tensor, sigmas: list[float]) -> Iterator[SampleStep]:
        """The ODE's steps in the book's variance-preserving coordinates."""
        g, now = run.guidance_scale, 0.0
        if callable(g):
            run = replace(run, guidance_scale=lambda _: g(timestep(now)))
        predict = self._predictor(run)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            nonlocal now                # the level, for the guidance
            now, c = sigma, self.objective.coefficients(level(sigma))
            return c.x0(x, predict(float(c.input) * x, EMBEDDED * float(c.noise)).eps)

        for i, step in enumerate(solve(denoise, x, sigmas, heun=run.sampler == "heun")):
            alpha_bar, alpha_bar_next = (1 / (1 + s ** 2) for s in (step.sigma, step.sigma_next))
            yield SampleStep(i, run.steps, timestep(step.sigma), step.x * alpha_bar ** 0.5,
                             (step.x - step.x0) / step.sigma, None, None, step.x0,
                             step.x_next * alpha_bar_next ** 0.5,
                             ddim_coefficients(alpha_bar, alpha_bar_next), step.evaluations)


def level(sigma: float) -> Tensor:
    """(1,), as the coefficients take it."""
    return torch.tensor([sigma], dtype=torch.float64)


def timestep(sigma: float) -> float:
    """Of v1's schedule, 0 .. 999, with this sigma or the nearest."""
    return float(progress(level(sigma))) * len(SCHEDULE)


def read_average(path: Path, command: str) -> dict[str, Tensor]:
    """The averaged weights of a training; FileNotFoundError names the command that makes them."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `{command}`")
    return torch.load(path, map_location="cpu", weights_only=True)["average"]
