"""How much a notebook may compute: steps and sizes for the model at hand, in one place.

A notebook that takes seconds on toyworld would take hours on the real weights and a laptop. So it
asks here, by the counted cost of the model:

    budget = Budget(sd)                         # 60 TFLOP: five minutes at 0.2 TFLOP a second
    steps = budget.steps(25, share=0.5)         # of one guided run, for half of the budget
    budget.announce(steps)                      # says beforehand what will take more than 20 s
"""

import time
from dataclasses import dataclass
from functools import cache

import torch

from minisd.config import Config
from minisd.observe.recording import Recorded
from minisd.observe.summary import cost
from minisd.pipeline import StableDiffusion

TERA = 1e12
NOTEBOOK = 60.0                 # TFLOP of a whole notebook
FEWEST = 5                      # steps; with fewer a run does not begin at pure noise
SLOW = 20.0                     # seconds from which on a cell says what it will take
SIDE, PRODUCTS = 1024, 4        # of the matrices whose products tell the machine's speed


@dataclass(frozen=True)
class Budget:
    """What a notebook may spend on a model."""

    sd: StableDiffusion
    tera: float = NOTEBOOK

    def steps(self, wanted: int, *, share: float = 1.0, pictures: int = 1, guided: bool = True,
              pixels: int | None = None) -> int:
        """As many of the wanted steps as `share` of the budget pays for, at least five.

        pictures: that are painted and decoded. pixels: along each side; None: the model's own.
        """
        step, decode = costs(self.sd.config, pixels)
        left = share * self.tera / pictures - decode
        return max(min(wanted, FEWEST), min(wanted, int(left / (step * (1 + guided)))))

    def pixels(self) -> int:
        """Along each side: the model's own, or 256 where those are too dear for a demonstration."""
        own = self.sd.config.image_size
        step, _ = costs(self.sd.config, None)
        return min(own, 256) if step > self.tera / 100 else own

    def announce(self, steps: int, *, pictures: int = 1, decoded: int | None = None,
                 guided: bool = True, pixels: int | None = None) -> None:
        """Print how long so many runs will take, where that is longer than 20 seconds.

        decoded: pictures that are decoded, of all runs; None: the result of each.
        """
        if isinstance(self.sd, Recorded):
            return
        step, decode = costs(self.sd.config, pixels)
        decoded = pictures if decoded is None else decoded
        seconds = (pictures * steps * step * (1 + guided) + decoded * decode) / speed(self.sd)
        if seconds > SLOW:
            print(f"This cell computes for about {seconds:.0f} s on this machine. Fewer steps, or "
                  f"MINISD_MODEL=toyworld, make it shorter.")


@cache
def costs(config: Config, pixels: int | None) -> tuple[float, float]:
    """TFLOP of one evaluation of the UNet for one picture, and of decoding it; nothing is run."""
    side = (pixels or config.image_size) // config.vae.downscale
    with torch.device("meta"):
        rows = cost(StableDiffusion(config), latent_size=(side, side))
    unet, decoder = (sum(row.flops for row in rows if row.part == part) / TERA
                     for part in ("unet", "decoder"))
    return unet, decoder


def speed(sd: StableDiffusion) -> float:
    """TFLOP a second of this machine, measured on a few products of matrices in sd's dtype."""
    matrix = torch.ones(SIDE, SIDE, device=sd.device, dtype=sd.dtype)
    float((matrix @ matrix)[0, 0])                  # the first one warms up
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        product = matrix @ matrix
    float(product[0, 0])                            # waits for a GPU
    return PRODUCTS * 2 * SIDE ** 3 / TERA / (time.perf_counter() - began)
