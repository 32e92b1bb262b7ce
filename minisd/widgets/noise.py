"""The noise slider: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise, at any timestep.

The sum above in maps of the latents; below it what the decoder makes of x_t, and the same mixture
of pixels. One seed is one noise, which only grows with t.
"""

import math
from collections.abc import Generator

import torch
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.diffusion import Schedule, add_noise
from minisd.figures.pixels import array, mosaic, signed
from minisd.observe.preview import preview
from minisd.observe.reading import to_tensor
from minisd.pipeline import StableDiffusion
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.explorer import Explorer, Values, View, small

SIDE = 248                      # pixels along a tile, of which there are three in a row
LIMIT = 3.0                     # standard deviations at which the maps are darkest


def noise_slider(sd: StableDiffusion, picture: Image.Image) -> Explorer:
    """A slider over the timesteps at which `picture`, cropped to sd's size, turns into noise."""
    side, last = sd.config.image_size, len(sd.schedule) - 1
    pixels, memory = to_tensor(picture, size=(side, side)), Memory(sd)

    def frames(at: Values) -> Generator[Frame, None, None]:
        latents = memory.get("latents", lambda: sd.encode_image(pixels).cpu())
        signal, sigma = factors(sd.schedule, at["t"])
        g = torch.Generator().manual_seed(knobs.seed_of(at["seed"]))
        noise = torch.randn(latents.shape, generator=g)
        x_t = add_noise(latents, noise, sd.schedule.at(at["t"]))
        mixed = add_noise(pixels, torch.randn(pixels.shape, generator=g), sd.schedule.at(at["t"]))
        above = [(channels(signal * latents[0]), f"{signal:.3f} x_0"),
                 (channels(sigma * noise[0]), f"+ {sigma:.3f} noise"), (channels(x_t[0]), "= x_t")]
        for done, name in ((1, "a preview"), (2, "decoded")):
            shown = preview(sd, x_t) if done == 1 else sd.decode(x_t)
            below = [(shown[0], f"x_t, {name}"), (images.to_pil(mixed)[0], "the same t in pixels")]
            yield Frame(done, 2, View(sheet((SIDE, above), (SIDE, below)),
                                      in_digits(sd.schedule, at["t"])))

    board = {"t": knobs.slider("Timestep t", last // 3, 0, last),
             "seed": knobs.words("Seed of the noise", "0")}
    return Explorer("noise slider", board, frames, width=3 * SIDE + 2 * GAP, memory=memory,
                    live=small(sd.vae),
                    about="a picture's latents, noise, their sum x_t, and x_t decoded")


def factors(schedule: Schedule, t: int) -> tuple[float, float]:
    """Of the picture and of the noise, in x_t."""
    alpha_bar = schedule.at(t)
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def in_digits(schedule: Schedule, t: int) -> str:
    """The sum, and which of its parts is the larger one."""
    (signal, sigma), ratio = factors(schedule, t), float(schedule.snr()[t])
    larger = "the picture outweighs the noise" if ratio > 1 else "the noise outweighs the picture"
    return (f"t = {t}: alpha_bar = {schedule.at(t):.4f}\n"
            f"x_t = {signal:.3f} x_0 + {sigma:.3f} noise\n"
            f"signal-to-noise ratio {ratio:.3g}: {larger}")


def channels(latents: Tensor) -> Image.Image:
    """All channels (c, h, w) as signed maps on one scale, in as many rows as columns."""
    return signed(torch.from_numpy(mosaic(array(latents))).nan_to_num(), LIMIT)
