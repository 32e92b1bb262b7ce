"""The token explorer and the picture search: they show what tokenizer and towers do."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hands import ready, status, turn
from PIL import Image

from minisd.checkpoints.places import WEIGHTS
from minisd.checkpoints.vocabulary import clip_vocabulary, read_tokenizer
from minisd.images import from_pil
from minisd.observe.tokens import readable, token_bytes
from minisd.tokenizer import Tokenizer
from minisd.toyworld.clip import CLIP
from minisd.widgets import examples, picture_search, token_explorer
from minisd.widgets.drawing import sheet
from minisd.widgets.search import SIDE


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read_tokenizer(WEIGHTS / "toyworld" / "tokenizer", 77, "toyworld")


@pytest.fixture
def explorer(tokenizer):
    config = SimpleNamespace(name="toyworld")
    with ready(token_explorer(SimpleNamespace(tokenizer=tokenizer, config=config))) as widget:
        yield widget


def buttons(explorer) -> list[str]:
    status(explorer)
    return [label for label, _ in explorer.token.options]


@pytest.mark.parametrize("prompt", ["a red car", "", "🎈 日本語 naïve, 2048!", "red " * 90,
                                    "a\u0301 x", "zebra" * 40, "</w>", "red " * 75, "red " * 74,
                                    "red " * 73])
def test_the_tokens_are_the_tokenizers(explorer, tokenizer, prompt: str) -> None:
    encoded, chips = tokenizer.encode(prompt), explorer.chips(prompt)
    assert [chip.id for chip in chips for _ in range(chip.places)] == list(encoded.ids)
    assert [chip.token for chip in chips for _ in range(chip.places)] == list(encoded.tokens)
    assert [chip.place for chip in chips] == list(range(len(chips)))
    assert all(chip.token in chip.ladder[-1].symbols for chip in chips if chip.ladder)


@pytest.mark.parametrize(("token", "text"), [
    ("red</w>", "red"), ("bal", "bal…"), ("<|startoftext|>", "start"), ("<|endoftext|>", "end"),
    ("ðŁĺĢ</w>", "😀"), ("ðŁ", "0xf09f…"), ("Ġ</w>", "0x20"), ("Ã©", "é…"), ("Ã", "0xc3…")])
def test_tokens_for_people(token: str, text: str) -> None:
    assert readable(token) == text
    assert readable("ðŁĺĢ</w>", below=128) == "0xf09f9880"
    assert readable("Ã©</w>", below=128) == "0xc3a9" and readable("Ã©</w>", below=0x100) == "é"


def test_the_bytes_of_a_token_are_those_of_the_prompt() -> None:
    tokenizer = Tokenizer(clip_vocabulary([]), [])
    for text in ["".join(map(chr, range(33, 0x250))), "日本語🎈"]:
        tokens = tokenizer.backend.encode(text, add_special_tokens=False).tokens
        assert b"".join(map(token_bytes, tokens)) == text.replace("\xa0", "").replace(
            "\x85", "").replace(" ", "").encode()


def test_it_opens_with_a_prompt_of_the_model_and_its_longest_ladder(explorer) -> None:
    names, chips = buttons(explorer), explorer.chips(examples("toyworld").prompt)
    assert explorer.values["prompt"] == examples("toyworld").prompt
    assert names[0] == "start" and names[-2] == "end"
    assert names[-1] == f"padding ({77 - len(names) + 1} times end)"
    place = explorer.token.value
    assert len(chips[place].ladder) == max(len(chip.ladder) for chip in chips) > 2
    assert f"Place {place} of 0 to 76: {names[place]!r}" in explorer.seen.text


def test_a_new_prompt_makes_new_buttons(explorer) -> None:
    turn(explorer, prompt="red, blue")
    assert buttons(explorer) == ["start", "red", ",", "blue", "end", "padding (72 times end)"]
    assert "3 tokens, 9 characters, 9 bytes." in status(explorer)
    turn(explorer, prompt="🎈")
    assert buttons(explorer)[1:5] == ["0xf0…", "0x9f…", "0x8e…", "0x88"]
    assert "4 tokens, 1 character, 4 bytes." in status(explorer)
    turn(explorer, token=len(explorer.token.options) - 1)
    turn(explorer, prompt="")                               # a button stays pressed
    assert buttons(explorer) == ["start", "end", "padding (75 times end)"]
    assert explorer.token.value == 2


def test_pressing_a_token_shows_its_id_bytes_and_merges(explorer, tokenizer) -> None:
    turn(explorer, prompt="a red car")
    before = explorer.seen.picture.tobytes()
    text, number = turn(explorer, token=2), tokenizer.vocab["red</w>"]
    assert f"id {number:,} = 512 + merge {number - 512:,}. 3 bytes: 72 65 64." in text
    assert "\nbytes: r…  e…  d\n" in text and text.endswith(f"merge {number - 512:,}: red")
    assert explorer.seen.picture.tobytes() != before
    assert "control token" in turn(explorer, token=0)
    assert turn(explorer, token=5).startswith("Places 5 to 76: padding.")


def test_what_is_lost_and_what_is_new_is_said(explorer) -> None:
    turn(explorer, prompt="red " * 75 + "dragon")
    assert buttons(explorer)[-1] == "end"
    assert "'dragon'" in status(explorer) and "toyworld never saw 'dragon'" in status(explorer)
    explorer.knobs["prompt"].value = "\ud83c"
    assert "surrogate" in status(explorer)
    explorer.knobs["prompt"].value = "<b>&x</b>"
    for i in range(len(buttons(explorer))):
        assert "<b>" not in explorer.text.value and turn(explorer, token=i)


def test_a_model_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="has no tokenizer to explore: put vocab.json"):
        token_explorer(SimpleNamespace(tokenizer=None, config=SimpleNamespace(name="v1")))


# Picture search

@pytest.fixture(scope="module")
def clip(tokenizer):
    from conftest import TINY
    torch.manual_seed(0)
    text = replace(TINY.text, vocab_size=len(tokenizer.vocab), max_length=77)
    return CLIP(text, TINY.image_tower).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shelf() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for _ in range(11)]


def test_the_closest_pictures_come_first(clip, tokenizer, shelf) -> None:
    pixels = torch.cat([from_pil(picture) for picture in shelf])
    with ready(picture_search(clip, tokenizer, shelf, "a red car")) as search:
        for prompt in ("a red car", "the sea"):
            turn(search, prompt=prompt)
            expected = (clip.embed_images(pixels) @ clip.embed_text(tokenizer(prompt)).T)[:, 0]
            order = expected.argsort(descending=True)[:8].tolist()
            best = [(shelf[i], f"cosine {expected[i]:.2f}") for i in order]
            assert search.seen.picture.tobytes() == sheet((SIDE, best[:4]),
                                                          (SIDE, best[4:])).tobytes()
        assert "The closest 8 of 11 pictures." in status(search)
        turn(search, prompt="a dragon")
        assert "never saw 'dragon'" in status(search)
    with ready(picture_search(clip, tokenizer, shelf[:3], "a car")) as search:
        assert "The closest 3 of 3 pictures." in status(search)
    with pytest.raises(ValueError, match="no pictures to search"):
        picture_search(clip, tokenizer, [], "a car")
