"""Attention against its formula, and explicit against fused. Its blocks: see test_unet.py."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import TOLERANCE, relative_error, scramble
from torch import Tensor

from minisd.attention import Attention

B, N, M, DIM, CONTEXT, HEADS = 2, 7, 5, 12, 10, 3
every_kind = pytest.mark.parametrize(("context_dim", "causal"), [
    (None, False), (None, True), (CONTEXT, False)])


def attention(context_dim: int | None = None, *, bias: bool = False) -> Attention:
    module = Attention(DIM, context_dim, heads=HEADS, bias=bias)
    scramble(module)
    return module


@every_kind
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_formula(context_dim: int | None, causal: bool, bias: bool) -> None:
    """One head after the other, one query after the other, in float64."""
    module, x = attention(context_dim, bias=bias), torch.randn(B, N, DIM)
    context = None if context_dim is None else torch.randn(B, M, context_dim)
    seen = x if context is None else context
    q, k, v = (layer(source).double() for layer, source in
               ((module.to_q, x), (module.to_k, seen), (module.to_v, seen)))
    d_head = DIM // HEADS
    mixed = torch.zeros(B, N, DIM, dtype=torch.float64)
    for part in (slice(start, start + d_head) for start in range(0, DIM, d_head)):
        for i in range(N):
            last = i + 1 if causal else seen.shape[1]
            weights = ((k[:, :last, part] @ q[:, i, part, None]) / math.sqrt(d_head)).exp()
            mixed[:, i, part] = (weights * v[:, :last, part]).sum(1) / weights.sum(1)
    expected = module.to_out(mixed.float())
    assert relative_error(module(x, context, causal=causal), expected) < TOLERANCE
    assert [n for n, _ in module.named_parameters() if "bias" in n] == [
        *["to_q.bias", "to_k.bias", "to_v.bias"] * bias, "to_out.bias"]


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 cannot be split into 4 heads"):
        Attention(10, heads=4)


@every_kind
def test_explicit_while_somebody_listens_equals_fused(
        context_dim: int | None, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, calls = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention",
                        lambda *args, **kw: calls.append(1) or fused(*args, **kw))
    module, x = attention(context_dim), torch.randn(B, N, DIM)
    context = None if context_dim is None else torch.randn(B, M, context_dim)
    before, seen = module(x, context, causal=causal), []
    module.listeners.append(seen.append)
    assert relative_error(module(x, context, causal=causal), before) < TOLERANCE
    assert len(calls) == 1
    weights, = seen
    assert weights.shape == (B, HEADS, N, N if context is None else M)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, N))
    future = weights[..., torch.ones(weights.shape[-2:]).triu(1).bool()]
    assert (future == 0).all() if causal else (future > 0).all()
    module.listeners.clear()
    assert torch.equal(module(x, context, causal=causal), before) and len(calls) == 2


def test_a_listener_that_returns_something_replaces_the_weights() -> None:
    """And one that leaves meanwhile does not hide the next one."""
    module, x, context = attention(CONTEXT), torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT)

    def only_last(weights: Tensor) -> Tensor:
        module.listeners.remove(only_last)
        return torch.zeros_like(weights).index_fill(-1, torch.tensor(M - 1), 1.0)

    seen: list[Tensor] = []
    module.listeners += [only_last, seen.append]
    expected = module.to_out(module.to_v(context[:, -1:])).expand(B, N, DIM)
    assert relative_error(module(x, context), expected) < TOLERANCE
    assert (seen[0][..., -1] == 1).all()
