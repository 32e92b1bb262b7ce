"""The UNet at any timestep, with a check-box for each of its skips: what does it predict without?

A skip that is switched off is set to its mean over the cells, for each channel: its level stays as
later layers know it, and what it says about single cells is gone.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import ipywidgets
import torch
from PIL import Image
from torch import Tensor, nn

from minisd.diffusion import add_noise, predict_x0
from minisd.figures.networks import Box, unet_boxes
from minisd.figures.pixels import size
from minisd.observe.preview import preview
from minisd.observe.reading import to_tensor
from minisd.pipeline import StableDiffusion
from minisd.unet import UNet
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.explorer import Explorer, Values, View, small
from minisd.widgets.noise import channels

SIDE = 204                      # pixels along a tile, of which there are three in a row


def skip_explorer(sd: StableDiffusion, prompt: str, picture: Image.Image) -> Explorer:
    """The noise in `picture`, cropped to sd's size, and x0, predicted with and without skips."""
    side, last, memory = sd.config.image_size, len(sd.schedule) - 1, Memory(sd)
    pixels = to_tensor(picture, size=(side, side))
    cells = side // sd.config.vae.downscale
    boxes = [box for box in unet_boxes(sd.config.unet, (cells, cells))
             if box.skip >= 0 and box.side == "down"]

    @torch.no_grad()
    def frames(at: Values) -> Generator[Frame, None, None]:
        latents, context = memory.get("inputs", lambda: (sd.encode_image(pixels),
                                                         sd.encode_prompt(prompt)))
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        alpha_bar, t = sd.schedule.at(at["t"]), torch.tensor([at["t"]], device=latents.device)
        x_t = add_noise(latents, noise, alpha_bar)

        def predict() -> Tensor:
            return sd.unet(x_t.to(sd.dtype), t, context).float()

        whole = memory.get(at["t"], predict)
        with without(sd.unet, [box for box in boxes if not at[f"skip_{box.skip}"]]):
            eps = predict()
        x0 = torch.cat([x_t, *(predict_x0(x_t, one, alpha_bar) for one in (whole, eps))])
        below = [(channels(one[0]), name) for one, name in (
            (noise, "the true noise"), (whole, "eps, all skips"), (eps, "eps, your skips"))]
        wrong, missed = (size(one - noise) / size(noise) for one in (whole, eps))
        text = (f"At t = {at['t']}, eps misses the noise by {wrong:.0%} of its size with all "
                f"skips, by {missed:.0%} with yours.")
        for done in (1, 2):
            above = list(zip(preview(sd, x0) if done == 1 else sd.decode(x0),
                             ("x_t", "x0, all skips", "x0, your skips"), strict=True))
            yield Frame(done, 2, View(sheet((SIDE, above), (SIDE, below)), text))

    board = {"t": knobs.slider("Timestep t", last // 2, 0, last), **{
        f"skip_{box.skip}": ipywidgets.Checkbox(
            box.skip > 0, indent=False, layout={"width": "auto"},
            description=f"skip {box.skip}: {box.channels} x {box.height} x {box.width}")
        for box in boxes}}
    return Explorer("skip explorer", board, frames, width=3 * SIDE + 2 * GAP, memory=memory,
                    live=small(sd.unet), about="the noise and x0, with and without skips")


@contextmanager
def without(unet: UNet, off: Sequence[Box]) -> Iterator[None]:
    """Inside the `with`, what these boxes put aside is taken up as its mean over h and w."""
    layers = [*(layer for level in unet.up for layer in level.layers)][::-1]  # type: ignore[union-attr]
    with ExitStack() as stack:
        for box in off:                     # the first skip is the last to be taken up
            hook = partial(_level, box.channels)
            stack.callback(layers[box.skip].register_forward_pre_hook(hook).remove)
        yield


def _level(count: int, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last `count` channels of a layer's input, which are the skip's, each as its mean."""
    x, skip = args[0][:, :-count], args[0][:, -count:]
    return torch.cat([x, skip.mean((2, 3), keepdim=True).expand_as(skip)], 1), *args[1:]
