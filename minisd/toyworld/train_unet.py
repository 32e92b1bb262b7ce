"""Training the UNet to predict the noise in latents, told the caption.

Ho et al. 2020, eq. 14, in the latents of the frozen VAE with the frozen text encoder's states as
context (Rombach et al. 2022, eq. 3); a tenth of the captions is dropped so that one network learns
both predictions that guidance needs (Ho & Salimans 2022). A smaller size first, as v1's pictures
were 256 before 512: close-ups of single things (`views.py`), then whole scenes, which start from
the averaged weights of the close-ups.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minisd.clip import CLIPTextTransformer
from minisd.config import Config
from minisd.diffusion import add_noise, make_schedule
from minisd.observe.pictures import grid
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import Tokenizer
from minisd.toyworld import data, loop, views
from minisd.toyworld.captions import caption, full_caption
from minisd.toyworld.recipe import Recipe
from minisd.toyworld.views import View
from minisd.unet import UNet
from minisd.vae import VAE

SHEET_SCENES, SHEET_STEPS, SHEET_GUIDANCE, SHEET_COLUMNS = 24, 25, 5.0, 12


def snr_weights(snr: Tensor, cap: float) -> Tensor:
    """min(snr, cap) / snr: less weight where little noise is left (Hang et al. 2023, min-SNR)."""
    return snr.clamp(max=cap) / snr


class Stage:
    """One size of the UNet's training: `unet_small`, the close-ups, or `unet`, whole scenes."""

    def __init__(self, name: str, sd: StableDiffusion, posteriors: Tensor, recipe: Recipe,
                 folder: Path, *, share: loop.Share) -> None:
        """sd: a pipeline whose VAE and text encoder are trained; its UNet is what is trained."""
        assert sd.tokenizer is not None
        self.name, self.sd, self.posteriors, self.recipe = name, sd, posteriors, recipe
        self.choose = views.close_ups if name == "unet_small" else views.whole
        self.views = self.choose(range(len(posteriors)), posteriors.shape[-1], seed=recipe.seed)
        self.tokenizer: Tokenizer = sd.tokenizer
        self.part = getattr(recipe, name)
        schedule = make_schedule(sd.config.schedule)
        self.alpha_bar = schedule.alpha_bar
        self.weights = snr_weights(schedule.snr(), recipe.snr_cap).float()
        self.fit = loop.Fit(name, sd.unet, self.part, self.loss, folder, seed=recipe.seed,
                            share=share, sheet=self.sheet)
        if loop.device().type == "cpu":
            loop.lay_open(sd.unet)

    def loss(self, g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        """The weighted error of the predicted noise on one micro-batch."""
        n, device = self.part.batch, loop.device()
        index = torch.randint(len(self.views), (n,), generator=g).tolist()
        shown = [self.views[i] for i in index]
        mean, std = views.cut(self.posteriors, shown).float().unbind(1)     # n c h w
        draws = torch.randn((2, *mean.shape), generator=g)
        t = self.timesteps(n, g)
        x0 = (mean + std * draws[0]) * self.sd.config.vae.scale_factor
        x_t = add_noise(x0, draws[1], self.alpha_bar[t])
        ids = self.tokenizer(self.captions(shown, g))
        x_t, noise, t, ids = (share.of(x).to(device) for x in (x_t, draws[1], t, ids))
        with loop.autocast():
            with torch.no_grad():
                context = self.sd.text_encoder(ids)
            eps = self.sd.unet(x_t, t, context)
        errors = (eps.float() - noise).square().flatten(1).mean(1)          # n
        weights = self.weights.to(device)[t]
        return {"loss": (weights * errors).mean() / self.weights.mean(), "mse": errors.mean()}

    def timesteps(self, n: int, g: torch.Generator) -> Tensor:
        """(n,) of all timesteps alike, but for a share that is drawn from the noisiest ones.

        Which thing stands where is decided there, before any outline can be seen in x_t.
        """
        total, early = len(self.alpha_bar), self.recipe.early_from
        lowest = torch.where(torch.rand(n, generator=g) < self.recipe.early_share, early, 0)
        return lowest + (torch.rand(n, generator=g) * (total - lowest)).long()

    def captions(self, shown: list[View], g: torch.Generator) -> list[str]:
        """A new caption for every view each time it is seen; some are dropped."""
        rng = np.random.default_rng(int(torch.randint(2 ** 62, (), generator=g)))
        return ["" if rng.random() < self.recipe.caption_dropout
                else caption(view.scene, rng) for view in shown]

    @torch.no_grad()
    def sheet(self, path: Path) -> None:
        """Pictures of unseen scenes' captions by the averaged UNet, from fixed seeds."""
        unseen = self.choose(range(2 * SHEET_SCENES), self.posteriors.shape[-1],
                             split=data.UNSEEN)[:SHEET_SCENES]
        side = unseen[0].side * self.sd.config.vae.downscale
        trained, self.sd.unet = self.sd.unet, self.fit.average
        try:
            pictures = [self.sd.text_to_image(full_caption(view.scene),
                                              guidance_scale=SHEET_GUIDANCE, steps=SHEET_STEPS,
                                              seed=i, height=side, width=side)[0]
                        for i, view in enumerate(unseen)]
        finally:
            self.sd.unet = trained
        grid(pictures, SHEET_COLUMNS).save(path)


def train(config: Config, recipe: Recipe, folder: Path, vae: VAE, text: CLIPTextTransformer,
          tokenizer: Tokenizer, posteriors: Tensor, *, share: loop.Share,
          minutes: float | None = None, start: dict[str, Tensor] | None = None) -> UNet:
    """The trained UNet. posteriors: of the training scenes (`latents.encode`).

    start: weights to begin the whole scenes with; the close-ups are then skipped.
    """
    torch.manual_seed(recipe.seed)
    sd = StableDiffusion(config, tokenizer)
    sd.vae, sd.text_encoder = vae, text
    sd.requires_grad_(False)
    sd.unet.requires_grad_(True)
    sd.to(loop.device())
    if start is None:
        first = Stage("unet_small", sd, posteriors, recipe, folder, share=share)
        start = first.fit.run(minutes).state_dict()
        if first.fit.step < recipe.unet_small.steps:
            return first.fit.average
    sd.unet.load_state_dict(start)
    return Stage("unet", sd, posteriors, recipe, folder, share=share).fit.run(minutes)
