"""Training the autoencoder on crops of drawn scenes.

Esser et al. 2021 and Rombach et al. 2022 (appendix G) train theirs with an L1 error, a perceptual
and an adversarial term and a very small KL. Here the pictures are flat drawings: an L1 error of
neighbouring pixels' differences keeps the outlines sharp in place of the last two.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.config import Config
from minisd.images import save_grid
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


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (b,), for pictures in [-1, 1]."""
    mse = (a.clamp(-1, 1) - b).square().flatten(1).mean(1) / 4
    return -10 * mse.clamp_min(1e-10).log10()


def train(config: Config, recipe: Recipe, folder: Path, *, share: loop.Share,
          minutes: float | None = None, start: dict[str, Tensor] | None = None) -> VAE:
    """The trained VAE, still with scale factor 1; see `latents.measure_scale`."""
    torch.manual_seed(recipe.seed)
    vae = VAE(config.vae).to(loop.device())
    if start:
        vae.load_state_dict(start)
    with loop.first_alone(share):
        images = data.cached_pictures(folder, recipe.scenes, size=config.image_size,
                                      seed=recipe.seed)

    def loss(g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        crops = random_crops(images, recipe.vae.batch, recipe.crop, g)
        noise = torch.randn(len(crops), config.vae.latent_channels,
                            *(side // config.vae.downscale for side in crops.shape[2:]),
                            generator=g)
        crops, noise = (share.of(x).to(loop.device()) for x in (crops, noise))
        with loop.autocast():
            posterior = vae.encode(crops)
            decoded = vae.decode(posterior.mean + posterior.std * noise).float()
        l1, edges = (decoded - crops).abs().mean(), edge_error(decoded, crops)
        kl = posterior.kl().float().mean() / noise[0].numel()
        total = l1 + recipe.edge_weight * edges + recipe.kl_weight * kl
        return {"loss": total, "l1": l1, "edges": edges, "kl": kl,
                "psnr": psnr(decoded, crops).mean()}

    unseen = data.to_tensor(data.pictures(range(8), size=config.image_size, split=data.UNSEEN,
                                          seed=recipe.seed))

    @torch.no_grad()
    def sheet(path: Path) -> None:
        """Unseen scenes over what comes back of them."""
        decoded = fit.average(unseen.to(loop.device())).float().cpu()
        print(f"{path.stem}: {psnr(decoded, unseen).mean():.2f} dB on unseen scenes")
        save_grid(path, torch.cat([unseen, decoded]), columns=len(unseen))

    fit = loop.Fit("vae", vae, recipe.vae, loss, folder, seed=recipe.seed, share=share,
                   sheet=sheet, sheet_every=300)
    return fit.run(minutes)
