"""A model's weights: from any layout into a network, and out into this project's own (sources.py).

Loading never skips, guesses or leaves a tensor as it was: every name and every shape must match,
and every value must be finite, or nothing is loaded and one error says why. Each tensor is copied
from its file straight into the model, and no second copy of the model is made.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minisd.checkpoints.config_file import write_config
from minisd.checkpoints.formats import open_weights
from minisd.checkpoints.sources import PARTS, Source
from minisd.checkpoints.untrusted import refusal, shown
from minisd.observe.files import written_whole
from minisd.pipeline import StableDiffusion

__all__ = ["PARTS", "write_config"]      # beside what is defined here

LISTED = 5                      # names shown of each kind of difference
SAMPLED = 64                    # values per tensor that enter the fingerprint


# In

def load_into(module: nn.Module, path: str | Path) -> None:
    """Fill a network beside the three, the judge or CLIP's image tower, in its own dtype and place.

    path: a file in which the tensors have the network's own names. Raises FileNotFoundError, and
    Refused where the file is damaged or does not fit.
    """
    weights = open_weights(path)
    source = Source(weights.path, "minisd", (), False,
                    {name: (weights, name) for name in weights.shapes})
    copy(source, match(module, source))


def match(module: nn.Module, source: Source) -> dict[str, Tensor]:
    """Which tensor of a module each tensor of a source belongs into, by the source's names.

    A whole model is matched in the networks that the source holds. Raises Refused, with one list
    of what is missing, too much or of another shape, unless all match. The VAE's attention was
    once written as 1x1 convolutions: (c, c, 1, 1) counts as (c, c).
    """
    found = source.shapes
    held = tuple(f"{part}." for part in source.parts) or ""
    wanted = {name: tensor for name, tensor in module.state_dict().items()
              if name.startswith(held)}
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    shaped = [f"{name} {found[name]} instead of {shape}" for name, shape in shapes.items()
              if name in found and found[name] not in (shape, (*shape, 1, 1))]
    problems = [("missing", sorted(wanted.keys() - found.keys())),
                ("unexpected", sorted(found.keys() - wanted.keys())), ("of another shape", shaped)]
    lines = [f"{len(names)} {kind}: {', '.join(map(shown, names[:LISTED]))}"
             + " ..." * (len(names) > LISTED) for kind, names in problems if names]
    if lines:
        raise refusal(source.path, f"it does not fit {type(module).__name__}, nothing was loaded: "
                                   f"{'; '.join(lines)}")
    return wanted


def copy(source: Source, targets: Mapping[str, Tensor]) -> None:
    """Copy a source's tensors into the targets of `match`.

    Raises Refused at the first that holds no finite numbers; those before it are copied.
    """
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(finite(source, name, tensor.dtype).reshape(tensor.shape))


def finite(source: Source, name: str, dtype: torch.dtype) -> Tensor:
    """A source's tensor, after a look at all its values.

    The smallest and the largest tell: they are NaN where any value is. Raises Refused for values
    that are not finite, or are not so in `dtype`.
    """
    tensor = source.get(name)
    if not tensor.numel():
        return tensor
    readable = tensor.float() if tensor.element_size() == 1 else tensor
    low, high = (float(value) for value in readable.aminmax())
    limit, path = torch.finfo(dtype).max, source.tensors[name][0].path
    if low >= -limit and high <= limit:
        return tensor
    if max(-low, high) < float("inf"):
        raise refusal(path, f"{name} reaches {max(-low, high):.3g}, too much for {dtype}: load in "
                            f"float32 or bfloat16")
    raise refusal(path, f"{name} contains NaN or infinity, nothing was loaded: the file is "
                        f"damaged, or its training or merging failed; take another")


# Out

def save(module: nn.Module, path: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a network's weights; a failure leaves the old file as it was."""
    tensors = {name: value.detach().to("cpu", dtype).contiguous()
               for name, value in module.state_dict().items()}
    with written_whole(path) as part:
        part.touch()
        mode = part.stat().st_mode          # as for any new file; the library makes it private
        save_file(tensors, part)
        part.chmod(mode)


# Whose they are

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


def identity(sd: StableDiffusion) -> dict[str, str]:
    """What painted a picture, for its record: model, weights, fingerprint and dtype."""
    return {"model": sd.config.name, "weights": sd.weights, "fingerprint": fingerprint(sd),
            "dtype": str(sd.dtype).removeprefix("torch.")}
