"""Learning toyworld's byte-pair merges from its captions, in the layout of CLIP's vocabulary."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from minisd.checkpoints.vocabulary import clip_vocabulary
from minisd.observe.files import written_whole
from minisd.tokenizer import END_OF_WORD, PIECES


def learn_merges(captions: Iterable[str], count: int) -> list[tuple[str, str]]:
    """At most `count` merges, the most frequent first; fewer once every word is one token."""
    backend = Backend(models.BPE(end_of_word_suffix=END_OF_WORD))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=512 + count, end_of_word_suffix=END_OF_WORD,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    backend.train_from_iterator(captions, trainer)
    return [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]][:count]


def save(folder: Path, merges: Sequence[tuple[str, str]], words: Iterable[str]) -> None:
    """Write vocab.json, merges.txt and, once these are whole, words.txt."""
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    for name, text in {"vocab.json": json.dumps(clip_vocabulary(merges), ensure_ascii=False),
                       "merges.txt": "\n".join(lines) + "\n",
                       "words.txt": "\n".join(sorted(words)) + "\n"}.items():
        with written_whole(folder / name) as part:
            part.write_text(text, encoding="utf-8")
