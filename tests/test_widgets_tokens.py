"""The token explorer and the picture search, without a browser: they show what the model does."""

import base64
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training
import torch
from PIL import Image

from minisd import images
from minisd.checkpoints.vocabulary import clip_vocabulary
from minisd.observe import pictures
from minisd.observe.tokens import join, readable, token_bytes
from minisd.tokenizer import Tokenizer
from minisd.toyworld.clip import CLIP
from minisd.widgets import examples, picture_search, token_explorer
from minisd.widgets.pictures import VIEW
from minisd.widgets.tokens import Reader, drawing, words

SOON = 300.0        # seconds for what takes milliseconds when the machine is free

# What CLIP does with "a cute and adorable bunny": rank among its merges, and the pair.
BUNNY = {2: "a n", 11: "o r", 25: "an d</w>", 57: "u n", 67: "l e</w>", 82: "a d", 84: "a b",
         217: "c u", 244: "t e</w>", 351: "ab le</w>", 838: "n y</w>", 1730: "cu te</w>",
         2079: "b un", 4480: "ad or", 5786: "ador able</w>", 8746: "bun ny</w>"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_training.tokenizer()


@pytest.fixture(scope="module")
def reader(tokenizer) -> Reader:
    return Reader(tokenizer, "toyworld")


@pytest.fixture
def explorer(tokenizer):
    config = SimpleNamespace(name="toyworld")
    widget = token_explorer(SimpleNamespace(tokenizer=tokenizer, config=config))
    assert widget.engine.wait(SOON)
    yield widget
    widget.view.close()


def buttons(explorer) -> list[str]:
    assert explorer.engine.wait(SOON)
    return [label for label, _ in explorer.token.options]


def shown(html: str) -> str:
    return re.sub("<[^>]*>", " ", html)


# What is read

@pytest.mark.parametrize("prompt", ["a red car", "", "🎈 日本語 naïve, 2048!", "red " * 90,
                                    "a\u0301 x", "zebra" * 40, "</w>", "red " * 75,
                                    "red " * 74, "red " * 73])
def test_the_tokens_are_the_tokenizers(reader, tokenizer, prompt) -> None:
    encoded, chips = tokenizer.encode(prompt), reader(prompt).chips
    assert [chip.id for chip in chips for _ in range(chip.places)] == list(encoded.ids)
    assert [chip.token for chip in chips for _ in range(chip.places)] == list(encoded.tokens)
    assert [chip.place for chip in chips] == list(range(len(chips)))


@pytest.mark.parametrize("prompt", ["a red car below a yellow balloon", "zebras in 2048",
                                    "🎈 日本語", "yellowish " * 30])
def test_the_last_rung_is_what_the_tokenizer_makes_of_the_word(reader, tokenizer, prompt) -> None:
    for chip in reader(prompt).chips:
        for before, after in zip(chip.ladder, chip.ladder[1:], strict=False):
            assert list(after.symbols) == join(before.symbols, tokenizer.merges[after.merge])
        if chip.ladder:
            assert chip.ladder[-1].symbols[chip.within] == chip.token
            assert all(len(token_bytes(symbol)) == 1 for symbol in chip.ladder[0].symbols)


def test_merges_by_rank_not_from_the_left() -> None:
    """CLIP's own way to "adorable"."""
    merges = [tuple(BUNNY.get(rank, f"? {rank}").split()) for rank in range(max(BUNNY) + 1)]
    reader = Reader(SimpleNamespace(merges=merges), "v1")
    ladder = reader.ladder(["adorable</w>"])
    assert [rung.merge for rung in ladder] == [None, 11, 67, 82, 84, 351, 4480, 5786]
    assert ladder[-1].symbols == ("adorable</w>",)


def test_words_are_where_merges_end() -> None:
    assert words(["a</w>", "bu", "n</w>", "<|endoftext|>", "x"]) == [
        ["a</w>"], ["bu", "n</w>"], ["<|endoftext|>"], ["x"]]
    assert words([]) == []


@pytest.mark.parametrize(("token", "text"), [
    ("red</w>", "red"), ("bal", "bal…"), ("<|startoftext|>", "start"), ("<|endoftext|>", "end"),
    ("ðŁĺĢ</w>", "😀"), ("ðŁ", "0xf09f…"), ("Ġ</w>", "0x20"), ("Ã©", "é…"), ("Ã", "0xc3…")])
def test_tokens_for_people(token, text) -> None:
    assert readable(token) == text


def test_what_a_font_lacks_is_bytes() -> None:
    assert readable("ðŁĺĢ</w>", below=128) == "0xf09f9880"
    assert readable("Ã©</w>", below=128) == "0xc3a9" and readable("Ã©</w>", below=0x100) == "é"


def test_the_bytes_of_a_token_are_those_of_the_prompt() -> None:
    tokenizer = Tokenizer(clip_vocabulary([]), [])
    for text in ["".join(map(chr, range(33, 0x250))), "日本語🎈"]:
        normal = tokenizer.backend.normalizer.normalize_str(text).replace(" ", "")
        tokens = tokenizer.backend.encode(text, add_special_tokens=False).tokens
        assert b"".join(map(token_bytes, tokens)) == normal.encode()


# The widget

def test_it_opens_with_a_prompt_of_the_model(explorer) -> None:
    prompt = examples("toyworld").prompt
    names = buttons(explorer)
    assert explorer.prompt.value == explorer.reading.prompt == prompt
    assert names[0] == "start" and names[-2] == "end"
    assert names[-1] == f"padding ({77 - len(names) + 1} times end)"
    rungs = [len(chip.ladder) for chip in explorer.reading.chips]
    assert len(explorer.chip.ladder) == max(rungs) > 2
    place = explorer.token.value
    assert f"Place {place} of 0 to 76: &#x27;{names[place]}&#x27;" in explorer.text.value


def test_a_new_prompt_makes_new_buttons(explorer) -> None:
    explorer.prompt.value = "red, blue"
    assert buttons(explorer) == ["start", "red", ",", "blue", "end", "padding (72 times end)"]
    assert "3 tokens, 9 characters, 9 bytes." in explorer.engine.status.value
    explorer.prompt.value = "🎈"
    assert buttons(explorer)[1:5] == ["0xf0…", "0x9f…", "0x8e…", "0x88"]
    assert "4 tokens, 1 character, 4 bytes." in explorer.engine.status.value


def test_pressing_a_token_shows_its_id_bytes_and_merges(explorer, tokenizer) -> None:
    explorer.prompt.value = "a red car"
    buttons(explorer)
    before = explorer.text.value
    explorer.token.value = 2
    text = shown(explorer.text.value)
    assert explorer.text.value != before and explorer.chip.token == "red</w>"
    merge = tokenizer.vocab["red</w>"] - 512
    assert f"id {tokenizer.vocab['red</w>']:,} = 512 + merge {merge:,}" in text
    assert "3 bytes: 72 65 64." in text
    assert "bytes r… e… d" in " ".join(text.split()) and f"merge {merge:,} red" in " ".join(
        text.split())
    explorer.token.value = 0
    assert "control token" in explorer.text.value and "<table>" not in explorer.text.value
    explorer.token.value = 5
    assert "Places 5 to 76: padding." in explorer.text.value


def test_a_shorter_prompt_keeps_a_button_pressed(explorer) -> None:
    explorer.token.value = len(explorer.token.options) - 1
    explorer.prompt.value = ""
    assert buttons(explorer) == ["start", "end", "padding (75 times end)"]
    assert explorer.token.value == 2 and explorer.chip is explorer.reading.chips[2]


def test_what_is_lost_and_what_is_new_is_said(explorer) -> None:
    explorer.prompt.value = "red " * 75 + "dragon"
    assert buttons(explorer)[-1] == "end"
    status = explorer.engine.status.value
    assert "No room for 'dragon'." in status and "toyworld never saw 'dragon'." in status


def test_half_a_character_is_an_error_on_the_status_line(explorer) -> None:
    explorer.prompt.value = "\ud83c"
    buttons(explorer)
    assert "surrogate" in explorer.engine.status.value
    explorer.prompt.value = "a car"
    assert buttons(explorer)[1:3] == ["a", "car"]


def test_typed_markup_stays_text(explorer) -> None:
    explorer.prompt.value = "<b>&x</b>"
    for i in range(len(buttons(explorer))):
        explorer.token.value = i
        assert "<b>" not in explorer.text.value


def test_on_paper_the_pressed_token_is_filled(explorer) -> None:
    explorer.token.value = 2
    data, _ = explorer._repr_mimebundle_()
    assert VIEW in data and data["text/plain"] == repr(explorer)
    assert repr(explorer).endswith("'red' pressed")
    sheet = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert sheet.width == 720 and (3, 86, 220) in colours
    other = drawing(explorer.reading, explorer.reading.chips[3])
    one = drawing(explorer.reading, explorer.reading.chips[2])
    assert one.size[0] == other.size[0] and np.asarray(one).std() > 10


def test_a_full_prompt_fits_on_paper(reader) -> None:
    reading = reader("🎈 yellowish zebra " * 20)
    sheet = drawing(reading, reading.chips[3])
    assert sheet.width == 681 and sheet.height < 1500


def test_a_model_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="has no tokenizer to explore: put vocab.json"):
        token_explorer(SimpleNamespace(tokenizer=None, config=SimpleNamespace(name="v1")))


# Picture search

@pytest.fixture(scope="module")
def clip():
    from conftest import TINY
    torch.manual_seed(0)
    tokenizer = tiny_training.tokenizer()
    text = replace(TINY.text, vocab_size=len(tokenizer.vocab), max_length=77)
    return CLIP(text, TINY.image_tower).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shelf() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)) for _ in range(11)]


@pytest.fixture
def search(clip, tokenizer, shelf):
    widget = picture_search(clip, tokenizer, shelf, "a red car")
    assert widget.engine.wait(SOON)
    yield widget
    widget.view.close()


def cosines(clip, tokenizer, shelf, prompt) -> torch.Tensor:
    pixels = torch.cat([images.from_pil(picture) for picture in shelf])
    return (clip.embed_images(pixels) @ clip.embed_text(tokenizer(prompt)).T)[:, 0]


def test_the_closest_pictures_come_first(search, clip, tokenizer, shelf) -> None:
    for prompt in ("a red car", "the sea"):
        search.knobs["prompt"].value = prompt
        assert search.engine.wait(SOON)
        expected = cosines(clip, tokenizer, shelf, prompt)
        order = expected.argsort(descending=True)[:8].tolist()
        assert search.seen.picture.tobytes() == pictures.grid(
            [shelf[i] for i in order], 4).tobytes()
        digits = re.findall(r"-?\d\.\d\d", search.seen.text)
        assert digits == [f"{expected[i]:.2f}" for i in order]
    assert "The closest 8 of 11 pictures." in search.engine.status.value
    assert search.engine.counts["started"] == 2


def test_a_search_names_words_that_were_never_seen(search) -> None:
    search.knobs["prompt"].value = "a dragon"
    assert search.engine.wait(SOON)
    assert "Never seen in training: dragon." in search.text.value


def test_a_search_is_shown_on_paper(search) -> None:
    data, _ = search._repr_mimebundle_()
    assert VIEW in data and data["text/plain"] == "picture search: prompt a red car"


def test_few_pictures_are_all_shown_and_none_are_refused(clip, tokenizer, shelf) -> None:
    search = picture_search(clip, tokenizer, shelf[:3], "a car")
    assert search.engine.wait(SOON)
    assert "The closest 3 of 3 pictures." in search.engine.status.value
    search.view.close()
    with pytest.raises(ValueError, match="no pictures to search"):
        picture_search(clip, tokenizer, [], "a car")
