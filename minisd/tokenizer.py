"""The tokenizer: a prompt becomes 77 ids, in CLIP's conventions.

Byte-pair encoding (Sennrich et al. 2016) over bytes: a word starts as its bytes, the last of them
marked `</w>`, and learned merges join neighbours into longer and longer tokens, so that any text
has an encoding. It is first cleaned as the original does (ftfy: curly quotes, HTML entities,
full-width forms). The `tokenizers` library encodes; what is CLIP's own is set up here.
"""

import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ftfy
import torch
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"   # never merged across
LONGEST_QUOTE = 300             # characters of a dropped text that a warning repeats
LIBRARY = tuple(str(Path(file).parent) + os.sep for file in (__file__, torch.__file__))

HEARD: dict[int, list[str]] = {}    # threads whose warnings are collected instead of shown


def warn(message: str) -> None:
    """A warning at the user's own line, however deep in this package its cause was found."""
    if (thread := threading.get_ident()) in HEARD:
        return HEARD[thread].append(message)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(LIBRARY):
        frame, level = frame.f_back, level + 1
    return warnings.warn(message, stacklevel=level)


@dataclass(frozen=True)
class Encoded:
    """One prompt's tokens, padded and truncated."""

    ids: tuple[int, ...]            # max_length numbers: start, the prompt, end, padding (= end)
    tokens: tuple[str, ...]         # the same as text, `</w>` marking the end of a word
    length: int                     # start, prompt and end, without the padding
    dropped: str                    # the words that did not fit; "" if all did


class Tokenizer:
    """Prompts to ids (b, 77): start, at most 75 tokens, end, and end again as padding."""

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], *,
                 max_length: int = 77, added: Mapping[str, int] | None = None) -> None:
        """added: tokens beyond the vocabulary, such as a word taught by textual inversion."""
        added = {token.lower(): number for token, number in (added or {}).items()}
        self.vocab, self.merges, self.max_length = {**vocab, **added}, tuple(merges), max_length
        self.start_id, self.end_id = vocab[START], vocab[END]
        self.backend = Backend(models.BPE(self.vocab, list(merges),
                                          end_of_word_suffix=END_OF_WORD))
        self.backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                         for token in (START, END, *added)])

    def encode(self, prompt: str) -> Encoded:
        """One prompt's tokens; a prompt that is too long keeps start, 75 tokens and end.

        Raises TypeError for anything but text.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt must be text, got {type(prompt).__name__}: {prompt!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise TypeError(f"the prompt {ascii(prompt)} holds half of a surrogate pair, which is "
                            f"no character: remove it or decode the text as UTF-8")
        text = " ".join(ftfy.fix_text(prompt).split()).lower()
        encoding = self.backend.encode(text, add_special_tokens=False)
        room = self.max_length - 2
        ids = [self.start_id, *encoding.ids[:room], self.end_id]
        length = len(ids)
        ids += [self.end_id] * (self.max_length - length)
        tokens = tuple(self.backend.id_to_token(i) or "" for i in ids)
        dropped = text[encoding.offsets[room][0]:] if len(encoding.ids) > room else ""
        return Encoded(tuple(ids), tokens, length, dropped)

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """One prompt or several -> ids (b, 77), int64."""
        several = prompts if isinstance(prompts, list | tuple) else [prompts]
        encoded = [self.encode(text) for text in several]   # type: ignore[arg-type]
        for one in encoded:
            if one.dropped:
                warn(f"the prompt is longer than {self.max_length - 2} tokens; dropped "
                     f"{len(one.dropped):,} characters: {one.dropped[:LONGEST_QUOTE]!r}")
            if {START, END} & set(one.tokens[1:one.length - 1]):
                warn(f"{START} and {END} inside a prompt are control tokens, not words")
        return torch.tensor([one.ids for one in encoded])

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of ids, without start, end and padding.

        It is the cleaned prompt with one space between the pieces that are never merged across,
        whatever space stood there: "Red,car" -> "red , car".
        """
        kept = [int(i) for i in ids if int(i) not in (self.start_id, self.end_id)]
        text = self.backend.decode(kept, skip_special_tokens=False)
        return text.replace(END_OF_WORD, " ").strip(" ")
