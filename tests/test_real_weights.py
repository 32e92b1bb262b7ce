"""Published numbers of the real weights, for whoever has them; skipped otherwise.

Public nightly tests of diffusers paint three steps of "a photograph of an astronaut riding a
horse" from fixed noise, with guidance 7.5, and keep nine values of the picture's blue channel: the
lower right corner, in [0, 1], before rounding. They were recorded on a GPU.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import minisd
from minisd.diffusion import ddim_coefficients, take_step
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep, make_sampler

PROMPT = "a photograph of an astronaut riding a horse"
TOLERANCE = 3e-3                # absolute, from a GPU's kernels to a CPU's, through three steps
STEPS = 3


def as_it_ends(sd: StableDiffusion, last: SampleStep) -> Tensor:
    return last.x_prev


def at_the_smallest_sigma(sd: StableDiffusion, last: SampleStep) -> Tensor:
    """DPM-Solver++ once ended at the noise of t = 0, not at none; its last step is of order one."""
    level = make_sampler("dpm++2m", sd.schedule, STEPS).alpha_bar[STEPS - 1]
    return take_step(ddim_coefficients(level, sd.schedule.at(0)), last.x_t, last.eps)


CASES = [
    ("v1-1", "plms", as_it_ends, [.4363, .4355, .3667, .4066, .3970, .3866, .4394, .4356, .4059]),
    ("v1-4", "plms", as_it_ends, [.5740, .4784, .3162, .6358, .5831, .5505, .5082, .5631, .5575]),
    ("v1-4", "ddim", as_it_ends, [.38019, .28647, .27321, .40377, .38290, .35446, .39218, .38165,
                                  .42239]),
    ("v1-4", "lms", as_it_ends, [.10542, .09620, .07332, .09015, .09382, .07597, .08496, .07806,
                                 .06455]),
    ("v1-4", "dpm++2m", at_the_smallest_sigma, [.03503, .03494, .01087, .03128, .02552, .00803,
                                                .00742, .00372, .00000]),
]


@pytest.fixture(scope="module")
def sd(request: pytest.FixtureRequest) -> StableDiffusion:
    """The model on a CPU in float32, one at a time."""
    try:
        return minisd.load(request.param, device="cpu", dtype="float32")
    except (FileNotFoundError, ValueError) as reason:
        if "not at hand" not in str(reason):
            raise
        pytest.skip(str(reason))


def corner(sd: StableDiffusion, sampler: str,
           end: Callable[[StableDiffusion, SampleStep], Tensor]) -> Tensor:
    """The nine published values, as we paint them."""
    noise = np.random.RandomState(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
    *_, last = sd.steps(PROMPT, steps=STEPS, sampler=sampler, guidance_scale=7.5,
                        latents=torch.from_numpy(noise))
    z = end(sd, last) / sd.config.vae.scale_factor
    with torch.no_grad():
        picture = (sd.vae.decode(z) / 2 + 0.5).clamp(0, 1)      # 1 3 512 512
    return picture[0, -1, -3:, -3:].flatten()


@pytest.mark.real_weights
@pytest.mark.filterwarnings("ignore:3 steps of")
@pytest.mark.parametrize(("sd", "sampler", "end", "published"), CASES, indirect=["sd"])
def test_published_pictures_are_painted_again(sd, sampler, end, published):
    error = (corner(sd, sampler, end) - torch.tensor(published)).abs().max()
    assert float(error) < TOLERANCE
