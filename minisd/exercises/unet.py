"""Exercises of the notebook on the UNet: the waves of time, and the stack of skips.

What is right is asked of the package itself: of its embedding, and of a UNet without memory.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minisd.config import UNetConfig
from minisd.exercises.checking import Answer, Mistake, Verdict, compare
from minisd.resblock import MAX_PERIOD, timestep_embedding
from minisd.unet import Layer, UNet

ROUNDING = 5e-3                 # growing frequencies give angles whose cosine float32 barely knows


def _waves(timesteps: Tensor, dim: int, *, divisor: float, sign: float = -1.0,
           order: Callable[[Tensor], list[Tensor]] = lambda a: [a.cos(), a.sin()]) -> Tensor:
    index = torch.arange(dim // 2)
    frequencies = torch.exp(sign * math.log(MAX_PERIOD) * index / divisor)
    return torch.cat(order(timesteps.float()[:, None] * frequencies), dim=-1)


def check_timestep_embedding(answer: Answer | None) -> Verdict:
    """answer(timesteps, dim): timesteps (b,) -> (b, dim), cosines first."""
    def interleaved(timesteps: Tensor, dim: int) -> Tensor:
        return _waves(timesteps, dim, divisor=dim // 2).unflatten(-1, (2, -1)).transpose(
            -1, -2).flatten(-2)

    return compare(
        answer, right=timestep_embedding,
        cases=[(torch.tensor([0.0, 1.0, 5.0, 6.5]), 6), (torch.tensor([2.0, 3.0]), 8)],
        tolerance=ROUNDING,
        hint=f"with half = dim // 2, frequency i is {MAX_PERIOD} ** (-i / half); the angles are "
             f"timesteps[:, None] * frequencies; put their cosines before their sines",
        mistakes=[
            Mistake("Your sines come first: Stable Diffusion puts the cosines first.",
                    lambda t, dim: _waves(t, dim, divisor=dim // 2,
                                          order=lambda a: [a.sin(), a.cos()])),
            Mistake("Your slowest frequency is 1/10000 itself: you divide by half - 1, Stable "
                    "Diffusion by half, so that 1/10000 is never quite reached.",
                    lambda t, dim: _waves(t, dim, divisor=dim // 2 - 1)),
            Mistake("You divide the index by dim: there are only half as many frequencies, divide "
                    "by half.", lambda t, dim: _waves(t, dim, divisor=dim)),
            Mistake("Your frequencies grow with i: the exponent is negative, -i / half.",
                    lambda t, dim: _waves(t, dim, divisor=dim // 2, sign=1.0)),
            Mistake("You interleave cosines and sines, as in the first transformers: here all "
                    "cosines stand before all sines.", interleaved),
        ])


def _layers_up(channels: Sequence[int], layers: int) -> list[Layer]:
    """The layers on the way up of a UNet of these widths, in order; it takes no memory."""
    config = UNetConfig(tuple(channels), (False,) * len(channels), layers, heads=1, context_dim=1,
                        groups=1)
    with torch.device("meta"):
        return [module for module in UNet(config).up.modules() if isinstance(module, Layer)]


def check_skip_count(answer: Answer | None) -> Verdict:
    """answer(levels, layers): how many skips the way up takes off the stack, all in all."""
    def right(levels: int, layers: int) -> int:
        return len(_layers_up([1] * levels, layers))

    return compare(
        answer, right=right, cases=[(3, 1), (4, 2), (5, 4), (1, 3)],
        hint="count what UNet.forward appends: once after conv_in, once after every layer, once "
             "after every halving; what is appended is popped",
        mistakes=[
            Mistake("You forgot the first one, which conv_in leaves.",
                    lambda levels, layers: levels * layers + levels - 1),
            Mistake("You forgot the halvings: what comes out of each is put aside too.",
                    lambda levels, layers: levels * layers + 1),
            Mistake("You count a halving at every level: the last level has none.",
                    lambda levels, layers: levels * layers + levels + 1),
            Mistake("You count the layers alone: conv_in and the halvings leave skips too.",
                    lambda levels, layers: levels * layers),
        ])


def check_up_widths(answer: Answer | None) -> Verdict:
    """answer(channels, layers): channels into each ResBlock on the way up, in order of running."""
    def right(channels: Sequence[int], layers: int) -> list[int]:
        return [layer.resnet.conv1.in_channels for layer in _layers_up(channels, layers)]

    def joined(channels: Sequence[int], layers: int, *, last_in_first_out: bool = True,
               own: bool = False, alone: bool = False) -> list[int]:
        """As in the package, or with one thing wrong."""
        skips = [channels[0]]
        for i, width in enumerate(channels):
            skips += [width] * layers + [width] * (i < len(channels) - 1)
        x, widths = channels[-1], []
        for width in reversed(channels):
            for _ in range(layers + 1):
                skip = skips.pop() if last_in_first_out else skips.pop(0)
                widths.append(x + (0 if alone else width if own else skip))
                x = width
        return widths

    return compare(
        answer, right=right, cases=[((8, 20, 36), 1), ((8, 20, 36, 36), 2), ((8, 12, 40), 3)],
        hint="walk down and note each width that is appended; then walk up, and for each ResBlock "
             "add the width that comes from below to the one that you pop from the end",
        mistakes=[
            Mistake("The skips are missing: torch.cat joins each to what comes from below, so "
                    "their channels add up.",
                    lambda channels, layers: joined(channels, layers, alone=True)),
            Mistake("You take the skip that was put aside first: a stack gives back the last one.",
                    lambda channels, layers: joined(channels, layers, last_in_first_out=False)),
            Mistake("You take every skip to be as wide as its own level: the last one of a level "
                    "came from the halving, and has the width of the level above.",
                    lambda channels, layers: joined(channels, layers, own=True)),
        ])
