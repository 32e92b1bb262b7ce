"""Whatever makes it fast and is not the algorithm.

    accelerate(sd)          # in place, for inference on a CPU; minisd.load does it unless fast=False
    plain(sd)               # and back to the book's own classes

Layers change their class and nothing else: weights, names and pickles stay as they are.
"""

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from minisd import attention, resblock
from minisd.speed import kernels

Model = TypeVar("Model", bound=nn.Module)

FAST: dict[type[nn.Module], type[nn.Module]] = {
    attention.Attention: kernels.Attention, attention.FeedForward: kernels.FeedForward,
    resblock.Upsample: kernels.Upsample}
PLAIN = {fast: slow for slow, fast in FAST.items()}


def accelerate(model: Model) -> Model:
    """Give the layers of a model, or of one of its networks, their faster kernels; returns it."""
    return _exchange(model, FAST)


def plain(model: Model) -> Model:
    """Undo `accelerate`; returns the model."""
    return _exchange(model, PLAIN)


def _exchange(model: Model, classes: Mapping[type[nn.Module], type[nn.Module]]) -> Model:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model
