"""Files of weights: what torch and safetensors write is read as they read it, all else refused."""

import collections
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from minisd.checkpoints.formats import open_weights
from minisd.checkpoints.untrusted import Refused

Build = Callable[[Path], Path]


def all_of(path: Path) -> dict[str, Tensor]:
    weights = open_weights(path)
    found = {name: weights.get(name) for name in weights.shapes}
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == weights.shapes
    return found


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items())


SOME = {"a": torch.arange(12.0).reshape(3, 4), "b.c": torch.ones(5, dtype=torch.float16)}
KINDS = SOME | {
    "bfloat16": torch.randn(7).bfloat16(), "float64": torch.randn(2, 2, dtype=torch.float64),
    "scalar": torch.tensor(3.0), "none of them": torch.zeros(0, 3)}
ODD = KINDS | {
    "transposed": torch.randn(4, 6).t(), "part of another": torch.randn(5, 5)[1:, 2:],
    "parameter": torch.nn.Parameter(torch.randn(3), requires_grad=False)}


# What is read

@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x"])
def test_safetensors_files_of_any_name(tmp_path, name) -> None:
    save_file(KINDS | {"float8": torch.ones(3).to(torch.float8_e4m3fn)}, tmp_path / name)
    found = all_of(tmp_path / name)
    assert found.pop("float8").float().sum() == 3 and agree(found, KINDS)


@pytest.mark.parametrize("name", ["x.ckpt", "x.bin", "x.safetensors"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_checkpoints_of_any_name(tmp_path, name, protocol) -> None:
    torch.save(ODD, tmp_path / name, pickle_protocol=protocol)
    assert agree(all_of(tmp_path / name), ODD)


@pytest.mark.parametrize("wrap", [
    lambda tensors: {"state_dict": tensors, "epoch": 3, "size": torch.Size([2])},
    lambda tensors: {"state_dict": {"state_dict": tensors}, "lr": 1e-4, "on": torch.device("cpu")},
    lambda tensors: collections.OrderedDict(tensors),
    lambda tensors: tensors | {7: torch.ones(2), "step": 1, "names": ["a", ("b", {"c": None})]}])
def test_what_trainings_put_around_the_tensors(tmp_path, wrap) -> None:
    torch.save(wrap(SOME), tmp_path / "x.ckpt")
    assert agree(all_of(tmp_path / "x.ckpt"), SOME)


def test_bytes_behind_a_zip_are_no_fault(tmp_path) -> None:
    """Some servers append them, and no zip reader looks at them."""
    torch.save(SOME, tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes((tmp_path / "x.ckpt").read_bytes() + bytes(9))
    assert agree(all_of(tmp_path / "x.ckpt"), SOME)


def rewritten(path: Path, change: Callable[[str, bytes], bytes],
              kind: int = zipfile.ZIP_STORED) -> Path:
    """The archive anew, each record changed, by name and content."""
    with zipfile.ZipFile(path) as old:
        records = [(record.filename, old.read(record)) for record in old.infolist()]
    with zipfile.ZipFile(path, "w", kind) as new:
        for name, data in records:
            new.writestr(name, change(name, data))
    return path


@pytest.mark.parametrize("spelling", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_an_old_lightning_pickle(tmp_path, monkeypatch, spelling) -> None:
    """Published .ckpt files carry a Lightning callback and numbers of NumPy 1 or 2."""
    modules = ["pytorch_lightning", "pytorch_lightning.callbacks",
               "pytorch_lightning.callbacks.model_checkpoint"]
    callback = type("ModelCheckpoint", (), {"__module__": modules[-1]})
    with monkeypatch.context() as installed:
        for name in modules:
            installed.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[modules[-1]].ModelCheckpoint = callback
        best = callback()
        best.score = np.float64(0.5)
        torch.save({"state_dict": SOME, "callbacks": {callback: {"best": np.float64(1.0)}},
                    "hook": best}, tmp_path / "old.ckpt")
    path = rewritten(tmp_path / "old.ckpt", lambda name, data: data.replace(
        b"numpy._core.multiarray", spelling).replace(b"numpy.core.multiarray", spelling))
    assert agree(all_of(path), SOME)


# What is refused: damage

def saved(name: str, change: Callable[[bytes], bytes]) -> Build:
    """A whole file, its bytes changed."""
    def build(folder: Path) -> Path:
        path = folder / name
        torch.save({"state_dict": SOME}, path) if name == "x.ckpt" else save_file(SOME, path)
        path.write_bytes(change(path.read_bytes()))
        return path
    return build


def header(text: str, data: bytes = b"") -> Build:
    """A safetensors file with this header."""
    return lambda folder: written(folder / "x.safetensors",
                                  len(text).to_bytes(8, "little") + text.encode() + data)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.ckpt", "w") as file:
        file.writestr("photos/1.jpg", b"x" * 999)
    return folder / "x.ckpt"


def record(change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> Build:
    return lambda folder: rewritten(saved("x.ckpt", lambda b: b)(folder), change, kind)


PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:6ce01\nsize 4265146304\n"
CUT = r"it is damaged, cut off, or no safetensors file, nor a torch checkpoint \("
DAMAGE: dict[str, tuple[Build, str]] = {
    "empty": (saved("x.safetensors", lambda b: b""), "it is empty: fetch it again"),
    "the last byte missing": (saved("x.safetensors", lambda b: b[:-1]), CUT),
    "a header that is too long": (saved("x.safetensors", lambda b: b"\xff" * 8 + b[8:]), CUT),
    "a web page": (saved("x.safetensors", lambda b: PAGE), "it is a web page, not weights"),
    "a Git LFS pointer": (saved("x.ckpt", lambda b: POINTER), "`git lfs pull`"),
    "ckpt, its last bytes missing": (saved("x.ckpt", lambda b: b[:-30]), CUT),
    "ckpt, another zip archive": (archive, CUT + "no data.pkl"),
    "ckpt, a flipped bit": (
        saved("x.ckpt", lambda b: b.replace(torch.arange(12.0).numpy().tobytes(),
                                            torch.arange(1, 13.0).numpy().tobytes())), "checksum"),
    "ckpt, a record of another length": (
        record(lambda name, data: data + b"1234" * name.endswith("data/0")), "does not hold 12"),
    "ckpt, a record missing": (
        record(lambda name, data: data.replace(b"\x01\x00\x00\x001", b"\x01\x00\x00\x007")
               if name.endswith("pkl") else data), CUT),
    "ckpt, compressed": (record(lambda name, data: data, zipfile.ZIP_DEFLATED),
                         "in compressed form: save it again with torch.save"),
    "ckpt, a record under another's header": (
        saved("x.ckpt", lambda b: b"data/1".join(b.rsplit(b"data/0", 1))), CUT),
    "a plain pickle": (lambda folder: written(folder / "x.ckpt", pickle.dumps({"a": 1})),
                       "it is a bare pickle, as torch wrote them before version 1.6"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused_by_name(tmp_path, case) -> None:
    build, message = DAMAGE[case]
    path = build(tmp_path)
    with pytest.raises(Refused, match=message) as error:
        all_of(path)
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 500


def test_a_missing_file_is_named(tmp_path) -> None:
    for path in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no weights at {path}: expected"):
            open_weights(path)


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_a_file_that_is_cut_while_it_is_loaded(tmp_path, name) -> None:
    """Touching the mapped end of it would kill the process."""
    tensors = {"big": torch.ones(10 ** 6), "small": torch.ones(2)}
    (torch.save if name == "x.ckpt" else save_file)(tensors, tmp_path / name)
    weights = open_weights(tmp_path / name)
    os.truncate(tmp_path / name, 5000)
    with pytest.raises(Refused, match="its size changed while it was being loaded"):
        weights.get("big")


@pytest.mark.parametrize(("dtype", "count", "said"), [
    ("F4", 2, "holds torch.float4_e2m1fn_x2, expected floating-point numbers: quantised"),
    ("F6_E2M3", 3, "Dtype not understood: F6_E2M3"), ("I8", 4, "holds torch.int8, expected"),
    ("F8_E8M0", 4, "holds torch.float8_e8m0fnu, expected"), ("C64", 32, "complex64")])
def test_types_that_are_no_weights(tmp_path, dtype, count, said) -> None:
    entry = json.dumps({"x": {"dtype": dtype, "shape": [4], "data_offsets": [0, count]}})
    weights = open_weights(header(entry, bytes(count))(tmp_path))
    with pytest.raises(Refused, match=said):
        weights.get("x")


# What is refused: pickles that are up to something

class Runs:
    """A pickle that would call this when it is opened."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(("call", "name"), [
    ((os.system, "touch owned"), r"(posix|nt)\.system"),
    ((eval, "open('owned', 'w')"), r"__builtin__\.eval"),
    ((torch.load, "x"), "torch.serialization.load")])
def test_a_pickle_that_wants_to_run_something(tmp_path, monkeypatch, call, name) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": SOME, "x": Runs(*call)}, "x.ckpt")
    with pytest.raises(Refused, match=f"it asks to run {name}, which weights do not need; nothing"):
        open_weights("x.ckpt")
    assert os.listdir() == ["x.ckpt"]


def test_names_of_a_pickle_are_shown_without_their_tricks(tmp_path) -> None:
    torch.save(SOME, tmp_path / "x.ckpt")
    path = rewritten(tmp_path / "x.ckpt", lambda name, data: data.replace(
        b"ctorch._utils\n", b"c\x1b[2Jtorch._ut\xe2\x80\xae\n"))
    with pytest.raises(Refused) as error:
        open_weights(path)
    assert r"\x1b[2Jtorch._ut\u202e._rebuild" in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("value", "name"), [
    (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "_rebuild_nested_tensor"),
    (torch.empty(3, device="meta"), "_rebuild_meta_tensor")])
def test_tensors_that_are_none(tmp_path, value, name) -> None:
    torch.save({"state_dict": SOME | {"odd.weight": value}}, tmp_path / "x.ckpt")
    with pytest.raises(Refused, match=rf"odd\.weight is no plain tensor \(torch\._utils\.{name}"):
        open_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize("value", [torch.ones(1).expand(10 ** 9), torch.ones(2, 1).expand(2, 99)])
def test_a_tensor_that_repeats_what_is_stored(tmp_path, value) -> None:
    """A few bytes that would unfold to gigabytes."""
    torch.save({"x": value}, tmp_path / "x.ckpt")
    with pytest.raises(Refused, match="a tensor that is larger than what is stored of it"):
        open_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize(("state", "said"), [
    ([torch.ones(2)], "holds no tensors by name"), ({"a": 1.0, 2: torch.ones(2)}, "no tensors by"),
    ({"string_to_param": torch.nn.ParameterDict({"*": torch.ones(1, 768)}), "step": 3},
     "this is a textual-inversion embedding")])
def test_files_that_hold_no_model(tmp_path, state, said) -> None:
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(Refused, match=said):
        open_weights(tmp_path / "x.pt")


def program(data: bytes) -> Build:
    """A checkpoint with this pickle."""
    return record(lambda name, old: data if name.endswith("data.pkl") else old)


def itself() -> Any:
    state: dict[str, Any] = {}
    state["state_dict"] = state
    return state


# Each would take forever, or all memory, in a reader that runs it.
PAIRS_OF_PAIRS = b")q\x000" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(60))
HOSTILE: dict[str, Build] = {
    "a state_dict that contains itself": program(pickle.dumps(itself(), 2)),
    "a key whose hash takes forever": program(
        b"\x80\x02}" + PAIRS_OF_PAIRS + b"h\x3cK\x01s."),
    "a set of the same": program(b"\x80\x04" + PAIRS_OF_PAIRS + b"\x8f(h\x3c\x90."),
    "an OrderedDict of the same": program(
        b"\x80\x02" + PAIRS_OF_PAIRS + b"ccollections\nOrderedDict\n]h\x3cK\x01\x86a\x85R."),
    "lists in lists": program(b"\x80\x02" + b"]" * 10 ** 5 + b"a" * (10 ** 5 - 1) + b"."),
    "an array of any size": program(b"\x80\x05\x96" + (2 ** 40).to_bytes(8, "little") + b"x."),
    "a text of any size": program(b"\x80\x04\x8d" + (2 ** 40).to_bytes(8, "little") + b"x."),
    "a number of any length": program(b"L" + b"9" * 10 ** 6 + b"L\n."),
    "a long program": program(b"\x80\x02" + b"}" * 10 ** 7 + b"."),
    "a program that unpacks to a gigabyte": record(
        lambda name, data: data + bytes(10 ** 8) * name.endswith("data.pkl"), zipfile.ZIP_DEFLATED),
    "a record that does": record(
        lambda name, data: bytes(10 ** 8) if name.endswith("version") else data,
        zipfile.ZIP_DEFLATED),
    "a storage far larger than the file": program(
        pickle.dumps({"x": 1}, 2)[:-1] + b"X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x06\x00\x00\x00\x00\x00\x01tQ."),
    "a long header": lambda folder: written(
        folder / "x.safetensors", (10 ** 8).to_bytes(8, "little") + b"{" + b" " * 10 ** 8),
    "a name of a million letters": header(
        json.dumps({"x" * 10 ** 6: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        bytes(4)),
}
CHILD = """
import resource, sys, time
from minisd.checkpoints.sources import open_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    started = time.monotonic()
    try:
        open_model(path)
        print("opened")
    except ValueError as error:
        print(len(str(error)), round(time.monotonic() - started))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory as Unix does")
def test_hostile_files_are_refused_in_little_time_and_memory(tmp_path) -> None:
    """In a process of its own: some would ignore even Ctrl-C."""
    paths = []
    for i, build in enumerate(HOSTILE.values()):
        (tmp_path / str(i)).mkdir()
        paths.append(build(tmp_path / str(i)))
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True,
                          timeout=120)
    *lines, megabytes = done.stdout.splitlines()
    assert len(lines) == len(HOSTILE) and int(megabytes) < 200, (done.stdout, done.stderr)
    for case, line in zip(HOSTILE, lines, strict=True):
        letters, seconds = map(int, line.split())
        assert letters < 1000 and seconds < 10, (case, line)
