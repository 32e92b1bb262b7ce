"""Tokens drawn: chips, and a bar for each of the places of a prompt."""

from pathlib import Path

import pytest
import torch
from drawn import ink, title
from matplotlib.colors import to_hex

from minisd import figures
from minisd.checkpoints.vocabulary import clip_vocabulary
from minisd.figures import text
from minisd.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Ids: r e d of the merges "re" and "red</w>", and single bytes."""
    merges = [("r", "e"), ("re", "d</w>")]
    return Tokenizer(clip_vocabulary(merges), merges, max_length=12)


def words(axes) -> list[str]:
    return [entry.get_text() for entry in axes.texts]


def test_chips_show_tokens_and_ids_from_start_to_end(tokenizer, tmp_path: Path) -> None:
    figure = figures.token_chips({"mine": tokenizer.encode("red ab")}, "Two words")
    a, b = 64, 256 + 65                                     # "a" within, "b" at the end of a word
    assert words(figure.axes[0]) == ["mine", "start", "514", "red", "513", "a…", str(a), "b",
                                     str(b), "end", "515"]
    colours = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    assert colours == [text.KINDS[kind].upper() for kind in ("start", "word", "word", "word",
                                                            "end")]
    assert title(figure) == "Two words" and ink(figure, tmp_path) > 0.1


def test_what_the_font_lacks_is_drawn_as_bytes_without_a_warning(tokenizer, tmp_path: Path) -> None:
    figure = figures.token_chips({"emoji": tokenizer.encode("🎈猫"), "e": tokenizer.encode("é")},
                                 "")
    shown = words(figure.axes[0])
    assert "0xf0…" in shown and "🎈" not in shown and "0xc3…" in shown
    ink(figure, tmp_path)


def test_chips_are_broken_into_lines_within_the_width(tokenizer) -> None:
    wide = Tokenizer(clip_vocabulary([]), [], max_length=20)
    figure = figures.token_chips({"y" * 90: wide.encode("x " * 18), "b": tokenizer.encode("red")},
                                 "")
    right = max(patch.get_bbox().x1 for patch in figure.axes[0].patches)
    rows = {patch.get_bbox().y0 for patch in figure.axes[0].patches}
    assert right <= 11 and len(rows) == 3 and len(figure.axes[0].patches) == 23


@pytest.mark.parametrize(("count", "expected"), [
    (0, ["start", "end", *["padding"] * 10]), (3, ["start", *["word"] * 3, "end",
                                                   *["padding"] * 7]),
    (30, ["start", *["word"] * 10, "end"])])
def test_bars_have_the_colour_of_their_place(tokenizer, tmp_path: Path, count, expected) -> None:
    encoded, heights = tokenizer.encode("x " * count), torch.arange(12.0)
    figure = figures.place_bars(encoded, {"up": heights, "down": -heights}, "distance", "T")
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == heights.tolist()
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [text.KINDS[kind].lower()
                                                             for kind in expected]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["up", "down"]
    assert ink(figure, tmp_path) > 0.02
