"""`python -m minisd.beyond.train flow|v|...|mdt`: every objective on toyworld's latents.

One loop for all (`toyworld/training/loop.py`): the same close-ups of four kinds of things, the same
captions, some of them dropped, batches, optimiser and average, and a UNet of half the width; what
differs is what the network predicts, at which noise levels, and for mdt which network it is. A
killed training continues by the same command. The folder of a run holds `unet_small.pt`, with which
`load` paints.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minisd.beyond.denoising import SCHEDULE, column
from minisd.beyond.mdt import MDT, MDTConfig, draw_kept
from minisd.beyond.painter import EMBEDDED, OBJECTIVES, Painter, read_average
from minisd.beyond.pfgmpp import perturb
from minisd.checkpoints.load import load as load_model
from minisd.config import Config
from minisd.pipeline import StableDiffusion
from minisd.toyworld.training import cache, crops, loop
from minisd.toyworld.training import unet as unet_training
from minisd.toyworld.training.recipe import RECIPE, Part, Recipe
from minisd.unet import UNet

# A quarter of an hour for each of eight networks on one core; all timesteps are drawn alike.
COMPARISON = replace(
    RECIPE, scenes=12_000, early_share=0.0,
    unet_small=Part(steps=1_200, batch=32, lr=1e-3, warmup=50, cooldown=1_150, ema=0.997))
KINDS = ("circle", "star", "house", "fish")     # what so short a training can learn to draw
STAGE = "unet_small"
GUIDANCE = 3.0          # suits them: they are not softened, as toyworld's UNet is
RUNS = {**{name: name for name in OBJECTIVES}, "mdt": "eps", "mdt-unmasked": "eps"}


def network(name: str, config: Config) -> nn.Module:
    """The untrained network of a run: toyworld's UNet of half the width, or a transformer."""
    if not name.startswith("mdt"):
        return UNet(replace(config.unet, channels=tuple(c // 2 for c in config.unet.channels)))
    side = config.image_size // config.vae.downscale // 2
    mdt = MDTConfig(side=side, context_dim=config.unet.context_dim, width=128, heads=4,
                    latent_channels=config.unet.latent_channels)
    return MDT(mdt if name == "mdt" else replace(mdt, mask_ratio=(0.0, 0.0)))


def painter(name: str, sd: StableDiffusion, net: nn.Module | None = None) -> Painter:
    """A pipeline for a run, with the VAE, text encoder and tokenizer of a trained model.

    net: the run's network; a new one where it is None. Raises ValueError for an unknown run.
    """
    if name not in RUNS:
        raise ValueError(f"unknown run {name!r}: choose one of {', '.join(RUNS)}")
    made = Painter(replace(sd.config, guidance_scale=GUIDANCE), sd.tokenizer,
                   OBJECTIVES[RUNS[name]])
    made.vae, made.text_encoder = sd.vae, sd.text_encoder
    made.unet = network(name, sd.config) if net is None else net    # type: ignore[assignment]
    return made.to(sd.device)


class Stage(unet_training.Stage):
    """The training of a run on close-ups."""

    sd: Painter

    def __init__(self, sd: Painter, posteriors: Tensor, recipe: Recipe) -> None:
        super().__init__(STAGE, sd, posteriors, recipe)
        self.crops = [crop for crop in self.crops if crop.scene.things[0].kind in KINDS]

    def loss(self, g: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error of the network's answers on one micro-batch.

        For a masked transformer, the sum of the error with all patches and with some hidden.
        """
        n, objective = self.part.batch, self.sd.objective
        shown = [self.crops[i] for i in torch.randint(len(self.crops), (n,), generator=g).tolist()]
        mean, std = crops.cut(self.posteriors, shown).float().unbind(1)     # n c h w
        x0 = (mean + std * torch.randn(mean.shape, generator=g)) * self.sd.config.vae.scale_factor
        sigma = (SCHEDULE.sigma()[self.timesteps(n, g)] if objective.levels is None else
                 objective.levels(n, g)).double()
        x = perturb(x0, sigma, objective.D, g)
        c = objective.coefficients(sigma)
        target, seen = c.target(x, x0), column(c.input, x) * x
        ids = self.tokenizer(self.captions(shown, g))
        seen, target, t, ids, *kept = map(
            loop.shard, (seen, target, EMBEDDED * c.noise, ids, *self.kept(seen, g)))
        with loop.autocast():
            with torch.no_grad():
                context = self.sd.text_encoder(ids)
            errors = [(self.sd.unet(seen, t, context, *some) - target).square().mean()
                      for some in ((), *((one,) for one in kept))]
        logged = {"loss": torch.stack(errors).sum(), "mse": errors[0]}
        return {**logged, "masked": errors[1]} if kept else logged

    def kept(self, x: Tensor, g: torch.Generator) -> list[Tensor]:
        """Which patches a masked transformer sees in its second pass; nothing for the others."""
        net = self.sd.unet
        if not isinstance(net, MDT) or not net.config.mask_ratio[1]:
            return []
        patches = x.shape[-2:].numel() // net.config.patch ** 2
        return [draw_kept(len(x), patches, net.config.mask_ratio, g)]


def fit(name: str, sd: StableDiffusion, posteriors: Tensor, folder: Path, *,
        recipe: Recipe = COMPARISON, minutes: float | None = None) -> Painter:
    """Train a run, or go on with it, for so many minutes; the painter has the average.

    sd: a trained model, whose VAE made `posteriors` (`cache.posteriors`).
    """
    torch.manual_seed(recipe.seed)
    made = painter(name, sd)
    stage = Stage(made, posteriors, recipe)
    fit = loop.Fit(STAGE, made.unet, recipe.unet_small, stage.loss, folder / name,
                   seed=recipe.seed)
    return painter(name, sd, fit.run(minutes)).eval()


def load(name: str, sd: StableDiffusion, folder: Path) -> Painter:
    """A run that was trained in a folder; raises FileNotFoundError where it was not."""
    made = painter(name, sd)
    made.unet.load_state_dict(read_average(
        folder / name / f"{STAGE}.pt", f"python -m minisd.beyond.train {name} --folder {folder}"))
    return made.eval()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m minisd.beyond.train", description=__doc__)
    parser.add_argument("run", choices=[*RUNS])
    parser.add_argument("--folder", type=Path, default=Path("runs/beyond"),
                        help="checkpoints and logs (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    args = parser.parse_args(argv)
    loop.join_processes()
    sd = load_model("toyworld", device=str(loop.device()), dtype="float32", fast=False)
    posteriors = cache.posteriors(sd.vae, args.folder, COMPARISON.scenes, size=sd.config.image_size,
                                  seed=COMPARISON.seed)
    fit(args.run, sd, posteriors, args.folder, minutes=args.minutes)


if __name__ == "__main__":
    main()
