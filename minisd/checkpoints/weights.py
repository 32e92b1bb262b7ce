"""A model's weights: from any layout into a network, and out into this project's own (sources.py).

Loading never skips, guesses or leaves a tensor as it was: every name and every shape must match,
and every value must be finite, or nothing is loaded and one error says why. Each tensor is copied
from the mapped file straight into the model, and no second copy is made.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minisd.checkpoints.files import open_weights
from minisd.checkpoints.sources import (
    PARTS,
    Source,
    config_of,
    open_file,
    open_model,
    read_config,
    require,
)
from minisd.clip import CLIPTextTransformer
from minisd.config import Config, to_dict
from minisd.unet import UNet
from minisd.vae import VAE

__all__ = ["PARTS", "Source", "config_of", "open_model", "read_config"]     # from sources.py

PART_OF = {CLIPTextTransformer: "text_encoder", UNet: "unet", VAE: "vae"}
LISTED = 5                      # names shown of each kind of difference
SAMPLED = 64                    # values per tensor that enter the fingerprint
EVERYTHING = ("",)              # the beginnings of all names


# In

def load_into(module: nn.Module, path: str | Path) -> None:
    """Fill every tensor of a model, or of one of its networks, in its own dtype and place.

    path: a file or a folder in any layout. A network that is none of the three (the judge, CLIP's
    image tower) is filled from a file that has its own names. Raises FileNotFoundError, and
    ValueError where the file is damaged or does not fit; the model is then as it was before.
    """
    part = PART_OF.get(type(module), "")
    if part or all(hasattr(module, name) for name in PARTS):
        single = part and Path(path).is_file()
        source = open_file(Path(path), part) if single else open_model(path)
        require(source, [part] if part else PARTS)
    else:
        weights = open_weights(path)
        source = Source(Path(path), "minisd", (), False,
                        {name: (weights, name) for name in weights.shapes})
    targets = match(module, source, part)
    for name, tensor in targets.items():        # all of them first: nothing is half loaded
        checked(source, name, tensor.dtype)
    copy(source, targets)


def match(module: nn.Module, source: Source, part: str = "", *,
          only: tuple[str, ...] = EVERYTHING) -> dict[str, Tensor]:
    """Which tensor of a module each tensor of a source belongs into, by the source's names.

    part: the source's network that the module is, where it is one alone. only: how the module's
    names begin that are to be filled. Raises ValueError unless all of these match, one to one.
    """
    prefix = f"{part}." if part else ""
    found = {name.removeprefix(prefix): shape for name, shape in source.shapes.items()
             if name.startswith(prefix) and name.removeprefix(prefix).startswith(only)}
    check_names(module, found, source.path, only=only)
    tensors = {name: tensor for name, tensor in module.state_dict().items()
               if name.startswith(only)}
    empty = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if empty:
        raise ValueError(f"{empty} lies on the meta device and cannot hold values: build the model "
                         f"on a real one, or call to_empty(device=...) first")
    return {prefix + name: tensor for name, tensor in tensors.items()}


def copy(source: Source, targets: Mapping[str, Tensor]) -> None:
    """Copy a source's tensors into the targets of `match`.

    Raises ValueError at the first that holds no finite numbers; those before it are copied.
    """
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(checked(source, name, tensor.dtype).reshape(tensor.shape))


def checked(source: Source, name: str, dtype: torch.dtype) -> Tensor:
    """A source's tensor, after a look at all its values.

    The smallest and the largest tell: they are NaN where any value is. Raises ValueError for
    values that are not finite, are not so in `dtype`, or are quantised.
    """
    tensor, place = source.get(name), f"{source.tensors[name][0].path}: {name}"
    if not tensor.is_floating_point():
        raise ValueError(f"{place} holds {tensor.dtype}, expected floating-point numbers: "
                         f"quantised weights are not read, take the unquantised file")
    if not tensor.numel():
        return tensor
    readable = tensor.float() if tensor.element_size() == 1 else tensor
    low, high = (float(value) for value in readable.aminmax())
    limit = torch.finfo(dtype).max
    if not (low >= -limit and high <= limit):
        if abs(low) < float("inf") and abs(high) < float("inf"):
            raise ValueError(f"{place} reaches {max(-low, high):.3g}, too much for {dtype}: load "
                             f"in float32 or bfloat16")
        raise ValueError(f"{place} contains NaN or infinity, nothing was loaded: the file is "
                         f"damaged, or its training or merging failed; take another")
    return tensor


def check_names(module: nn.Module, found: dict[str, tuple[int, ...]], path: Path, *,
                only: tuple[str, ...] = EVERYTHING) -> None:
    """Raise one ValueError that lists what `found` lacks, has too much, or has in another shape.

    The VAE's attention was once written as 1x1 convolutions: (c, c, 1, 1) counts as (c, c).
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()
              if name.startswith(only)}
    shaped = [f"{name} {found[name]} instead of {shape}" for name, shape in wanted.items()
              if name in found and found[name] not in (shape, (*shape, 1, 1))]
    problems = [("missing", sorted(wanted.keys() - found.keys())),
                ("unexpected", sorted(found.keys() - wanted.keys())), ("of another shape", shaped)]
    lines = [f"{len(names)} {kind}: {', '.join(names[:LISTED])}{' ...' * (len(names) > LISTED)}"
             for kind, names in problems if names]
    if lines:
        raise ValueError(f"{path} does not fit {type(module).__name__}, nothing was loaded: "
                         + "; ".join(lines))


# Out

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
        part.touch()
        mode = part.stat().st_mode          # as for any new file; the library makes it private
        save_file(tensors, part)
        part.chmod(mode)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits that differ whenever the weights do, in practice.

    A hash of every tensor's name, shape and a few evenly spaced values, rounded to bfloat16 so
    that it does not depend on the dtype the weights were loaded in; only float32 weights that were
    loaded in float16 have another one, for they were rounded twice. Of what lies on the meta
    device, such as parts that were not loaded, only names and shapes count.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.is_meta:
            continue
        flat = tensor.detach().flatten()
        sampled = flat[::max(1, len(flat) // SAMPLED)].to("cpu", torch.bfloat16)
        digest.update(sampled.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:12]
