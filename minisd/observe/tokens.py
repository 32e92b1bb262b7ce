"""Tokens for people: the merges of byte-pair encoding, and the text or the bytes of a token."""

import sys
from collections.abc import Sequence

from tokenizers import pre_tokenizers

from minisd.tokenizer import END, END_OF_WORD, START

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
