"""The tokenizer: any text comes back, the conventions are CLIP's, nothing is dropped in silence.

Normalised means, in this order: NFC, every run of white space one space, lower case letter by
letter. Decoding puts one space between pieces, so the comparison leaves white space out.
"""

import json
import random
import re
import unicodedata
import warnings
from pathlib import Path

import pytest
import tiny_training
import torch
from tokenizers import pre_tokenizers

from minisd.tokenizer import END, START, Tokenizer
from minisd.toyworld import train_tokenizer

WHITE = re.compile(r"[^\S\x1c-\x1f]+")      # Python also calls these four controls white space
TEXTS = ["red zebra q", "a red car, below the sea!", "q", "it's, don't we'll", "x2 345", "naïve",
         "日本語の赤い車", "🎈🚗 👩\u200d👧", "\x00\x07\x1b[0m", "a\x1cb\x1f", "</w> <w>",
         "\u200b\ufeff", "ﬁ ½ Ⅷ", "café",
         "#version: 0.2", "e\u0301\u0323", "'s 't", "<| |>", "ÿ\xff\x80", "\U0010fffd"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_training.tokenizer()


def normalised(text: str) -> str:
    """Without its white space."""
    return WHITE.sub("", "".join(c.lower() for c in unicodedata.normalize("NFC", text)))


def random_text(rng: random.Random) -> str:
    """A few characters that exist, of any script, controls and private use included."""
    characters: list[str] = []
    while len(characters) < 15:
        c = chr(rng.randrange(rng.choice([0x80, 0x3000, 0x110000])))
        if unicodedata.category(c) not in ("Cn", "Cs"):
            characters.append(c)
    return "".join(characters[:rng.randint(1, 15)])


# Any text comes back

@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tokenizer, text):
    encoded = tokenizer.encode(text)
    assert not encoded.dropped
    assert WHITE.sub("", tokenizer.decode(encoded.ids)) == normalised(text)


def test_a_thousand_random_texts_come_back(tokenizer):
    rng = random.Random(0)
    for _ in range(1000):
        text = random_text(rng)
        encoded = tokenizer.encode(text)
        assert WHITE.sub("", tokenizer.decode(encoded.ids)) == normalised(text), ascii(text)


def test_every_byte_can_end_a_word(tokenizer):
    letters = pre_tokenizers.ByteLevel.alphabet()
    assert len(letters) == 256
    assert {f"{letter}{end}" for letter in letters for end in ("", "</w>")} <= set(tokenizer.vocab)
    for end in map(chr, range(0x21, 0x7f)):
        assert tokenizer.decode(tokenizer.encode(f"xyz {end}").ids) == f"xyz {end.lower()}"


def test_decoded_captions_read_as_they_were(tokenizer):
    text = "a red car below a yellow balloon in the sky"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.decode(tokenizer(text)[0]) == text
    assert tokenizer.decode(tokenizer.encode(" A  RED\tcar,\n").ids) == "a red car ,"
    assert tokenizer.decode(tokenizer.encode("").ids) == ""


def test_normal_forms_and_cases_are_one(tokenizer):
    assert tokenizer.encode("CAFE\u0301").ids == tokenizer.encode("café").ids
    assert tokenizer.encode("a\u3000 \n car").ids == tokenizer.encode("a car").ids


# Start, end, padding, truncation

def test_a_prompt_is_start_words_end_and_padding_with_end(tokenizer):
    encoded = tokenizer.encode("red car")
    start, end, vocab = tokenizer.start_id, tokenizer.end_id, tokenizer.vocab
    assert encoded.ids == (start, vocab["red</w>"], vocab["car</w>"], *[end] * 74)
    assert encoded.tokens[:4] == (START, "red</w>", "car</w>", END)
    assert len(encoded.ids) == 77 and encoded.length == 4 and encoded.dropped == ""
    empty = tokenizer.encode("")
    assert empty.ids == (start, *[end] * 76) and empty.length == 2
    assert tokenizer.encode(" \n\t").ids == empty.ids


def test_calling_gives_a_tensor_of_one_row_per_prompt(tokenizer):
    ids = tokenizer(["red car", "", "a"])
    assert ids.shape == (3, 77) and ids.dtype == torch.int64
    assert torch.equal(ids[:1], tokenizer("red car"))
    assert tuple(ids[2].tolist()) == tokenizer.encode("a").ids


def test_75_tokens_fit_and_what_does_not_is_named(tokenizer):
    fits = " ".join(["red"] * 75)
    full = tokenizer.encode(fits)
    assert full.length == 77 and full.dropped == "" and full.ids[-1] == tokenizer.end_id
    long = tokenizer.encode(f"{fits} Yellow  Balloon!")
    assert long.ids == full.ids and long.dropped == "Yellow  Balloon!"
    with pytest.warns(UserWarning, match="longer than 75 tokens; dropped: 'Yellow  Balloon!'") as w:
        tokenizer(["red", f"{fits} Yellow  Balloon!"])
    assert w[0].filename == __file__


def test_of_very_much_that_is_dropped_the_warning_shows_the_beginning(tokenizer):
    with pytest.warns(UserWarning) as caught:
        tokenizer("red " * 100_000)
    message = str(caught[0].message)
    assert len(message) < 500 and message.endswith("(399,700 characters)")


def test_what_is_dropped_is_found_in_the_prompt_as_it_was_typed(tokenizer):
    """Normalisation changes the number of characters; the offsets must not slip."""
    head = "E\u0301 \u3000\n " * 37                             # two tokens each
    assert tokenizer.encode(head + "x Green\n star").dropped == "Green\n star"
    assert tokenizer.encode(head + "x 🎈 car").dropped == "🎈 car"
    assert tokenizer.encode(head + "zq car").dropped == "q car"  # cut inside a word: the rest of it


def test_other_lengths(tokenizer):
    short = Tokenizer(tokenizer.vocab, tiny_training.merges(), max_length=5)
    encoded = short.encode("a red car below")
    assert len(encoded.ids) == 5 and encoded.tokens[1:4] == ("a</w>", "red</w>", "car</w>")
    assert encoded.dropped == "below"


# What is no prompt

@pytest.mark.parametrize("bad", [None, 5, b"red", ["red", 5], [None], {"red": 1}])
def test_what_is_no_text_is_refused(tokenizer, bad):
    with pytest.raises(TypeError, match=r"a prompt must be text, got (NoneType|int|bytes|dict):"):
        tokenizer(bad)


@pytest.mark.parametrize("bad", ["\ud800", "a \udfff car", "\ud83d"])
def test_half_a_surrogate_pair_is_refused(tokenizer, bad):
    with pytest.raises(TypeError, match="holds half of a surrogate pair") as error:
        tokenizer(bad)
    str(error.value).encode()       # the message itself can be printed


def test_control_tokens_inside_a_prompt_are_named(tokenizer):
    with pytest.warns(UserWarning, match="inside a prompt are control tokens"):
        ids = tokenizer(f"red {END} car")
    assert ids[0, 2] == tokenizer.end_id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["red car", "<|EndOfText|>", ""])


# Words the model never saw

def test_unseen_words_are_named_once_in_order(tokenizer):
    assert tokenizer.unseen_words("a Zebra above a red car, an aardvark and a zebra's hat") == [
        "zebra", "aardvark", "hat"]
    assert tokenizer.unseen_words("A red CAR, below: 2 yellow balloon!") == []
    assert tokenizer.unseen_words("赤い car") == ["赤い"]
    assert tokenizer.unseen_words("a 'zebra' on \u2018sand\u2019") == ["zebra"]
    assert Tokenizer(tokenizer.vocab, tiny_training.merges()).unseen_words("a zebra") == []


# The vocabulary

def test_the_vocabulary_is_laid_out_like_clips(tokenizer):
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    merges = ["".join(merge) for merge in tiny_training.merges()]
    assert list(tokenizer.vocab.values()) == list(range(len(tokens)))
    assert all(len(token) == 1 for token in tokens[:256])
    assert tokens[256:512] == [f"{token}</w>" for token in tokens[:256]]
    assert tokens[512:-2] == merges and len(set(merges)) == len(merges) > 100
    assert tokens[-2:] == [START, END]
    assert tokenizer.start_id == len(tokens) - 2 and tokenizer.end_id == len(tokens) - 1


def test_the_order_of_bytes_is_clips_own(tokenizer):
    convert = pytest.importorskip("transformers.convert_slow_tokenizer")
    clips = list(convert.bytes_to_unicode().values())
    assert [tokenizer.vocab[letter] for letter in clips] == list(range(256))


def test_captions_are_one_token_a_word(tokenizer):
    text = "a red car to the left of a yellow umbrella"
    assert tokenizer.encode(text).tokens[1:11] == tuple(f"{word}</w>" for word in text.split())


# Files

def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    train_tokenizer.save(tmp_path, list(tiny_training.merges()), {"red", "car"})
    loaded = Tokenizer.from_folder(tmp_path, max_length=9)
    assert loaded.vocab == tokenizer.vocab and loaded.known_words == {"red", "car"}
    whole = tokenizer.encode("red zebra, 🎈 q").tokens
    assert loaded.encode("red zebra, 🎈 q").tokens == (*whole[:8], END)
    (tmp_path / "words.txt").unlink()
    assert Tokenizer.from_folder(tmp_path).known_words is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]


@pytest.mark.parametrize("joined", [False, True])
def test_a_folder_may_hold_tokenizer_json_alone(tokenizer, tmp_path, joined):
    """As transformers 5 saves it; earlier versions wrote each merge as one string."""
    data = json.loads(tokenizer.backend.to_str())
    if joined:
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    loaded = Tokenizer.from_folder(tmp_path, max_length=tokenizer.max_length)
    assert loaded.vocab == tokenizer.vocab and loaded.merges == tokenizer.merges
    assert loaded.encode("red zebra, q") == tokenizer.encode("red zebra, q")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    train_tokenizer.save(tmp_path, list(tiny_training.merges()), [])
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(name)} is missing; put vocab\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(("name", "content"), [
    ("vocab.json", ""), ("vocab.json", '{"a": 0'), ("vocab.json", "<html>"),
    ("vocab.json", json.dumps({"a": 0, "b": 1})), ("merges.txt", "#version\na b c\n"),
    ("merges.txt", "#version\nqq zz\n"), ("tokenizer.json", "{}")])
def test_a_damaged_file_is_an_error_that_says_where(tmp_path: Path, name, content):
    train_tokenizer.save(tmp_path, list(tiny_training.merges()), [])
    (tmp_path / name).write_text(content)
    if name == "tokenizer.json":
        (tmp_path / "vocab.json").unlink()
        (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match=f"in {re.escape(str(tmp_path))} are damaged or do not"):
        Tokenizer.from_folder(tmp_path)
