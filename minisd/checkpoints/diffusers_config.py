"""The sizes of a model in diffusers' layout, from the config.json files of its folders.

Such files say what no tensor's shape does: the number of heads and of groups, the scale of the
latents, the schedule. Many of their settings lead to other networks than Stable Diffusion v1's;
each one that would is refused by name. Bare weights without these files have v1's settings.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minisd.config import V1, ScheduleConfig, TextConfig, UNetConfig, VAEConfig
from minisd.tokenizer import warn

Settings = Mapping[str, Any]

# What Stable Diffusion v1 has, which is also what a file means that leaves a setting out.
TEXT_FIXED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
UNET_FIXED = {
    "act_fn": "silu", "flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "time_embedding_type": "positional",
    "resnet_time_scale_shift": "default", "downsample_padding": 1,
    "mid_block_scale_factor": 1, "transformer_layers_per_block": 1, "use_linear_projection": False,
    "only_cross_attention": False, "dual_cross_attention": False, "center_input_sample": False,
    "class_embed_type": None, "addition_embed_type": None, "encoder_hid_dim": None,
    "num_class_embeds": None}
VAE_FIXED = {"act_fn": "silu", "shift_factor": None, "latents_mean": None,
             "mid_block_add_attention": True, "use_quant_conv": True, "use_post_quant_conv": True}
SCHEDULE_FIXED = {"beta_schedule": "scaled_linear", "trained_betas": None,
                  "rescale_betas_zero_snr": False}
CROSS_ATTENTION = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
CLIP_DEFAULTS = {"vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 12,
                 "num_attention_heads": 8, "max_position_embeddings": 77}


def text_config(settings: Settings) -> TextConfig:
    """Of text_encoder/config.json, in which transformers may leave out its own defaults."""
    _check(settings, TEXT_FIXED)
    vocab, width, layers, heads, length = (settings.get(key, default)
                                           for key, default in CLIP_DEFAULTS.items())
    return TextConfig(vocab, width, layers, heads, length)


def vae_config(settings: Settings) -> VAEConfig:
    """Of vae/config.json."""
    _check(settings, VAE_FIXED)
    return VAEConfig(tuple(settings["block_out_channels"]), settings["layers_per_block"],
                     settings.get("norm_num_groups", V1.vae.groups),
                     settings.get("scaling_factor", V1.vae.scale_factor),
                     settings["latent_channels"], settings.get("in_channels", 3))


def unet_config(settings: Settings) -> UNetConfig:
    """Of unet/config.json, where `attention_head_dim` means the number of heads."""
    _check(settings, UNET_FIXED)
    kinds = settings["down_block_types"]
    strange = [kind for kind in kinds if kind not in CROSS_ATTENTION]
    mirrored = [kind.replace("Down", "Up") for kind in reversed(kinds)]
    if strange or settings.get("up_block_types", mirrored) != mirrored:
        raise ValueError(f"its blocks are {kinds} and {settings.get('up_block_types')}, expected "
                         f"{' or '.join(CROSS_ATTENTION)} down, and the same up")
    heads = settings.get("num_attention_heads") or settings["attention_head_dim"]
    if not isinstance(heads, int) or not isinstance(settings["layers_per_block"], int):
        raise ValueError(f"its levels differ in heads or layers (attention_head_dim {heads}), "
                         f"expected one number, as in v1")
    return UNetConfig(tuple(settings["block_out_channels"]),
                      tuple(CROSS_ATTENTION[kind] for kind in kinds), settings["layers_per_block"],
                      heads, settings["cross_attention_dim"],
                      settings.get("norm_num_groups", V1.unet.groups), settings["in_channels"])


def schedule_config(settings: Settings) -> ScheduleConfig:
    """Of scheduler/scheduler_config.json, whichever sampler it is for.

    Betas of another kind than v1's are not taken over: the file may be for a sampler only.
    """
    if settings.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError(f"its prediction_type is {settings['prediction_type']!r}, as in Stable "
                         f"Diffusion v2; expected 'epsilon'")
    other = {key: settings[key] for key, expected in SCHEDULE_FIXED.items()
             if settings.get(key, expected) != expected}
    if other:
        warn(f"v1's noise schedule is used in place of the one in scheduler_config.json ({other})")
        return V1.schedule
    own = V1.schedule
    return ScheduleConfig(settings.get("beta_start", own.beta_start),
                          settings.get("beta_end", own.beta_end),
                          settings.get("num_train_timesteps", own.timesteps))


def image_size(settings: Settings, vae: VAEConfig) -> int:
    """Pixels along each side, of unet/config.json, where `sample_size` is in latent cells."""
    cells = settings["sample_size"]
    if not isinstance(cells, int):
        raise ValueError(f"its sample_size is {cells!r}, expected one number, of a square")
    return cells * vae.downscale


READERS: dict[str, tuple[str, Callable[[Settings], Any]]] = {
    "text_encoder/config.json": ("text", text_config),
    "vae/config.json": ("vae", vae_config),
    "unet/config.json": ("unet", unet_config),
    "scheduler/scheduler_config.json": ("schedule", schedule_config),
}


def read_configs(folder: Path) -> dict[str, Any]:
    """What the files of a folder say: fields of `Config` by name; {} where there are none.

    Raises ValueError for a damaged file, and for settings of another network than v1's.
    """
    found: dict[str, Any] = {}
    for name, (field, read) in READERS.items():
        path = folder / name
        if path.is_file():
            try:
                settings = json.loads(path.read_text(encoding="utf-8"))
                found[field] = read(settings)
                if field == "unet" and settings.get("sample_size"):
                    found["image_size"] = image_size(settings, found.get("vae", V1.vae))
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{name} does not describe this network ({error!r}): fetch it "
                                 f"again") from error
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return found


def _check(settings: Settings, fixed: Settings) -> None:
    """Raise ValueError for settings that make another network than v1's."""
    for key, expected in fixed.items():
        if settings.get(key, expected) != expected:
            raise ValueError(f"its {key} is {settings[key]!r}, expected {expected!r} as in Stable "
                             f"Diffusion v1")
