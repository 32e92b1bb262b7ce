"""The numbers that a reorganisation of the package must not change, against files in tests/data.

    python -m pytest tests/test_frozen.py -s        prints the largest difference of each kind
    python tests/test_frozen.py --write             writes the files anew, from the package it finds

The files were written by the package as of commit e90601e; write them anew only where a number is
meant to change, and say so in the commit. The first third of this file is all that knows the
package: what a sampler, a run and a loaded model are called.

frozen_trajectories   the eight samplers in float64 with the network of `exact_eps`: every step of
                      short runs, some steps of longer ones, the last of 999. Noise comes from one
                      generator a run, one draw a step. A draw that a sampler makes and does not
                      use is harmless in its last step only, where no later one follows.
frozen_pictures       toyworld's final latents in float32, and three pictures

What loading must not change is frozen in test_frozen_layouts.py.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import minisd
from minisd import samplers
from minisd.config import TOYWORLD
from minisd.diffusion import make_schedule

# All that is known of the package

SCHEDULE = make_schedule(TOYWORLD.schedule)


class Run:
    """One sampler's grid, and a run along it."""

    def __init__(self, name: str, steps: int, eta: float) -> None:
        self.rule = samplers.make_rule(name, SCHEDULE, steps, eta)
        self.timesteps = self.rule.timesteps
        self.alpha_bar = [SCHEDULE.at(t) for t in self.timesteps]
        self.start_scale = self.rule.start_scale

    def steps(self, eps: Callable[[Tensor, float], Tensor], x: Tensor,
              noise: Callable[[], Tensor], *, start: int,
              keep: Callable[[Tensor, float], Tensor] | None) -> Iterator[samplers.SampleStep]:
        def predict(x_t: Tensor, t: float) -> samplers.Guess:
            return samplers.Guess(eps(x_t, t))

        return samplers.sample(self.rule, SCHEDULE, predict, x, noise, start=start, keep=keep)


def coefficients(step: samplers.SampleStep) -> list[float]:
    """Of x_t, eps, fresh noise, the prediction ahead, and three remembered ones."""
    c = step.coefficients
    return [c.x_t, c.eps, c.noise, c.ahead, *c.past, *[0.0] * (3 - len(c.past))]


def toyworld() -> minisd.StableDiffusion:
    return minisd.load("toyworld", device="cpu", dtype="float32")


# Trajectories

SHAPE = (2, 1, 3, 4)            # small: samplers compute element by element
BETAS = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2
SIGMA = np.sqrt(1 / np.cumprod(1 - BETAS) - 1)
SAMPLERS = [(name, 0.0) for name in ("ddpm", "ddim", "plms", "lms", "euler", "euler_a", "heun",
                                     "dpm++2m")] + [("ddim", 0.5), ("ddim", 1.0)]
STEPS = (1, 2, 5, 10, 25, 50, 999)


def exact_eps(x_t: Tensor, t: float) -> Tensor:
    """What a perfect network answers if x_0 is N(+-m, s^2), m = 0.6 .. 1.4 by place, s = 0.2."""
    a = 1 / (1 + float(np.interp(t, np.arange(1000), SIGMA)) ** 2)
    mean = a ** 0.5 * torch.linspace(0.6, 1.4, 12, dtype=torch.float64).view(SHAPE[1:])
    variance = a * 0.2 ** 2 + 1 - a
    return (1 - a) ** 0.5 * (x_t - mean * torch.tanh(mean * x_t / variance)) / variance


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

    sampler = Run(name, n, eta)
    steps = list(sampler.steps(exact_eps, noise() * sampler.start_scale, noise, start=start,
                               keep=pull if keep else None))
    assert [(step.index, step.total, step.t) for step in steps] == [
        (i, n - start, t) for i, t in enumerate(sampler.timesteps[start:])]
    chosen = [steps[i] for i in kept(len(steps))]
    values = {"x_prev": torch.stack([step.x_prev for step in chosen]),
              "x0": torch.stack([step.x0 for step in chosen]),
              "coefficients": torch.tensor([coefficients(step) for step in chosen],
                                           dtype=torch.float64),
              "evaluations": torch.tensor([step.evaluations for step in chosen])}
    return {f"{name} eta={eta:g} steps={n} start={start}{' keep' * keep} {what}": value
            for what, value in values.items()}


def trajectories(name: str, eta: float, n: int) -> dict[str, Tensor]:
    """All runs of one sampler with n steps, and its grid."""
    sampler, values = Run(name, n, eta), {}
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
    **{f"text {sampler}": {"sampler": sampler} for sampler, eta in SAMPLERS if not eta},
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


def weights_of(sd: minisd.StableDiffusion) -> Tensor:
    return torch.tensor(list(sd.fingerprint.encode()))


def final_latents(sd: minisd.StableDiffusion, case: str) -> Tensor:
    *_, last = sd.steps(SCENE, **PLAIN | CASES[case])
    return last.x_prev


def pictures(sd: minisd.StableDiffusion) -> dict[str, Tensor]:
    """Three, through the functions that a user calls."""
    image, mask = reference(), left_half()
    found = {"text odd": sd.text_to_image(SCENE, **PLAIN | CASES["text odd"]),
             "image 0.5": sd.image_to_image(SCENE, **PLAIN | CASES["image 0.5"]),
             "mask paste": sd.inpaint(SCENE, image, mask, paste=True, **PLAIN)}
    return {f"{name} picture": torch.tensor(np.array(picture))
            for name, (picture,) in found.items()}


# Now against then

DATA = Path(__file__).parent / "data"
LARGEST: dict[str, float] = {}          # kind -> the largest difference seen

# In float64, relative. Two ways to write one sampler differ by 1.6e-9 at most, found by a
# prototype; LMS's polynomials cancel where 999 levels lie close together.
EXACT, LMS_999 = 1e-9, 1e-7
# Of latents in float32, relative. The old code against itself with one thread and two, with
# ATEN_CPU_CAPABILITY=avx2 and default, and with ONEDNN_MAX_CPU_ISA=AVX2 and SSE41: 1.6e-5 at most
# (PLMS); ten times that. Its pictures differed by one level at most.
LATENTS, LEVELS = 1.5e-4, 1


def differ(kind: str, new: Tensor, old: Tensor, tolerance: float) -> None:
    """Of x_prev and x0 the norm of each step's difference counts, else each number's own."""
    assert new.shape == old.shape and new.dtype == old.dtype, kind
    new, old = new.double(), old.double()
    if new.ndim > 3:
        gap, size = (new - old).flatten(1).norm(dim=1), old.flatten(1).norm(dim=1)
    else:
        gap, size = (new - old).abs(), old.abs()
    found = float((gap / torch.where(size == 0, 1.0, size)).max())
    LARGEST[kind] = max(LARGEST.get(kind, 0.0), found)
    assert found <= tolerance, f"{kind}: {found:.2g} more than {tolerance:.2g}"


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nlargest differences, of {len(LARGEST)} kinds; those left out are 0:")
    for kind, value in sorted(LARGEST.items(), key=lambda item: -item[1]):
        if value:
            print(f"  {value:.2g}  {kind}")


@pytest.fixture(scope="module")
def frozen() -> dict[str, Tensor]:
    return (load_file(DATA / "frozen_trajectories.safetensors")
            | load_file(DATA / "frozen_pictures.safetensors"))


@pytest.fixture(scope="module")
def sd(frozen) -> minisd.StableDiffusion:
    model = toyworld()
    assert torch.equal(weights_of(model), frozen["weights"]), (
        "toyworld has other weights now: write the files anew")
    return model


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize(("name", "eta"), SAMPLERS)
def test_trajectories(frozen, name, eta, n) -> None:
    tolerance = LMS_999 if (name, n) == ("lms", 999) else EXACT
    for key, value in trajectories(name, eta, n).items():
        what = f"{key.split()[-1]} of {name}, {'999' if n == 999 else 'up to 50'} steps"
        differ(what, value, frozen[key], tolerance)


@pytest.mark.parametrize("case", CASES)
def test_latents(frozen, sd, case) -> None:
    differ(f"latents of {case}", final_latents(sd, case), frozen[case], LATENTS)


def test_pictures(frozen, sd) -> None:
    for name, new in pictures(sd).items():
        assert new.shape == frozen[name].shape
        gap = int((new.int() - frozen[name].int()).abs().max())
        LARGEST[f"{name}, levels"] = gap
        assert gap <= LEVELS, name


def write() -> None:
    sd = toyworld()
    values = {key: value for name, eta in SAMPLERS for n in STEPS
              for key, value in trajectories(name, eta, n).items()}
    save_file(values, DATA / "frozen_trajectories.safetensors")
    latents = {case: final_latents(sd, case).contiguous() for case in CASES}
    save_file(latents | pictures(sd) | {"weights": weights_of(sd)},
              DATA / "frozen_pictures.safetensors")


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
