"""Exercises on the UNet: the timestep embedding, and the stack of skips."""

from collections.abc import Sequence

import torch

from minisd.config import UNetConfig
from minisd.exercises.checking import Check
from minisd.resblock import timestep_embedding
from minisd.unet import Layer, UNet


def widths(channels: Sequence[int], layers: int) -> list[int]:
    """Channels into each ResBlock of the upsampling path of such a UNet; it takes no memory."""
    config = UNetConfig(channels=tuple(channels), attention=(False,) * len(channels),
                        layers_per_block=layers, heads=1, context_dim=1, groups=1)
    with torch.device("meta"):
        return [module.resnet.conv1.in_channels for module in UNet(config).up.modules()
                if isinstance(module, Layer)]


check_timestep_embedding = Check(
    "my_timestep_embedding(timesteps, dim)", "returns (b, dim) of timesteps (b,), cosines first",
    right=timestep_embedding,
    cases=[(torch.tensor([0.0, 1.0, 5.0, 6.5]), 6), (torch.tensor([2.0, 3.0]), 8)],
    mistakes={
        "You interleave sines and cosines. Here the first half is all cosines, the second sines.":
            ["return torch.stack([angles.cos(), angles.sin()], -1).flatten(1)",
             "return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)"],
        "Your sines come first.": ("angles.cos(), angles.sin()", "angles.sin(), angles.cos()"),
        "Divide i by half: 1/10000 is never quite reached.": ("(dim // 2))", "(dim // 2 - 1))")},
    hints=("half of the dim numbers are cosines, the other half sines, of the same angles.",
           "angles (b, half) are timesteps, as a column, times frequencies from 1 to 1/10000."),
    solution="""\
        frequencies = 10_000 ** (-torch.arange(dim // 2) / (`dim // 2`))
        angles = timesteps[`:, None`] * frequencies
        return torch.cat([`angles.cos(), angles.sin()`], dim=-1)""")

check_skip_count = Check(
    "my_skip_count(levels, layers)", "returns how many skips are taken off the stack, all in all",
    right=lambda n, k: len(widths([1] * n, k)), cases=[(3, 1), (4, 2), (5, 4), (1, 3)],
    mistakes={
        "You forgot the first skip, which conv_in leaves.": ("1 + levels", "levels"),
        "You forgot the halvings: each leaves a skip.": (" + (levels - 1)", ""),
        "You count a halving at every level: the last one has none.": ("levels - 1", "levels")},
    hints=("what is pushed is popped: count what UNet.forward appends.",
           "once after conv_in, once after every layer, once after every halving."),
    solution="return `1` + levels * layers + (`levels - 1`)")

check_up_widths = Check(
    "my_up_widths(channels, layers)", "returns the channels into each ResBlock, in running order",
    right=widths, cases=[((8, 20, 36), 1), ((8, 20, 36, 36), 2), ((8, 12, 40), 3)],
    mistakes={
        "Your list is reversed: the upsampling path begins at the smallest grid, the last level.":
            ("below[:-1]]]", "below[:-1]]][::-1]"),
        "The skips are missing: torch.cat adds their channels to what comes from below.":
            (" + skips.pop()", "")},
    hints=("go down first, and note the width of everything that is pushed.",
           "going up, each ResBlock gets what comes from below joined with one skip, the last."),
    solution="""\
        skips = [channels[0]]
        for i, width in enumerate(channels):
            skips += [width] * (layers + (i + 1 < len(channels)))
        below = [width for width in `reversed(channels)` for _ in range(`layers + 1`)]
        return [x + `skips.pop()` for x in [channels[-1], *below[:-1]]]""")
