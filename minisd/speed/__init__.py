"""Whatever makes it fast and is not the algorithm.

    accelerate(sd)      # in place, for inference on a CPU; minisd.load does it, unless fast=False
    plain(sd)           # and back to the book's own classes

Some layers change their class, and convolutions the order in which their weights lie in memory;
values, names and pickles stay as they are, results agree up to rounding.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from minisd import attention, resblock
from minisd.speed import kernels

Model = TypeVar("Model", bound=nn.Module)

FAST: dict[type[nn.Module], type[nn.Module]] = {
    attention.FeedForward: kernels.FeedForward, resblock.Upsample: kernels.Upsample}
PLAIN = {fast: book for book, fast in FAST.items()}


def accelerate(model: Model) -> Model:
    """Give a model, or one of its networks, what is faster on its device; returns it."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return _exchanged(model, FAST, torch.channels_last) if on_cpu else model


def plain(model: Model) -> Model:
    """Undo `accelerate`; returns the model."""
    return _exchanged(model, PLAIN, torch.contiguous_format)


def _exchanged(model: Model, classes: Mapping[type[nn.Module], type[nn.Module]],
               memory_format: torch.memory_format) -> Model:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model.to(memory_format=memory_format)   # type: ignore[call-overload]
