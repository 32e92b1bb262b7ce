"""Attention against its formula, explicit against fused, blocks against diffusers."""

import math

import parity
import pytest
import torch
import torch.nn.functional as F
from parity import TOLERANCE, copy_weights, relative_error, scramble
from torch import Tensor

from minisd.attention import Attention, FeedForward, SpatialTransformer

B, N, M, DIM, CONTEXT, HEADS = 2, 7, 5, 12, 10, 3
SELF, CAUSAL, CROSS = (None, False), (None, True), (CONTEXT, False)


def attention(context_dim: int | None = None, *, bias: bool = False) -> Attention:
    module = Attention(DIM, context_dim, heads=HEADS, bias=bias)
    scramble(module)
    return module


def by_hand(module: Attention, x: Tensor, context: Tensor, causal: bool) -> Tensor:
    """One head after the other, one query after the other, in float64."""
    q, k, v = (layer(source).double() for layer, source in
               ((module.to_q, x), (module.to_k, context), (module.to_v, context)))
    d_head = DIM // HEADS
    out = torch.zeros(B, N, DIM, dtype=torch.float64)
    for b in range(B):
        for part in (slice(start, start + d_head) for start in range(0, DIM, d_head)):
            for i in range(N):
                seen = i + 1 if causal else context.shape[1]
                scores = k[b, :seen, part] @ q[b, i, part] / math.sqrt(d_head)
                out[b, i, part] = scores.exp() / scores.exp().sum() @ v[b, :seen, part]
    return module.to_out(out.float())


@pytest.mark.parametrize(("context_dim", "causal"), [SELF, CAUSAL, CROSS])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_formula(context_dim: int | None, causal: bool, bias: bool) -> None:
    """Of queries, keys and values only CLIP's and the VAE's have a bias."""
    module, x = attention(context_dim, bias=bias), torch.randn(B, N, DIM)
    context = x if context_dim is None else torch.randn(B, M, context_dim)
    found = module(x, None if context_dim is None else context, causal=causal)
    assert relative_error(found, by_hand(module, x, context, causal)) < TOLERANCE
    assert [n for n, _ in module.named_parameters() if "bias" in n] == [
        *["to_q.bias", "to_k.bias", "to_v.bias"] * bias, "to_out.bias"]


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 cannot be split into 4 heads"):
        Attention(10, heads=4)


@pytest.mark.parametrize(("context_dim", "causal"), [SELF, CAUSAL, CROSS])
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
    assert torch.equal(module(x, context, causal=causal), before)
    assert len(calls) == 2 and attention().listeners is not module.listeners


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


def test_geglu_gates_with_the_exact_gelu() -> None:
    module, x = FeedForward(DIM), 3 * torch.randn(B, N, DIM)
    scramble(module)
    value, gate = module.proj_in(x).double().split(4 * DIM, dim=-1)
    gated = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert relative_error(module(x), module.proj_out(gated.float())) < 1e-6     # tanh is 1e-4 off


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_spatial_transformer_like_diffusers(quiet: bool) -> None:
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    ours = SpatialTransformer(DIM, CONTEXT, heads=HEADS, groups=4)
    theirs = Transformer2DModel(HEADS, DIM // HEADS, DIM, cross_attention_dim=CONTEXT,
                                norm_num_groups=4)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.BLOCKS)
    x, context = torch.randn(B, DIM, 5, 7), torch.randn(B, M, CONTEXT)
    if quiet:
        x = 1e-3 * x                # a GroupNorm eps of 1e-5 instead of 1e-6 would move this 3-fold
    (expected,) = theirs(x, encoder_hidden_states=context, return_dict=False)
    # Of what is added to x, which x itself would hide.
    assert relative_error(ours(x, context) - x, expected - x) < TOLERANCE
