"""CLIP's vocabulary: how its ids are ordered, and where a copy of it may lie."""

import gzip
import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tokenizers import pre_tokenizers

from minisd.tokenizer import END, END_OF_WORD, START, Tokenizer

CLIP_MERGES = 48_894
CARRIERS = ("open_clip", "clip")
CARRIED = "bpe_simple_vocab_16e6.txt.gz"
CARRIED_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"


def clip_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """CLIP's order: every byte, every byte as the end of a word, every merge, start, end.

    A byte has its `</w>` form even if no known word ends with it: without it the encoder would
    drop such a last letter without a word, and "red zebra q" lose its q.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_order)
    tokens = alphabet + [letter + END_OF_WORD for letter in alphabet]
    tokens += ["".join(merge) for merge in merges] + [START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == len(tokens), "two merges make the same token"
    return vocab


def _byte_order(letter: str) -> tuple[bool, int]:
    """Printable bytes stand for themselves and come first; the others were moved above 255."""
    return (ord(letter) > 255, ord(letter))


def carried_vocabulary() -> Path | None:
    """The file with CLIP's own merges in an installed package, which is found but not imported."""
    for spec in map(find_spec, CARRIERS):
        for place in (spec and spec.submodule_search_locations) or ():
            file = Path(place) / CARRIED
            if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == CARRIED_SHA256:
                return file
    return None


def packaged_tokenizer(max_length: int = 77) -> Tokenizer | None:
    """CLIP's own tokenizer out of an installed package; None where no package carries it."""
    file = carried_vocabulary()
    if file is None:
        return None
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = [(a, b) for a, b in (line.split(" ") for line in lines[1:1 + CLIP_MERGES])]
    return Tokenizer(clip_vocabulary(merges), merges, max_length=max_length)
