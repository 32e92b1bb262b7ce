"""minisd: Stable Diffusion v1 from scratch, to read, run and look into.

What stands directly in this folder is the book, in the README's reading order; the folders are
annexes. Names are imported when first used: the command line need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisd.checkpoints.load import load
    from minisd.checkpoints.registry import models
    from minisd.observe.trace import Trace
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep
    from minisd.tokenizer import Tokenizer

__version__ = "0.2.0"
__all__ = ["SampleStep", "StableDiffusion", "Tokenizer", "Trace", "load", "models"]

HOMES = {"SampleStep": "samplers", "StableDiffusion": "pipeline", "Tokenizer": "tokenizer",
         "Trace": "observe.trace", "load": "checkpoints.load", "models": "checkpoints.registry"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'minisd' has no attribute {name!r}")
    return getattr(import_module(f"minisd.{HOMES[name]}"), name)
