"""The networks drawn: the UNet block by block, the autoencoder stage by stage.

A block has the colour of what it works on: ResBlocks on noisy latents, transformers read the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from minisd.config import UNetConfig, VAEConfig
from minisd.figures import style
from minisd.figures.style import COLOURS, INK, SMALL, Figure, blank, entitle, house

RES, TEXT = COLOURS["noise"], COLOURS["text"]
ROW, HIGH, BROAD, LIFT = 2.1, 0.9, 0.86, 0.2        # of the drawing of the U, in columns
MANY = 22                       # blocks, from which letters must be smaller


# The U

@dataclass(frozen=True)
class Box:
    """One block of the UNet at its place in the drawing."""

    kind: str                   # "conv", "layer", "down" or "up"
    level: int                  # 0 is the largest grid
    height: int                 # of what comes out, in latent cells
    width: int
    channels: int               # that come out
    channels_in: int            # that go in, the skip's included
    attention: bool             # whether a spatial transformer follows the ResBlock
    skip: int                   # the number of the skip that is put aside or taken up; -1: none
    side: str                   # "down", "mid" or "up"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def unet_boxes(config: UNetConfig, latent_size: tuple[int, int]) -> list[Box]:
    """Every block in the order in which it runs, with the sizes that go through it."""
    sizes, last = [latent_size], len(config.channels) - 1
    for _ in range(last):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    boxes: list[Box] = []

    def add(kind: str, level: int, channels: int, *, channels_in: int = 0, attention: bool = False,
            skip: int = -1, side: str = "down") -> None:
        """channels_in: those of the block before where it is 0. Downwards, all are put aside."""
        boxes.append(Box(kind, level, *sizes[level], channels, channels_in or boxes[-1].channels,
                         attention, len(boxes) if side == "down" else skip, side))

    add("conv", 0, config.channels[0], channels_in=config.latent_channels)
    for level, (width, attention) in enumerate(zip(config.channels, config.attention,
                                                   strict=True)):
        if level:
            add("down", level, boxes[-1].channels)
        for _ in range(config.layers_per_block):
            add("layer", level, width, attention=attention)
    stack = list(boxes)
    add("layer", last, boxes[-1].channels, attention=True, side="mid")
    add("layer", last, boxes[-1].channels, side="mid")
    for level in range(last, -1, -1):
        for _ in range(config.layers_per_block + 1):
            taken = stack.pop()
            add("layer", level, config.channels[level], attention=config.attention[level],
                channels_in=boxes[-1].channels + taken.channels, skip=taken.skip, side="up")
        if level:
            add("up", level - 1, boxes[-1].channels, side="up")
    add("conv", 0, config.latent_channels, side="up")
    return boxes


@house()
def unet_map(config: UNetConfig, latent_size: tuple[int, int]) -> Figure:
    """The U with all its blocks and skips, for latents of (h, w) cells.

    The number in a box says how many channels leave it; below a box of the upsampling path, how
    many go in. A row is one size of the grid; where the prompt is read, it says so.
    """
    boxes = unet_boxes(config, latent_size)
    levels, skips = len(config.channels), sum(box.skip >= 0 and box.side == "down"
                                              for box in boxes)
    figure = blank(1.05 * levels + 1.6)
    axes, label = figure.subplots(), -0.16 * len(boxes)
    axes.set(xlim=(label - 0.2, len(boxes) + 0.2), ylim=(-ROW * (levels - 1) - 1.0, 1.3))
    axes.axis("off")
    for level in range(levels):
        own = [box for box in boxes if box.level == level]
        reads = {box.side for box in own if box.attention}
        words = "the middle reads the prompt" if reads == {"mid"} else "read the prompt"
        axes.text(label, -ROW * level, f"{own[0].height} x {own[0].width} cells\n"
                  f"{words if reads else 'no attention'}", va="center", fontsize=SMALL,
                  linespacing=1.3, color=TEXT if reads else INK)
    letters = 8.5 if len(boxes) > MANY else 12.0
    for i, box in enumerate(boxes):
        _box(axes, i, box, letters)
        if i:
            _step(axes, i, boxes[i - 1], box)
    starts = {box.skip: i for i, box in enumerate(boxes) if box.side == "down"}
    for i, box in enumerate(boxes):
        if box.side == "up" and box.skip >= 0:
            _skip(axes, starts[box.skip], i, box.level, boxes)
    figure.legend(handles=[
        Patch(facecolor=RES, label="ResBlock, with the timestep"),
        Patch(facecolor=TEXT, label="spatial transformer, with the prompt"),
        Patch(facecolor="white", edgecolor=INK, label="convolution, halving, doubling"),
        Line2D([], [], color=COLOURS["latent"], label="skip")],
        loc="outside lower center", ncols=4, fontsize=SMALL)
    smallest = next(box for box in boxes if box.side == "mid")
    entitle(figure, f"{skips} skips lead across the U; at the bottom "
                    f"{smallest.height * smallest.width} cells of {smallest.channels:,} numbers "
                    f"stand for {latent_size[0] * latent_size[1]:,} of {config.latent_channels}")
    return figure


def _box(axes: Axes, x: int, box: Box, letters: float) -> None:
    y = -ROW * box.level
    left, low = x - BROAD / 2, y - HIGH / 2
    layer = box.kind == "layer"
    axes.add_patch(Rectangle((left, low), BROAD, HIGH, facecolor=RES if layer else "white",
                             edgecolor="none" if layer else INK))
    if box.attention:
        axes.add_patch(Rectangle((left, low), BROAD, 0.34 * HIGH, facecolor=TEXT,
                                 edgecolor="none"))
    words = {"conv": "{}", "layer": "{}", "down": "½\n{}", "up": "×2\n{}"}[box.kind]
    axes.text(x, y + (0.15 * HIGH if box.attention else 0), words.format(box.channels),
              ha="center", va="center", fontsize=letters, color="white" if layer else INK,
              linespacing=1.0)
    if box.side == "up" and layer:
        axes.text(x, low - 0.07, str(box.channels_in), ha="center", va="top",
                  fontsize=letters - 1)


def _step(axes: Axes, x: int, before: Box, box: Box) -> None:
    """From one block to the next: along the row, or from row to row by the earlier one's edge."""
    start, end = -ROW * before.level, -ROW * box.level
    corner = x - 1 if end < start else x
    axes.plot([x - 1, corner, corner, x], [start, start, end, end], color=INK, linewidth=1.4,
              zorder=0)


def _skip(axes: Axes, a: int, b: int, level: int, boxes: Sequence[Box]) -> None:
    """A bracket over the row; the outer ones are higher, so none crosses another."""
    inside = sum(box.side == "down" and box.level == level for box in boxes[a:b])
    top = -ROW * level + HIGH / 2 + LIFT * inside
    axes.plot([a, a, b], [-ROW * level + HIGH / 2, top, top], color=COLOURS["latent"],
              linewidth=1.3, zorder=0)
    axes.annotate("", (b, -ROW * level + HIGH / 2), (b, top + 0.005), arrowprops={
        "arrowstyle": "-|>", "mutation_scale": 9, "color": COLOURS["latent"], "linewidth": 1.3,
        "shrinkA": 0, "shrinkB": 0})


# The autoencoder

@house()
def vae_map(config: VAEConfig, image_size: int) -> Figure:
    """Every size that a picture has on its way to latents and back, as bars.

    A bar is as high as the grid, on a logarithmic scale, and as wide as it has channels.
    """
    picture = ("picture", image_size, config.image_channels, "picture")
    levels = [("", image_size >> i, width, "noise") for i, width in enumerate(config.channels)]
    smallest = image_size >> len(levels) - 1
    way = [picture, *levels, ("mean, std", smallest, 2 * config.latent_channels, "latent"),
           ("latents", smallest, config.latent_channels, "latent"), *levels[::-1], picture]
    figure = blank(3.9)
    axes, x, most = figure.subplots(), 0.0, max(config.channels)
    for name, side, channels, kind in way:
        wide, high = 0.12 + 0.5 * channels / most, np.log2(2 * side)
        axes.add_patch(Rectangle((x, -high / 2), wide, high, facecolor=COLOURS[kind],
                                 alpha=style.PALE if kind == "noise" else 1, edgecolor="none"))
        axes.text(x + wide / 2, high / 2 + 0.4, name, ha="center", fontsize=SMALL,
                  color=COLOURS[kind])
        axes.text(x + wide / 2, -high / 2 - 0.4, f"{channels} x\n{side} x {side}", ha="center",
                  va="top", fontsize=10)
        x += wide + 0.62
    top = np.log2(2 * image_size) / 2
    axes.set(xlim=(-0.4, x), ylim=(-top - 2.4, top + 1.6))
    axes.axis("off")
    before = config.image_channels * image_size ** 2
    after = config.latent_channels * smallest ** 2
    entitle(figure, f"{before:,} numbers of a picture become {after:,} latents, "
                    f"{before / after:g} times fewer")
    return figure
