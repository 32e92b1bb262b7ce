"""Training the autoencoder on crops of drawn scenes.

Esser et al. 2021 and Rombach et al. 2022 (appendix G) train theirs with an L1 error, a perceptual
and an adversarial term and a very small KL. Here the pictures are flat drawings: an L1 error of
neighbouring pixels' differences keeps the outlines sharp in place of the last two. At the end the
decoder alone is trained on, towards the least squared error, while the encoder and with it the
latents stay: as the "ft-MSE" decoder was that followed v1.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.config import Config
from minisd.observe.pictures import psnr, save_grid
from minisd.toyworld import data, loop
from minisd.toyworld.recipe import Recipe
from minisd.vae import VAE

WHOLE_SHARE = 4             # every so-manieth sample is a whole scene at the crop's size


def random_crops(images: np.ndarray, batch: int, crop: int, g: torch.Generator) -> Tensor:
    """Crops at full size and, now and then, a whole scene shrunk, (batch, 3, crop, crop).

    The shrunk ones prepare the encoder for the small pictures of the UNet's first stage.
    """
    index = torch.randint(len(images), (batch,), generator=g).tolist()
    corner = torch.randint(images.shape[1] - crop + 1, (batch, 2), generator=g).tolist()
    out = torch.empty(batch, 3, crop, crop)
    for i, (n, (top, left)) in enumerate(zip(index, corner, strict=True)):
        if i % WHOLE_SHARE == 0:
            out[i] = F.interpolate(data.to_tensor(images[n:n + 1]), size=crop, mode="area")[0]
        else:
            out[i] = data.to_tensor(images[n:n + 1, top:top + crop, left:left + crop])[0]
    return out


def edge_error(a: Tensor, b: Tensor) -> Tensor:
    """L1 error of the differences between neighbouring pixels, down and across."""
    error = a - b
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


class Stage:
    """One of the two stages: both networks together, then the decoder alone."""

    def __init__(self, name: str, vae: VAE, config: Config, recipe: Recipe, folder: Path, *,
                 share: loop.Share) -> None:
        self.name, self.vae, self.config, self.recipe = name, vae, config, recipe
        self.part = getattr(recipe, name)
        with loop.first_alone(share):
            self.images = data.cached_pictures(folder, recipe.scenes, size=config.image_size,
                                               seed=recipe.seed)
        self.unseen = data.to_tensor(data.pictures(range(8), size=config.image_size,
                                                   split=data.UNSEEN, seed=recipe.seed))
        self.fit = loop.Fit(name, vae, self.part, self.loss, folder, seed=recipe.seed,
                            share=share, sheet=self.sheet, sheet_every=300)

    def loss(self, g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        """What is lost on the way through a sample of the posterior, on one micro-batch."""
        crops = random_crops(self.images, self.part.batch, self.recipe.crop, g)
        sides = (side // self.config.vae.downscale for side in crops.shape[2:])
        noise = torch.randn(len(crops), self.config.vae.latent_channels, *sides, generator=g)
        crops, noise = (share.of(x).to(loop.device()) for x in (crops, noise))
        with loop.autocast():
            posterior = self.vae.encode(crops)
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).float()
        quality = {"psnr": psnr(decoded, crops).mean()}
        if self.name == "decoder":
            return {"loss": F.mse_loss(decoded, crops), **quality}
        l1, edges = (decoded - crops).abs().mean(), edge_error(decoded, crops)
        kl = posterior.kl().float().mean() / noise[0].numel()
        total = l1 + self.recipe.edge_weight * edges + self.recipe.kl_weight * kl
        return {"loss": total, "l1": l1, "edges": edges, "kl": kl, **quality}

    @torch.no_grad()
    def sheet(self, path: Path) -> None:
        """Unseen scenes over what comes back of them."""
        decoded = self.fit.average(self.unseen.to(loop.device())).float().cpu()
        print(f"{path.stem}: {psnr(decoded, self.unseen).mean():.2f} dB on unseen scenes")
        save_grid(path, torch.cat([self.unseen, decoded]), columns=len(self.unseen))


def train(config: Config, recipe: Recipe, folder: Path, *, share: loop.Share,
          minutes: float | None = None, start: dict[str, Tensor] | None = None) -> VAE:
    """The trained VAE, still with scale factor 1; see `latents.measure_scale`.

    start: weights to begin with; the first stage is then skipped and the encoder stays as it is.
    """
    torch.manual_seed(recipe.seed)
    vae = VAE(config.vae).to(loop.device())
    if start is None:
        first = Stage("vae", vae, config, recipe, folder, share=share)
        start = first.fit.run(minutes).state_dict()
        if first.fit.step < recipe.vae.steps:
            return first.fit.average
    vae.load_state_dict(start)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return Stage("decoder", vae, config, recipe, folder, share=share).fit.run(minutes)
