"""What a run is asked for: every setting once, checked before any work.

`Settings` is the one list of keyword arguments that text_to_image, steps, trace and the others
take, `check` the one judge of numbers. torch is not imported: the command line refuses at once.
"""

from __future__ import annotations

import math
import numbers
import operator
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from minisd.config import Config
    from minisd.samplers import SampleStep

# The smallest and the largest value of each number; integers have integer limits.
LIMITS: dict[str, tuple[float, float]] = {
    "guidance_scale": (-math.inf, math.inf), "eta": (0.0, 1.0), "strength": (0.0, 1.0),
    "steps": (1, 1000), "num_images": (1, 2 ** 20), "seed": (0, 2 ** 63 - 1),
    "height": (1, 2 ** 20), "width": (1, 2 ** 20)}


class Settings(TypedDict, total=False):
    """Settings of a run, beside the prompt. None stands for the default."""

    negative_prompt: str            # replaces the empty prompt, from which guidance moves away
    guidance_scale: float | Callable[[float], float] | None     # 0 ignores the prompt, 1 adds
                                    # nothing; a function of the timestep t; None: the model's own
    steps: int | None               # of the sampler, 1 .. 999; None: the model's own
    sampler: str                    # a name in samplers.SAMPLERS
    eta: float                      # DDIM's fresh noise, 0 .. 1
    seed: int | Sequence[int] | None    # picture i has seed + i; None: drawn at random
    height: int | None              # pixels, multiples of 8; None: the model's or the picture's
    width: int | None
    num_images: int
    latents: Tensor | None          # starting noise (num_images, c, height / 8, width / 8)
    both_predictions: bool          # compute both, even where guidance needs only one
    on_step: Callable[[SampleStep], None] | None    # called with every step that is not yielded


class RunSettings(Settings, total=False):
    """With what image_to_image and inpaint take by themselves."""

    image: Any                      # picture to start from: PIL, path, uint8 array
    mask: Any                       # of its size, white where it is repainted
    strength: float | None          # share of the steps that run; None: 0.75, with a mask 1


@dataclass(frozen=True)
class Run:
    """The settings of one run, checked and complete."""

    prompts: tuple[str, ...]        # one for each picture
    seeds: tuple[int, ...]          # the same
    guidance_scale: float | Callable[[float], float]
    steps: int
    negative_prompt: str = ""
    sampler: str = "ddim"
    eta: float = 0.0
    height: int | None = None
    width: int | None = None
    latents: Tensor | None = None
    image: Any = None
    mask: Any = None
    strength: float = 1.0
    both_predictions: bool = False
    on_step: Callable[[SampleStep], None] | None = None

    @property
    def steps_to_run(self) -> int:
        return math.floor(self.steps * self.strength + 1e-9)    # 0.29 * 100 is 28.999...


def plan(config: Config, prompt: str | Sequence[str], settings: RunSettings) -> Run:
    """The settings in one record; ValueError or TypeError for the first that makes no sense."""
    known = RunSettings.__annotations__
    if unknown := sorted(settings.keys() - known.keys()):
        raise TypeError(f"unknown setting {unknown[0]!r}: choose from {', '.join(known)}")
    given: dict[str, Any] = {"steps": config.steps, "guidance_scale": config.guidance_scale}
    given |= {name: value for name, value in settings.items() if value is not None}
    seed = given.pop("seed", None)
    given = {name: check(name, value) if name in LIMITS else value for name, value in given.items()}
    count = given.pop("num_images", len(prompt) if isinstance(prompt, list | tuple) else 1)
    prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt] * count
    for text in (*prompts, given.get("negative_prompt", "")):
        if not isinstance(text, str):
            raise TypeError(f"a prompt must be text, got {type(text).__name__}: {text!r}")
    if not isinstance(seed, Sequence):
        first = check("seed", secrets.randbits(32) if seed is None else seed)
        seed = range(first, first + len(prompts))
    seeds = [check("seed", one) for one in seed]
    if not prompts or not len(seeds) == len(prompts) == count:
        raise ValueError(f"got {len(prompts)} prompts, {len(seeds)} seeds, {count} num_images: "
                         f"give as many of each")
    if "image" not in given and ("mask" in given or "strength" in given):
        raise ValueError("strength and mask say how to repaint a picture: give it as image")
    if "image" in given and "latents" in given:
        raise ValueError("latents and an image both say where to start: give one of them")
    given.setdefault("strength", 0.75 if "image" in given and "mask" not in given else 1.0)
    for side in ("height", "width"):
        if given.get(side, 0) % (factor := config.vae.downscale):
            raise ValueError(f"{side} must be a multiple of {factor}, got {given[side]}")
    return Run(tuple(prompts), tuple(seeds), **given)


def check(name: str, value: Any) -> Any:
    """A number as int or float. Raises TypeError for others, ValueError beyond the limits."""
    if name == "guidance_scale" and callable(value):
        return lambda t: check(name, value(t))
    low, high = LIMITS[name]
    whole = isinstance(low, int)
    if isinstance(value, bool) or not (hasattr(value, "__index__") if whole else
                                       isinstance(value, numbers.Real)):
        raise TypeError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}")
    number = operator.index(value) if whole else float(value)
    if not (math.isfinite(number) and low <= number <= high):
        limits = "finite" if math.isinf(high) else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, got {value}")
    return number
