"""Whatever makes it fast and is not the algorithm.

    accelerate(sd)      # in place, for inference on a CPU; minisd.load does it, unless fast=False

Some layers change their class (kernels.py), and convolutions the order of their weights in memory:
channels last in the VAE, in bfloat16 in the UNet too. Values, names and pickles stay as they are,
results agree up to rounding. Time beside the book alone, on an x86 processor with AMX and torch
2.13, as the median of turns (tests/benchmarks/full_size.py --what speed):

                                bfloat16    float32
    v1, a guided UNet step          0.80       0.97
    v1, 256 x 256 decoded           0.62       0.89
    toyworld, a UNet step           0.94       1.00
    toyworld, 128 x 128 decoded     0.67       0.79
    toyworld, 128 x 128 encoded     0.76       0.83

What did not pay there: attention in slices takes 1.5 to 4.6 times as long as the fused kernel;
torch.compile makes toyworld's UNet 0.71, v1's largest layer 1.00, and compiles for minutes, the
time of hundreds of pictures.
"""

from typing import TypeVar

import torch
from torch import nn

from minisd import attention, resblock
from minisd.speed import kernels
from minisd.vae import VAE

Model = TypeVar("Model", bound=nn.Module)

FAST: dict[type[nn.Module], type[nn.Module]] = {
    attention.FeedForward: kernels.FeedForward, resblock.Upsample: kernels.Upsample}


def accelerate(model: Model) -> Model:
    """Give a model, or one of its networks, what is faster on its device; returns it."""
    if not all(parameter.device.type == "cpu" for parameter in model.parameters()):
        return model
    for module in model.modules():
        module.__class__ = FAST.get(type(module), type(module))
        if isinstance(module, VAE) or (isinstance(module, nn.Conv2d)
                                       and module.weight.dtype == torch.bfloat16):
            module.to(memory_format=torch.channels_last)    # type: ignore[call-overload]
    return model
