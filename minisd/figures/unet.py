"""The UNet in pictures: the U itself, block by block, and what each stage of it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from minisd.config import UNetConfig
from minisd.figures.style import COLOURS, HOUSE, INK, Figure, blank, entitle, percent
from minisd.observe.summary import BlockCost

# What a block is for, and so its colour: convolutions work on the noisy latents, transformers
# read the text, and one small network makes a vector of the time.
RES, TEXT, TIME, OTHER = COLOURS["noise"], COLOURS["text"], COLOURS["time"], "#B9B9B9"
KINDS = {"ResBlock": ("ResBlocks", RES), "SpatialTransformer": ("spatial transformers", TEXT),
         "TimeEmbedding": ("time embedding", TIME)}


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
    attention: bool = False     # whether a spatial transformer follows the ResBlock
    skip: int = -1              # the number of the skip that is put aside or taken up; -1: none
    side: str = "down"          # "down", "mid" or "up"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def plan(config: UNetConfig, latent_size: tuple[int, int]) -> list[Box]:
    """Every block in the order in which it runs, with the sizes that go through it."""
    sizes = [latent_size]
    for _ in config.channels[1:]:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    first, last = config.channels[0], len(config.channels) - 1
    boxes = [Box("conv", 0, *sizes[0], first, config.latent_channels, skip=0)]
    for level, (width, attention) in enumerate(zip(config.channels, config.attention,
                                                   strict=True)):
        if level:
            boxes.append(Box("down", level, *sizes[level], boxes[-1].channels, boxes[-1].channels,
                             skip=len(boxes)))
        for _ in range(config.layers_per_block):
            boxes.append(Box("layer", level, *sizes[level], width, boxes[-1].channels, attention,
                             skip=len(boxes)))
    stack = list(boxes)
    width = config.channels[last]
    boxes += [Box("layer", last, *sizes[last], width, width, attention, side="mid")
              for attention in (True, False)]
    for level in range(last, -1, -1):
        for _ in range(config.layers_per_block + 1):
            taken = stack.pop()
            boxes.append(Box("layer", level, *sizes[level], config.channels[level],
                             boxes[-1].channels + taken.channels, config.attention[level],
                             skip=taken.skip, side="up"))
        if level:
            width = config.channels[level]
            boxes.append(Box("up", level - 1, *sizes[level - 1], width, width, side="up"))
    boxes.append(Box("conv", 0, *sizes[0], config.latent_channels, first, side="up"))
    return boxes


ROW, HIGH, WIDE, LIFT = 2.1, 0.8, 0.82, 0.19          # of the drawing, in columns
MANY = 22                       # blocks, from which letters must be smaller


@rc_context(HOUSE)
def unet_map(config: UNetConfig, latent_size: tuple[int, int]) -> Figure:
    """The U with all its blocks and skips, for latents of (h, w) cells.

    The number in a box says how many channels leave it; below a box on the way up, how many go
    in. A row is one size of the grid.
    """
    boxes = plan(config, latent_size)
    levels, skips = len(config.channels), sum(box.skip >= 0 and box.side == "down"
                                              for box in boxes)
    many = len(boxes) > MANY
    figure = blank(15 if many else 13, 0.95 * levels + 2.2)
    axes, label = figure.subplots(), -0.13 * len(boxes)
    axes.set(xlim=(label - 0.2, len(boxes) + 0.2), ylim=(-ROW * (levels - 1) - 1.0, 1.3))
    axes.axis("off")
    for level in range(levels):
        box = next(box for box in boxes if box.level == level)
        axes.text(label, -ROW * level, f"{box.height} x {box.width}", va="center",
                  fontweight="bold")
    letters = 8.5 if many else 12.0
    for i, box in enumerate(boxes):
        _box(axes, i, box, letters)
        if i:
            _step(axes, i, boxes[i - 1], box)
    starts = {box.skip: i for i, box in enumerate(boxes) if box.side == "down"}
    for i, box in enumerate(boxes):
        if box.side == "up" and box.skip >= 0:
            _skip(axes, starts[box.skip], i, box.level, boxes)
    _legend(figure)
    smallest = min(boxes, key=lambda box: box.height * box.width)
    cells = latent_size[0] * latent_size[1]
    entitle(figure, f"{skips} results are put aside on the way down and taken up again; at the "
                    f"bottom {smallest.height * smallest.width} cells stand for {cells:,}")
    return figure


def _box(axes: Axes, x: int, box: Box, letters: float) -> None:
    y = -ROW * box.level
    left, low = x - WIDE / 2, y - HIGH / 2
    if box.kind == "layer":
        axes.add_patch(Rectangle((left, low), WIDE, HIGH, facecolor=RES, edgecolor="none"))
        if box.attention:
            axes.add_patch(Rectangle((left, low), WIDE, 0.34 * HIGH, facecolor=TEXT,
                                     edgecolor="none"))
    else:
        axes.add_patch(Rectangle((left, low), WIDE, HIGH, facecolor="white", edgecolor=INK))
    words = {"conv": "{}", "layer": "{}", "down": "½\n{}", "up": "×2\n{}"}[box.kind]
    axes.text(x, y + (0.15 * HIGH if box.attention else 0), words.format(box.channels),
              ha="center", va="center", fontsize=letters if box.kind == "layer" else letters - 1,
              color="white" if box.kind == "layer" else INK, fontweight="bold", linespacing=1.0)
    if box.side == "up" and box.kind == "layer":
        axes.text(x, low - 0.07, str(box.channels_in), ha="center", va="top",
                  fontsize=letters - 2)


def _step(axes: Axes, x: int, before: Box, box: Box) -> None:
    """From one block to the next: along the row, or from row to row."""
    start, end = (x - 1 + WIDE / 2, -ROW * before.level), (x - WIDE / 2, -ROW * box.level)
    if box.level > before.level:
        corner = (x - 1, end[1])
        start = (x - 1, start[1] - HIGH / 2)
    else:
        corner = (x, start[1])
        end = end if box.level == before.level else (x, end[1] - HIGH / 2)
    axes.plot(*zip(start, corner, end, strict=True), color=INK, linewidth=1.4, zorder=0)


def _skip(axes: Axes, a: int, b: int, level: int, boxes: Sequence[Box]) -> None:
    """A bracket over the row; the outer ones are higher, so none crosses another."""
    inside = sum(box.side == "down" and box.level == level for box in boxes[a:b])
    top = -ROW * level + HIGH / 2 + LIFT * inside
    axes.plot([a, a, b], [-ROW * level + HIGH / 2, top, top], color=COLOURS["latent"],
              linewidth=1.3, zorder=0)
    axes.add_patch(FancyArrowPatch((b, top + 0.005), (b, -ROW * level + HIGH / 2),
                                   arrowstyle="-|>", mutation_scale=9, color=COLOURS["latent"],
                                   linewidth=1.3, shrinkA=0, shrinkB=0))


def _legend(figure: Figure) -> None:
    handles = [Patch(facecolor=RES, label="ResBlock, told the time"),
               Patch(facecolor=TEXT, label="spatial transformer, reads the prompt"),
               Patch(facecolor="white", edgecolor=INK, label="convolution, halving, doubling"),
               Line2D([], [], color=COLOURS["latent"], label="skip")]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=11)


# What it costs

@rc_context(HOUSE)
def unet_costs(rows: Sequence[BlockCost]) -> Figure:
    """Parameters and operations of each stage, from `anatomy.cost(sd.unet, latent_size=...)`.

    Raises ValueError where no row belongs to a UNet.
    """
    own = [row for row in rows if row.part == "unet"]
    if not own:
        raise ValueError("no block of a UNet among these rows: pass anatomy.cost(sd.unet, "
                         "latent_size=(h, w))")
    names = list(dict.fromkeys(stage(row.name) for row in own))
    figure = blank(11, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    heaviest = []
    for axes, (what, unit, divisor) in zip(panels, (("parameters", "millions", 1e6),
                                                    ("operations", "GFLOP", 1e9)), strict=True):
        amounts = [[sum(_amount(row, what) for row in own
                        if stage(row.name) == name and _kind(row) == kind)
                    for name in names] for kind in (*KINDS, "")]
        totals = np.sum(amounts, axis=0)
        heaviest.append((names[int(totals.argmax())], totals.max() / totals.sum()))
        left = np.zeros(len(names))
        for (label, colour), amount in zip((*KINDS.values(), ("convolutions, norms", OTHER)),
                                           amounts, strict=True):
            axes.barh(names, np.array(amount) / divisor, left=left / divisor, color=colour,
                      label=label)
            left = left + amount
        axes.set_xlabel(f"{what}, {unit} (all: {totals.sum() / divisor:,.3g})")
        axes.set_xlim(0, 1.14 * totals.max() / divisor)
        for y, total in enumerate(totals):
            axes.text(total / divisor, y, f" {percent(total / totals.sum())}", va="center",
                      fontsize=11)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4,
                  fontsize=11)
    (weights, of_weights), (work, of_work) = heaviest
    entitle(figure, f"{weights} has the most parameters ({percent(of_weights)}), {work} the most "
                    f"work ({percent(of_work)})")
    return figure


def stage(name: str) -> str:
    """The part of the U that a block belongs to: "down[0]" for "unet.down.0.layers.1.resnet"."""
    first, *rest = name.removeprefix("unet.").split(".")
    if first in ("down", "up"):
        return f"{first}[{rest[0]}]"
    return {"mid": "mid", "time_embedding": "time", "conv_in": "in"}.get(first, "out")


def _kind(row: BlockCost) -> str:
    return row.kind if row.kind in KINDS else ""


def _amount(row: BlockCost, what: str) -> int:
    return row.parameters if what == "parameters" else row.flops
