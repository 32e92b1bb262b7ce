"""The autoencoder to play with: a picture, what comes back of it, and its latent channels.

Each channel has a slider that multiplies it before the latents are decoded: at 1 it is as the
encoder left it, at 0 it is gone. A picture of the reader's own comes in by upload.
"""

import io
import time
from collections.abc import Generator, Mapping
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from minisd import images
from minisd.observe import pictures
from minisd.pipeline import StableDiffusion
from minisd.widgets.engine import Frame
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, largest, sheet, signed_picture

SMALL = 20_000_000              # parameters of a VAE that decodes at once without a GPU
SIDE, COLUMNS = 256, 3          # pixels along a picture, and pictures in a row
WIDTH = COLUMNS * SIDE + (COLUMNS - 1) * GAP
LEAST, MOST = -1.0, 3.0         # factors of a channel
LONG = 1.0                      # seconds from which on a decoding is announced
LEVELS = 127.5                  # grey levels per unit of a picture in [-1, 1]
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


def vae_explorer(sd: StableDiffusion, pictures: Mapping[str, Image.Image]) -> "VAEExplorer":
    """Pictures by name to send through sd's autoencoder; each is cropped to the model's size.

    Raises ValueError where there is none.
    """
    return VAEExplorer(sd, pictures)


class VAEExplorer(Explorer):
    """The widget; `upload` takes a picture, `undo` puts every channel back to 1."""

    def __init__(self, sd: StableDiffusion, pictures: Mapping[str, Image.Image]) -> None:
        if not pictures:
            raise ValueError("expected at least one picture by its name, got none")
        self.sd, self.pictures = sd, dict(pictures)
        self.files: dict[str, bytes] = {}               # what was uploaded
        self.encoded: dict[str, tuple[Tensor, Tensor]] = {}     # pixels and latents by name
        self.seconds = 0.0                              # that the last decoding took
        small = sum(p.numel() for p in sd.vae.parameters()) < SMALL
        self.choice = ipywidgets.Dropdown(options=list(pictures), description="Picture",
                                          style=STYLE, layout=FULL)
        self.channels = [ipywidgets.FloatSlider(
            1.0, min=LEAST, max=MOST, step=0.1, description=f"Channel {c}", readout_format=".1f",
            continuous_update=small, style=STYLE, layout=FULL)
            for c in range(sd.config.vae.latent_channels)]
        knobs = {"picture": self.choice,
                 **{f"channel_{c}": knob for c, knob in enumerate(self.channels)}}
        super().__init__("vae explorer", knobs, self._frames, width=WIDTH,
                         about="original, decoded, difference, and the latent channels")
        self.upload = ipywidgets.FileUpload(accept="image/*", description="Your own picture",
                                            layout=FULL).add_class("minisd-upload")
        self.undo = ipywidgets.Button(description="All channels to 1",
                                      layout=FULL).add_class("minisd-undo")
        self.upload.observe(self._take, "value")
        self.undo.on_click(self._undo)
        buttons = ipywidgets.HBox([self.upload, self.undo])
        first, *rest = self.view.children
        self.view.children = (first, buttons, *rest)

    # What happens when

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
        pixels, latents = self._encode(at["picture"])
        factors = torch.tensor([at[f"channel_{c}"] for c in range(len(self.channels))])
        edited = latents * factors.to(latents)[:, None, None]
        note = f"Decoding, about {self.seconds:.0f} s ..." if self.seconds > LONG else ""
        yield Frame(1, 2, self._view(pixels, latents, edited, self.sd.preview(edited)[0],
                                     decoded=False), note)
        began = time.perf_counter()
        picture = self.sd.decode(edited)[0]
        self.seconds = time.perf_counter() - began
        yield Frame(2, 2, self._view(pixels, latents, edited, picture, decoded=True),
                    f"Decoded in {self.seconds:.1f} s.")

    def _encode(self, name: str) -> tuple[Tensor, Tensor]:
        """Pixels (1, 3, h, w) and latents (1, c, h/8, w/8), the posterior's mean; kept."""
        if name not in self.encoded:
            picture = (read(name, self.files[name]) if name in self.files
                       else self.pictures[name])
            side = self.sd.config.image_size
            pixels = images.from_pil(picture, size=(side, side))
            self.encoded[name] = pixels, self.sd.encode_image(pixels)
        return self.encoded[name]

    def _view(self, pixels: Tensor, latents: Tensor, edited: Tensor, picture: Image.Image, *,
              decoded: bool) -> View:
        """The pictures above, the channels below; latents as encoded give the channels' scale."""
        back = images.from_pil(picture)
        decibels = float(pictures.psnr(back, pixels))
        error = (back - pixels)[0].square().mean(0).sqrt() * LEVELS
        shown = [(images.to_pil(pixels)[0], "original"),
                 (picture, f"decoded: {decibels:.1f} dB" if decoded else "preview"),
                 (grey(error), f"difference, white: {float(error.max()):.0f} of 255")]
        panels = [Panel(image, label, i * (SIDE + GAP), 0, SIDE)
                  for i, (image, label) in enumerate(shown)]
        count, top, limit = len(self.channels), SIDE + LABEL_HIGH + GAP, largest(latents)
        side = (WIDTH - (count - 1) * GAP) // count
        panels += [Panel(signed_picture(values, limit), f"channel {c}", c * (side + GAP), top, side)
                   for c, values in enumerate(edited[0])]
        text = (f"{decibels:.1f} dB (PSNR)" if decoded else "A preview: the decoder is at work.")
        return View(sheet(WIDTH, top + LABEL_HIGH + side, panels),
                    f"{pixels.numel():,} numbers became {latents.numel():,} latents, "
                    f"{latents.numel() / pixels.numel():.4f} of them. {text}")


def read(name: str, content: bytes) -> Image.Image:
    """An uploaded file as a picture. Raises ValueError for one that is none."""
    try:
        picture = Image.open(io.BytesIO(content))
    except Exception as error:      # a damaged file can make a decoder raise anything
        raise ValueError(f"{name} is no picture that can be read: expected a PNG or JPEG file, "
                         f"got {len(content):,} bytes of something else") from error
    return images.to_rgb(picture)


def grey(values: Tensor) -> Image.Image:
    """Magnitudes (h, w) from black, 0, to white, the largest."""
    levels = (values / max(float(values.max()), 1e-9) * 255).round().byte()
    return Image.fromarray(levels.cpu().numpy()).convert("RGB")
