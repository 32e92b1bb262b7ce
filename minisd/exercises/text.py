"""Exercises on the way from a sentence to its vectors, and on what networks are made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minisd.clip import QUICK_GELU
from minisd.exercises.checking import Answer, Mistake, Verdict, compare
from minisd.observe.tokens import join

START, END, PLACES = 49406, 49407, 77           # of CLIP's vocabulary
NO_NUMBER = -7.0                                # stands for NaN, which equals nothing


# Tokens

def check_merge(answer: Answer | None) -> Verdict:
    """answer(symbols, pair): the list of symbols with every occurrence of the pair joined."""
    cases = [(["a", "b", "a", "b", "c"], ("a", "b")), (["b", "a", "b"], ("a", "b")),
             (["n", "n", "n"], ("n", "n")), (["x", "y</w>"], ("a", "b")),
             (["l", "l", "o</w>"], ("l", "o</w>")), (["a"], ("a", "b"))]
    return compare(_as_list(answer), cases=[(list(symbols), pair) for symbols, pair in cases],
                   right=join,
                   hint="walk along the symbols; where two neighbours are the pair, put their sum "
                        "into the result and step over both.",
                   mistakes=[
        Mistake("You joined the first occurrence only: a word may hold the pair several times.",
                _merge_first),
        Mistake("Three times n holds the pair (n, n) once, not twice: a symbol that was joined is "
                "used up, so step over both.", _merge_overlapping),
        Mistake("You joined the pair, and kept its second symbol as well: step over both.",
                _merge_without_stepping),
        Mistake("The last symbol is lost. It has no right neighbour, but it belongs to the word.",
                _merge_losing_the_last),
        Mistake("You took the pair out. It becomes one new symbol: pair[0] + pair[1].",
                lambda symbols, pair: [x for x in join(symbols, pair) if x != "".join(pair)]),
        Mistake("You joined the pair in the wrong order, too: only (first, second) is merged, not "
                "(second, first).", _merge_either_way),
        Mistake("A merge makes one symbol out of two: pair[0] + pair[1], not a tuple.",
                lambda symbols, pair: [pair if x == "".join(pair) else x
                                       for x in join(symbols, pair)]),
        Mistake("Nothing was joined: these are the symbols as they came.",
                lambda symbols, pair: symbols),
    ])


def _merge_first(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    for i in range(len(symbols) - 1):
        if (symbols[i], symbols[i + 1]) == pair:
            return [*symbols[:i], "".join(pair), *symbols[i + 2:]]
    return symbols


def _merge_overlapping(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every neighbouring pair counts, whether or not its first symbol is used up."""
    hits = [(a, b) == pair for a, b in zip(symbols, symbols[1:], strict=False)]
    result = []
    for i, symbol in enumerate(symbols):
        if i < len(hits) and hits[i]:
            result.append("".join(pair))
        elif not (i and hits[i - 1]):
            result.append(symbol)
    return result


def _merge_without_stepping(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    return ["".join(pair) if (a, b) == pair else a
            for a, b in zip(symbols, [*symbols[1:], ""], strict=True)]


def _merge_losing_the_last(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined, i = [], 0
    while i < len(symbols) - 1:
        together = (symbols[i], symbols[i + 1]) == pair
        joined.append("".join(pair) if together else symbols[i])
        i += 2 if together else 1
    return joined


def _merge_either_way(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) in (pair, pair[::-1]):
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def _as_list(answer: Answer | None) -> Answer | None:
    """A tuple is as good as a list, and the answer may change the list that it is given."""
    if answer is None:
        return None

    def listed(*case: Any) -> Any:
        found = answer(*(list(value) if isinstance(value, list) else value for value in case))
        return list(found) if isinstance(found, tuple) else found

    return listed


def check_pad(answer: Answer | None) -> Verdict:
    """answer(ids): the 77 ids that CLIP sees of a prompt's own, in a list."""
    cases = [([320, 2242, 9258],), (list(range(400, 475)),), (list(range(1000, 1090)),), ([],)]
    return compare(_as_list(answer), cases=cases, right=pad, tolerance=0.0,
                   hint=f"start ({START}), at most {PLACES - 2} of the prompt's ids, end ({END}), "
                        f"and {END} again until there are {PLACES}.",
                   mistakes=[
        Mistake(f"Of a long prompt you kept the first {PLACES}, and so lost its end. Start and "
                f"end take two places: cut the prompt to {PLACES - 2} ids before you add them.",
                lambda ids: pad(ids) if len(ids) <= PLACES - 2 else [START, *ids][:PLACES]),
        Mistake("You never cut: a long prompt comes out longer than the text encoder can take.",
                lambda ids: pad(ids) if len(ids) <= PLACES - 2 else [START, *ids, END]),
        Mistake("You padded with 0, which is the id of a letter. CLIP pads with the end token.",
                lambda ids: [0 if i >= len(ids) + 2 else x for i, x in enumerate(pad(ids))]),
        Mistake("The start token is missing.",
                lambda ids: [*ids[:PLACES - 1], *[END] * (PLACES - len(ids[:PLACES - 1]))]),
        Mistake("You did not pad: every prompt fills all 77 places.",
                lambda ids: [START, *ids[:PLACES - 2], END]),
        Mistake("You padded on the left. The words come first, the padding after the end.",
                lambda ids: [END] * (PLACES - 2 - len(ids)) + [START, *ids[:PLACES - 2], END]),
        Mistake(f"You cut the prompt to {PLACES} ids. With start and end that makes "
                f"{PLACES + 2}: cut to {PLACES - 2}.",
                lambda ids: [START, *ids[:PLACES], END]
                + [END] * (PLACES - 2 - len(ids[:PLACES]))),
    ])


def pad(ids: list[int]) -> list[int]:
    """Start, at most 75 ids, end, and end again as padding."""
    kept = [START, *ids[:PLACES - 2], END]
    return kept + [END] * (PLACES - len(kept))


# The text encoder

def check_causal_attention(answer: Answer | None) -> Verdict:
    """answer(scores): attention weights (n, n) of scores (n, n), rows looking at columns."""
    g = torch.Generator().manual_seed(3)
    cases = [(torch.randn(5, 5, generator=g),), (torch.randn(8, 8, generator=g) * 3,)]
    return compare(answer and _comparable(answer), cases=cases, right=causal_weights,
                   hint="set the scores of the future to float('-inf'), then softmax along the "
                        "last axis. torch.ones(n, n).triu(1) is 1 where the future is.",
                   mistakes=[
        Mistake("The mask is missing: here every word sees those after it.",
                lambda s: s.softmax(-1)),
        Mistake("You hid the diagonal as well. A word may see itself, and the first one has "
                "nothing else to see, so its row is not a number: triu(1), not triu(0).",
                _comparable(lambda s: _softmax_without(s, torch.ones_like(s).triu(0)))),
        Mistake("You hid the past and showed the future: upper and lower triangle are swapped.",
                lambda s: _softmax_without(s, torch.ones_like(s).tril(-1))),
        Mistake("A score of 0 is not hidden: exp(0) is 1. Use float('-inf'), whose exp is 0.",
                lambda s: s.tril().softmax(-1)),
        Mistake("You masked after the softmax, so the rows no longer sum to 1. Mask the scores "
                "first.", lambda s: s.softmax(-1).tril()),
        Mistake("The softmax runs along the wrong axis: every row must sum to 1, that is dim=-1.",
                lambda s: s.masked_fill(_future(s), -math.inf).softmax(0)),
        Mistake("That is the mask alone. Fill the scores with it and take the softmax.",
                lambda s: torch.ones_like(s).tril()),
        Mistake("The softmax is missing: these are the masked scores.",
                _comparable(lambda s: s.masked_fill(_future(s), -math.inf))),
    ])


def causal_weights(scores: Tensor) -> Tensor:
    """(n, n) -> weights that are 0 above the diagonal; every row sums to 1."""
    return scores.masked_fill(_future(scores), -math.inf).softmax(-1)


def _future(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).triu(1)


def _softmax_without(scores: Tensor, hidden: Tensor) -> Tensor:
    return scores.masked_fill(hidden.bool(), -math.inf).softmax(-1)


def _comparable(answer: Answer) -> Answer:
    """What a wrong mask leaves, rows of NaN and minus infinity, becomes a number."""
    def numbers(*case: Any) -> Any:
        found = answer(*case)
        if not isinstance(found, Tensor) or found.ndim != 2:
            return found
        return found.masked_fill(found.isnan().all(-1, keepdim=True) | found.isneginf(),
                                 NO_NUMBER)

    return numbers


def check_quick_gelu(answer: Answer | None) -> Verdict:
    """answer(x): CLIP's activation of a tensor."""
    x = torch.linspace(-5, 5, 101)
    return compare(answer, cases=[(x,), (x.reshape(1, -1)[:, :60],)], right=quick_gelu,
                   hint=f"x times the sigmoid of {QUICK_GELU} x.",
                   mistakes=[
        Mistake("That is the exact GELU, x times the normal distribution's Φ(x). CLIP was trained "
                f"with its stand-in x * sigmoid({QUICK_GELU} * x).", F.gelu),
        Mistake("That is the tanh approximation of GELU. CLIP's is made of a sigmoid.",
                lambda x: F.gelu(x, approximate="tanh")),
        Mistake(f"You forgot the {QUICK_GELU}: x * sigmoid(x) is SiLU, which the UNet uses.",
                F.silu),
        Mistake("The sigmoid alone is the gate. Multiply x by it.",
                lambda x: torch.sigmoid(QUICK_GELU * x)),
        Mistake(f"The {QUICK_GELU} belongs inside the sigmoid only, not in front of it.",
                lambda x: QUICK_GELU * x * torch.sigmoid(x)),
        Mistake(f"The {QUICK_GELU} belongs inside the sigmoid only: the x in front stays as it "
                f"is.", lambda x: QUICK_GELU * x * torch.sigmoid(QUICK_GELU * x)),
        Mistake("The sign inside the sigmoid is wrong: large x must pass, not be stopped.",
                lambda x: x * torch.sigmoid(-QUICK_GELU * x)),
        Mistake("You divided by 1.702; multiply.", lambda x: x * torch.sigmoid(x / QUICK_GELU)),
        Mistake("That is ReLU, which cuts negative values off.", F.relu),
    ])


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(QUICK_GELU * x)


def check_cosine(answer: Answer | None) -> Verdict:
    """answer(a, b): cosine similarities (n, m) of vectors a (n, d) and b (m, d)."""
    g = torch.Generator().manual_seed(4)
    cases = [(torch.randn(3, 6, generator=g), torch.randn(5, 6, generator=g) * 2),
             (torch.randn(2, 7, generator=g) + 1, torch.randn(4, 7, generator=g))]
    unit: Callable[..., Tensor] = F.normalize
    return compare(answer, cases=cases, right=lambda a, b: unit(a, dim=-1) @ unit(b, dim=-1).T,
                   hint="divide each vector by its length (.norm(dim=-1, keepdim=True)), then take "
                        "all scalar products at once: a @ b.T.",
                   mistakes=[
        Mistake("You forgot to normalise: long vectors win whatever their direction.",
                lambda a, b: a @ b.T),
        Mistake("You normalised a, but not b.", lambda a, b: unit(a, dim=-1) @ b.T),
        Mistake("You normalised b, but not a.", lambda a, b: a @ unit(b, dim=-1).T),
        Mistake("You divided by the squared length. A unit vector is divided by its length, the "
                "root of that.",
                lambda a, b: (a / a.square().sum(-1, keepdim=True))
                @ (b / b.square().sum(-1, keepdim=True)).T),
        Mistake("You normalised along the wrong axis: each row is one vector, so dim=-1.",
                lambda a, b: unit(a, dim=0) @ unit(b, dim=0).T),
        Mistake("You divided by the length of the whole matrix. Each row has its own: "
                "dim=-1, keepdim=True.", lambda a, b: (a / a.norm()) @ (b / b.norm()).T),
        Mistake("That is the distance. Similarity is the scalar product of unit vectors.",
                lambda a, b: torch.cdist(unit(a, dim=-1), unit(b, dim=-1))),
        Mistake("The result is the other way round: rows belong to a, columns to b.",
                lambda a, b: unit(b, dim=-1) @ unit(a, dim=-1).T),
    ])


# What networks are made of

def check_conv_parameters(answer: Answer | None) -> Verdict:
    """answer(c_in, c_out, k): parameters of a convolution with k x k windows and a bias."""
    cases = [(4, 320, 3), (320, 4, 1), (640, 1280, 3)]
    return compare(answer, cases=cases, right=lambda c_in, c_out, k: c_out * (c_in * k * k + 1),
                   tolerance=0.0,
                   hint="one output channel is a sum over c_in windows of k x k, plus one bias. "
                        "There are c_out of them.",
                   mistakes=[
        Mistake("You forgot the bias: one number more for each output channel.",
                lambda c_in, c_out, k: c_out * c_in * k * k),
        Mistake("A window is k wide and k high: k * k weights, not k.",
                lambda c_in, c_out, k: c_out * (c_in * k + 1)),
        Mistake("The bias belongs to the output: c_out of them, not c_in.",
                lambda c_in, c_out, k: c_out * c_in * k * k + c_in),
        Mistake("There is one bias for each output channel, not one for the whole layer.",
                lambda c_in, c_out, k: c_out * c_in * k * k + 1),
        Mistake("Every output channel looks at all the input channels: c_in is missing.",
                lambda c_in, c_out, k: c_out * (k * k + 1)),
        Mistake("That is one output channel. There are c_out of them.",
                lambda c_in, c_out, k: c_in * k * k + 1),
        Mistake("You gave each window its own bias: one for each output channel is all.",
                lambda c_in, c_out, k: c_out * c_in * (k * k + 1)),
    ])


def check_latent_shape(answer: Answer | None) -> Verdict:
    """answer(height, width): the shape (c, h, w) of v1's latents for a picture of that size."""
    cases = [(512, 512), (512, 768), (128, 64)]
    return compare(answer, cases=cases, right=lambda height, width: (4, height // 8, width // 8),
                   tolerance=0.0,
                   hint="four channels, and one cell for every 8 x 8 pixels; channels first, then "
                        "height, then width.",
                   mistakes=[
        Mistake("Height and width are swapped. Tensors have (channels, height, width): rows "
                "first.", lambda height, width: (4, width // 8, height // 8)),
        Mistake("A picture has three channels, latents have four.",
                lambda height, width: (3, height // 8, width // 8)),
        Mistake("One cell stands for 8 pixels along each side: divide both by 8.",
                lambda height, width: (4, height, width)),
        Mistake("A cell covers 64 pixels, but only 8 along each side.",
                lambda height, width: (4, height // 64, width // 64)),
        Mistake("The channels come first: (4, height / 8, width / 8).",
                lambda height, width: (height // 8, width // 8, 4)),
        Mistake("You divided the channels as well: there are four, whatever the size.",
                lambda height, width: (height // 8, width // 8)),
    ])
