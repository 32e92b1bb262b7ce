"""Training the decoder once more, last of all: on latents as the UNet makes them.

So far it has decoded what the encoder encoded, and the UNet's latents are not quite those: flat
colours come out mottled. Here half of the latents are repainted ones. A scene's own latents are
noised a little, and the UNet denoises them in a few steps, with and without guidance; the picture
is still the scene's. The encoder and with it all latents stay, and so does the UNet.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minisd.checkpoints import weights as checkpoint
from minisd.diffusion import add_noise
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, Sampler, sample
from minisd.settings import plan
from minisd.toyworld import data
from minisd.toyworld.captions import caption
from minisd.toyworld.training import cache, loop, vae
from minisd.toyworld.training.recipe import Recipe

GUIDANCES, MOST_STEPS, STARTS = (1.0, 3.0, 7.5), 3, (60, 360)   # of repaintings, drawn at random
NOISED, NOISE = 0.35, 0.2       # of the encoder's latents: the share with noise, its largest std


@torch.no_grad()
def repaint(sd: StableDiffusion, posteriors: Tensor, folder: Path, recipe: Recipe) -> Tensor:
    """Latents of the first scenes (n, c, h, w), float16: a little noise, then back by the UNet.

    Kept in the folder for these weights of the encoder and the UNet.
    """
    nets = nn.ModuleList([sd.vae.encoder, sd.vae.quant_conv, sd.unet])
    path = folder / f"repainted-{recipe.seed}-{recipe.repainted}-{checkpoint.fingerprint(nets)}.pt"
    batches = enumerate(posteriors[:recipe.repainted].split(cache.BATCH))
    return cache.kept(path, lambda: torch.cat(
        [_repaint(sd, some, i * cache.BATCH, recipe) for i, some in batches]).half())


def _repaint(sd: StableDiffusion, posteriors: Tensor, first: int, recipe: Recipe) -> Tensor:
    """One batch: scenes `first` and after, to one noise level and back."""
    g, rng = loop.generator(recipe.seed, first, 0), np.random.default_rng([recipe.seed, first])
    said = [caption(data.scene(first + i, seed=recipe.seed), rng) for i in range(len(posteriors))]
    scale = GUIDANCES[int(torch.randint(len(GUIDANCES), (), generator=g))]
    steps = int(torch.randint(1, MOST_STEPS + 1, (), generator=g))
    start = int(torch.randint(*STARTS, (), generator=g))
    mean, std = posteriors.float().unbind(1)
    drawn, noise = torch.randn(2, *mean.shape, generator=g)
    x0 = (mean + std * drawn) * sd.config.vae.scale_factor
    times = [round(start * (1 - i / steps)) for i in range(steps)]
    levels = (*map(sd.schedule.at, times), 1.0)
    sampler = Sampler(SAMPLERS["ddim"], tuple(times), levels, eta=0.0, start_scale=1.0)
    x = add_noise(x0, noise, levels[0]).to(loop.device())
    with loop.autocast():
        predict = sd._predictor(plan(sd.config, said, {"guidance_scale": scale}))
        *_, last = sample(sampler, predict, x, lambda: noise)
    return last.x_prev.cpu()


class Stage(vae.Stage):
    """Half of a batch repainted, half as encoded, some of that with noise; whole pictures."""

    def __init__(self, name: str, sd: StableDiffusion, posteriors: Tensor, recipe: Recipe,
                 folder: Path) -> None:
        """sd: a trained pipeline; posteriors: of all scenes."""
        super().__init__(name, sd.vae, sd.config, recipe, folder)
        self.posteriors = posteriors
        self.repainted = repaint(sd, posteriors, folder, recipe)

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """L1, edges and squares between pictures and what their latents decode to."""
        half, scale_factor = self.part.batch // 2, self.config.vae.scale_factor
        encoded = torch.randint(len(self.posteriors), (half,), generator=g).sort().values
        again = torch.randint(len(self.repainted), (self.part.batch - half,), generator=g)
        mean, std = self.posteriors[encoded].float().unbind(1)
        sample, noise = torch.randn(2, *mean.shape, generator=g)
        level, chance = torch.rand(2, half, 1, 1, 1, generator=g)
        latents = (mean + std * sample) * scale_factor
        latents = latents + NOISE * level * (chance < NOISED) * noise
        latents = torch.cat([latents, self.repainted[again].float()])
        pictures = data.to_tensor(self.images[torch.cat([encoded, again]).numpy()])
        latents, pictures = map(loop.shard, (latents, pictures))
        with loop.autocast():
            decoded = self.vae.decode(latents / scale_factor)
        error, edges = decoded - pictures, vae.edge_error(decoded, pictures)
        l1, mse = error.abs().mean(), error.square().mean()
        return {"loss": l1 + self.recipe.edge_weight * edges + 4 * mse, "l1": l1, "edges": edges,
                "mse": mse}
