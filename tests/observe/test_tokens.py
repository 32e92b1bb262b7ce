"""Words and their tokens: every position belongs to one word, every rung is one merge."""

import pytest

from minisd.checkpoints.places import WEIGHTS
from minisd.checkpoints.vocabulary import read_tokenizer
from minisd.observe.tokens import join, ladder, merged_together, token_bytes, word_tokens

# What CLIP does with "a cute and adorable bunny": rank among its merges, and the pair.
BUNNY = {2: "a n", 11: "o r", 25: "an d</w>", 57: "u n", 67: "l e</w>", 82: "a d", 84: "a b",
         217: "c u", 244: "t e</w>", 351: "ab le</w>", 838: "n y</w>", 1730: "cu te</w>",
         2079: "b un", 4480: "ad or", 5786: "ador able</w>", 8746: "bun ny</w>"}


@pytest.mark.parametrize(("prompt", "names"), [
    ("a red car", ["start", "a", "red", "car", "end", "padding"]),
    ("", ["start", "end", "padding"]),
    ("a end a red a", ["start", "a", "end", "a (2)", "red", "a (3)", "end (2)", "padding"]),
    ("abcd efghijklmnopq", ["start", "abcd", "efghijk", "end"])])
def test_every_position_belongs_to_one_word(sd, prompt: str, names: list[str]) -> None:
    words = word_tokens(sd.tokenizer, prompt)
    assert list(words) == names and sorted(sum(words.values(), [])) == list(range(13))
    assert words.get("car", [3, 4, 5]) == [3, 4, 5]


def test_merges_by_rank_not_from_the_left() -> None:
    """CLIP's own way to "adorable"."""
    ranks = {tuple(pair.split()): rank for rank, pair in BUNNY.items()}
    rungs = ladder(["adorable</w>"], ranks)
    assert [rung.merge for rung in rungs] == [None, 11, 67, 82, 84, 351, 4480, 5786]
    assert rungs[-1].symbols == ("adorable</w>",) and rungs[0].name == "bytes"
    assert ladder(["<|endoftext|>"], ranks) == ()


@pytest.mark.parametrize("prompt", ["a red car below a yellow balloon", "zebras in 2048",
                                    "🎈 日本語", "yellowish " * 30])
def test_the_last_rung_is_what_the_tokenizer_makes_of_the_word(prompt: str) -> None:
    tokenizer = read_tokenizer(WEIGHTS / "toyworld" / "tokenizer")
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    encoded = tokenizer.encode(prompt)
    for word in merged_together(encoded.tokens[1:encoded.length - 1]):
        rungs = ladder(word, ranks)
        for before, after in zip(rungs, rungs[1:], strict=False):
            assert list(after.symbols) == join(before.symbols, tokenizer.merges[after.merge])
        assert list(rungs[-1].symbols) == word
        assert all(len(token_bytes(symbol)) == 1 for symbol in rungs[0].symbols)
