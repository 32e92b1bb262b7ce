"""Loading: how a model that lies somewhere becomes a pipeline ready to paint."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.places import SHIPPED
from minisd.checkpoints.registry import LOADABLE, first, whole_model
from minisd.checkpoints.untrusted import shown
from minisd.checkpoints.vocabulary import no_vocabulary
from minisd.config import TOYWORLD
from minisd.observe.recording import ABOUT, Recorded, record
from minisd.pipeline import StableDiffusion
from minisd.speed import accelerate
from minisd.tokenizer import warn

RECORD = "MINISD_RECORD"        # in the environment: a folder that keeps what the networks return
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(model: str | Path = "auto", *, parts: Iterable[str] | None = None, device: str = "auto",
         dtype: str | torch.dtype = "auto", fast: bool = True) -> StableDiffusion:
    """A trained model, ready to paint.

    model: "auto" (what $MINISD_MODEL names, else v1 weights found in weights/, else toyworld; see
    registry.py), "toyworld", "v1-1" ... "v1-5", or a path: a folder of this project or of
    diffusers, a .safetensors or .ckpt file (see sources.py), or the recording of a model that was
    loaded with $MINISD_RECORD set (see observe/recording.py). Of several that a name may stand for
    the first that loads is taken, and a warning names those before it.
    parts: any of "text_encoder", "unet", "encoder" and "decoder", the last two the VAE's halves;
    only these are read and take memory. All if None.
    device: "auto" (a GPU where there is one), "cpu", "cuda", "mps", ...
    dtype: "auto", "float32", "bfloat16", "float16", or a torch.dtype. "auto" is float16 on
    GPUs, bfloat16 on processors that compute in it, else float32. On toyworld bfloat16 moves a
    prediction of the UNet by 0.3 to 0.4 % of its norm, and a picture by about one grey level of
    255, at a few edges by up to 60; float16 moves both by a tenth of that.
    fast: with the kernels of speed/, whose results agree within rounding.
    Raises ValueError or FileNotFoundError, naming what was expected.
    """
    chosen = _chosen(parts)
    target = choose_device(device)
    kind = choose_dtype(dtype, target)
    sd = first(model, lambda place, others: (
        Recorded(place, None if dtype == "auto" else kind) if (place / ABOUT).is_file()
        else _loaded(place, chosen, target, kind, words=others)))
    if sd.tokenizer is None and "text_encoder" in chosen:
        warn(f"{shown(sd.weights)} will read no prompt, {no_vocabulary(sd.config)}")
    sd = accelerate(sd) if fast else sd
    folder = os.environ.get(RECORD)
    return record(sd, Path(folder), choose_dtype("auto", target)) if folder else sd


def _loaded(place: Path, chosen: list[str], device: torch.device, dtype: torch.dtype, *,
            words: bool) -> StableDiffusion:
    """The model at one place. Memory is taken once all names and shapes are known to fit."""
    networks = dict.fromkeys(LOADABLE[part][0].split(".")[0] for part in chosen)
    source, sd = whole_model(place, networks, words=words and "text_encoder" in chosen)
    sd.to(dtype).weights = (TOYWORLD.name if place == SHIPPED else
                            os.path.basename(os.path.abspath(place)))
    for part, name in ((part, name) for part, names in LOADABLE.items() for name in names):
        if part in chosen:
            sd.get_submodule(name).to_empty(device=device)
        else:
            sd.set_submodule(name, LeftOut(part, chosen))
    if "decoder" not in chosen:         # else a run would say so after all of its steps
        sd.text_to_image = sd.vae.decoder.forward       # type: ignore[method-assign, assignment]
    held = tuple(f"{name}." for part in chosen for name in LOADABLE[part])
    checkpoint.copy(source, {name: tensor for name, tensor in sd.state_dict().items()
                             if name.startswith(held)})
    return sd.eval().requires_grad_(False)


def _chosen(parts: Iterable[str] | None) -> list[str]:
    """The parts asked for, in the order of LOADABLE. Raises ValueError for what is none."""
    if parts is None:
        return list(LOADABLE)
    asked = [] if isinstance(parts, str) else list(parts)
    if not asked or not set(asked) <= LOADABLE.keys():
        halves = ": 'vae' is 'encoder' and 'decoder'" * ("vae" in asked)
        raise ValueError(f"parts must be a list of some of {', '.join(map(repr, LOADABLE))}, got "
                         f"{parts!r}{halves}")
    return [part for part in LOADABLE if part in asked]


class LeftOut(nn.Module):
    """Stands where a part was not loaded, and says so where it is used."""

    def __init__(self, part: str, chosen: list[str]) -> None:
        super().__init__()
        self.error = (f"the {part} was not loaded, only {', '.join(chosen)}: load the model with "
                      f"parts={[*chosen, part]}, or without parts for all of it")

    def forward(self, *inputs: object, **settings: object) -> NoReturn:
        raise ValueError(self.error)


def choose_device(name: str) -> torch.device:
    """"auto" is the best device at hand. Raises ValueError for one that is not."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]      # of a page, for some devices
        raise ValueError(f"device {name!r} is not at hand ({reason}): try 'cpu'") from error
    return device


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """"auto" is the fastest dtype that is safe on the device."""
    if name != "auto":
        for word, dtype in DTYPES.items():
            if name in (word, dtype):
                return dtype
        raise ValueError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}, got {name!r}")
    if device.type != "cpu":
        return torch.float16
    features = torch.cpu.get_capabilities()
    in_hardware = features.get("avx512_bf16") or features.get("amx_bf16")
    return torch.bfloat16 if in_hardware else torch.float32
