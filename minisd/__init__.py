"""minisd: Stable Diffusion v1 from scratch, to read, run and look into.

The names below are imported when they are first used, so that the command line can refuse a
mistake without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisd import config as config
    from minisd.checkpoints import weights as checkpoint
    from minisd.checkpoints.load import load
    from minisd.checkpoints.registry import models
    from minisd.observe import summary as anatomy
    from minisd.observe.trace import Trace
    from minisd.pipeline import StableDiffusion
    from minisd.samplers import SampleStep
    from minisd.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["SampleStep", "StableDiffusion", "Tokenizer", "Trace", "anatomy", "checkpoint",
           "config", "load", "models"]

HOMES = {"StableDiffusion": "pipeline.StableDiffusion", "load": "checkpoints.load.load",
         "models": "checkpoints.registry.models", "SampleStep": "samplers.SampleStep",
         "Tokenizer": "tokenizer.Tokenizer", "Trace": "observe.trace.Trace",
         "anatomy": "observe.summary", "checkpoint": "checkpoints.weights", "config": "config"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'minisd' has no attribute {name!r}")
    home, _, last = f"minisd.{HOMES[name]}".rpartition(".")
    if last[0].isupper() or last == name and home != "minisd":
        return getattr(import_module(home), last)
    return import_module(f"{home}.{last}")
