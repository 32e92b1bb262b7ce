"""Exercises of the notebook on attention: the formula, its heads, and the gate of the feed-forward.

Each case has sizes that differ from one another, so that a wrong axis cannot pass unseen.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.attention import Attention
from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn

EXACT = 1e-5                    # tells the exact GELU from its approximation by tanh
QUICK = 1.702                   # of QuickGELU (Hendrycks & Gimpel 2016), which CLIP uses


def _drawn(*shape: int) -> Tensor:
    """The same random numbers at every call, and no global seed touched."""
    return drawn(sum(shape), *shape)


def _attend(q: Tensor, k: Tensor, v: Tensor, factor: float, dim: int = -1) -> Tensor:
    return (q @ k.transpose(-1, -2) * factor).softmax(dim) @ v


def check_attention(answer: Answer | None) -> Verdict:
    """answer(q, k, v): q (b, n, d), k (b, m, d), v (b, m, d_v) -> (b, n, d_v)."""
    return compare(
        answer, right=lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        cases=[(2 * _drawn(2, 7, 9), 2 * _drawn(2, 5, 9), _drawn(2, 5, 3)),
               (2 * _drawn(1, 4, 16), 2 * _drawn(1, 6, 16), _drawn(1, 6, 10))],
        hint="the scores are q @ k.transpose(-1, -2); divide them by the square root of d, take "
             "the softmax over the keys, and mix the rows of v with what comes out",
        mistakes=[
            Mistake("You left out the scale: divide the scores by the square root of d, or one "
                    "key takes nearly all the weight.", lambda q, k, v: _attend(q, k, v, 1)),
            Mistake("You divide the scores by d: it is the square root of d.",
                    lambda q, k, v: _attend(q, k, v, 1 / q.shape[-1])),
            Mistake("You multiply the scores by the square root of d: divide them by it.",
                    lambda q, k, v: _attend(q, k, v, q.shape[-1] ** 0.5)),
            Mistake("You divide by the square root of the number of keys: it is that of d, the "
                    "length of one query, q.shape[-1].",
                    lambda q, k, v: _attend(q, k, v, k.shape[-2] ** -0.5)),
            Mistake("Your softmax runs over the queries: take it over the keys, the last "
                    "dimension, so that each query's weights add up to 1.",
                    lambda q, k, v: _attend(q, k, v, q.shape[-1] ** -0.5, dim=-2)),
            Mistake("There is no softmax: the scores must become weights that add up to 1.",
                    lambda q, k, v: q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 @ v),
            Mistake("You return the weights: multiply them with v.",
                    lambda q, k, v: (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)),
        ])


def check_split_heads(answer: Answer | None) -> Verdict:
    """answer(x, heads): x (b, n, d) -> (b, heads, n, d / heads)."""
    def right(x: Tensor, heads: int) -> Tensor:
        with torch.device("meta"):
            package = Attention(x.shape[-1], heads=heads)
        return package._split(x)

    return compare(
        answer, right=right, cases=[(_drawn(2, 7, 15), 3), (_drawn(1, 10, 12), 4)],
        hint="head i gets components i * d_head up to (i + 1) * d_head of every position: "
             "unflatten the last dimension, then exchange two dimensions",
        mistakes=[
            Mistake("The heads still stand behind the positions: exchange these two dimensions.",
                    lambda x, heads: x.unflatten(-1, (heads, -1))),
            Mistake("The shape is right, but you reshaped across positions, so each head holds "
                    "pieces of a few positions: unflatten the last dimension only, then exchange "
                    "dimensions 1 and 2.",
                    lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1)),
            Mistake("Your head i takes every heads-th component: it takes neighbouring ones, so "
                    "unflatten to (heads, d_head), in this order.",
                    lambda x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)),
            Mistake("The last two dimensions are exchanged: (b, heads, n, d_head) is wanted.",
                    lambda x, heads: x.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)),
        ])


def check_geglu(answer: Answer | None) -> Verdict:
    """answer(x): x (b, n, 2 m), first the values and then their gates -> (b, n, m)."""
    def gated(function: Answer) -> Answer:
        def apply(x: Tensor) -> Tensor:
            value, gate = x.chunk(2, dim=-1)
            return value * function(gate)
        return apply

    return compare(
        answer, right=gated(F.gelu), cases=[(2 * _drawn(2, 5, 14),), (2 * _drawn(3, 4, 22),)],
        tolerance=EXACT,
        hint="value, gate = x.chunk(2, dim=-1), and the gate goes through F.gelu",
        mistakes=[
            Mistake("Value and gate are exchanged: the GELU belongs to the second half.",
                    lambda x: F.gelu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1]),
            Mistake("This is the GELU approximated by tanh: v1 has the exact one, F.gelu as it "
                    "is.", gated(lambda gate: F.gelu(gate, approximate="tanh"))),
            Mistake("This is QuickGELU, which CLIP uses: the UNet has the exact one, F.gelu.",
                    gated(lambda gate: gate * torch.sigmoid(QUICK * gate))),
            Mistake("The gate goes through a sigmoid, which is GLU: GEGLU takes F.gelu.",
                    gated(torch.sigmoid)),
            Mistake("The gate goes through SiLU: GEGLU takes F.gelu.", gated(F.silu)),
            Mistake("The gate goes through ReLU: GEGLU takes F.gelu.", gated(F.relu)),
            Mistake("Nothing bends the gate: send it through F.gelu before you multiply.",
                    gated(lambda gate: gate)),
            Mistake("You took neighbours as value and gate: the first half of the last dimension "
                    "is the value, the second the gate.",
                    lambda x: x[..., ::2] * F.gelu(x[..., 1::2])),
        ])
