"""minisd: Stable Diffusion v1 from scratch, to read, run and look into.

The names below are imported when they are first used, so that the command line can refuse a
mistake without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisd import anatomy as anatomy
    from minisd import checkpoint as checkpoint
    from minisd import config as config
    from minisd.catalogue import models
    from minisd.loading import load
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep
    from minisd.tokenizer import Tokenizer
    from minisd.trace import Trace

__version__ = "0.1.0"
__all__ = ["SampleStep", "StableDiffusion", "Tokenizer", "Trace", "anatomy", "checkpoint",
           "config", "load", "models"]

HOMES = {"StableDiffusion": "pipeline", "load": "loading", "models": "catalogue",
         "SampleStep": "samplers", "Tokenizer": "tokenizer", "Trace": "trace"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'minisd' has no attribute {name!r}")
    if name not in HOMES:
        return import_module(f"minisd.{name}")
    return getattr(import_module(f"minisd.{HOMES[name]}"), name)
