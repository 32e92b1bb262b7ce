"""Words and their tokens: which tokens a word of the prompt became, and by which merges."""

from collections.abc import Sequence
from typing import NamedTuple

from minisd.observe.tokens import join
from minisd.tokenizer import END, END_OF_WORD, START, Tokenizer


def word_tokens(tokenizer: Tokenizer, prompt: str) -> dict[str, list[int]]:
    """The positions of each word's tokens: "start" and the words, then "end" and "padding".

    A word that comes again is numbered, as in "a (2)".
    """
    encoded, found, begin = tokenizer.encode(prompt), dict[str, list[int]](), 1
    found["start"] = [0]
    for i in range(1, encoded.length - 1):
        if encoded.tokens[i].endswith(END_OF_WORD) or i == encoded.length - 2:
            text = tokenizer.decode(encoded.ids[begin:i + 1]) or encoded.tokens[i]
            found[_unused(text, found)] = list(range(begin, i + 1))
            begin = i + 1
    found[_unused("end", found)] = [encoded.length - 1]
    if encoded.length < len(encoded.ids):
        found[_unused("padding", found)] = list(range(encoded.length, len(encoded.ids)))
    return found


def _unused(text: str, taken: dict[str, list[int]]) -> str:
    number = 1 + sum(name == text or name.startswith(f"{text} (") for name in taken)
    return text if number == 1 else f"{text} ({number})"


def merged_together(tokens: Sequence[str]) -> list[list[str]]:
    """Tokens in the groups within which they were merged: words and control tokens."""
    groups: list[list[str]] = [[]]
    for token in tokens:
        if token in (START, END):
            groups += [[token], []]             # even after a word that was cut off
            continue
        groups[-1].append(token)
        if token.endswith(END_OF_WORD):
            groups.append([])
    return [group for group in groups if group]


class Rung(NamedTuple):
    """A word's symbols after one merge."""

    merge: int | None           # its rank, 0 is the first that was learned; None: only bytes yet
    symbols: tuple[str, ...]

    @property
    def name(self) -> str:
        return "bytes" if self.merge is None else f"merge {self.merge:,}"


def ladder(word: Sequence[str], ranks: dict[tuple[str, str], int]) -> tuple[Rung, ...]:
    """A word's way from bytes to its tokens: at each rung the pair that was learned first joins.

    ranks: merge -> its number. Control tokens were not merged: ().
    """
    if word[0] in (START, END):
        return ()
    letters, end = "".join(word), END_OF_WORD if word[-1].endswith(END_OF_WORD) else ""
    letters = letters.removesuffix(END_OF_WORD)
    symbols = [*letters[:-1], letters[-1] + end]
    rungs = [Rung(None, tuple(symbols))]
    while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        symbols = join(symbols, best)
        rungs.append(Rung(ranks[best], tuple(symbols)))
    return tuple(rungs)
