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
from minisd.images import to_pil
from minisd.observe.pictures import grid, psnr
from minisd.observe.png import save_png
from minisd.toyworld import data
from minisd.toyworld.training import cache, loop
from minisd.toyworld.training.recipe import Recipe
from minisd.vae import VAE

WHOLE = 4                   # one sample of so many is a whole scene at the crop's size


def random_crops(images: np.ndarray, batch: int, crop: int, g: torch.Generator) -> Tensor:
    """Crops at full size and, now and then, a whole scene shrunk, (batch, 3, crop, crop).

    The shrunk ones prepare the encoder for the small pictures of the UNet's first stage.
    """
    index = torch.randint(len(images), (batch,), generator=g).tolist()
    corner = torch.randint(images.shape[1] - crop + 1, (batch, 2), generator=g).tolist()
    found = []
    for i, (n, (top, left)) in enumerate(zip(index, corner, strict=True)):
        scene = data.to_tensor(images[n:n + 1])
        found.append(F.interpolate(scene, size=crop, mode="area") if i % WHOLE == 0 else
                     scene[:, :, top:top + crop, left:left + crop])
    return torch.cat(found)


def edge_error(a: Tensor, b: Tensor) -> Tensor:
    """L1 error of the differences between neighbouring pixels, down and across."""
    error = a - b
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


class Stage:
    """`vae`: both networks together; `decoder`: the decoder alone."""

    def __init__(self, name: str, vae: VAE, config: Config, recipe: Recipe, folder: Path) -> None:
        self.name, self.vae, self.config, self.recipe = name, vae, config, recipe
        self.part = getattr(recipe, name)
        self.images = cache.pictures(folder, recipe.scenes, size=config.image_size,
                                     seed=recipe.seed)
        vae.requires_grad_(True)
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(name == "vae")

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """The loss between crops and what comes back of a sample of their posterior."""
        recipe, n = self.recipe, self.part.batch
        crops = random_crops(self.images, n, recipe.crop, g)
        side = recipe.crop // self.config.vae.downscale
        sample = torch.randn(n, self.config.vae.latent_channels, side, side, generator=g)
        crops, sample = map(loop.shard, (crops, sample))
        with loop.autocast():
            posterior = self.vae.encode(crops)
            decoded = self.vae.decode(posterior.mean + posterior.std * sample)
        error, quality = decoded - crops, psnr(decoded, crops).mean()
        if self.name == "decoder":
            return {"loss": error.square().mean(), "psnr": quality}
        l1, edges = error.abs().mean(), edge_error(decoded, crops)
        kl = posterior.kl().to(crops).mean() / sample[0].numel()
        return {"loss": l1 + recipe.edge_weight * edges + recipe.kl_weight * kl, "l1": l1,
                "edges": edges, "kl": kl, "psnr": quality}

    @torch.no_grad()
    def sheet(self, path: Path, average: VAE) -> None:
        """Draw unseen scenes over what comes back of them, and print how near that is."""
        unseen = data.drawn([data.scene(i, split=data.UNSEEN, seed=self.recipe.seed)
                             for i in range(8)], self.config.image_size)
        decoded = average(unseen.to(loop.device())).float().cpu()
        print(f"{path.stem}: {psnr(decoded, unseen).mean():.2f} dB on unseen scenes")
        save_png(grid(to_pil(torch.cat([unseen, decoded])), len(unseen)), path)
