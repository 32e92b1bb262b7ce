"""Training the UNet to predict the noise in latents, given the caption.

Ho et al. 2020, eq. 14, in the latents of the frozen VAE with the frozen text encoder's states as
context (Rombach et al. 2022, eq. 3); some captions are dropped so that one network learns both
predictions that guidance needs (Ho & Salimans 2022). A smaller size first, as v1's pictures were
256 before 512: close-ups of single things (`crops.py`), then whole scenes, which start from the
averaged weights of the close-ups. Last it is softened: v1's captions describe their pictures
loosely, toyworld's exactly, so that it needs less guidance than v1. At every guidance scale, the
softened network learns to predict what its teacher, the one before, predicts at a share of it.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.diffusion import add_noise, guide, make_schedule
from minisd.observe.pictures import grid
from minisd.observe.png import save_png
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import Tokenizer
from minisd.toyworld import data
from minisd.toyworld.captions import caption, full_caption
from minisd.toyworld.training import crops, loop
from minisd.toyworld.training.crops import Crop
from minisd.toyworld.training.recipe import Recipe
from minisd.unet import UNet

SHEET_SCENES, SHEET_STEPS, SHEET_COLUMNS = 24, 25, 12


def snr_weights(snr: Tensor, cap: float) -> Tensor:
    """min(snr, cap) / snr: less weight where little noise is left (Hang et al. 2023, min-SNR)."""
    return snr.clamp(max=cap) / snr


class Stage:
    """`unet_small`: close-ups; `unet`: whole scenes; `unet_soft`: softened."""

    def __init__(self, name: str, sd: StableDiffusion, posteriors: Tensor, recipe: Recipe) -> None:
        """sd: a pipeline whose VAE and text encoder are trained; its UNet is what is trained."""
        assert sd.tokenizer is not None
        self.sd, self.posteriors, self.recipe = sd, posteriors, recipe
        self.choose = crops.close_ups if name == "unet_small" else crops.whole
        self.crops = self.choose(range(len(posteriors)), posteriors.shape[-1], seed=recipe.seed)
        self.tokenizer: Tokenizer = sd.tokenizer
        self.part = getattr(recipe, name)
        self.teacher = (copy.deepcopy(sd.unet).requires_grad_(False) if name == "unet_soft"
                        else None)
        schedule = make_schedule(sd.config.schedule)
        self.alpha_bar = schedule.alpha_bar
        self.weights = snr_weights(schedule.snr(), recipe.snr_cap)
        sd.unet.requires_grad_(True)
        loop.explicit_attention(sd.unet)

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """The weighted error of the predicted noise on one micro-batch."""
        n = self.part.batch
        shown = [self.crops[i] for i in torch.randint(len(self.crops), (n,), generator=g).tolist()]
        mean, std = crops.cut(self.posteriors, shown).float().unbind(1)     # n c h w
        sample, noise = torch.randn((2, *mean.shape), generator=g)
        t = self.timesteps(n, g)
        x0 = (mean + std * sample) * self.sd.config.vae.scale_factor
        x_t = add_noise(x0, noise, self.alpha_bar[t])
        ids = self.tokenizer(self.captions(shown, g))
        x_t, noise, t, ids, weights = map(loop.shard, (x_t, noise, t, ids, self.weights[t]))
        with loop.autocast():
            with torch.no_grad():
                context = self.sd.text_encoder(ids)
            if self.teacher is None:
                eps = self.sd.unet(x_t, t, context)
            else:
                scale = loop.shard(self.recipe.soft_largest * torch.rand(n, 1, 1, 1, generator=g))
                eps, noise = self.soften(self.teacher, scale, x_t, t, context)
        errors = (eps - noise).square().flatten(1).mean(1)                  # n
        return {"loss": (weights * errors).mean() / float(self.weights.mean()),
                "mse": errors.mean()}

    def soften(self, teacher: UNet, scale: Tensor, x_t: Tensor, t: Tensor, context: Tensor
               ) -> tuple[Tensor, Tensor]:
        """The guided prediction, of a scale for each sample, and the teacher's at a share of it."""
        with torch.no_grad():
            empty = self.sd.text_encoder(self.tokenizer([""]).to(x_t.device))
        contexts = torch.cat([empty.expand_as(context), context])

        def guided(unet: UNet, scale: Tensor) -> Tensor:
            both = unet(x_t.repeat(2, 1, 1, 1), t.repeat(2), contexts).to(x_t.dtype)
            uncond, cond = both.chunk(2)
            return guide(uncond, cond, scale)       # type: ignore[arg-type]

        with torch.no_grad():
            target = guided(teacher, self.recipe.soft_share * scale)
        return guided(self.sd.unet, scale), target

    def timesteps(self, n: int, g: torch.Generator) -> Tensor:
        """(n,) of all timesteps alike, but for some that are drawn from the noisiest ones.

        Which thing stands where is decided there, before any outline can be seen in x_t.
        """
        total, early = len(self.alpha_bar), self.recipe.early_from
        lowest = torch.where(torch.rand(n, generator=g) < self.recipe.early_share, early, 0)
        return lowest + (torch.rand(n, generator=g) * (total - lowest)).long()

    def captions(self, shown: list[Crop], g: torch.Generator) -> list[str]:
        """A new caption for every crop each time it is seen; some are dropped."""
        rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
        return ["" if rng.random() < self.recipe.caption_dropout else caption(crop.scene, rng)
                for crop in shown]

    @torch.no_grad()
    def sheet(self, path: Path, average: UNet) -> None:
        """Pictures of unseen scenes' captions by the averaged UNet, from fixed seeds."""
        unseen = self.choose(range(2 * SHEET_SCENES), self.posteriors.shape[-1],
                             split=data.UNSEEN)[:SHEET_SCENES]
        side = unseen[0].side * self.sd.config.vae.downscale
        trained, self.sd.unet = self.sd.unet, average
        pictures = self.sd.text_to_image(
            [full_caption(crop.scene) for crop in unseen], steps=SHEET_STEPS,
            seed=list(range(len(unseen))), height=side, width=side)
        self.sd.unet = trained
        save_png(grid(pictures, SHEET_COLUMNS), path)
