"""Weights on disk: strict, whole or not at all, and named by a fingerprint."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minisd.checkpoints import weights as checkpoint
from minisd.clip import CLIPTextTransformer
from minisd.config import TOYWORLD, V1, to_dict


@pytest.fixture
def net(tiny) -> CLIPTextTransformer:
    torch.manual_seed(1)
    return CLIPTextTransformer(tiny.text)


@pytest.fixture
def other(tiny) -> CLIPTextTransformer:
    torch.manual_seed(2)
    return CLIPTextTransformer(tiny.text)


@pytest.fixture
def path(net, tmp_path) -> Path:
    checkpoint.save(net, tmp_path / "net.safetensors", dtype=torch.float32)
    return tmp_path / "net.safetensors"


def assert_untouched(net: nn.Module, load) -> str:
    """load must raise ValueError and change nothing; its message."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return str(error.value)


# There and back

def test_weights_come_back(net, other, path):
    checkpoint.load_into(other, path)
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert all(p.requires_grad for p in other.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_take_the_networks_dtype(net, other, tmp_path, dtype):
    checkpoint.save(net, tmp_path / "half.safetensors")
    assert {x.dtype for x in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    checkpoint.load_into(other.to(dtype), tmp_path / "half.safetensors")
    for name, value in net.state_dict().items():
        loaded = other.state_dict()[name]
        assert loaded.dtype == dtype and torch.equal(loaded, value.half().to(dtype))


def test_sizes_come_back(tiny, tmp_path):
    for config in (tiny, V1, TOYWORLD):
        checkpoint.write_config(tmp_path / "new" / "folder", config)
        assert checkpoint.read_config(tmp_path / "new" / "folder") == config


# Strictness

def test_one_error_lists_all_differences_and_nothing_is_loaded(net, other, path):
    tensors = load_file(path)
    del tensors["final_norm.bias"], tensors["layers.1.mlp.fc2.weight"]
    tensors["surplus"] = torch.zeros(3)
    tensors["position_embedding.weight"] = torch.zeros(14, 21)
    tensors["layers.0.norm1.weight"] = torch.zeros(21, 1)
    save_file(tensors, path)
    text = assert_untouched(other, lambda: checkpoint.load_into(other, path))
    assert text.startswith(f"{path} does not fit CLIPTextTransformer, nothing was loaded: ")
    assert "2 missing: final_norm.bias, layers.1.mlp.fc2.weight;" in text
    assert "1 unexpected: surplus;" in text
    assert "2 of another shape: " in text
    assert "position_embedding.weight (14, 21) instead of (13, 21)" in text
    assert "layers.0.norm1.weight (21, 1) instead of (21,)" in text


def test_long_lists_of_differences_are_cut(other, path):
    save_file({f"surplus.{i}": torch.zeros(1) for i in range(9)}, path)
    text = assert_untouched(other, lambda: checkpoint.load_into(other, path))
    assert "surplus.4 ..." in text and "surplus.5" not in text and "9 unexpected" in text


CUT = "is damaged, cut off, or no safetensors file ("


@pytest.mark.parametrize(("damage", "expected"), [
    (lambda raw: b"", "is empty"), (lambda raw: raw[:7], CUT), (lambda raw: raw[:200], CUT),
    (lambda raw: raw[:-1], CUT), (lambda raw: raw + b"\0", CUT),
    (lambda raw: b"<!doctype html><html>not found</html>", "is a web page, not weights"),
    (lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
     "is a Git LFS pointer")],
    ids=["empty", "in length", "in header", "last byte", "surplus byte", "html", "lfs pointer"])
def test_a_damaged_file_is_refused_and_nothing_is_loaded(other, path, damage, expected):
    path.write_bytes(damage(path.read_bytes()))
    text = assert_untouched(other, lambda: checkpoint.load_into(other, path))
    assert text.startswith(f"{path} {expected}")


def test_a_missing_file_is_named(net, tmp_path):
    missing = tmp_path / "unet.safetensors"
    with pytest.raises(FileNotFoundError, match=f"no model at {re.escape(str(missing))}: "):
        checkpoint.load_into(net, missing)


# config.json

def test_a_folder_without_config_says_what_a_model_is(tmp_path):
    with pytest.raises(ValueError, match=(
            r"is no model: expected a folder of this project \(config.json and "
            r"text_encoder.safetensors, unet.safetensors, vae.safetensors\) or of diffusers")):
        checkpoint.read_config(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"name": "x"}', "null", '{"unet": 5}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json does not describe a model \("):
        checkpoint.read_config(tmp_path)


def test_an_unknown_field_in_the_config_is_an_error(tiny, tmp_path):
    fields = to_dict(tiny)
    fields["unet"]["depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="depth"):
        checkpoint.read_config(tmp_path)


# Writing

def test_a_failed_save_leaves_the_old_file(net, other, path, monkeypatch):
    old = path.read_bytes()

    def fails_halfway(tensors, target) -> None:
        Path(target).write_bytes(old[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fails_halfway)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(other, path)
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]


def test_a_save_makes_folders_and_leaves_one_file(net, tmp_path):
    checkpoint.save(net, tmp_path / "a" / "b" / "net.safetensors")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["net.safetensors"]


def test_others_may_read_a_saved_file_as_they_may_any_other(net, tmp_path):
    (tmp_path / "plain").touch()
    checkpoint.save(net, tmp_path / "net.safetensors")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "net.safetensors")]
    assert modes[0] == modes[1]


# The fingerprint

def test_the_fingerprint_does_not_depend_on_the_dtype_loaded_in(net, tmp_path, tiny):
    checkpoint.save(net, tmp_path / "net.safetensors")          # float16, as shipped
    names = set()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loaded = CLIPTextTransformer(tiny.text).to(dtype)
        checkpoint.load_into(loaded, tmp_path / "net.safetensors")
        names.add(checkpoint.fingerprint(loaded))
    assert len(names) == 1 and re.fullmatch("[0-9a-f]{12}", names.pop())


def test_the_fingerprint_sees_a_change_of_any_tensor(net, other):
    seen = {checkpoint.fingerprint(net), checkpoint.fingerprint(other)}
    for name, p in net.named_parameters():
        with torch.no_grad():
            p.add_(0.01 * torch.randn_like(p) + 0.01)
        seen.add(checkpoint.fingerprint(net))
        assert p.dtype == torch.float32, name
    assert len(seen) == 2 + len(list(net.parameters()))


def test_the_fingerprint_sees_names_and_shapes():
    square, tall, renamed = nn.Linear(4, 4, bias=False), nn.Linear(2, 8, bias=False), nn.Module()
    with torch.no_grad():
        tall.weight.copy_(square.weight.reshape(8, 2))
    renamed.kernel = square.weight
    assert len({checkpoint.fingerprint(x) for x in (square, tall, renamed)}) == 3
