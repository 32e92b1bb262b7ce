"""Checks of the notebooks' exercises: `check_...(your answer)` says what is right, or what is not.

An exercise that is not answered yet gets its hint; nothing here raises.
"""

from minisd.exercises.attention import check_attention, check_geglu, check_split_heads
from minisd.exercises.backward import (
    check_blend,
    check_combinations,
    check_pca,
    check_snapshot_marks,
    check_steps_run,
    check_swap_word,
)
from minisd.exercises.checking import Verdict
from minisd.exercises.diffusion import check_add_noise, check_loss, check_predict_x0, check_snr
from minisd.exercises.evaluation import check_best_guidance, check_frechet, check_interval
from minisd.exercises.guidance import check_guide, check_other_convention, check_passes
from minisd.exercises.quickstart import check_negative_prompt, check_predictions
from minisd.exercises.samplers import check_ddim_step, check_euler_step, check_heun_evaluations
from minisd.exercises.text import (
    check_causal_attention,
    check_conv_parameters,
    check_cosine,
    check_latent_shape,
    check_merge,
    check_pad,
    check_quick_gelu,
)
from minisd.exercises.training import (
    check_carbon,
    check_ema,
    check_info_nce,
    check_kl,
    check_noise_loss,
    check_samples_seen,
)
from minisd.exercises.unet import (
    check_skip_count,
    check_timestep_embedding,
    check_up_widths,
)
from minisd.exercises.vae import check_posterior_sample, check_psnr, check_to_z

__all__ = ["Verdict", "check_add_noise", "check_attention", "check_best_guidance", "check_blend",
           "check_carbon", "check_causal_attention", "check_combinations", "check_conv_parameters",
           "check_cosine", "check_ddim_step", "check_ema", "check_euler_step", "check_frechet",
           "check_geglu", "check_guide", "check_heun_evaluations", "check_info_nce",
           "check_interval", "check_kl", "check_latent_shape", "check_loss", "check_merge",
           "check_negative_prompt", "check_noise_loss", "check_other_convention", "check_pad",
           "check_passes", "check_pca", "check_posterior_sample", "check_predict_x0",
           "check_predictions", "check_psnr", "check_quick_gelu", "check_samples_seen",
           "check_skip_count", "check_snapshot_marks", "check_snr", "check_split_heads",
           "check_steps_run", "check_swap_word", "check_timestep_embedding", "check_to_z",
           "check_up_widths"]
