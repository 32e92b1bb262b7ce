"""The exercises on text and on sizes: right answers, the mistakes that are named, and nonsense."""

import math

import pytest
import torch
import torch.nn.functional as F

from minisd.clip import MLP
from minisd.exercises import (
    check_causal_attention,
    check_conv_parameters,
    check_cosine,
    check_latent_shape,
    check_merge,
    check_pad,
    check_quick_gelu,
)
from minisd.tokenizer import Tokenizer
from minisd.toyworld import train_tokenizer

TENSORS = [check_causal_attention, check_cosine, check_quick_gelu]
CHECKS = [*TENSORS, check_conv_parameters, check_latent_shape, check_merge, check_pad]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("answer", [lambda *_: "seven", lambda *_: [], lambda *_: [["a"], 1],
                                    lambda *_: torch.tensor(math.nan), lambda *_: -1])
def test_nonsense_is_wrong_and_nothing_worse(check, answer) -> None:
    assert not check(answer)


# One step of byte-pair encoding

def merge(symbols, pair):
    result, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i:i + 2]) == pair:
            result.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result


def merge_in_place(symbols, pair):
    i = 0
    while i < len(symbols) - 1:
        if (symbols[i], symbols[i + 1]) == pair:
            symbols[i:i + 2] = ["".join(pair)]
        i += 1
    return symbols


def merge_once(symbols, pair):
    for i in range(len(symbols) - 1):
        if tuple(symbols[i:i + 2]) == pair:
            return symbols[:i] + ["".join(pair)] + symbols[i + 2:]
    return symbols


def merge_keeping_the_second(symbols, pair):
    result = []
    for i, symbol in enumerate(symbols):
        result.append("".join(pair) if tuple(symbols[i:i + 2]) == pair else symbol)
    return result


def merge_losing_the_last(symbols, pair):
    result, i = [], 0
    while i < len(symbols) - 1:
        if (symbols[i], symbols[i + 1]) == pair:
            result.append("".join(pair))
            i += 1
        else:
            result.append(symbols[i])
        i += 1
    return result


def merge_overlapping(symbols, pair):
    joined = [i for i in range(len(symbols) - 1) if (symbols[i], symbols[i + 1]) == pair]
    return ["".join(pair) if i in joined else symbol for i, symbol in enumerate(symbols)
            if i in joined or i - 1 not in joined]


def merge_both_orders(symbols, pair):
    result, i = [], 0
    while i < len(symbols):
        if sorted(symbols[i:i + 2]) == sorted(pair):
            result.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result


@pytest.mark.parametrize("answer", [merge, merge_in_place,
                                    lambda symbols, pair: tuple(merge(symbols, pair))])
def test_the_right_merge(answer) -> None:
    assert check_merge(answer)


def test_merges_by_rank_are_what_the_library_does() -> None:
    """The step that is checked, taken again and again, is byte-pair encoding."""
    words = ["balloon", "below", "yellow", "bell", "on", "nnn"]
    merges = train_tokenizer.learn_merges(words * 3, 20)
    tokenizer = Tokenizer(train_tokenizer.clip_vocabulary(merges), merges)
    for word in [*words, "lollon", "wollebb"]:
        symbols = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:
            symbols = merge(symbols, pair)
        encoded = tokenizer.encode(word)
        assert list(encoded.tokens[1:encoded.length - 1]) == symbols


@pytest.mark.parametrize(("answer", "said"), [
    (merge_once, "first occurrence only"),
    (merge_overlapping, "not twice"),
    (merge_keeping_the_second, "kept its second symbol"),
    (merge_losing_the_last, "last symbol is lost"),
    (lambda symbols, pair: [x for x in merge(symbols, pair) if x != "".join(pair)],
     "one new symbol"),
    (merge_both_orders, "wrong order"),
    (lambda symbols, pair: [pair if x == "".join(pair) else x for x in merge(symbols, pair)],
     "not a tuple"),
    (lambda symbols, pair: symbols, "Nothing was joined")])
def test_mistakes_in_a_merge(answer, said) -> None:
    verdict = check_merge(answer)
    assert not verdict and said in verdict.message


# 77 places

def pad(ids):
    kept = ids[:75]
    return [49406] + kept + [49407] * (76 - len(kept))


def fill(ids, value=49407):
    return ids + [value] * (77 - len(ids))


@pytest.mark.parametrize("answer", [pad, lambda ids: tuple(pad(ids)),
                                    lambda ids: torch.tensor(pad(ids))])
def test_the_right_padding(answer) -> None:
    assert check_pad(answer)


def test_the_padding_is_the_packages() -> None:
    words = ["red"]
    merges = train_tokenizer.learn_merges(words, 5)
    tokenizer = Tokenizer(train_tokenizer.clip_vocabulary(merges), merges)
    rename = {tokenizer.start_id: 49406, tokenizer.end_id: 49407, tokenizer.vocab["red</w>"]: 5}
    for count in (0, 3, 75, 80):
        ids = [rename[i] for i in tokenizer.encode("red " * count).ids]
        assert ids == pad([5] * count)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda ids: fill([49406, *ids, 49407])[:77], "kept the first 77"),
    (lambda ids: fill([49406, *ids, 49407]), "never cut"),
    (lambda ids: fill([49406, *ids[:75], 49407], 0), "padded with 0"),
    (lambda ids: fill([*ids[:76], 49407]), "start token is missing"),
    (lambda ids: [49406, *ids[:75], 49407], "did not pad"),
    (lambda ids: fill([])[:75 - len(ids[:75])] + [49406, *ids[:75], 49407], "on the left"),
    (lambda ids: fill([49406, *ids[:77], 49407]), "cut to 75")])
def test_mistakes_in_padding(answer, said) -> None:
    verdict = check_pad(answer)
    assert not verdict and said in verdict.message


# The causal mask

def hide(scores, mask):
    return scores.masked_fill(mask.bool(), float("-inf")).softmax(dim=-1)


def ones(scores):
    return torch.ones_like(scores)


@pytest.mark.parametrize("answer", [
    lambda s: hide(s, ones(s).triu(1)),
    lambda s: (s + torch.full_like(s, -1e9).triu(1)).softmax(1),
    lambda s: s.exp().tril() / s.exp().tril().sum(1, keepdim=True)])
def test_the_right_mask(answer) -> None:
    assert check_causal_attention(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda s: s.softmax(-1), "mask is missing"),
    (lambda s: hide(s, ones(s).triu(0)), "diagonal"),
    (lambda s: hide(s, ones(s).tril(-1)), "swapped"),
    (lambda s: s.tril().softmax(-1), "exp(0) is 1"),
    (lambda s: s.softmax(-1).tril(), "after the softmax"),
    (lambda s: s.masked_fill(ones(s).triu(1).bool(), -torch.inf).softmax(0), "wrong axis"),
    (lambda s: ones(s).tril(), "mask alone"),
    (lambda s: s.masked_fill(ones(s).triu(1).bool(), -torch.inf), "softmax is missing")])
def test_mistakes_in_the_mask(answer, said) -> None:
    verdict = check_causal_attention(answer)
    assert not verdict and said in verdict.message


def test_other_values_that_are_not_finite_are_called_so() -> None:
    verdict = check_causal_attention(lambda s: (s - s.diag()) / (s - s.diag()))
    assert not verdict and "not finite" in verdict.message


# QuickGELU

@pytest.mark.parametrize("answer", [
    lambda x: x * torch.sigmoid(1.702 * x), lambda x: x / (1 + (-1.702 * x).exp()),
    lambda x: F.silu(1.702 * x) / 1.702])
def test_the_right_activation(answer) -> None:
    assert check_quick_gelu(answer)


def test_the_activation_is_the_packages() -> None:
    mlp = MLP(3)
    torch.nn.init.eye_(mlp.fc1.weight)
    torch.nn.init.eye_(mlp.fc2.weight)
    torch.nn.init.zeros_(mlp.fc1.bias)
    torch.nn.init.zeros_(mlp.fc2.bias)

    def answer(x):
        rows = x.reshape(-1, 1).expand(-1, 3).contiguous()
        return mlp(rows)[:, 0].reshape(x.shape)

    assert check_quick_gelu(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (F.gelu, "exact GELU"),
    (lambda x: F.gelu(x, approximate="tanh"), "tanh"),
    (F.silu, "forgot the 1.702"),
    (lambda x: torch.sigmoid(1.702 * x), "Multiply x by it"),
    (lambda x: 1.702 * x * torch.sigmoid(x), "inside the sigmoid only"),
    (lambda x: 1.702 * x * torch.sigmoid(1.702 * x), "stays as it is"),
    (lambda x: x * torch.sigmoid(-1.702 * x), "sign"),
    (lambda x: x * torch.sigmoid(x / 1.702), "divided by 1.702"),
    (F.relu, "ReLU")])
def test_mistakes_in_the_activation(answer, said) -> None:
    verdict = check_quick_gelu(answer)
    assert not verdict and said in verdict.message


# Cosine similarity

def unit(x, dim=-1):
    return x / x.norm(dim=dim, keepdim=True)


@pytest.mark.parametrize("answer", [
    lambda a, b: unit(a) @ unit(b).T,
    lambda a, b: F.cosine_similarity(a[:, None], b[None], dim=-1),
    lambda a, b: (a @ b.T) / (a.norm(dim=1)[:, None] * b.norm(dim=1))])
def test_the_right_similarity(answer) -> None:
    assert check_cosine(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda a, b: a @ b.T, "forgot to normalise"),
    (lambda a, b: unit(a) @ b.T, "but not b"),
    (lambda a, b: a @ unit(b).T, "but not a"),
    (lambda a, b: (a @ b.T) / (a.norm(dim=1)[:, None] * b.norm(dim=1)) ** 2, "squared length"),
    (lambda a, b: unit(a, 0) @ unit(b, 0).T, "wrong axis"),
    (lambda a, b: (a @ b.T) / (a.norm() * b.norm()), "whole matrix"),
    (lambda a, b: (unit(a)[:, None] - unit(b)[None]).norm(dim=-1), "distance"),
    (lambda a, b: unit(b) @ unit(a).T, "other way round")])
def test_mistakes_in_the_similarity(answer, said) -> None:
    verdict = check_cosine(answer)
    assert not verdict and said in verdict.message


# Sizes

def test_the_right_count_is_torchs() -> None:
    def answer(c_in, c_out, k):
        layer = torch.nn.Conv2d(c_in, c_out, k, device="meta")
        return sum(p.numel() for p in layer.parameters())

    assert check_conv_parameters(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda i, o, k: i * o * k * k, "forgot the bias"),
    (lambda i, o, k: i * o * k + o, "k * k weights"),
    (lambda i, o, k: i * o * k * k + i, "not c_in"),
    (lambda i, o, k: i * o * k * k + 1, "not one for the whole layer"),
    (lambda i, o, k: o * k * k + o, "c_in is missing"),
    (lambda i, o, k: i * k * k + 1, "one output channel"),
    (lambda i, o, k: i * o * (k * k + 1), "its own bias")])
def test_mistakes_in_the_count(answer, said) -> None:
    verdict = check_conv_parameters(answer)
    assert not verdict and said in verdict.message


@pytest.mark.parametrize("answer", [lambda h, w: (4, h // 8, w // 8),
                                    lambda h, w: torch.Size([4, h // 8, w // 8]),
                                    lambda h, w: [4, h / 8, w / 8]])
def test_the_right_shape(answer) -> None:
    assert check_latent_shape(answer)


@pytest.mark.parametrize(("answer", "said"), [
    (lambda h, w: (4, w // 8, h // 8), "swapped"),
    (lambda h, w: (3, h // 8, w // 8), "three channels"),
    (lambda h, w: (4, h, w), "divide both by 8"),
    (lambda h, w: (4, h // 64, w // 64), "64 pixels"),
    (lambda h, w: (h // 8, w // 8, 4), "channels come first"),
    (lambda h, w: (h // 8, w // 8), "there are four")])
def test_mistakes_in_the_shape(answer, said) -> None:
    verdict = check_latent_shape(answer)
    assert not verdict and said in verdict.message
