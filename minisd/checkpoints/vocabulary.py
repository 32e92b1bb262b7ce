"""A model's words: its tokenizer's files, and CLIP's vocabulary, which serves all of v1."""

import gzip
import hashlib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from torch import Tensor

from minisd.checkpoints.places import WEIGHTS
from minisd.checkpoints.untrusted import Refused, read_json, read_text, reading, refusal, shown
from minisd.config import V1, Config
from minisd.tokenizer import END, END_OF_WORD, START, Tokenizer, warn

FETCH = "run `python -m minisd download tokenizer`"
CLIP_MERGES = 48_894
CARRIERS = ("open_clip", "clip")
CARRIED = "bpe_simple_vocab_16e6.txt.gz"
CARRIED_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"


# The vocabulary of a model

class ModelTokenizer(Tokenizer):
    """A tokenizer that also knows which words its model was trained on, where they are few."""

    def __init__(self, *vocabulary: Any, known_words: frozenset[str] | None = None,
                 model: str = "the model", **settings: Any) -> None:
        super().__init__(*vocabulary, **settings)
        self.known_words, self.model = known_words, model

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """As any tokenizer's. Warns of words that the model never saw in training."""
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            unseen = self.unseen_words(prompt)
            if unseen:
                warn(f"{self.model} never saw {', '.join(map(repr, unseen))}: it can only guess "
                     f"what that means")
        return super().__call__(prompts)

    def unseen_words(self, prompt: str) -> list[str]:
        """The prompt's words that the model was never trained on; [] where that is not known."""
        if self.known_words is None or not isinstance(prompt, str):
            return []
        words = re.findall(r"(?<!\w['\u2019])\b[^\W\d_]+", prompt.lower())
        return [word for word in dict.fromkeys(words) if word not in self.known_words]


def find_tokenizer(model: Path, config: Config) -> ModelTokenizer | None:
    """The vocabulary beside a model; else CLIP's, in weights/ or from an installed package.

    None where none fits. Raises Refused where a folder's own has other words than its text encoder.
    """
    text, beside = config.text, (model if model.is_dir() else model.parent) / "tokenizer"
    if beside.is_dir():
        own = read_tokenizer(beside, text.max_length, config.name)
        if len(own.vocab) == text.vocab_size:
            return own
        if model.is_dir():
            raise refusal(beside, f"it has {len(own.vocab):,} tokens, and the text encoder beside "
                                  f"it knows {text.vocab_size:,}: they belong to different models, "
                                  f"or a token that was taught is missing in added_tokens.json")
    if text.vocab_size != V1.text.vocab_size:
        return None
    for place in (WEIGHTS / "tokenizer", *sorted(WEIGHTS.glob("v1-*/tokenizer"))):
        if (place / "vocab.json").is_file():
            found = read_tokenizer(place, text.max_length)
            if len(found.vocab) == text.vocab_size:
                return found
    return packaged_tokenizer(text.max_length)


def no_vocabulary(config: Config) -> str:
    """What is said of a model for which `find_tokenizer` finds nothing."""
    fetch = f"{FETCH}, or " * (config.text.vocab_size == V1.text.vocab_size)
    return (f"no vocabulary of {config.text.vocab_size:,} tokens is at hand for it: {fetch}put "
            f"vocab.json and merges.txt into a folder tokenizer/ beside its weights")


def read_tokenizer(folder: Path, max_length: int = 77, model: str = "the model") -> ModelTokenizer:
    """A folder's vocab.json and merges.txt, or else tokenizer.json, with the tokens added to them.

    words.txt, if there is one, lists the words that the model was trained on. Raises
    FileNotFoundError naming the missing file, Refused where one is damaged.
    """
    whole, pair = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    missing = [file.name for file in pair if not file.exists()]
    if missing and not (len(missing) == 2 and whole.exists()):
        raise FileNotFoundError(f"no tokenizer in {shown(folder)}: {missing[0]} is missing; put "
                                f"vocab.json and merges.txt of the model there")
    with reading(folder, "tokenizer"):
        settings = read_json(whole) if whole.exists() else {}
        if missing:
            vocab, pairs = settings["model"]["vocab"], settings["model"]["merges"]
        else:
            vocab, lines = read_json(pair[0]), read_text(pair[1]).splitlines()
            pairs = [line for line in lines if line and not line.startswith("#version")]
        merges = [(a, b) for a, b in
                  (one.split(" ") if isinstance(one, str) else one for one in pairs)]
        words = folder / "words.txt"
        known = frozenset(read_text(words).split()) if words.exists() else None
        return ModelTokenizer(vocab, merges, max_length=max_length, known_words=known, model=model,
                              added=_added(folder, settings, vocab))


def _added(folder: Path, settings: dict[str, Any], vocab: dict[str, int]) -> dict[str, int]:
    """Tokens that were taught to a trained model, by textual inversion, and their ids.

    Older tools write them into added_tokens.json, newer ones into tokenizer.json.
    """
    file = folder / "added_tokens.json"
    added: dict[str, int] = read_json(file) if file.exists() else {}
    added |= {token["content"]: token["id"] for token in settings.get("added_tokens", ())}
    ids = {**vocab, **added}
    if not all(token and type(number) is int for token, number in ids.items()) or (
            sorted(ids.values()) != list(range(len(ids)))):
        raise Refused("its tokens are not numbered from 0 on, each once: its files are damaged or "
                      "do not belong together; fetch them again")
    return {token: number for token, number in added.items() if token not in vocab}


# CLIP's

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


def packaged_tokenizer(max_length: int = 77) -> ModelTokenizer | None:
    """CLIP's own tokenizer out of an installed package; None where no package carries it."""
    file = carried_vocabulary()
    if file is None:
        return None
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = [(a, b) for a, b in (line.split(" ") for line in lines[1:1 + CLIP_MERGES])]
    return ModelTokenizer(clip_vocabulary(merges), merges, max_length=max_length)
