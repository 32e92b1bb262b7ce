"""Stable Diffusion v1 as it circulates: every layout of one small model of v1's topology.

Levels, layers and the 1,130 names are v1's; channels and vocabulary are cut down to 9.3 million
parameters. Nothing here depends on this project's rename tables but `compvis` and
`diffusers_folder`, which turn our model into theirs; checkpoints/test_names.py proves those tables.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from minisd.checkpoints import names
from minisd.config import V1, TextConfig
from minisd.pipeline import StableDiffusion

# CompVis's names of all tensors, and their shapes at full size.
NAMES: dict[str, list[int]] = json.loads(
    (Path(__file__).parent / "data" / "compvis_names.json").read_text())
SMALL = replace(
    V1, text=TextConfig(vocab_size=99, width=64, layers=12, heads=1),
    vae=replace(V1.vae, channels=(32, 64, 96, 96)),
    unet=replace(V1.unet, channels=(32, 64, 96, 96), context_dim=64))

TEXT, UNET, VAE = ("cond_stage_model.transformer.text_model.", "model.diffusion_model.",
                   "first_stage_model.")
POSITION_IDS = f"{TEXT}embeddings.position_ids"
BUFFERS = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
           "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod",
           "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
           "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2")
OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def small(seed: int = 0) -> StableDiffusion:
    """v1's topology, its channels cut down."""
    torch.manual_seed(seed)
    return StableDiffusion(SMALL).requires_grad_(False)


def compvis(sd: StableDiffusion) -> dict[str, Tensor]:
    """A model under CompVis's names and shapes, with the 15 tensors that every real file adds."""
    ours = sd.state_dict()
    tensors = {name: ours[names.rename(name, "compvis")].clone() for name in NAMES}
    for name, shape in NAMES.items():
        if len(shape) == 4 and tensors[name].ndim == 2:
            tensors[name] = tensors[name][:, :, None, None].contiguous()
    extras = {name: torch.zeros(1000) for name in BUFFERS} | {
        POSITION_IDS: torch.arange(77)[None], "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(470000)}
    return tensors | extras


def averaged_name(name: str) -> str:
    """Where a full file keeps the moving average of one of the UNet's tensors."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def full_ema(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The full file whose ema-only sister this is: other plain weights, these as the average."""
    full = dict(tensors)
    for name in (name for name in tensors if name.startswith(UNET)):
        full[averaged_name(name)] = tensors[name]
        full[name] = torch.zeros_like(tensors[name])
    return full


def diffusers_tensors(sd: StableDiffusion, *, old: bool) -> dict[str, dict[str, Tensor]]:
    """Each network under the names that diffusers and transformers save; old: their first ones."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    v, u, t = sd.config.vae, sd.config.unet, sd.config.text
    with torch.device("meta"):              # only their names are needed
        networks = {
            "unet": UNet2DConditionModel(block_out_channels=u.channels, attention_head_dim=u.heads,
                                         cross_attention_dim=u.context_dim),
            "vae": AutoencoderKL(block_out_channels=v.channels, layers_per_block=2,
                                 latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 4,
                                 up_block_types=("UpDecoderBlock2D",) * 4),
            "text_encoder": CLIPTextModel(CLIPTextConfig(
                vocab_size=t.vocab_size, hidden_size=t.width, intermediate_size=4 * t.width,
                num_hidden_layers=t.layers, num_attention_heads=t.heads))}
    ours, parts = sd.state_dict(), {}
    for part, network in networks.items():
        parts[part] = {_saved_name(part, name, old): ours[
            names.rename(f"{part}.{_prefixed(part, name)}", "diffusers")]
            for name in network.state_dict() if not name.endswith("position_ids")}
    parts["text_encoder"][POSITION_IDS.removeprefix("cond_stage_model.transformer.")] = (
        torch.arange(77)[None])
    return parts


def _prefixed(part: str, name: str) -> str:
    """transformers from 5.6 on leaves out `text_model.`; published files have it."""
    left_out = part == "text_encoder" and not name.startswith("text_model.")
    return f"text_model.{name}" if left_out else name


def _saved_name(part: str, name: str, old: bool) -> str:
    name = _prefixed(part, name)
    if part == "vae" and old and "attentions" in name:
        for new, first in OLD_VAE.items():
            name = name.replace(f".{new}.", f".{first}.")
    return name


def diffusers_folder(sd: StableDiffusion, folder: Path, *, old: bool = False,
                     half: bool = False) -> Path:
    """A model's weights as `minisd download` leaves them: no config.json anywhere."""
    for part, tensors in diffusers_tensors(sd, old=old).items():
        (folder / part).mkdir(parents=True)
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        kept = {name: tensor.half() if half and tensor.is_floating_point() else tensor
                for name, tensor in tensors.items()}
        save_file(kept, folder / part / f"{stem}{'.fp16' * half}.safetensors")
    return folder
