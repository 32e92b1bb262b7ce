"""minisd: Stable Diffusion v1 from scratch, to read, run and look into."""

from minisd import checkpoint, config
from minisd.pipeline import StableDiffusion, load
from minisd.samplers import SampleStep
from minisd.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["SampleStep", "StableDiffusion", "Tokenizer", "checkpoint", "config", "load"]
