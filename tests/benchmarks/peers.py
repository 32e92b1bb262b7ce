"""Ours and diffusers' networks around the same random weights, and a checkpoint both can load."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import parity  # noqa: E402

from minisd.checkpoints import names  # noqa: E402
from minisd.checkpoints.vocabulary import packaged_tokenizer  # noqa: E402
from minisd.config import V1, Config  # noqa: E402
from minisd.pipeline import StableDiffusion  # noqa: E402
from minisd.unet import UNet  # noqa: E402
from minisd.vae import VAE  # noqa: E402

# v1's topology, small: shows in seconds that the script runs, and nothing about speed.
SMALL = replace(V1, name="small",
                vae=replace(V1.vae, channels=(32, 64, 96, 96)),
                unet=replace(V1.unet, channels=(32, 64, 96, 96), context_dim=64),
                text=replace(V1.text, width=64, heads=1), image_size=128)
EXTRAS = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
          "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod",
          "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
          "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2")
SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012,
                            "beta_schedule": "scaled_linear", "steps_offset": 1,
                            "clip_sample": False, "set_alpha_to_one": False}
Network = TypeVar("Network", bound=nn.Module)


def shells(part: str, config: Config) -> tuple[nn.Module, nn.Module]:
    """Our network and diffusers', without weights; part is "unet" or "vae"."""
    with torch.device("meta"):
        if part == "unet":
            return UNet(config.unet), parity.unet(config.unet).eval().requires_grad_(False)
        return VAE(config.vae), parity.vae(config.vae).eval().requires_grad_(False)


def pair(part: str, config: Config, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Our network and diffusers' on the CPU, holding the same tensors."""
    ours, theirs = shells(part, config)
    ours = draw(ours, dtype, "cpu")
    share(part, ours, theirs)
    return ours, theirs


def pipelines(config: Config, dtype: torch.dtype, device: str) -> tuple[StableDiffusion, Any]:
    """Our pipeline and diffusers', holding the same UNet and VAE; theirs is given its context."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    with torch.device("meta"):
        sd = StableDiffusion(config, packaged_tokenizer())
    sd = draw(sd, dtype, device)
    unet, vae = shells("unet", config)[1], shells("vae", config)[1]
    share("unet", sd.unet, unet)
    share("vae", sd.vae, vae)
    scheduler = DDIMScheduler(**SCHEDULE)
    theirs = StableDiffusionPipeline(vae=vae, unet=unet, scheduler=scheduler, text_encoder=None,
                                     tokenizer=None, safety_checker=None, feature_extractor=None,
                                     requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    return sd, theirs


def draw(module: Network, dtype: torch.dtype, device: str) -> Network:
    """Give a network without memory its memory, and random weights."""
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, tensor in module.state_dict().items():
        fill(tensor, name, generator)
    return module


def share(part: str, ours: nn.Module, theirs: nn.Module) -> None:
    """Put our tensors into diffusers' network, without a copy."""
    tensors = ours.state_dict()
    theirs.load_state_dict({name: tensors[names.rename(f"{part}.{name}", "diffusers")
                                          .removeprefix(f"{part}.")]
                            for name in theirs.state_dict()}, assign=True)


def fill(tensor: Tensor, name: str, generator: torch.Generator) -> None:
    """Random values that keep the variance of what passes."""
    if tensor.ndim > 1:
        width = math.sqrt(3 / tensor[0].numel())
        tensor.uniform_(-width, width, generator=generator)
    else:
        tensor.uniform_(-0.1, 0.1, generator=generator).add_(float("norm" in name
                                                                   and name.endswith("weight")))


def make_checkpoint(folder: Path, config: Config) -> Path:
    """One CompVis-style safetensors file in float32, 4.27 GB at full size, made once."""
    path = folder / f"{config.name}.safetensors"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in StableDiffusion(config).state_dict().items()}
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, shape in json.loads((TESTS / "data" / "compvis_names.json").read_text()).items():
        mine = names.rename(name, "compvis")
        wanted = shapes[mine]
        tensors[name] = torch.empty(*wanted, *[1] * (len(shape) - len(wanted)))
        fill(tensors[name], mine, generator)
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(
        config.text.max_length)[None]
    tensors |= {name: torch.zeros(1000) for name in EXTRAS}
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)
    return path


def make_description(folder: Path, config: Config) -> Path:
    """What diffusers wants to know beside a single file, else asked of its hub: every config."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    description = folder / f"{config.name}-description"
    with torch.device("meta"):
        unet, vae = parity.unet(config.unet), parity.vae(config.vae)
        text_encoder = parity.clip_text(config.text)
    ours = packaged_tokenizer()
    assert ours is not None, "no package carries CLIP's vocabulary: install requirements-dev.txt"
    merges = json.loads(ours.backend.to_str())["model"]["merges"]
    parts: dict[str, Any] = {
        "unet": unet, "vae": vae, "text_encoder": text_encoder,
        "tokenizer": CLIPTokenizer(vocab=ours.vocab, merges=[tuple(m) for m in merges]),
        "scheduler": DDIMScheduler(**SCHEDULE)}
    pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None,
                                       requires_safety_checker=False)
    pipeline.save_config(description)
    for name in ("unet", "vae", "scheduler"):
        parts[name].save_config(description / name)
    text_encoder.config.save_pretrained(description / "text_encoder")
    parts["tokenizer"].save_pretrained(description / "tokenizer")
    return description
