"""The tokenizer: any text comes back, the conventions are CLIP's, nothing is dropped in silence."""

import random
import re
import threading
import unicodedata
import warnings

import ftfy
import pytest
import torch

from minisd import tokenizer as module
from minisd.checkpoints.vocabulary import clip_vocabulary, packaged_tokenizer
from minisd.tokenizer import END, START, Tokenizer
from minisd.toyworld.training.tokenizer import learn_merges

CAPTION = "a red car to the left of a yellow umbrella below a balloon in the sky"
TEXTS = ["red zebra q", "a red car, below the sea!", "it's, don't we'll", "x2 345", "'s 't",
         "日本語の赤い車", "🎈🚗 👩\u200d👧", "\x00\x07\x1b[0m", "a\x1cb\x1f", "</w> <w>", "<| |>",
         "\u200b\ufeff", "½ Ⅷ", "#version: 0.2", "e\u0301\u0323", "ÿ\xff\x80", "\U0010fffd"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    merges = learn_merges([CAPTION], 100)
    return Tokenizer(clip_vocabulary(merges), merges)


def random_text(rng: random.Random) -> str:
    """A few characters that exist, of any script, controls and private use included."""
    characters = (chr(rng.randrange(rng.choice([0x80, 0x3000, 0x110000]))) for _ in range(60))
    known = [c for c in characters if unicodedata.category(c) not in ("Cn", "Cs")]
    return "".join(known[:rng.randint(1, 15)])


# Any text comes back

def test_any_text_comes_back_cleaned(tokenizer):
    rng = random.Random(0)
    for text in [*TEXTS, *(random_text(rng) for _ in range(500))]:
        encoded = tokenizer.encode(text)
        found, cleaned = tokenizer.decode(encoded.ids), ftfy.fix_text(text).lower()
        assert not encoded.dropped
        assert re.sub(r"\s", "", found) == re.sub(r"\s", "", cleaned), ascii(text)


@pytest.mark.parametrize(("typed", "read"), [
    ("a cat’s “tail”", 'a cat\'s "tail"'), ("salt &amp; pepper", "salt & pepper"),
    ("two ﬁsh", "two fish"), ("Ａ ＲＥＤ ｃａｒ", "a red car"), ("CAFE\u0301", "café"),
    ("ΟΔΟΣ", "οδος"), ("a\u3000 \n car\t", "a car")])
def test_texts_are_read_as_the_original_cleans_them(tokenizer, typed, read):
    """By ftfy, then in lower case as Python has it, the final sigma included."""
    assert tokenizer.encode(typed).ids == tokenizer.encode(read).ids
    spaced = tokenizer.decode(tokenizer.encode(typed).ids)
    assert spaced.replace(" ", "") == read.replace(" ", "")


def test_decoded_captions_read_as_they_were(tokenizer):
    assert tokenizer.decode(tokenizer(CAPTION)[0]) == CAPTION
    assert tokenizer.decode(tokenizer.encode(" A  RED\tcar,\n").ids) == "a red car ,"
    assert tokenizer.decode(tokenizer.encode("").ids) == ""


@pytest.mark.parametrize(("prompt", "ids"), [
    ("a photograph of an astronaut riding a horse", [320, 8853, 539, 550, 18376, 6765, 320, 4558]),
    ("(masterpiece:1.2), ((best quality))", [263, 12066, 281, 272, 269, 273, 2361, 13796, 949, 3027,
                                             5167]),
    ("a cat’s tail", [320, 2368, 568, 4132]), ("hello world!", [3306, 1002, 256]), ("", []),
    ("a cat 😀", [320, 2368, 7334]), ("一只猫", [19759, 222, 34517, 103, 163, 234, 360])])
def test_with_clips_vocabulary_the_ids_are_the_originals(prompt, ids):
    clips = packaged_tokenizer() or pytest.skip("no package carries CLIP's vocabulary")
    assert clips(prompt)[0].tolist() == [49406, *ids, *[49407] * (76 - len(ids))]


# Start, end, padding, truncation

def test_a_prompt_is_start_words_end_and_padding_with_end(tokenizer):
    encoded, vocab, end = tokenizer.encode("red car"), tokenizer.vocab, tokenizer.end_id
    assert (tokenizer.start_id, end) == (vocab[START], vocab[END])
    assert encoded.ids == (vocab[START], vocab["red</w>"], vocab["car</w>"], *[end] * 74)
    assert encoded.tokens[:4] == (START, "red</w>", "car</w>", END)
    assert encoded.length == 4 and encoded.dropped == ""
    empty = tokenizer.encode("")
    assert empty.ids == (vocab[START], *[end] * 76) and empty.length == 2
    ids = tokenizer(["red car", "", "a"])
    assert ids.shape == (3, 77) and ids.dtype == torch.int64
    assert torch.equal(ids[:1], tokenizer("red car"))


def test_75_tokens_fit_and_what_does_not_is_named(tokenizer):
    fits = " ".join(["red"] * 75)
    full = tokenizer.encode(fits)
    assert full.length == 77 and full.dropped == "" and full.ids[-1] == tokenizer.end_id
    long = tokenizer.encode(f"{fits} Yellow  Balloon!")
    assert long.ids == full.ids and long.dropped == "yellow balloon!"
    with pytest.warns(UserWarning, match="longer than 75 tokens; dropped 15 .*: 'yellow ball"):
        tokenizer(["red", f"{fits} Yellow  Balloon!"])
    with pytest.warns(UserWarning, match="dropped 399,699 characters") as w:
        tokenizer("red " * 100_000)
    assert len(str(w[0].message)) < 500
    # Cleaning changes the number of characters; the offsets must not slip.
    assert tokenizer.encode("E\u0301 \u3000\n " * 37 + "x Green\n 🎈").dropped == "green 🎈"
    short = Tokenizer(tokenizer.vocab, tokenizer.merges, max_length=5).encode("a red car below")
    assert (short.tokens[-1], len(short.ids), short.dropped) == (END, 5, "below")


# What is not a plain word

@pytest.mark.parametrize(("bad", "text"), [
    (None, "a prompt must be text, got NoneType: None"), (b"red", "text, got bytes: b'red'"),
    (["red", 5], "text, got int: 5"), ({"red": 1}, "text, got dict: {'red': 1}"),
    ("a \udfff car", "holds half of a surrogate pair"), ("\ud83d", "holds half of a surrogate")])
def test_what_is_no_text_is_refused(tokenizer, bad, text):
    with pytest.raises(TypeError, match=text) as error:
        tokenizer(bad)
    str(error.value).encode()       # the message itself can be printed


def test_control_tokens_inside_a_prompt_are_named(tokenizer):
    with pytest.warns(UserWarning, match="inside a prompt are control tokens"):
        assert tokenizer(f"red {END} car")[0, 2] == tokenizer.end_id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["red car", "<|end of text|>", ""])


def test_added_tokens_are_one_id_each(tokenizer):
    """As textual inversion teaches them, in any case; the text around them is read as before."""
    new = len(tokenizer.vocab)
    taught = Tokenizer(tokenizer.vocab, tokenizer.merges, added={"<Cat-toy>": new, "zq": new + 1})
    ids = taught.encode("a red <Cat-Toy> car zq").ids
    assert ids[3:6:2] == (new, new + 1)
    assert ids[1:3] + ids[4:5] == tokenizer.encode("a red car").ids[1:4]
    assert "<cat-toy>" in taught.decode(ids)


def test_the_warnings_of_a_thread_can_be_collected(monkeypatch):
    heard: list[str] = []
    monkeypatch.setitem(module.HEARD, threading.get_ident(), heard)
    module.warn("collected")
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="shown"):
        module.warn("shown")
    assert heard == ["collected"]
