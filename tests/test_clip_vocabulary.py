"""CLIP's own vocabulary, as v1 reads prompts: the true ids, and transformers' for any text."""

import hashlib
import json
import random
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from minisd import tokenizer as module
from minisd.checkpoints.known import TOKENIZER
from minisd.checkpoints.vocabulary import carried_vocabulary, packaged_tokenizer
from minisd.tokenizer import END, START, Tokenizer

TRUE_IDS = {        # of the original's tokenizer
    "a photograph of an astronaut riding a horse": (320, 8853, 539, 550, 18376, 6765, 320, 4558),
    "a photo of a cat": (320, 1125, 539, 320, 2368),
    "hello world!": (3306, 1002, 256),
    "(masterpiece:1.2), ((best quality))": (263, 12066, 281, 272, 269, 273, 2361, 13796, 949, 3027,
                                            5167),
    "a cat 😀": (320, 2368, 7334),
    "一只猫": (19759, 222, 34517, 103, 163, 234, 360),
    "": (),
}
TRICKY = [
    "it's DON'T we'LL they'Re", "a''t ''s 's", "a\u00a0b\u2003c\u200bd\x85e\x1cf", "&amp; &lt;",
    f"{END} a", f"a{START}b", "<|EndOfText|>", "ﬁ ½ Ⅷ ²³", "İI ı ß ẞ ǅ", "“curly” ‘quotes’",
    "Ａｂｃ", "#version: 0.2", "</w>", "a</w> b", "\n\n \t", "1234567 12.5", "don’t",
    "e\u0301\u0323 é", "각 각", "👩\u200d👩\u200d👧\u200d👦", "\U0010fffd \ue000", "\ufeffa",
    "Z͑ͫ̓ͪ̂ͫ̽", "#" * 200, "(((a:1.1):0.9), [b|c])", "naïve cafe\u0301", "\x00\x07\x1b[0m"]
RANDOM_TEXTS = 400


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = packaged_tokenizer()
    assert found is not None, "no package carries CLIP's vocabulary: install requirements-dev.txt"
    return found


@pytest.fixture(scope="module")
def merges() -> list[tuple[str, str]]:
    """The merges of the tokenizer above, as its backend holds them."""
    found = packaged_tokenizer()
    assert found is not None
    return [tuple(pair) for pair in json.loads(found.backend.to_str())["model"]["merges"]]


def words(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    encoded = tokenizer.encode(text)
    return encoded.ids[1:encoded.length - 1]


def random_text(rng: random.Random) -> str:
    """Up to 60 characters of any script, unassigned ones included, half surrogate pairs not."""
    characters: list[str] = []
    length = rng.randint(1, 60)
    while len(characters) < length:
        c = chr(rng.randrange(rng.choice([0x80, 0x250, 0x3000, 0x110000])))
        if unicodedata.category(c) != "Cs":
            characters.append(c)
    return "".join(characters)


# The true ids

@pytest.mark.parametrize("prompt", TRUE_IDS)
def test_prompts_have_their_true_ids(tokenizer, prompt):
    true = TRUE_IDS[prompt]
    expected = (49406, *true, *[49407] * (76 - len(true)))
    assert tokenizer.encode(prompt).ids == expected
    assert torch.equal(tokenizer(prompt), torch.tensor([expected]))


def test_the_vocabulary_has_clips_size_and_order(tokenizer):
    assert len(tokenizer.vocab) == 49408 and sorted(tokenizer.vocab.values())[-1] == 49407
    assert (tokenizer.start_id, tokenizer.end_id) == (49406, 49407)
    known = {"!": 0, "!</w>": 256, "a</w>": 320, "in": 512, "th": 513, "cat</w>": 2368}
    assert {token: tokenizer.vocab[token] for token in known} == known


def test_ids_and_text_agree(tokenizer):
    assert tokenizer.encode("a photo of a cat").tokens[:7] == (
        START, "a</w>", "photo</w>", "of</w>", "a</w>", "cat</w>", END)
    assert tokenizer.decode(TRUE_IDS["一只猫"]) == "一只猫"


# Against transformers

@pytest.fixture(scope="module")
def theirs(tokenizer, merges) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=tokenizer.vocab, merges=merges)


def their_ids(theirs: Any, text: str) -> tuple[int, ...]:
    return tuple(theirs(text, padding="max_length", max_length=77, truncation=True)["input_ids"])


@pytest.mark.parametrize("text", TRICKY, ids=ascii)
def test_tricky_texts_read_as_in_transformers(tokenizer, theirs, text):
    assert tokenizer.encode(text).ids == their_ids(theirs, text)


def test_random_texts_read_as_in_transformers_and_come_back(tokenizer, theirs):
    rng, too_long = random.Random(0), 0
    for _ in range(RANDOM_TEXTS):
        text = random_text(rng)
        encoded = tokenizer.encode(text)
        assert encoded.ids == their_ids(theirs, text), ascii(text)
        too_long += bool(encoded.dropped)
        if not encoded.dropped:
            plain = "".join(c.lower() for c in unicodedata.normalize("NFC", text))
            back = tokenizer.decode(encoded.ids)
            assert without_space(back) == without_space(plain), ascii(text)
    assert 0.1 < too_long / RANDOM_TEXTS < 0.9      # both kinds were met


def without_space(text: str) -> str:
    """Python also calls the controls 1c to 1f white space; the tokenizer does not."""
    return "".join(c for c in text if c in "\x1c\x1d\x1e\x1f" or not c.isspace())


# What is too long, and what is no prompt

def test_a_long_prompt_keeps_start_75_tokens_and_end(tokenizer):
    prompt = " ".join(["astronaut"] * 74) + " riding A Horse, in Space"
    with pytest.warns(UserWarning, match="longer than 75 tokens; dropped: 'A Horse, in Space'"):
        ids = tokenizer(prompt)[0].tolist()
    assert ids == [49406, *[18376] * 74, 6765, 49407]


def test_a_typed_control_token_is_one_and_is_named(tokenizer):
    with pytest.warns(UserWarning, match="control tokens, not words"):
        ids = tokenizer(f"a cat {END} a photo")[0].tolist()
    assert ids[:7] == [49406, 320, 2368, 49407, 320, 1125, 49407]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer("a cat <|end of text|>")


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(TypeError, match=r"'a cat \\ud83d' holds half of a surrogate pair"):
        tokenizer("a cat \ud83d")


# Where the vocabulary comes from

def test_the_published_files_give_the_same_tokenizer(tokenizer, merges, tmp_path):
    """vocab.json and merges.txt as they lie beside the weights; of merges.txt every byte."""
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "vocab.json").write_text(json.dumps(tokenizer.vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_bytes(("\n".join(lines) + "\n").encode())
    published, = (file for file in TOKENIZER if file.place.path == "tokenizer/merges.txt")
    digest = hashlib.sha256((tmp_path / "merges.txt").read_bytes()).hexdigest()
    assert digest == published.sha256
    loaded = Tokenizer.from_folder(tmp_path)
    assert loaded.vocab == tokenizer.vocab
    for text in [*TRUE_IDS, *TRICKY]:
        assert loaded.encode(text) == tokenizer.encode(text)


def carrier(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """The one package that may carry the vocabulary; it cannot be imported."""
    package = folder / "carrier_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / module.CARRIED).write_bytes(content)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(module, "CARRIERS", ("no_package_at_all", "carrier_of_tests"))


def test_a_package_is_read_without_being_imported(tokenizer, tmp_path, monkeypatch):
    file = carried_vocabulary()
    assert file is not None
    carrier(tmp_path, monkeypatch, file.read_bytes())
    found = packaged_tokenizer(max_length=6)
    assert found is not None and found.vocab == tokenizer.vocab
    assert found.encode("a photo of a cat").tokens[1:5] == ("a</w>", "photo</w>", "of</w>", "a</w>")


def test_another_file_of_that_name_is_not_taken(tmp_path, monkeypatch):
    file = carried_vocabulary()
    assert file is not None
    carrier(tmp_path, monkeypatch, file.read_bytes()[:-1])
    assert packaged_tokenizer() is None


def test_without_a_package_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "plain_module_of_tests.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "CARRIERS", ("no_package_at_all", "plain_module_of_tests"))
    assert packaged_tokenizer() is None
