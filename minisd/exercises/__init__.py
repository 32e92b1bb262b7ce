"""Checks of the notebooks' exercises: `check_...(your answer)` says what is right, or what is not.

One file for each notebook, imported when its first check is used.
"""

from importlib import import_module
from typing import Any

CHECKS = {
    "quickstart": "negative_prompt predictions",
    "overview": "conv_parameters latent_shape",
    "plane": "jump implied_eps posterior_mean why_noise why_many_steps",
    "tokenization": "merge pad",
    "text_encoder": "causal_attention quick_gelu cosine",
    "attention": "attention split_heads geglu",
    "unet": "timestep_embedding skip_count up_widths",
    "vae": "psnr posterior_sample to_z why_latents",
    "diffusion": "add_noise snr predict_x0 loss",
    "guidance": "guide other_convention passes",
    "samplers": "ddim_step euler_step heun_evaluations",
    "backward": "snapshot_marks pca",
    "editing": "steps_run blend",
    "prompts": "swap_word combinations",
    "training": "kl info_nce noise_loss ema",
    "evaluation": "interval frechet best_guidance",
    "model_card": "samples_seen carbon",
    "flow_matching": "flow_x0 why_bent",
    "pfgmpp": "kernel_weights",
    "mdt": "adaln put_back why_no_mask_tokens",
    "comparison": "gap why_not_comparable",
    "few_steps": "target_eps why_guidance_is_fixed",
}
HOMES = {f"check_{check}": file for file, checks in CHECKS.items() for check in checks.split()}
__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'minisd.exercises' has no attribute {name!r}")
    return getattr(import_module(f"minisd.exercises.{HOMES[name]}"), name)
