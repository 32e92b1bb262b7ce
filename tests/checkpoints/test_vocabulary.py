"""A model's words: CLIP's own vocabulary and its true ids, files of all kinds, taught tokens."""

import gzip
import hashlib
import json
import random
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import ftfy
import pytest
import v1_files

import minisd
from minisd.checkpoints import vocabulary
from minisd.checkpoints.known import TOKENIZER
from minisd.checkpoints.places import SHIPPED
from minisd.checkpoints.untrusted import Refused
from minisd.checkpoints.vocabulary import (
    CARRIED,
    ModelTokenizer,
    carried_vocabulary,
    find_tokenizer,
    packaged_tokenizer,
    read_tokenizer,
)
from minisd.config import V1
from minisd.tokenizer import END, START

TRICKY = [          # their plain fellows: tests/book/test_tokenizer.py
    "it's DON'T we'LL they'Re", "a''t ''s 's", "a\u00a0b\u2003c\u200bd\x85e\x1cf", "&amp; &lt;",
    f"{END} a", f"a{START}b", "<|EndOfText|>", "ﬁ ½ Ⅷ ²³", "İI ı ß ẞ ǅ", "“curly” ‘quotes’",
    "Ａｂｃ", "#version: 0.2", "</w>", "a</w> b", "\n\n \t", "1234567 12.5", "don’t",
    "e\u0301\u0323 é", "각 각", "👩\u200d👩\u200d👧\u200d👦", "\U0010fffd \ue000", "\ufeffa",
    "Z͑ͫ̓ͪ̂ͫ̽", "#" * 200, "(((a:1.1):0.9), [b|c])", "naïve cafe\u0301", "\x00\x07\x1b[0m"]
RANDOM_TEXTS = 400


@pytest.fixture(scope="module")
def tokenizer() -> ModelTokenizer:
    found = packaged_tokenizer()
    assert found is not None, "no package carries CLIP's vocabulary: install requirements-dev.txt"
    return found


# Against transformers, which reads what ftfy has cleaned as the original reads the prompt itself

@pytest.fixture(scope="module")
def theirs(tokenizer) -> Any:
    from transformers import CLIPTokenizer

    merges = json.loads(tokenizer.backend.to_str())["model"]["merges"]
    return CLIPTokenizer(vocab=tokenizer.vocab, merges=[tuple(pair) for pair in merges])


def cleaned(text: str) -> str:
    return " ".join(ftfy.fix_text(text).split()).lower()


def their_ids(theirs: Any, text: str) -> tuple[int, ...]:
    return tuple(theirs(cleaned(text), padding="max_length", max_length=77,
                        truncation=True)["input_ids"])


@pytest.mark.parametrize("text", TRICKY, ids=ascii)
def test_tricky_texts_read_as_in_transformers(tokenizer, theirs, text):
    assert tokenizer.encode(text).ids == their_ids(theirs, text)


def test_random_texts_read_as_in_transformers(tokenizer, theirs):
    """Up to 60 characters of any script that Python's Unicode knows, as it makes lower case."""
    rng, too_long = random.Random(0), 0
    for _ in range(RANDOM_TEXTS):
        text, length = "", rng.randint(1, 60)
        while len(text) < length:
            letter = chr(rng.randrange(rng.choice([0x80, 0x250, 0x3000, 0x110000])))
            text += letter if unicodedata.category(letter) not in ("Cs", "Cn") else ""
        encoded = tokenizer.encode(text)
        assert encoded.ids == their_ids(theirs, text), ascii(text)
        too_long += bool(encoded.dropped)
    assert 0.1 < too_long / RANDOM_TEXTS < 0.9      # both kinds were met


# The words of a model

def test_words_that_a_model_never_saw(tokenizer):
    few = ModelTokenizer(tokenizer.vocab, tokenizer.merges, model="tiny",
                         known_words=frozenset({"a", "red", "car", "s"}))
    assert few.unseen_words("a RED zebra's car, 2 zebra and 一只猫") == ["zebra", "and", "一只猫"]
    with pytest.warns(UserWarning, match="^tiny never saw 'zebra': it can only guess") as caught:
        assert few(["a red car", "a zebra"]).shape == (2, 77)
    assert len(caught) == 1
    assert tokenizer.unseen_words("anything") == []
    with pytest.raises(TypeError, match="prompt must be text"):
        few([5])


# Files

def published(folder: Path, of: ModelTokenizer, /, **files: object) -> Path:
    """vocab.json and merges.txt as they lie beside the weights, and files of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in of.merges)]
    (folder / "vocab.json").write_text(json.dumps(of.vocab), encoding="utf-8")
    (folder / "merges.txt").write_bytes(("\n".join(lines) + "\n").encode())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def whole(tokenizer: ModelTokenizer, *added: dict[str, object], pairs: bool = True) -> object:
    """tokenizer.json as transformers 5 writes it alone; pairs: merges as lists, as it does now."""
    control = [{"id": tokenizer.vocab[token], "content": token} for token in (START, END)]
    merges = [list(pair) if pairs else " ".join(pair) for pair in tokenizer.merges]
    return {"added_tokens": [*control, *added],
            "model": {"type": "BPE", "vocab": tokenizer.vocab, "merges": merges}}


def test_the_published_files_give_the_same_tokenizer(tokenizer, tmp_path):
    published(tmp_path, tokenizer)
    loaded = read_tokenizer(tmp_path)
    assert loaded.vocab == tokenizer.vocab and loaded.known_words is None
    for text in TRICKY:
        assert loaded.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("pairs", [True, False])
def test_tokenizer_json_alone(tokenizer, tmp_path, pairs):
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole(tokenizer, pairs=pairs)))
    loaded = read_tokenizer(tmp_path, max_length=6)
    assert loaded.encode("a photo of a cat").ids == (49406, 320, 1125, 539, 320, 49407)


CAT = {"id": 49408, "content": "<cat-toy>"}


@pytest.mark.parametrize("form", ["added_tokens.json", "tokenizer.json", "tokenizer.json alone",
                                  "both"])
def test_a_taught_token_has_its_own_id(tokenizer, tmp_path, form):
    """As textual inversion leaves it: 49,409 rows of embeddings, the new token the last."""
    old, new = {"added_tokens": {"<cat-toy>": 49408}}, {"tokenizer": whole(tokenizer, CAT)}
    if "alone" in form:
        (tmp_path / "tokenizer.json").write_text(json.dumps(new["tokenizer"]))
    else:
        published(tmp_path, tokenizer, **{"added_tokens.json": old, "tokenizer.json": new,
                                          "both": old | new}[form])
    loaded = read_tokenizer(tmp_path)
    assert len(loaded.vocab) == 49409
    ids = loaded.encode("A photo of a <cat-toy>, on<cat-toy>").ids
    assert ids[:9] == (49406, 320, 1125, 539, 320, 49408, 267, 525, 49408)
    assert loaded.encode("a cat").ids == tokenizer.encode("a cat").ids


@pytest.mark.parametrize(("files", "said"), [
    ({"added_tokens": {"<cat-toy>": 50000}}, "its tokens are not numbered from 0 on, each once"),
    ({"added_tokens": {"a</w>": 49408}}, "not numbered"), ({"added_tokens": [1]}, "it is damaged"),
    ({"tokenizer": {"added_tokens": [{"id": 1}]}}, "it is damaged, cut off, or no tokenizer"),
    ({"vocab": {"a": 0, END: 1}}, "it is damaged"), ({"vocab": None}, "it is damaged"),
    ({"vocab": {"\ud800": 0, START: 1, END: 2}}, "it is damaged")])
def test_files_that_do_not_belong_together(tokenizer, tmp_path, files, said):
    published(tmp_path, tokenizer, **files)
    with pytest.raises(Refused, match=said) as error:
        read_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(tokenizer, tmp_path, missing):
    published(tmp_path, tokenizer, tokenizer=whole(tokenizer))
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"no tokenizer in .*: {missing} is missing; put"):
        read_tokenizer(tmp_path)


def test_words_that_are_no_text(tmp_path):
    """What else is no text: test_untrusted.py."""
    for path in (SHIPPED / "tokenizer").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "words.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(Refused, match="words.txt: it is no text in UTF-8"):
        read_tokenizer(tmp_path)


# Which vocabulary a model gets

def test_a_vocabulary_that_is_not_the_models_is_refused(v1sd, tmp_path):
    folder = v1_files.diffusers_folder(v1sd, tmp_path / "model")
    (folder / "tokenizer").symlink_to(SHIPPED / "tokenizer", target_is_directory=True)
    with pytest.raises(Refused, match=r"it has 703 tokens, and the text encoder .* knows 99: they"):
        minisd.load(folder)


def test_a_taught_token_that_is_missing_is_missed(tokenizer, tmp_path):
    """The trained token cut into `< cat - toy >` would paint an untrained picture, silently."""
    taught = replace(V1, text=replace(V1.text, vocab_size=49409))
    published(tmp_path / "tokenizer", tokenizer)
    with pytest.raises(Refused, match="49,408 tokens, and the text encoder beside it knows 49,409:"
                                      ".* a token that was taught is missing in added_tokens"):
        find_tokenizer(tmp_path, taught)
    published(tmp_path / "tokenizer", tokenizer, added_tokens={"<cat-toy>": 49408})
    found = find_tokenizer(tmp_path, taught)
    assert found is not None and found.encode("a <cat-toy>").ids[1:3] == (320, 49408)


def test_real_models_find_clips_vocabulary(weights, tmp_path, tokenizer, monkeypatch):
    """In weights/, where `download tokenizer` puts it; else in an installed package."""
    packaged = find_tokenizer(tmp_path / "model.ckpt", V1)
    assert packaged is None or len(packaged.vocab) == V1.text.vocab_size
    assert find_tokenizer(tmp_path / "model.ckpt", v1_files.SMALL) is None
    monkeypatch.setattr(vocabulary, "CARRIERS", ())
    (weights / "tokenizer").symlink_to(SHIPPED / "tokenizer", target_is_directory=True)
    assert find_tokenizer(tmp_path / "model.ckpt", V1) is None          # it has other words
    published(weights / "v1-4" / "tokenizer", tokenizer)
    assert find_tokenizer(tmp_path / "model.ckpt", V1).vocab == tokenizer.vocab


def test_a_package_is_read_without_being_imported(tokenizer, tmp_path, monkeypatch):
    file, package = carried_vocabulary(), tmp_path / "carrier_of_tests"
    assert file is not None
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / CARRIED).write_bytes(file.read_bytes())
    (tmp_path / "plain_module_of_tests.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(vocabulary, "CARRIERS", ("no_package_at_all", "plain_module_of_tests",
                                                 "carrier_of_tests"))
    found = packaged_tokenizer(max_length=6)
    assert found is not None and found.vocab == tokenizer.vocab
    assert found.encode("a photo of a cat").tokens[1:5] == ("a</w>", "photo</w>", "of</w>", "a</w>")
    (package / CARRIED).write_bytes(b"another file of that name")
    assert packaged_tokenizer() is None


def test_the_published_vocabulary_is_clips(tokenizer):
    """Both files that `download tokenizer` fetches follow from OpenAI's, to the last byte."""
    file = carried_vocabulary()
    assert file is not None
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1:48895]
    vocab = json.dumps(tokenizer.vocab, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    for known, text in zip(TOKENIZER, (vocab, "\n".join(["#version: 0.2", *merges, ""])),
                           strict=True):
        assert hashlib.sha256(text.encode()).hexdigest() == known.sha256
