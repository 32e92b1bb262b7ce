"""The numbers that a change of the package must not move, against files in tests/data.

    python -m pytest tests/book/test_frozen.py -s       prints the largest difference of each kind
    python tests/book/test_frozen.py --write            writes the files anew

The files were written by the package as of commit e90601e, before its reorganisation; write them
anew only where a number is meant to change, and say so in the commit. Trajectories are of all
samplers in float64, with the network of `exact_eps`: every step of short runs, some steps of longer
ones, the last of 999. Pictures are toyworld's latents in float32, and three decoded.

What loading must not change is frozen in tests/checkpoints/test_frozen_layouts.py.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import minisd
from minisd.checkpoints.weights import fingerprint
from minisd.config import TOYWORLD
from minisd.diffusion import make_schedule
from minisd.samplers import SAMPLERS, Prediction, make_sampler, sample

DATA = Path(__file__).parents[1] / "data"
SCHEDULE = make_schedule(TOYWORLD.schedule)

# Trajectories

SHAPE = (2, 1, 3, 4)            # small: samplers compute element by element
BETAS = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2
SIGMA = np.sqrt(1 / np.cumprod(1 - BETAS) - 1)
RUNS = [*((name, 0.0) for name in SAMPLERS), ("ddim", 0.5), ("ddim", 1.0)]
STEPS = (1, 2, 5, 10, 25, 50, 999)


def exact_eps(x_t: Tensor, t: float) -> Prediction:
    """What a perfect network answers if x_0 is N(+-m, s^2), m = 0.6 .. 1.4 by place, s = 0.2."""
    a = 1 / (1 + float(np.interp(t, np.arange(1000), SIGMA)) ** 2)
    mean = a ** 0.5 * torch.linspace(0.6, 1.4, 12, dtype=torch.float64).view(SHAPE[1:])
    variance = a * 0.2 ** 2 + 1 - a
    return Prediction((1 - a) ** 0.5 * (x_t - mean * torch.tanh(mean * x_t / variance)) / variance)


def pull(x_prev: Tensor, level: float) -> Tensor:
    """Stands in for inpainting: half of the places return to a known noisy value."""
    known = level ** 0.5 + (1 - level) ** 0.5 * torch.linspace(-1, 1, 4, dtype=torch.float64)
    return torch.where(torch.arange(4) % 2 == 0, known, x_prev)


def kept(total: int) -> list[int]:
    if total <= 10:
        return list(range(total))
    return [total - 1] if total > 50 else sorted({0, 1, 2, 3, total // 2, total - 1})


def run(name: str, eta: float, n: int, start: int, *, keep: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1000 * n + start)

    def noise() -> Tensor:
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)

    sampler = make_sampler(name, SCHEDULE, n, eta)
    steps = list(sample(sampler, exact_eps, noise() * sampler.start_scale, noise, start=start,
                        keep=pull if keep else None))
    chosen = [steps[i] for i in kept(len(steps))]
    coefficients = [[c.x_t, c.eps, c.noise, c.ahead, *c.past, *[0.0] * (3 - len(c.past))]
                    for c in (step.coefficients for step in chosen)]
    values = {"x_prev": torch.stack([step.x_prev for step in chosen]),
              "x0": torch.stack([step.x0 for step in chosen]),
              "coefficients": torch.tensor(coefficients, dtype=torch.float64),
              "evaluations": torch.tensor([step.evaluations for step in chosen])}
    return {f"{name} eta={eta:g} steps={n} start={start}{' keep' * keep} {what}": value
            for what, value in values.items()}


def trajectories(name: str, eta: float, n: int) -> dict[str, Tensor]:
    """All runs of one sampler with n steps, and its grid."""
    sampler, values = make_sampler(name, SCHEDULE, n, eta), {}
    grid = [sampler.timesteps, sampler.alpha_bar[:n], [sampler.start_scale] * n]
    if not eta:                                         # which has no influence on it
        values[f"{name} steps={n} grid"] = torch.tensor(grid, dtype=torch.float64)
    for start in sorted({0, 3, n // 2}):
        if start < n:
            values |= run(name, eta, n, start)
    return values | (run(name, eta, n, 1, keep=True) if n == 5 else {})


# Pictures

SCENE = "a red circle above a blue square"
PLAIN: dict[str, Any] = {"guidance_scale": 5.0, "steps": 6, "sampler": "ddim", "seed": 11}


def reference(height: int = 128, width: int = 128) -> Image.Image:
    """A green disc before a slope of colours."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 255 // width, y * 200 // height, 90 + 0 * x], -1)
    picture[(y - 60) ** 2 + (x - 50) ** 2 < 30 ** 2] = (30, 170, 60)
    return Image.fromarray(picture.astype(np.uint8))


def left_half(height: int = 128, width: int = 128) -> np.ndarray:
    return np.mgrid[:height, :width][1] < width // 2 + 3


CASES: dict[str, dict[str, Any]] = {
    **{f"text {sampler}": {"sampler": sampler} for sampler in SAMPLERS},
    "text eta": {"eta": 0.7, "seed": 5}, "text g=0": {"guidance_scale": 0.0},
    "text g=1": {"guidance_scale": 1.0}, "text batch": {"num_images": 3, "sampler": "euler_a"},
    "text negative": {"negative_prompt": "a green triangle", "guidance_scale": 3.0},
    "text odd": {"height": 104, "width": 152, "guidance_scale": 2.0, "sampler": "heun"},
    "text latents": {"latents": torch.linspace(-2, 2, 1024).sin().reshape(1, 4, 16, 16)},
    "image 0.5": {"image": reference(), "strength": 0.5},
    "image 0.8": {"image": reference(100, 140), "strength": 0.8, "sampler": "euler"},
    "image batch": {"image": reference(), "strength": 0.7, "sampler": "ddpm", "num_images": 2},
    "mask": {"image": reference(), "mask": left_half(), "sampler": "plms"},
    "mask 0.7": {"image": reference(100, 140), "mask": left_half(100, 140), "strength": 0.7,
                 "sampler": "lms"}}


def toyworld() -> tuple[minisd.StableDiffusion, Tensor]:
    """The model, and the fingerprint of its weights."""
    sd = minisd.load("toyworld", device="cpu", dtype="float32", fast=False)
    return sd, torch.tensor(list(fingerprint(sd).encode()))


def latents(sd: minisd.StableDiffusion, case: str) -> Tensor:
    *_, last = sd.steps(SCENE, **PLAIN | CASES[case])
    return last.x_prev.contiguous()


def pictures(sd: minisd.StableDiffusion) -> dict[str, Tensor]:
    """Three, through the functions that a user calls."""
    found = {"text odd": sd.text_to_image(SCENE, **PLAIN | CASES["text odd"]),
             "image 0.5": sd.image_to_image(SCENE, **PLAIN | CASES["image 0.5"]),
             "mask paste": sd.inpaint(SCENE, reference(), left_half(), paste=True, **PLAIN)}
    return {f"{name} picture": torch.tensor(np.array(picture))
            for name, (picture,) in found.items()}


# Now against then

LARGEST: dict[str, float] = {}          # kind -> the largest difference seen

# In float64, relative. LMS's old formula integrated polynomials in sigma, which cancel where 999
# levels lie close together.
EXACT, LMS_999 = 1e-9, 1e-7
# Of latents in float32, relative. Sums in another order, as minisd/speed takes them, move one pass
# by 5e-7 and a run by up to 3e-4 (LMS under a mask, guidance 5); three times that, for other CPUs.
# On one CPU the new code gave the old one's numbers to the last bit, DPM-Solver++ within 1e-6.
LATENTS, LEVELS = 1e-3, 2


def differ(kind: str, new: Tensor, old: Tensor, tolerance: float) -> None:
    """Of x_prev and x0 the norm of each step's difference counts, else each number's own."""
    assert new.shape == old.shape and new.dtype == old.dtype, kind
    new, old = new.double(), old.double()
    gap, size = (new - old).abs(), old.abs()
    if new.ndim > 3:
        gap, size = gap.flatten(1).norm(dim=1), size.flatten(1).norm(dim=1)
    found = float((gap / torch.where(size == 0, 1.0, size)).max())
    LARGEST[kind] = max(LARGEST.get(kind, 0.0), found)
    assert found <= tolerance, f"{kind}: {found:.2g} more than {tolerance:.2g}"


@pytest.fixture(scope="module")
def frozen() -> Iterator[dict[str, Tensor]]:
    yield (load_file(DATA / "frozen_trajectories.safetensors")
           | load_file(DATA / "frozen_pictures.safetensors"))
    seen = sorted(((value, kind) for kind, value in LARGEST.items() if value), reverse=True)
    print("\nlargest differences; those left out are 0:",
          *(f"  {value:.2g}  {kind}" for value, kind in seen), sep="\n")


@pytest.fixture(scope="module")
def sd(frozen) -> minisd.StableDiffusion:
    model, weights = toyworld()
    assert torch.equal(weights, frozen["weights"]), "other weights now: write the files anew"
    return model


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize(("name", "eta"), RUNS)
def test_trajectories(frozen, name, eta, n) -> None:
    tolerance = LMS_999 if (name, n) == ("lms", 999) else EXACT
    for key, value in trajectories(name, eta, n).items():
        what = f"{key.split()[-1]} of {name}, {'999' if n == 999 else 'up to 50'} steps"
        differ(what, value, frozen[key], tolerance)


@pytest.mark.parametrize("case", CASES)
def test_latents(frozen, sd, case) -> None:
    differ(f"latents of {case}", latents(sd, case), frozen[case], LATENTS)


def test_pictures(frozen, sd) -> None:
    for name, new in pictures(sd).items():
        assert new.shape == frozen[name].shape
        assert (new.int() - frozen[name].int()).abs().max() <= LEVELS, name


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    model, weights = toyworld()
    save_file({key: value for name, eta in RUNS for n in STEPS
               for key, value in trajectories(name, eta, n).items()},
              DATA / "frozen_trajectories.safetensors")
    save_file({case: latents(model, case) for case in CASES} | pictures(model)
              | {"weights": weights}, DATA / "frozen_pictures.safetensors")
