"""The original's numbers at full size: v1 on stand-in weights beside CompVis's own code.

`data/original.safetensors` holds what the original networks and its DDIM sampler computed in
float32 on a CPU, with weights that are a function of each tensor's name and shape alone
(`stand_in`). The same weights in our networks must give the same numbers. What the file does not
hold, the decoder, is compared with diffusers around the same tensors.
"""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import parity
import pytest
import torch
from parity import relative_error
from safetensors.torch import load_file
from torch import Tensor

from minisd.checkpoints.names import rename
from minisd.config import V1
from minisd.pipeline import StableDiffusion

pytestmark = pytest.mark.slow       # 4.3 GB of weights

DATA = Path(__file__).parents[1] / "data"
NAMES = json.loads((DATA / "compvis_names.json").read_text())

# Of ||a - b|| / ||b||. An independent implementation was measured at 2e-6 for one pass and at 5e-6
# for the run, whose guidance multiplies the rounding of one pass by up to 14.
ONE_PASS, RUN = 1e-5, 2e-5
PROMPT, EMPTY = "the prompt of the reference", ""


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return load_file(DATA / "original.safetensors")


def stand_in(name: str, shape: list[int], out: Tensor) -> None:
    """Fill `out` with the stand-in for one tensor, in place and in float32.

    Uniform numbers in [-1, 1) from a generator seeded with the name's checksum. Matrices and
    kernels are scaled to keep the variance of what passes, the weights of norms lie within a tenth
    of one, and biases within a tenth of zero.
    """
    values = out.numpy()
    np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).random(
        out=values, dtype=np.float32)
    values *= 2
    values -= 1
    if len(shape) > 1:
        values *= np.float32(np.sqrt(3 / np.prod(shape[1:])))
    else:
        values *= np.float32(0.1)
        values += np.float32(name.endswith("weight"))


@pytest.fixture(scope="module")
def sd(original: dict[str, Tensor]) -> StableDiffusion:
    """v1 in float32 on stand-in weights, written straight into place: no second copy is made."""
    with torch.device("meta"):
        model = StableDiffusion(V1)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    ids = {PROMPT: original["clip.ids"][0], EMPTY: torch.tensor([49406] + [49407] * 76)}
    model.tokenizer = lambda prompts: torch.stack([ids[text] for text in prompts])
    tensors = model.state_dict()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        jobs = [pool.submit(stand_in, name, shape, tensors.pop(rename(name, "compvis")))
                for name, shape in NAMES.items()]
        for job in jobs:
            job.result()
    assert not tensors
    return model


def test_the_schedule_is_the_originals(sd, original):
    assert relative_error(sd.schedule.alpha_bar, original["schedule.alphas_cumprod"]) < 1e-14


def test_clip_reads_like_the_original(sd, original):
    assert relative_error(sd.encode_prompt([PROMPT]), original["clip.embedding"]) < ONE_PASS
    assert relative_error(sd.encode_prompt([EMPTY]), original["clip.empty"]) < ONE_PASS


def test_the_unet_predicts_like_the_original(sd, original):
    eps = sd.unet(original["unet.x16"], torch.tensor([981]), original["clip.embedding"])
    assert relative_error(eps, original["unet.eps16"]) < ONE_PASS


def test_the_vae_encodes_like_the_original(sd, original):
    picture = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(3)) * 2 - 1
    posterior = sd.vae.encode(picture)
    assert relative_error(posterior.mean, original["vae.mean"]) < ONE_PASS
    assert relative_error(posterior.logvar, original["vae.logvar"]) < ONE_PASS


def test_ten_guided_steps_walk_like_the_original(sd, original):
    """Through the pipeline, from ids to latents: every x0 on the way, and the end."""
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(11))
    run = list(sd.steps(PROMPT, steps=10, guidance_scale=7.5, height=128, width=128, latents=start))
    assert [step.t for step in run] == original["ddim.10.timesteps"].flip(0).tolist()
    assert torch.equal(original["ddim.10.pred_x0"][:1], run[0].x_t)     # it keeps the start, too
    for step, x0 in zip(run, original["ddim.10.pred_x0"][1:], strict=True):
        assert relative_error(step.x0[0], x0) < RUN, step.index
    assert relative_error(run[-1].x_prev, original["ddim.10"]) < RUN


@torch.no_grad()
def test_the_decoder_paints_like_diffusers(sd, original):
    with torch.device("meta"):
        theirs = parity.vae(V1.vae)
    tensors, z = sd.state_dict(), original["vae.mean"]
    theirs.load_state_dict({name: tensors[rename(f"vae.{name}", "diffusers")]
                            for name in theirs.state_dict()}, assign=True)
    assert relative_error(sd.vae.decode(z), theirs.decode(z).sample) < ONE_PASS
