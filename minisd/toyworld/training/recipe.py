"""Every hyper-parameter of toyworld's training, in one place.

The shape of the recipe is that of Stable Diffusion v1's model card: an autoencoder, a contrastive
text encoder that is then frozen, and a UNet with AdamW, a warm-up to a constant learning rate,
an exponential moving average (EMA), a tenth of the captions dropped, and a smaller resolution
first. The numbers are toyworld's own.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """How one network is optimised."""

    steps: int                      # gradient steps
    batch: int                      # samples of one micro-batch, over all processes together
    lr: float                       # learning rate after the warm-up
    accumulate: int = 1             # micro-batches per gradient step
    warmup: int = 100               # steps over which the learning rate rises from zero
    cooldown: int = 0               # last steps, over which it falls to zero along a cosine
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0               # the gradient's norm is cut to this
    ema: float = 0.999              # the average's decay once it is warm


@dataclass(frozen=True)
class Recipe:
    """The whole training. `python -m minisd.toyworld.train all` runs it in this order."""

    seed: int = 0
    scenes: int = 40_000            # drawn for training; scene i is a function of (seed, i)

    vae: Part = Part(steps=4_500, batch=16, lr=1e-3, warmup=200, cooldown=4_300)
    crop: int = 64                  # pixels along each side of the VAE's training crops
    kl_weight: float = 1e-4         # of the mean KL per latent value, beside the mean L1 error
    edge_weight: float = 0.5        # of the L1 error of differences between neighbouring pixels
    decoder: Part = Part(steps=1_500, batch=16, lr=5e-4, warmup=50, cooldown=1_400)

    clip: Part = Part(steps=2_000, batch=128, lr=1e-3, warmup=60, cooldown=1_400)
    clip_words: Part = Part(steps=600, batch=128, lr=1e-3, warmup=30)        # captions alone
    clip_foils: Part = Part(steps=500, batch=128, lr=1e-3, warmup=30, cooldown=450)
    clip_search: Part = Part(steps=1_850, batch=128, lr=1.5e-3, warmup=50, cooldown=1_800,
                             ema=0.995)
    hard_negatives: float = 0.25    # of a batch's scenes, that differ from another in one respect
    plain_captions: float = 0.5     # of the scenes with foils, that are captioned plainly

    unet_small: Part = Part(steps=800, batch=256, lr=1e-3, warmup=100, ema=0.998)  # close-ups
    unet: Part = Part(steps=14_200, batch=64, lr=1e-3, warmup=100, cooldown=5_900, ema=0.9995)
    caption_dropout: float = 0.1    # of the captions, replaced by "" (classifier-free guidance)
    early_share: float = 0.5        # of the timesteps, drawn where a picture's layout is decided:
    early_from: int = 600           # from this one up, in the first steps of sampling
    snr_cap: float = 5.0            # min-SNR weighting (Hang et al. 2023)
    unet_soft: Part = Part(steps=4_400, batch=32, lr=3e-4, warmup=50, cooldown=4_300, ema=0.998)
    soft_share: float = 0.4         # of a guidance scale, that the teacher is given
    soft_largest: float = 10.0      # scale that is learned

    polish: Part = Part(steps=1_600, batch=8, lr=6e-4, warmup=50, cooldown=1_500, ema=0.997)
    repainted: int = 6_400          # scenes whose latents the UNet repaints for the decoder

    judge: Part = Part(steps=3_000, batch=64, lr=2e-3, cooldown=2_900, ema=0.995)


RECIPE = Recipe()
