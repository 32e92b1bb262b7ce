"""Weight files, opened safely: names and shapes first, tensors one at a time from mapped memory.

A safetensors file cannot do anything but hold numbers. A `.ckpt` is a pickle, a little program;
it is opened through torch's restricted reader, which runs none of it but what rebuilds tensors,
and only when it asks for nothing beyond the few harmless names that Lightning's old checkpoints
contain. Everything else is refused with its name before anything of it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minisd.checkpoints.sniff import HEAD, impostor

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
SAFETENSORS_HEADER = b"{"       # JSON after 8 bytes of its length, and those may look like anything
OLDEST_SAFE_TORCH = (2, 10)     # before it a crafted .ckpt corrupts memory (CVE-2026-24747)


class Inert:
    """Stands in for what Lightning pickled beside the weights; keeps nothing, does nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _inert(*args: object) -> Inert:
    return Inert()


# All that published v1 checkpoints ask for beside tensors, and what it gets.
HARMLESS: tuple[tuple[Callable[..., Any], str], ...] = (
    (Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_inert, "numpy.core.multiarray.scalar"),
    (Inert, "numpy.dtype"),
    (Inert, "numpy.dtypes.Float64DType"),
    (_inert, "_codecs.encode"),
)


@dataclass(frozen=True)
class Weights:
    """An open file: what it holds, and a way to get at one tensor at a time."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    get: Callable[[str], Tensor] = field(repr=False)    # from mapped memory, on the CPU


def open_weights(path: str | Path) -> Weights:
    """A safetensors file or a torch checkpoint, whichever it is by its first bytes.

    Raises FileNotFoundError, and ValueError for a file that is empty, cut off, a web page, a
    Git LFS pointer, a pickle that wants to run something, or no weights at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: expected a .safetensors or .ckpt file")
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = impostor(head)
    if found:
        raise ValueError(f"{path} {': '.join(found)}")
    pickled = head.startswith((ZIP, PICKLE)) and head[8:9] != SAFETENSORS_HEADER
    if pickled and path.suffix == ".safetensors":       # torch.load would go by the name
        raise ValueError(f"{path} is a torch checkpoint, whatever its name says: rename it to "
                         f"{path.stem}.ckpt")
    if head.startswith(PICKLE) and pickled:
        raise ValueError(f"{path} is a bare pickle, as torch wrote them before version 1.6: such "
                         f"files are not opened, use a .safetensors or a newer .ckpt of this model")
    return _open_checkpoint(path) if pickled else _open_safetensors(path)


def _open_safetensors(path: Path) -> Weights:
    try:
        file = safe_open(path, framework="pt")
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, cut off, or no safetensors file ({error}): fetch it "
                         f"again") from error
    return Weights(path, shapes, file.get_tensor)


def _open_checkpoint(path: Path) -> Weights:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_SAFE_TORCH:
        raise ValueError(f"opening a .ckpt is not safe with torch {torch.__version__}: install "
                         f"torch 2.10 or newer, or use a .safetensors file")
    try:
        wanted = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:      # a crafted file can make the reader stumble over anything
        raise ValueError(_damaged(path, error)) from error
    strange = sorted(wanted - {name for _, name in HARMLESS})
    if strange:
        raise ValueError(
            f"{path} is refused: it asks to run {', '.join(strange)}, which weights do not need; "
            f"nothing of it was executed. Use a .safetensors file from a source you trust")
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:      # a crafted file can make the reader stumble over anything
        raise ValueError(_damaged(path, error)) from error
    while isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    tensors = {name: value for name, value in state.items()
               if isinstance(name, str) and isinstance(value, Tensor)
               } if isinstance(state, dict) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name: expected a model's weights")
    return Weights(path, {name: tuple(t.shape) for name, t in tensors.items()}, tensors.__getitem__)


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} is damaged, cut off, or no torch checkpoint ({reason}): fetch it again"
