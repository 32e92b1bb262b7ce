"""The models at hand: where they are, and how one becomes a pipeline ready to paint."""

import os
from pathlib import Path

import torch
from torch import nn

from minisd import checkpoint
from minisd.clip import CLIP
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import Tokenizer

WEIGHTS = Path(__file__).parents[1] / "weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(model: str | Path = "auto", *, device: str = "auto",
         dtype: str | torch.dtype = "auto") -> StableDiffusion:
    """A trained model, ready to paint.

    model: "auto" (what $MINISD_MODEL names, else toyworld), "toyworld", or a path: a folder of
    this project or of diffusers, or a .safetensors or .ckpt file (see checkpoint.py).
    device: "auto" (a GPU where there is one), "cpu", "cuda", "mps", ...
    dtype: "auto", "float32", "bfloat16", "float16", or a torch.dtype. "auto" is float16 on
    GPUs, bfloat16 on processors that compute in it, else float32.
    Raises ValueError or FileNotFoundError, naming what was expected.
    """
    name = os.environ.get("MINISD_MODEL") or "toyworld" if model == "auto" else model
    path = WEIGHTS / "toyworld" if str(name) == "toyworld" else Path(name)
    if not path.exists():
        raise ValueError(f"unknown model {str(name)!r}: expected 'auto', 'toyworld', or the path "
                         f"of a folder, a .safetensors or a .ckpt file")
    config = checkpoint.read_config(path)
    tokenizer = find_tokenizer(path, config.text.max_length)
    target = choose_device(device)
    kind = choose_dtype(dtype, target)
    with torch.device("meta"):
        sd = StableDiffusion(config, tokenizer)
    sd = sd.to(kind).to_empty(device=target)
    checkpoint.load_into(sd, path)
    return sd.eval().requires_grad_(False)


def load_clip(sd: StableDiffusion) -> CLIP:
    """Both towers of toyworld's CLIP around sd's text encoder, to compare pictures and prompts.

    Raises ValueError for a model whose image tower does not ship (v1's).
    """
    if sd.config.image_tower is None:
        raise ValueError(f"{sd.config.name} has no image tower at hand: only toyworld ships one")
    clip = CLIP(sd.config.text, sd.config.image_tower)
    clip.text = nn.Identity()                   # type: ignore[assignment]  # sd has its weights
    checkpoint.load_into(clip, WEIGHTS / "toyworld" / "image_tower.safetensors")
    clip.to(sd.device, sd.dtype).eval().requires_grad_(False)
    clip.text = sd.text_encoder
    return clip


def find_tokenizer(model: Path, max_length: int) -> Tokenizer | None:
    """The vocabulary beside a model, or CLIP's in weights/; None where there is neither."""
    beside = (model if model.is_dir() else model.parent) / "tokenizer"
    if beside.is_dir():
        return Tokenizer.from_folder(beside, max_length=max_length)
    places = [WEIGHTS / "tokenizer", *sorted(WEIGHTS.glob("v1-*/tokenizer"))]
    found = next((place for place in places if (place / "vocab.json").is_file()), None)
    return None if found is None else Tokenizer.from_folder(found, max_length=max_length)


def choose_device(name: str) -> torch.device:
    """"auto" is the best device at hand. Raises ValueError for one that is not."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not at hand ({reason}): try 'cpu'") from error
    return device


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """"auto" is the fastest dtype that is safe on the device."""
    if isinstance(name, torch.dtype):
        if name not in DTYPES.values():
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name}")
        return name
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}, got {name!r}")
        return DTYPES[name]
    if device.type != "cpu":
        return torch.float16
    features = torch.cpu.get_capabilities()
    in_hardware = features.get("avx512_bf16") or features.get("amx_bf16")
    return torch.bfloat16 if in_hardware else torch.float32
