"""Weights on disk: one folder, one safetensors file per network, loaded strictly.

    config.json                 every size (see config.py)
    text_encoder.safetensors    CLIPTextTransformer
    unet.safetensors            UNet
    vae.safetensors             VAE
    tokenizer/                  vocab.json, merges.txt, words.txt

Loading never skips, guesses or leaves a tensor as it was: every name and every shape must match,
or nothing is loaded and one error lists all differences.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from minisd.config import Config, from_dict, to_dict

PARTS = ("text_encoder", "unet", "vae")
LISTED = 5                      # names shown of each kind of difference
SAMPLED = 64                    # values per tensor that enter the fingerprint


def read_config(folder: Path) -> Config:
    """The sizes in folder/config.json. Raises FileNotFoundError or ValueError."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a minisd model: it has no config.json; expected a folder with "
            f"config.json, {', '.join(f'{part}.safetensors' for part in PARTS)} and tokenizer/")
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe a model ({error}): restore it") from error


def write_config(folder: Path, config: Config) -> None:
    """Write folder/config.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "config.part"
    part.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")
    part.replace(folder / "config.json")


def save(module: nn.Module, path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a network's weights; a failure leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    tensors = {name: value.detach().to("cpu", dtype).contiguous()
               for name, value in module.state_dict().items()}
    try:
        save_file(tensors, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_into(module: nn.Module, path: str | Path) -> None:
    """Fill every tensor of a network from a safetensors file, in the network's own dtype.

    Raises FileNotFoundError, and ValueError where the file is damaged or does not fit; the
    network is then as it was before.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: expected a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            check_names(module, found, path)
            with torch.no_grad():
                for name, tensor in module.state_dict().items():
                    tensor.copy_(file.get_tensor(name))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}): fetch it again") from error


def check_names(module: nn.Module, found: dict[str, tuple[int, ...]], path: Path) -> None:
    """Raise one ValueError that lists what `found` lacks, has too much, or has in another shape."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shaped = [f"{name} {found[name]} instead of {shape}" for name, shape in wanted.items()
              if name in found and found[name] != shape]
    problems = [("missing", sorted(wanted.keys() - found.keys())),
                ("unexpected", sorted(found.keys() - wanted.keys())), ("of another shape", shaped)]
    lines = [f"{len(names)} {kind}: {', '.join(names[:LISTED])}{' ...' * (len(names) > LISTED)}"
             for kind, names in problems if names]
    if lines:
        raise ValueError(f"{path} does not fit {type(module).__name__}, nothing was loaded: "
                         + "; ".join(lines))


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits that differ whenever the weights do, in practice.

    A hash of every tensor's name, shape and a few evenly spaced values, rounded to bfloat16 so
    that it does not depend on the dtype the weights were loaded in.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        flat = tensor.detach().flatten()
        sampled = flat[::max(1, len(flat) // SAMPLED)].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sampled.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:12]
