"""The independent implementations we compare with (diffusers, transformers), holding our weights.

Every parameter is drawn at random first, norms included: default ones and zeros would hide a
mistaken or missing one. Two settings:

- loud: values of ordinary size, as in a trained network;
- quiet: whatever writes to a stream that a norm reads is 100 times smaller, so that every norm
  sees variances near 1e-5 and its eps decides the result. An eps of 1e-5 for 1e-6 or the reverse
  moves loud results by 2e-5 at most if it is wrong everywhere, and by less than rounding at one
  norm; quiet ones by 3e-2 and 1e-4 (`moved_by_eps`, asserted for each norm of each network).
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minisd.config import ImageTowerConfig, TextConfig, UNetConfig, VAEConfig

# Of ||a - b|| / ||b||. Float32 rounds at 6e-8; sums in another order, through the tens of layers
# of a tiny network, leave 1e-7 to 1e-6. The smallest wrong constant moves quiet results by 1e-4.
TOLERANCE = 1e-5
QUIET = 1e-2
WRITES_TO_A_NORM = re.compile(
    r"conv_in|conv[12]\.|time_proj|attention\.proj_in|to_out|ff\.proj_out|fc2"
    r"|_embedding\.weight|patch_embedding\.|class_embedding|pre_norm"
    r"|(shortcut|sample\.conv|attention\.proj_out)\.bias")     # their weights pass quiet on

Rules = list[tuple[str, str]]       # from the reference's names to ours

BLOCKS: Rules = [
    (r"time_emb_proj", "time_proj"),
    (r"conv_shortcut", "shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"transformer_blocks\.0", "block"),
    (r"attn1", "self_attn"),
    (r"attn2", "cross_attn"),
    (r"to_out\.0", "to_out"),
    (r"ff\.net\.0\.proj", "ff.proj_in"),
    (r"ff\.net\.2", "ff.proj_out"),
]
UNET: Rules = BLOCKS + [
    (r"time_embedding\.linear_", "time_embedding.linear"),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.layers.\3.resnet"),
    (r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.layers.\3.attention"),
    (r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0", r"\1.\2.\3sample"),
    (r"mid_block\.resnets\.(\d+)", r"mid.layers.\1.resnet"),
    (r"mid_block\.attentions\.0", "mid.layers.0.attention"),
]
VAE: Rules = BLOCKS + [
    (r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0", r"levels.\2.resample"),
    (r"(down|up)_blocks", "levels"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attention.norm"),
    (r"mid_block\.attentions\.0", "mid.attention.self_attn"),
    (r"mid_block", "mid"),
]
TOWER: Rules = [
    (r"\b(embeddings|encoder)\.", ""),
    (r"([qkv])_proj", r"to_\1"),
    (r"out_proj", "to_out"),
    (r"\.layer_norm([12])", r".norm\1"),
    (r"final_layer_norm", "final_norm"),
]
TEXT: Rules = [(r"^text_model\.", ""), *TOWER]      # no prefix since transformers 5.6


def scramble(module: nn.Module, *, quiet: bool = False, seed: int = 0) -> None:
    """Give every parameter a random value; no gradients from here on."""
    g = torch.Generator().manual_seed(seed)
    for name, p in module.requires_grad_(False).named_parameters():
        values = torch.randn(p.shape, generator=g)
        if "norm" in name:
            values = 0.2 * values + name.endswith("weight")
        elif name.endswith("weight") and p.ndim > 1 and "embedding.weight" not in name:
            values = values / p[0].numel() ** 0.5       # keeps the variance of what passes
        elif name.endswith("bias"):
            values = 0.2 * values
        p.copy_(QUIET * values if quiet and WRITES_TO_A_NORM.search(name) else values)


def copy_weights(ours: nn.Module, theirs: nn.Module, rules: Rules) -> None:
    """Load our values into the reference, strictly; every one of ours must be used once."""
    def ours_of(key: str) -> str:
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        return key

    values = ours.state_dict()
    keys = {key: ours_of(key) for key in theirs.state_dict() if not key.endswith("position_ids")}
    assert sorted(keys.values()) == sorted(values)
    theirs.load_state_dict({key: values[name] for key, name in keys.items()}, strict=False)
    theirs.requires_grad_(False).eval()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs||; the shapes must agree."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).double().norm() / theirs.double().norm())


def moved_by_eps(model: nn.Module, result: Callable[[], Tensor]) -> dict[str, float]:
    """How far the other eps, 1e-5 for 1e-6 or the reverse, moves the result at each norm alone."""
    before, moved = result(), {}
    for name, norm in model.named_modules():
        if isinstance(norm, nn.GroupNorm | nn.LayerNorm):
            eps, norm.eps = norm.eps, {1e-5: 1e-6, 1e-6: 1e-5}[norm.eps]
            moved[name] = relative_error(result(), before)
            norm.eps = eps
    return moved


# The references, built at our sizes

def unet(config: UNetConfig) -> nn.Module:
    from diffusers import UNet2DConditionModel

    def blocks(way: str, attention: tuple[bool, ...]) -> tuple[str, ...]:
        return tuple(f"CrossAttn{way}Block2D" if a else f"{way}Block2D" for a in attention)

    return UNet2DConditionModel(
        in_channels=config.latent_channels, out_channels=config.latent_channels,
        block_out_channels=config.channels, layers_per_block=config.layers_per_block,
        down_block_types=blocks("Down", config.attention),
        up_block_types=blocks("Up", config.attention[::-1]),
        cross_attention_dim=config.context_dim, norm_num_groups=config.groups,
        attention_head_dim=config.heads)        # which in v1's configuration means heads


def vae(config: VAEConfig) -> nn.Module:
    from diffusers import AutoencoderKL

    levels = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels, layers_per_block=config.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, norm_num_groups=config.groups,
        latent_channels=config.latent_channels)


def transformer(config: TextConfig | ImageTowerConfig) -> dict[str, Any]:
    """The sizes of one of CLIP's towers, as transformers calls them."""
    sizes = {"hidden_size": config.width, "intermediate_size": 4 * config.width,
             "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
             "hidden_act": "quick_gelu"}
    if isinstance(config, ImageTowerConfig):
        return sizes | {"image_size": config.image_size, "patch_size": config.patch_size}
    end = config.vocab_size - 1
    return sizes | {"vocab_size": end + 1, "max_position_embeddings": config.max_length,
                    "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}


def clip_text(config: TextConfig) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**transformer(config)))


def scheduler(name: str) -> Any:
    """Diffusers' sampler with v1's settings."""
    import diffusers

    leading = {"timestep_spacing": "leading"}
    v1 = leading | {"steps_offset": 1, "set_alpha_to_one": False}
    kind, settings = {
        "ddpm": (diffusers.DDPMScheduler, leading | {"clip_sample": False}),
        "ddim": (diffusers.DDIMScheduler, v1 | {"clip_sample": False}),
        "plms": (diffusers.PNDMScheduler, v1 | {"skip_prk_steps": True}),
        "lms": (diffusers.LMSDiscreteScheduler, {}),
        "euler": (diffusers.EulerDiscreteScheduler, {}),
        "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
        "heun": (diffusers.HeunDiscreteScheduler, {}),
        "dpm++2m": (diffusers.DPMSolverMultistepScheduler, {})}[name]
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings)
