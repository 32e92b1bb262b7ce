"""Tokens for people: their text or bytes, the words they belong to, and the merges they came by."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import pre_tokenizers

from minisd.tokenizer import END, END_OF_WORD, START, Tokenizer

LETTERS = frozenset(pre_tokenizers.ByteLevel.alphabet())    # in the vocabulary, one for each byte
UNPRINTABLE = tuple(byte for byte in range(256) if chr(byte) not in LETTERS)


def join(symbols: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """One merge of byte-pair encoding: wherever the pair stands, from the left, one symbol."""
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def token_bytes(token: str) -> bytes:
    """The bytes of the prompt that a token stands for, b"" for start and end.

    token: as in the vocabulary, one letter for each byte, with `</w>` or without.
    """
    letters = "" if token in (START, END) else token.removesuffix(END_OF_WORD)
    return bytes(ord(x) if ord(x) < 256 else UNPRINTABLE[ord(x) - 256] for x in letters)


def readable(token: str, *, below: int = sys.maxunicode + 1) -> str:
    """A token for people: its text, or its bytes in hexadecimal where they are no whole characters.

    A token within a word ends in "…", for the next one goes on. below: what comes after this in
    Unicode is shown as bytes too, where the font at hand lacks it.
    """
    if token in (START, END):
        return token[2:-len("oftext|>")]
    letters = token_bytes(token)
    text = letters.decode("utf-8", errors="replace")
    whole = "\ufffd" not in text and text.isprintable() and text.strip()
    if not whole or max(map(ord, text)) >= below:
        text = f"0x{letters.hex()}"
    return text if token.endswith(END_OF_WORD) else f"{text}…"


# Words

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


def word_tokens(tokenizer: Tokenizer, prompt: str) -> dict[str, list[int]]:
    """The positions of each word's tokens: "start" and the words, then "end" and "padding".

    A word that comes again is numbered, as in "a (2)".
    """
    encoded, places, begin = tokenizer.encode(prompt), dict[str, list[int]](), 0
    for group in merged_together(encoded.tokens[:encoded.length]):
        end = begin + len(group)
        text = tokenizer.decode(encoded.ids[begin:end]) or readable(group[0])
        places[_unused(text, places)] = list(range(begin, end))
        begin = end
    if begin < len(encoded.ids):
        places[_unused("padding", places)] = list(range(begin, len(encoded.ids)))
    return places


def _unused(text: str, taken: dict[str, list[int]]) -> str:
    number = 1 + sum(name == text or name.startswith(f"{text} (") for name in taken)
    return text if number == 1 else f"{text} ({number})"


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
    symbols = [*"".join(word).removesuffix(END_OF_WORD)]
    symbols[-1] += END_OF_WORD * word[-1].endswith(END_OF_WORD)
    rungs = [Rung(None, tuple(symbols))]
    while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        symbols = join(symbols, best)
        rungs.append(Rung(ranks[best], tuple(symbols)))
    return tuple(rungs)
