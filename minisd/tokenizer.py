"""The tokenizer: a prompt becomes 77 numbers, in CLIP's conventions.

Byte-pair encoding (Sennrich et al. 2016) over bytes: a word starts as its bytes, the last of them
marked `</w>`, and learned merges join neighbours into longer and longer tokens, so that any text
in any script has an encoding. Ids run: 256 bytes, 256 last bytes, one per merge, start, end. The
encoding itself is done by the `tokenizers` library; what is CLIP's own is set up here.
"""

import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
PAIR, WHOLE = ("vocab.json", "merges.txt"), ("tokenizer.json",)     # how a folder may hold it
SHOWN = 300                     # characters of what was dropped that a warning repeats
OURS = tuple(str(Path(file).parent) + os.sep for file in (__file__, torch.__file__))
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # never merged across


LISTENING = threading.local()   # .messages: the list of a thread that is inside `warnings_heard`


def warn(message: str) -> None:
    """A warning at the user's own line, however deep inside this package its cause was found."""
    messages = getattr(LISTENING, "messages", None)
    if messages is not None:
        messages.append(message)
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Collects what this package warns of on this thread, for a place of its own to show it.

    Python's warning filters stay untouched: all threads share them.
    """
    before = getattr(LISTENING, "messages", None)
    LISTENING.messages = []
    try:
        yield LISTENING.messages
    finally:
        LISTENING.messages = before


def _shortened(text: str) -> str:
    """The text in quotes; of a very long one the beginning, and how much there is."""
    if len(text) <= SHOWN:
        return repr(text)
    return f"{text[:SHOWN]!r} ... ({len(text):,} characters)"


def _vocabulary_files(folder: Path) -> tuple[str, ...]:
    """PAIR, or WHOLE where that is all there is: transformers 5 writes no other file."""
    missing = [name for name in PAIR if not (folder / name).is_file()]
    if len(missing) == len(PAIR) and (folder / WHOLE[0]).is_file():
        return WHOLE
    if missing:
        raise FileNotFoundError(f"no tokenizer in {folder}: {missing[0]} is missing; put "
                                f"vocab.json and merges.txt of the model there")
    return PAIR


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
                 max_length: int = 77, known_words: frozenset[str] | None = None) -> None:
        """known_words: the words the model was trained on, where they are few enough to list."""
        self.max_length, self.known_words = max_length, known_words
        self.vocab, self.merges = vocab, tuple(merges)
        self.start_id, self.end_id = vocab[START], vocab[END]
        self.backend = Backend(models.BPE(vocab, list(merges), end_of_word_suffix=END_OF_WORD))
        self.backend.normalizer = normalizers.Sequence([
            normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        self.backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in (START, END)])

    @classmethod
    def from_folder(cls, folder: Path, *, max_length: int = 77) -> "Tokenizer":
        """Read vocab.json and merges.txt, or else tokenizer.json, and words.txt if there is one.

        Raises FileNotFoundError naming the missing file, ValueError where one is damaged.
        """
        words = folder / "words.txt"
        known = frozenset(words.read_text(encoding="utf-8").split()) if words.exists() else None
        names = _vocabulary_files(folder)
        try:
            texts = [(folder / name).read_text(encoding="utf-8") for name in names]
            if names == WHOLE:
                model = json.loads(texts[0])["model"]
                vocab, pairs = model["vocab"], model["merges"]
            else:
                vocab, pairs = json.loads(texts[0]), [
                    line for line in texts[1].splitlines()
                    if line and not line.startswith("#version")]
            merges = [(a, b) for a, b in
                      (pair.split(" ") if isinstance(pair, str) else pair for pair in pairs)]
            return cls(vocab, merges, max_length=max_length, known_words=known)
        except Exception as error:      # the library raises plain Exceptions
            raise ValueError(f"{' and '.join(names)} in {folder} are damaged or do not belong "
                             f"together ({error}): fetch them again") from error

    def encode(self, prompt: str) -> Encoded:
        """One prompt's tokens; a prompt that is too long keeps start, 75 tokens and end.

        Raises TypeError for anything but text.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt must be text, got {type(prompt).__name__}: {prompt!r}")
        try:
            found = self.backend.encode(prompt, add_special_tokens=False)
        except TypeError:
            raise TypeError(
                f"the prompt {ascii(prompt)} holds half of a surrogate pair, which is no "
                f"character: remove it or decode the text as UTF-8") from None
        room = self.max_length - 2
        ids = [self.start_id, *found.ids[:room], self.end_id]
        length = len(ids)
        ids += [self.end_id] * (self.max_length - length)
        tokens = tuple(self.backend.id_to_token(i) or "" for i in ids)
        dropped = prompt[found.offsets[room][0]:] if len(found.ids) > room else ""
        return Encoded(tuple(ids), tokens, length, dropped)

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """One prompt or several -> ids (b, 77), int64.

        Warns of words that were dropped, and of control tokens among the words.
        """
        several = prompts if isinstance(prompts, list | tuple) else [prompts]
        encoded = [self.encode(text) for text in several]   # type: ignore[arg-type]
        for one in encoded:
            if one.dropped:
                warn(f"the prompt is longer than {self.max_length - 2} tokens; dropped: "
                     f"{_shortened(one.dropped)}")
            if {START, END} & set(one.tokens[1:one.length - 1]):
                warn(f"{START} and {END} inside a prompt are control tokens, not words")
        return torch.tensor([one.ids for one in encoded])

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of ids, without start, end and padding.

        It is the prompt in normal form C (NFC) and lower case, with one space between the pieces
        that are never merged across, whatever space stood there: "Red,car" -> "red , car".
        """
        kept = [int(i) for i in ids if int(i) not in (self.start_id, self.end_id)]
        text = self.backend.decode(kept, skip_special_tokens=False)
        return text.replace(END_OF_WORD, " ").strip(" ")

    def unseen_words(self, prompt: str) -> list[str]:
        """The prompt's words that the model was never trained on; [] where that is not known."""
        if self.known_words is None:
            return []
        words = re.findall(r"(?<!\w['\u2019])\b[^\W\d_]+", prompt.lower())
        return [word for word in dict.fromkeys(words) if word not in self.known_words]
