"""Weight files, opened safely: names and shapes first, tensors one at a time.

A safetensors file can only hold numbers. A `.ckpt` is a zip archive of numbers with a pickle beside
them, a little program that says which numbers make which tensor. Here that program cannot do
anything else: no name in it is imported, no function called, no object built but the places of
tensors. A name that weights do not need is refused, before any tensor is read.
"""

import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from minisd.checkpoints.untrusted import HEAD, Refused, impostor, reading, shown

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
SAFETENSORS_HEADER = b"{"       # JSON after 8 bytes of its length, and those may look like anything
LARGEST_HEADER = 2 ** 23        # bytes; v1's takes 150,000
LARGEST_PICKLE = 2 ** 21        # bytes; v1's takes 200,000
MOST_WRAPPED = 8                # state_dict in state_dict in ...
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
          torch.float8_e5m2)    # what weights are stored in


@dataclass(frozen=True)
class Weights:
    """An open file: what it holds, and a way to get at one tensor at a time."""

    path: Path
    size: int                                       # bytes of the file
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor] = field(repr=False)

    def get(self, name: str) -> Tensor:
        """One tensor, on the CPU. Raises Refused.

        A safetensors file is mapped into memory, and the system ends a program that touches what
        is no longer there. So the size is looked at again before each tensor. A file that is cut
        in the instant after that still does it: never write into one that is being loaded.
        """
        with reading(self.path, "file of weights"):
            if self.path.stat().st_size != self.size:
                raise Refused("its size changed while it was being loaded: load it again when it "
                              "is whole")
            tensor = self.read(name)
            if tensor.dtype not in FLOATS:
                raise Refused(f"{shown(name)} holds {tensor.dtype}, expected floating-point "
                              f"numbers: quantised weights are not read, take the unquantised file")
            return tensor


def open_weights(path: str | Path) -> Weights:
    """A safetensors file or a torch checkpoint, whichever it is by its first bytes.

    Raises FileNotFoundError, and Refused for a file that is empty, cut off, a web page, a Git LFS
    pointer, a pickle that wants to run something, or no weights at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {shown(path)}: expected a .safetensors or .ckpt "
                                f"file")
    with reading(path, "safetensors file, nor a torch checkpoint"):
        with path.open("rb") as file:
            head = file.read(HEAD)
        if found := impostor(head):
            raise Refused(found)
        if head[8:9] == SAFETENSORS_HEADER or not head.startswith((ZIP, PICKLE)):
            return _open_safetensors(path, head)
        if head.startswith(PICKLE):
            raise Refused("it is a bare pickle, as torch wrote them before version 1.6, and such "
                          "files are not opened: use a .safetensors or a newer .ckpt of this model")
        return _open_checkpoint(path)


def _open_safetensors(path: Path, head: bytes) -> Weights:
    length = int.from_bytes(head[:8], "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    file = safe_open(path, framework="pt")
    shapes = {name: tuple(file.get_slice(name).get_shape())
              for name in file.keys()}          # noqa: SIM118
    return Weights(path, path.stat().st_size, shapes, file.get_tensor)


def _open_checkpoint(path: Path) -> Weights:
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        packed = next((name for name in records
                       if records[name].compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            raise Refused(f"it holds {shown(packed)} in compressed form: save it again with "
                          f"torch.save, or use a .safetensors file")
        program = next((name for name in records
                        if re.fullmatch(r"([^/]*/)?data\.pkl", name)), None)
        if program is None or records[program].file_size > LARGEST_PICKLE:
            raise ValueError("no data.pkl in it" if program is None else "a very long data.pkl")
        folder = program.removesuffix("data.pkl")
        state = Pickle(archive.read(program), {name.removeprefix(f"{folder}data/"): record
                                               for name, record in records.items()}).load()
    for _ in range(MOST_WRAPPED):
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
            state = state["state_dict"]
    held = state if isinstance(state, dict) else {}
    if "string_to_param" in held:
        raise Refused("this is a textual-inversion embedding, a word for a model and no model of "
                      "its own; expected Stable Diffusion v1")
    for name, value in held.items():
        if isinstance(value, Name) and value.text.startswith("torch._"):
            raise Refused(f"{shown(name)} is no plain tensor ({value.text}): sparse, nested, "
                          f"quantised and meta ones are not read")
    tensors = {name: value for name, value in held.items() if isinstance(value, Stored)}
    if not tensors:
        raise Refused("it holds no tensors by name: expected a model's weights")
    return Weights(path, path.stat().st_size,
                   {name: tensor.shape for name, tensor in tensors.items()},
                   lambda name: tensors[name].read(path))


# The pickle of a checkpoint

class Name(NamedTuple):
    """A class or function that a pickle names, and whatever is made with it."""

    text: str


class Stored(NamedTuple):
    """A tensor's place in a record of the archive."""

    record: zipfile.ZipInfo
    dtype: torch.dtype
    offset: int                     # of its first number in the record
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, path: Path) -> Tensor:
        """The numbers of its record, whose checksum is looked at, straight into memory."""
        flat = torch.empty(self.record.file_size // self.dtype.itemsize, dtype=self.dtype)
        memory = flat.view(torch.uint8).numpy().data
        with path.open("rb") as file:
            file.seek(self.record.header_offset)
            file.seek(sum(struct.unpack("<26x2H", file.read(30))), io.SEEK_CUR)     # name, padding
            if file.readinto(memory) < len(memory) or zlib.crc32(memory) != self.record.CRC:
                raise ValueError(f"the checksum of {shown(self.record.filename)} does not fit")
        return flat.as_strided(self.shape, self.stride, self.offset)


# What published checkpoints name: tensors, and what Lightning and NumPy pickled beside them.
KNOWN_NAMES = re.compile(
    r"torch\.(\w+Storage|storage\.(Untyped|Typed)Storage|Size|device|Tensor|b?float\w*|u?int\d+"
    r"|bool|_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|nn\.parameter\.Parameter"
    r"|nn\.modules\.container\.ParameterDict|serialization\._get_layout)"
    r"|collections\.(OrderedDict|defaultdict|Counter)|(__builtin__|builtins)\.set|_codecs\.encode"
    r"|numpy\.(_?core\.multiarray\.scalar|dtype|dtypes\.\w+DType)"
    r"|pytorch_lightning\.callbacks\.model_checkpoint\.ModelCheckpoint")
STORAGES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
            "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32,
            "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
            "Untyped": torch.uint8}
# Instructions that weights do without, and that could run something or ask for any memory.
LEFT_OUT = b"".join((
    pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER))


class Pickle(pickle._Unpickler):
    """Python's reader of pickles, all that acts taken out of it.

    It gives dictionaries, lists, tuples, text, numbers, Name and Stored. Dictionaries keep what
    lies under text: nothing else is ever hashed, so no key can take forever.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, program: bytes, records: dict[str, zipfile.ZipInfo]) -> None:
        super().__init__(io.BytesIO(program))
        self.records = records

    def find_class(self, module: str, name: str) -> Name:
        wanted = f"{module}.{name}"
        if not KNOWN_NAMES.fullmatch(wanted):
            raise Refused(f"it asks to run {shown(wanted)}, which weights do not need; nothing of "
                          f"it was executed. Use a .safetensors file from a source you trust")
        return Name(wanted)

    def persistent_load(self, pid: tuple[Any, ...]) -> Any:
        """("storage", its type, the record's name, a device, how many numbers) -> record, dtype."""
        _, kind, key, _, count = pid
        dtype = STORAGES.get(kind.text.rpartition(".")[2].removesuffix("Storage"))
        if dtype is None:
            return kind
        if self.records[key].file_size != count * dtype.itemsize:
            raise ValueError(f"record {shown(key)} does not hold {count:,} numbers of {dtype}")
        return self.records[key], dtype

    def call(self) -> None:
        arguments = self.stack.pop()
        match self.stack[-1]:
            case Name("collections.OrderedDict"):
                self.stack[-1] = _under_text(*arguments) if arguments else {}
            case Name("torch._utils._rebuild_parameter"):
                self.stack[-1] = arguments[0]
            case Name("torch._utils._rebuild_tensor_v2"):
                (record, dtype), offset, shape, stride = arguments[:4]
                if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)) or (
                        math.prod(shape) * dtype.itemsize > record.file_size):
                    raise ValueError("a tensor that is larger than what is stored of it")
                self.stack[-1] = Stored(record, dtype, offset, shape, stride)

    def set_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_under_text(zip(items[::2], items[1::2], strict=True)))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_under_text([(key, value)]))

    def build(self) -> None:
        self.stack.pop()                    # attributes to set, and there are none

    dispatch: ClassVar[dict[int, Any]] = {
        code: step for code, step in pickle._Unpickler.dispatch.items() if code not in LEFT_OUT
    } | {pickle.REDUCE[0]: call, pickle.NEWOBJ[0]: call, pickle.SETITEMS[0]: set_items,
         pickle.SETITEM[0]: set_item, pickle.BUILD[0]: build}


def _under_text(pairs: Any) -> dict[str, Any]:
    return {key: value for key, value in pairs if isinstance(key, str)}
