"""Exercises on attention: the formula, its heads, and the gate of the feed-forward."""

import torch.nn.functional as F

from minisd.exercises.checking import Check, drawn

check_attention = Check(
    "my_attention(q, k, v)", "returns (b, n, d_v) of q (b, n, d), k (b, m, d) and v (b, m, d_v)",
    right=F.scaled_dot_product_attention,
    cases=[(2 * drawn(18, 2, 7, 9), 2 * drawn(16, 2, 5, 9), drawn(10, 2, 5, 3))],
    mistakes={
        "The scale is missing: one key takes nearly all.": (" / q.shape[-1] ** 0.5", ""),
        "Divide by the root of d, not d.": (" ** 0.5", ""),
        "Your softmax runs over the queries. A query's weights over the keys add up to 1.":
            ("softmax(-1)", "softmax(-2)")},
    hints=("each query is compared with every key: which product gives all (n, m) scores?",
           "scores, divided by the root of d; softmax over the keys; a weighted sum of values."),
    solution="return (q @ `k.transpose(-1, -2)` / `q.shape[-1] ** 0.5`).softmax(`-1`) @ v")

check_split_heads = Check(
    "my_split_heads(x, heads)", "returns (b, heads, n, d / heads) of x (b, n, d)",
    cases=[(drawn(19, 2, 5, 12), 3), (drawn(27, 3, 4, 20), 5)],
    mistakes={
        "The heads still stand behind the positions.": (".transpose(1, 2)", ""),
        "You mixed positions.": "return x.reshape(len(x), heads, x.shape[1], -1)",
        "Your head takes every heads-th component, not neighbours: unflatten to (heads, d_head).":
            "return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)"},
    hints=("which components of a position belong to the first head?",
           "split the last dimension in two, then bring the heads in front of the positions."),
    solution="return x.unflatten(-1, (`heads`, -1)).transpose(`1, 2`)")

check_geglu = Check(
    "my_geglu(x)", "returns (b, n, m) of x (b, n, 2 m), which holds values and then their gates",
    cases=[(2 * drawn(21, 2, 5, 14),)], tolerance=1e-5,     # tanh is near
    mistakes={
        "Value and gate are exchanged: the GELU belongs to the second half.":
            ("value, gate", "gate, value"),
        "That is the approximation of GELU by tanh. The UNet has the exact one, F.gelu.":
            ("F.gelu(gate", "F.gelu(gate, approximate='tanh'")},
    hints=("two halves of the last dimension: one is the value, the other decides what passes.",
           "value, gate = x.chunk(2, dim=-1); the gates go through F.gelu, and multiply."),
    solution="""\
        value, gate = x.chunk(`2, dim=-1`)
        return value * `F.gelu(gate)`""")
