"""The noise slider: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise, at any timestep.

The sum above in maps of the latents; below it what the decoder makes of x_t, the same mixture of
pixels, and where on the schedule t stands. One seed is one noise, which only grows with t.
"""

import math
from collections.abc import Generator
from functools import cached_property

import ipywidgets
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from minisd import images
from minisd.diffusion import Schedule, add_noise
from minisd.observe import pictures
from minisd.pipeline import StableDiffusion
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet, signed_picture
from minisd.widgets.pictures import COLOURS

SMALL = 20_000_000              # parameters of a VAE that decodes at once without a GPU
SIDE, COLUMNS = 248, 3          # pixels along a tile, and tiles in a row
WIDTH = COLUMNS * SIDE + (COLUMNS - 1) * GAP
LIMIT = 3.0                     # standard deviations at which the maps are darkest
LARGEST_SEED = 2 ** 31 - 1      # what a number field holds exactly in every browser
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


def noise_slider(sd: StableDiffusion, picture: Image.Image) -> Explorer:
    """A slider over the timesteps at which `picture`, cropped to sd's size, drowns in noise."""
    small = sum(p.numel() for p in sd.vae.parameters()) < SMALL
    last = len(sd.schedule) - 1
    knobs = {
        "t": ipywidgets.IntSlider(last // 3, min=0, max=last, description="Timestep t",
                                  continuous_update=small, style=STYLE, layout=FULL),
        "seed": ipywidgets.BoundedIntText(0, min=0, max=LARGEST_SEED, style=STYLE, layout=FULL,
                                          description="Seed of the noise")}
    return Explorer("noise slider", knobs, Drowning(sd, picture).frames, width=WIDTH,
                    about="a picture's latents, noise, their sum x_t, and x_t decoded")


class Drowning:
    """One picture at every timestep."""

    def __init__(self, sd: StableDiffusion, picture: Image.Image) -> None:
        self.sd, self.picture = sd, picture

    @cached_property
    def pixels(self) -> Tensor:
        side = self.sd.config.image_size
        return images.from_pil(self.picture, size=(side, side))

    @cached_property
    def latents(self) -> Tensor:
        return self.sd.encode_image(self.pixels).cpu()

    def frames(self, at: Values) -> Generator[Frame, None, None]:
        """A linear preview of x_t at once, and then x_t decoded."""
        g = torch.Generator().manual_seed(at["seed"])
        noise = torch.randn(self.latents.shape, generator=g)
        x_t = add_noise(self.latents, noise, self.sd.schedule.at(at["t"]))
        mixed = add_noise(self.pixels, torch.randn(self.pixels.shape, generator=g),
                          self.sd.schedule.at(at["t"]))
        below = [(images.to_pil(mixed)[0], "the same t in pixels"),
                 (schedule_picture(self.sd.schedule, at["t"]), "picture falls, noise grows")]
        text = in_digits(self.sd.schedule, at["t"])
        preview = (self.sd.preview(x_t)[0], "x_t, a preview")
        yield Frame(1, 2, View(self._sheet(at["t"], noise, x_t, [preview, *below]), text))
        decoded = (self.sd.decode(x_t)[0], "x_t, decoded")
        yield Frame(2, 2, View(self._sheet(at["t"], noise, x_t, [decoded, *below]), text))

    def _sheet(self, t: int, noise: Tensor, x_t: Tensor, below: list[tuple[Image.Image, str]]
               ) -> Image.Image:
        signal, sigma = factors(self.sd.schedule, t)
        above = [(mosaic(signal * self.latents[0]), f"{signal:.3f} x_0"),
                 (mosaic(sigma * noise[0]), f"+ {sigma:.3f} noise"), (mosaic(x_t[0]), "= x_t")]
        panels = [Panel(image, label, column * (SIDE + GAP), row * (SIDE + LABEL_HIGH + GAP), SIDE)
                  for row, shown in enumerate((above, below))
                  for column, (image, label) in enumerate(shown)]
        return sheet(WIDTH, 2 * (SIDE + LABEL_HIGH) + GAP, panels)


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


def mosaic(latents: Tensor) -> Image.Image:
    """All channels (c, h, w) as signed maps on one scale, in as many rows as columns."""
    maps = [signed_picture(values, LIMIT) for values in latents]
    return pictures.grid(maps, columns=math.ceil(math.sqrt(len(maps))), gap=1)


def schedule_picture(schedule: Schedule, t: int) -> Image.Image:
    """Both factors over the timesteps, and a line at t; drawn large, for the sheet to shrink."""
    side, last = 2 * SIDE, len(schedule) - 1
    paper = Image.new("RGB", (side, side), COLOURS["paper"])
    pen = ImageDraw.Draw(paper)
    for values, colour in ((schedule.alpha_bar.sqrt(), COLOURS["picture"]),
                           ((1 - schedule.alpha_bar).sqrt(), COLOURS["noise"])):
        points = [(i / last * (side - 1), (1 - value) * (side - 8) + 4)
                  for i, value in enumerate(values.tolist())]
        pen.line(points, fill=colour, width=8)
    at = t / last * (side - 1)
    pen.line([(at, 0), (at, side)], fill=COLOURS["time"], width=6)
    pen.rectangle((0, 0, side - 1, side - 1), outline=COLOURS["ink"], width=2)
    return paper
