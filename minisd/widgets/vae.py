"""The autoencoder to play with: a picture, what comes back of it, and its latent channels.

Each channel has a slider that multiplies it before the latents are decoded: at 1 it is as the
encoder left it, at 0 it is gone. A picture of the reader's own comes in by upload.
"""

import io
from collections.abc import Generator, Mapping
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.figures.pixels import largest, magnitude, signed
from minisd.observe.pictures import psnr
from minisd.observe.preview import preview
from minisd.observe.reading import FORMATS, to_rgb, to_tensor
from minisd.pipeline import StableDiffusion
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.explorer import Explorer, Values, View, small

SIDE, WIDTH = 256, 3 * 256 + 2 * GAP        # pixels along a picture, and of three in a row
LEAST, MOST = -1.0, 3.0         # factors of a channel
LEVELS = 127.5                  # grey levels per unit of a picture in [-1, 1]


class VAEExplorer(Explorer):
    """Pictures by name to send through sd's autoencoder; each is cropped to the model's size.

    `upload` takes a picture, `undo` puts every channel back to 1. Raises ValueError without any
    picture.
    """

    def __init__(self, sd: StableDiffusion, pictures: Mapping[str, Image.Image]) -> None:
        if not pictures:
            raise ValueError("expected at least one picture by its name, got none")
        self.sd, self.pictures = sd, dict(pictures)
        self.files: dict[str, bytes] = {}               # what was uploaded
        self.choice = knobs.choice("Picture", list(pictures))
        self.channels = [knobs.slider(f"Channel {c}", 1.0, LEAST, MOST, 0.1)
                         for c in range(sd.config.vae.latent_channels)]
        board = {"picture": self.choice,
                 **{f"channel_{c}": knob for c, knob in enumerate(self.channels)}}
        super().__init__("vae explorer", board, self._frames, width=WIDTH, live=small(sd.vae),
                         memory=Memory(sd),
                         about="original, decoded, difference, and the latent channels")
        self.upload = ipywidgets.FileUpload(accept="image/*", description="Your own picture"
                                            ).add_class("minisd-upload")
        self.undo = ipywidgets.Button(description="All channels to 1").add_class("minisd-undo")
        self.upload.observe(self._take, "value")
        self.undo.on_click(self._undo)
        self.buttons.children = (*self.buttons.children, self.upload, self.undo)

    def _take(self, change: Any) -> None:
        """Offer the uploaded picture under its own name, numbered if there is one like it."""
        if not change.new:
            return
        file, = change.new
        name, number = file["name"], 2
        while name in self.choice.options:
            name, number = f"{file['name']} ({number})", number + 1
        self.files[name] = bytes(file["content"])
        self.upload.value = ()                          # so that the same file may come again
        self.choice.options = (*self.choice.options, name)
        self.choice.value = name

    def _undo(self, _: Any) -> None:
        for knob in self.channels:
            knob.value = 1.0

    # On the worker thread

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        name, side = at["picture"], self.sd.config.image_size
        picture = read(name, self.files[name]) if name in self.files else self.pictures[name]
        pixels = to_tensor(picture, size=(side, side))
        latents = self.memory.get(("latents", name), lambda: self.sd.encode_image(pixels))
        factors = torch.tensor([at[f"channel_{c}"] for c in range(len(self.channels))])
        edited = latents * factors.to(latents)[:, None, None]
        yield Frame(1, 2, self._view(pixels, latents, edited, preview(self.sd, edited)[0], False))
        yield Frame(2, 2, self._view(pixels, latents, edited, self.sd.decode(edited)[0], True))

    def _view(self, pixels: Tensor, latents: Tensor, edited: Tensor, picture: Image.Image,
              decoded: bool) -> View:
        """The pictures above, the channels below; latents as encoded give the channels' scale."""
        back = images.from_pil(picture)
        decibels = float(psnr(back, pixels))
        error = (back - pixels)[0].square().mean(0).sqrt() * LEVELS
        shown = [(images.to_pil(pixels)[0], "original"),
                 (picture, f"decoded: {decibels:.1f} dB" if decoded else "preview"),
                 (magnitude(error, "gray"), f"difference, white: {float(error.max()):.0f} of 255")]
        count, limit = len(self.channels), largest(latents)
        channels = [(signed(values, limit), f"channel {c}") for c, values in enumerate(edited[0])]
        text = f"{decibels:.1f} dB (PSNR)" if decoded else "A preview: the decoder is at work."
        return View(sheet((SIDE, shown), ((WIDTH - (count - 1) * GAP) // count, channels)),
                    f"{pixels.numel():,} numbers became {latents.numel():,} latents, "
                    f"{latents.numel() / pixels.numel():.4f} of them. {text}")


def read(name: str, content: bytes) -> Image.Image:
    """An uploaded file as a picture. Raises ValueError for one that is none."""
    try:
        return to_rgb(Image.open(io.BytesIO(content), formats=FORMATS))
    except Exception as error:      # a damaged file can make a decoder raise anything
        raise ValueError(f"{name} is no picture that can be read: expected a PNG or JPEG file, "
                         f"got {len(content):,} bytes of something else") from error


vae_explorer = VAEExplorer
