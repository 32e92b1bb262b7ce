"""Weights into networks and out: strict, whole or not at all, and named by a fingerprint."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minisd.checkpoints import weights
from minisd.clip import CLIPTextTransformer


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
    weights.save(net, tmp_path / "net.safetensors", dtype=torch.float32)
    return tmp_path / "net.safetensors"


# There and back

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_in_the_networks_dtype(net, other, tmp_path, dtype):
    weights.save(net, tmp_path / "half.safetensors")
    assert {x.dtype for x in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    weights.load_into(other.to(dtype), tmp_path / "half.safetensors")
    for name, value in net.state_dict().items():
        loaded = other.state_dict()[name]
        assert loaded.dtype == dtype and torch.equal(loaded, value.half().to(dtype))
    assert all(p.requires_grad for p in other.parameters())
    weights.load_into(net, tmp_path / "half.safetensors")
    assert weights.fingerprint(other) == weights.fingerprint(net)
    assert re.fullmatch("[0-9a-f]{12}", weights.fingerprint(net))


# Strictness

def test_one_error_lists_all_differences_and_nothing_is_loaded(other, path):
    tensors = load_file(path)
    del tensors["final_norm.bias"], tensors["layers.1.mlp.fc2.weight"]
    tensors["surplus\x1b[2J"] = torch.zeros(3)
    tensors["position_embedding.weight"] = torch.zeros(14, 21)
    tensors["layers.0.norm1.weight"] = torch.zeros(21, 1)
    tensors |= {f"z.{i}": torch.zeros(1) for i in range(8)}
    save_file(tensors, path)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError) as error:
        weights.load_into(other, path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    text = str(error.value)
    assert text.startswith(f"{path}: it does not fit CLIPTextTransformer, nothing was loaded: ")
    assert "2 missing: final_norm.bias, layers.1.mlp.fc2.weight;" in text
    assert r"9 unexpected: surplus\x1b[2J, z.0, z.1, z.2, z.3 ...;" in text
    assert "2 of another shape: " in text
    assert "position_embedding.weight (14, 21) instead of (13, 21)" in text
    assert "layers.0.norm1.weight (21, 1) instead of (21,)" in text


# Writing

def test_others_may_read_a_saved_file_as_any_other(net, tmp_path):
    """The library would keep it to its writer."""
    weights.save(net, tmp_path / "new" / "net.safetensors")
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "new/net.safetensors")]
    assert modes[0] == modes[1]


# Whose they are

def test_the_fingerprint_sees_a_change_of_any_tensor_name_and_shape(net, other):
    seen = {weights.fingerprint(net), weights.fingerprint(other)}
    for p in net.parameters():
        with torch.no_grad():
            p.add_(0.01 * torch.randn_like(p) + 0.01)
        seen.add(weights.fingerprint(net))
    assert len(seen) == 2 + len(list(net.parameters()))
    square, tall, renamed = nn.Linear(4, 4, bias=False), nn.Linear(2, 8, bias=False), nn.Module()
    with torch.no_grad():
        tall.weight.copy_(square.weight.reshape(8, 2))
    renamed.kernel = square.weight
    assert len({weights.fingerprint(x) for x in (square, tall, renamed)}) == 3
