"""Exercises on the text encoder: the causal mask, CLIP's activation, and how alike vectors are."""

import torch
import torch.nn.functional as F

from minisd.clip import QUICK_GELU
from minisd.exercises.checking import Check, drawn

check_causal_attention = Check(
    "my_weights(scores)", "returns weights (n, n): row i sees columns 0 to i and sums to 1",
    cases=[(drawn(3, 5, 5),), (3 * drawn(4, 8, 8),)],
    mistakes={
        "The mask is missing: here every word sees those after it.": "return scores.softmax(-1)",
        "You hid the diagonal too: triu(1).": ("triu(1)", "triu(0)"),
        "A score of 0 is not hidden, for exp(0) is 1; and after the softmax it is too late.":
            ["return scores.tril().softmax(-1)", "return scores.softmax(-1).tril()"],
        "Rows and columns are mixed up: row i looks back, to columns 0 to i, and sums to 1.":
            ("triu(1)", "tril(-1)")},
    hints=("what must a score be so that its weight after the softmax is exactly 0?",
           "fill the scores of the future with float('-inf'), then take the softmax of each row."),
    solution="""\
        future = torch.ones_like(scores).triu(`1`).bool()
        return scores.masked_fill(future, `float("-inf")`).softmax(dim=`-1`)""")

check_quick_gelu = Check(
    "my_activation(x)", "returns CLIP's activation of a tensor",
    right=lambda x: x * torch.sigmoid(QUICK_GELU * x), cases=[(torch.linspace(-5, 5, 101),)],
    mistakes={
        "That is GELU. CLIP has an approximation of it: QuickGELU.": "return F.gelu(x)",
        "The 1.702 is missing: x * sigmoid(x) is SiLU, which the UNet uses.": ("1.702 * ", "")},
    hints=("large x passes and small x is stopped: a gate between 0 and 1 times x.",
           "the gate is a sigmoid of x, made a little steeper."),
    solution="return x * `torch.sigmoid`(`1.702` * x)")

check_cosine = Check(
    "my_similarity(a, b)", "returns cosines (n, m) of vectors a (n, d) and b (m, d)",
    right=lambda a, b: F.cosine_similarity(a[:, None], b[None], dim=-1),
    cases=[(drawn(5, 3, 6), 2 * drawn(6, 5, 6)), (drawn(7, 2, 7) + 1, drawn(8, 4, 7))],
    mistakes={
        "You did not normalise both: a long vector wins whatever its direction.":
            ["return a @ b.T", "return rows @ b.T"],
        "Each row has a length of its own.": ("dim=-1, keepdim=True", "")},
    hints=("a cosine knows directions only: what has to go from each vector first?",
           "divide each vector by its length, then take all scalar products at once."),
    solution="""\
        rows, columns = (x / x.norm(dim=`-1`, keepdim=True) for x in (a, b))
        return `rows @ columns.T`""")
