"""Exercises on masked diffusion transformers: adaLN-Zero, and hidden patches put back.

Tokens are (b, n, d), and what a condition gives for them (b, d).
"""

import torch

from minisd.exercises.checking import Check, Words, drawn

check_adaln = Check(
    "my_adaln(x, part, shift, scale, gate)", "returns x plus what `part` makes of the "
    "layer-normed x, scaled by 1 + scale and shifted before it, and gated after it",
    cases=[(drawn(1, 3, 5, 4), torch.tanh, drawn(2, 3, 4), drawn(3, 3, 4), drawn(4, 3, 4))],
    praise="With shift, scale and gate at 0 it returns x: the block begins as the identity.",
    mistakes={
        "The factor is 1 + scale: at scale 0 the part should see x as it is.":
            ("1 + scale", "scale"),
        "x itself is added untouched: the gate closes the part alone.":
            ("x + gate[:, None] * part(seen)", "gate[:, None] * (x + part(seen))"),
        "Add x: without it a closed gate would leave nothing.": ("x + ", "")},
    hints=("the vectors are (b, d), and a [:, None] makes one of them count for all n tokens.",
           "F.layer_norm(x, x.shape[-1:]) is the norm; then scale, shift, part, gate, and add x."),
    solution="""\
        normed = torch.nn.functional.layer_norm(x, x.shape[-1:])
        seen = normed * (`1 + scale[:, None]`) + shift[:, None]
        return `x` + `gate[:, None]` * part(seen)""")

check_put_back = Check(
    "my_put_back(x, kept, token, n)", "returns (b, n, d): row kept[i, j] of picture i is x[i, j], "
    "and every other row is the token",
    cases=[(drawn(1, 2, 3, 4), torch.tensor([[4, 0, 2], [1, 5, 3]]), drawn(2, 4), 6)],
    praise="So every patch is at its place again, and the hidden ones are marked.",
    mistakes={
        "The kept patches are in the order of `kept`, not in rising order.":
            ("kept[i]", "kept[i].sort().values"),
        "x does not go to the first places, but to those that kept names.":
            "return torch.cat([x, token.expand(len(x), n - x.shape[1], -1)], 1)"},
    hints=("begin with the token everywhere, and then write x over it.",
           "full[i, kept[i]] = x[i] for each picture i, or one call of scatter."),
    solution="""\
        full = `token`.expand(len(x), n, -1).clone()
        for i in range(len(x)):
            full[i, `kept[i]`] = `x[i]`
        return full""")

check_why_no_mask_tokens = Words(
    "why does the encoder see no mask tokens, though the side interpolater does?",
    "in sampling nothing is hidden, and an encoder that was trained with mask tokens would meet "
    "lists that it has never seen; without them it also has fewer tokens to compute.")
