"""Attention against its formula, the tap against the fused kernel, blocks against diffusers."""

import math

import parity
import pytest
import torch
import torch.nn.functional as F
from parity import TOLERANCE, copy_weights, relative_error, scramble
from torch import Tensor

from minisd.attention import Attention, AttentionTap, FeedForward, SpatialTransformer

B, N, M, DIM, CONTEXT, HEADS = 2, 7, 5, 12, 10, 3


def attention(context_dim: int | None = None, *, bias: bool = False) -> Attention:
    module = Attention(DIM, context_dim, heads=HEADS, bias=bias)
    scramble(module)
    return module


def by_hand(module: Attention, x: Tensor, context: Tensor, causal: bool) -> Tensor:
    """One head after the other, one query after the other, in float64."""
    q, k, v = (layer(source).double() for layer, source in
               ((module.to_q, x), (module.to_k, context), (module.to_v, context)))
    d_head = DIM // HEADS
    out = torch.zeros(len(x), x.shape[1], DIM, dtype=torch.float64)
    for b in range(len(x)):
        for head in range(HEADS):
            part = slice(head * d_head, (head + 1) * d_head)
            for i in range(x.shape[1]):
                seen = i + 1 if causal else context.shape[1]
                scores = k[b, :seen, part] @ q[b, i, part] / math.sqrt(d_head)
                weights = scores.exp() / scores.exp().sum()
                out[b, i, part] = weights @ v[b, :seen, part]
    return module.to_out(out.float())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_is_the_formula(causal: bool, bias: bool) -> None:
    module, x = attention(bias=bias), torch.randn(B, N, DIM)
    expected = by_hand(module, x, x, causal)
    assert relative_error(module(x, causal=causal), expected) < TOLERANCE


def test_cross_attention_is_the_formula() -> None:
    module, x, context = attention(CONTEXT), torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT)
    expected = by_hand(module, x, context, False)
    assert relative_error(module(x, context), expected) < TOLERANCE


def test_only_what_goes_out_has_a_bias_unless_asked() -> None:
    """v1's UNet has no bias on q, k, v; CLIP and the VAE have one on each."""
    def biased(bias: bool) -> list[str]:
        return [n for n, _ in attention(bias=bias).named_parameters() if n.endswith("bias")]

    assert biased(False) == ["to_out.bias"]
    assert biased(True) == ["to_q.bias", "to_k.bias", "to_v.bias", "to_out.bias"]


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 cannot be split into 4 heads"):
        Attention(10, heads=4)


# The tap

@pytest.mark.parametrize("causal", [False, True])
def test_the_explicit_path_equals_the_fused_one(causal: bool) -> None:
    module, x = attention(), torch.randn(B, N, DIM)
    fused, seen = module(x, causal=causal), []
    module.tap.listeners.append(seen.append)
    assert relative_error(module(x, causal=causal), fused) < TOLERANCE
    (weights,) = seen
    assert weights.shape == (B, HEADS, N, N)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, N))
    future = torch.ones(N, N).triu(1).bool()
    assert (weights[..., future] == 0).all() if causal else (weights[..., future] > 0).all()


def test_the_explicit_path_equals_the_fused_one_across() -> None:
    module, x, context = attention(CONTEXT), torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT)
    fused, seen = module(x, context), []
    module.tap.listeners.append(seen.append)
    assert relative_error(module(x, context), fused) < TOLERANCE
    assert seen[0].shape == (B, HEADS, N, M)


def test_a_listener_that_returns_something_replaces_the_weights() -> None:
    module, x, context = attention(CONTEXT), torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT)

    def only_last(weights: Tensor) -> Tensor:
        return torch.zeros_like(weights).index_fill(-1, torch.tensor(M - 1), 1.0)

    seen: list[Tensor] = []
    module.tap.listeners += [only_last, seen.append]
    expected = module.to_out(module.to_v(context[:, -1:])).expand(B, N, DIM)
    assert relative_error(module(x, context), expected) < TOLERANCE
    assert (seen[0][..., -1] == 1).all()                    # the next listener gets the edited ones


def test_the_fused_kernel_runs_without_listeners_and_again_after_them(
        monkeypatch: pytest.MonkeyPatch) -> None:
    fused, calls = F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention",
                        lambda *args, **kw: calls.append(1) or fused(*args, **kw))
    module, x = attention(), torch.randn(B, N, DIM)
    listener = [].append
    before = module(x)
    assert len(calls) == 1
    module.tap.listeners.append(listener)
    module(x)
    assert len(calls) == 1
    module.tap.listeners.remove(listener)
    assert torch.equal(module(x), before)
    assert len(calls) == 2


def test_the_tap_has_no_parameters_and_belongs_to_one_attention() -> None:
    assert not list(AttentionTap().parameters())
    assert attention().tap.listeners is not attention().tap.listeners
    assert "tap" not in "".join(attention().state_dict())


# The blocks around it

def test_geglu_gates_with_the_exact_gelu() -> None:
    module, x = FeedForward(DIM), 3 * torch.randn(B, N, DIM)
    scramble(module)
    value, gate = module.proj_in(x).double().split(4 * DIM, dim=-1)
    gated = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    assert relative_error(module(x), module.proj_out(gated.float())) < 1e-6     # tanh is 1e-4 off


def test_the_feed_forward_takes_many_positions_in_pieces_to_the_same_result() -> None:
    module, x = FeedForward(DIM), torch.randn(3, 700, DIM)      # 2 x 1024 positions and a rest
    scramble(module)
    with torch.no_grad():
        pieces = []
        module.proj_in.register_forward_hook(lambda _, inputs, __: pieces.append(len(inputs[0])))
        found = module(x)
        assert pieces == [1024, 1024, 52]
        torch.testing.assert_close(found, module._gated(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quiet", [False, True])
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


# In slices

@pytest.mark.parametrize("m", [300, 77])
def test_slices_equal_the_formula(m: int) -> None:
    """300 queries are one slice and a rest."""
    attention = Attention(12, heads=2)
    q, k, v = torch.randn(2, 2, 300, 6), torch.randn(2, 2, m, 6), torch.randn(2, 2, m, 6)
    expected = F.scaled_dot_product_attention(q, k, v)
    assert relative_error(attention._sliced(q, k, v), expected) < TOLERANCE
    rough = attention._sliced(*(part.bfloat16() for part in (q, k, v)))
    assert rough.dtype == torch.bfloat16 and relative_error(rough.float(), expected) < 0.02


@pytest.mark.parametrize(("n", "dtype", "trained", "causal", "sliced"), [
    (256, torch.bfloat16, False, False, True), (255, torch.bfloat16, False, False, False),
    (256, torch.float32, False, False, False), (256, torch.bfloat16, True, False, False),
    (256, torch.bfloat16, False, True, False)])
def test_slices_are_taken_where_they_are_faster(
        n: int, dtype: torch.dtype, trained: bool, causal: bool, sliced: bool,
        monkeypatch: pytest.MonkeyPatch) -> None:
    attention, taken = Attention(8, heads=2).to(dtype), []
    monkeypatch.setattr(attention, "_sliced",
                        lambda q, k, v: taken.append(q) or Attention._sliced(attention, q, k, v))
    with torch.set_grad_enabled(trained):
        attention(torch.randn(1, n, 8).to(dtype), causal=causal)
    assert bool(taken) == sliced
