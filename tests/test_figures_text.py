"""The figures of tokens, vectors and networks: that their words and numbers are those shown."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from minisd import StableDiffusion, Tokenizer, config, figures
from minisd.checkpoints.vocabulary import clip_vocabulary
from minisd.config import Config
from minisd.figures import COLOURS, Station, text
from minisd.figures.networks import mosaic
from minisd.observe.summary import summary

WORDS = "red car below balloon"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Ids: r e d of the merges "re" and "red</w>", and single bytes."""
    merges = [("r", "e"), ("re", "d</w>")]
    return Tokenizer(clip_vocabulary(merges), merges, max_length=12)


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def words(axes) -> list[str]:
    return [entry.get_text() for entry in axes.texts]


def ink(figure: Figure, path: Path) -> float:
    """The share of a drawn figure's pixels that are not white; drawing gives no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure, path)
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


# Tokens

def test_chips_show_tokens_and_ids_from_start_to_end(tokenizer, tmp_path) -> None:
    encoded = tokenizer.encode("red ab")
    figure = figures.token_chips({"mine": encoded}, "Two words")
    a, b = 64, 256 + 65                                     # "a" within, "b" at the end of a word
    assert words(figure.axes[0]) == ["mine", "start", "514", "red", "513", "a…", str(a), "b",
                                     str(b), "end", "515"]
    colours = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    assert colours == [text.KINDS[kind].upper() for kind in ("start", "word", "word", "word",
                                                            "end")]
    assert title(figure) == "Two words" and ink(figure, tmp_path / "chips.png") > 0.1


def test_what_the_font_lacks_is_drawn_as_bytes_without_a_warning(tokenizer, tmp_path) -> None:
    figure = figures.token_chips({"emoji": tokenizer.encode("🎈猫"), "e": tokenizer.encode("é")},
                                 "")
    shown = words(figure.axes[0])
    assert "0xf0…" in shown and "🎈" not in shown and "0xc3…" in shown
    ink(figure, tmp_path / "chips.png")


def test_chips_are_broken_into_lines_within_the_width(tokenizer) -> None:
    long = tokenizer.encode("x " * 10)
    figure = figures.token_chips({"long": long}, "", width=4)
    right = max(patch.get_bbox().x1 for patch in figure.axes[0].patches)
    rows = {patch.get_bbox().y0 for patch in figure.axes[0].patches}
    assert right <= 4 and len(rows) > 1 and len(figure.axes[0].patches) == 12


@pytest.mark.parametrize(("count", "expected"), [
    (0, ["start", "end", *["padding"] * 10]), (3, ["start", *["word"] * 3, "end",
                                                   *["padding"] * 7]),
    (10, ["start", *["word"] * 10, "end"]), (30, ["start", *["word"] * 10, "end"])])
def test_what_stands_at_each_place(tokenizer, count, expected) -> None:
    assert text.kinds(tokenizer.encode("x " * count)) == expected


def test_every_place_has_its_colour(tokenizer, tmp_path) -> None:
    prompts = {"empty": tokenizer.encode(""), "long": tokenizer.encode("x " * 30)}
    figure = figures.token_places(prompts)
    colours = figure.axes[0].images[0].get_array()
    assert colours.shape == (2, 12, 3)
    assert to_hex(colours[0, 5]) == text.KINDS["padding"].lower()
    assert to_hex(colours[1, 5]) == text.KINDS["word"].lower()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["empty", "long"]
    assert title(figure) == "0 tokens or 10: every prompt fills 12 places"
    assert ink(figure, tmp_path / "places.png") > 0.2


# Vectors

def test_vectors_are_centred_at_zero(tmp_path) -> None:
    values = torch.randn(6, 9) + 3
    figure = figures.vector_maps({"a": values, "b": values.half()}, "T")
    left = figure.axes[0]
    assert torch.equal(torch.tensor(left.images[0].get_array()), values)
    low, high = left.images[0].get_clim()
    assert low == -high < 0 and left.images[0].get_cmap().name == "RdBu_r"
    assert left.get_title(loc="left") == "a, 6 x 9"
    assert ink(figure, tmp_path / "vectors.png") > 0.2


def test_bars_have_the_colour_of_their_place(tokenizer, tmp_path) -> None:
    encoded = tokenizer.encode("red")
    heights = torch.arange(12.0)
    figure = figures.place_bars(encoded, {"up": heights, "down": -heights}, "distance", "T")
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == heights.tolist()
    assert [to_hex(bar.get_facecolor()) for bar in bars[:4]] == [
        text.KINDS[kind].lower() for kind in ("start", "word", "end", "padding")]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["up", "down"]
    assert ink(figure, tmp_path / "bars.png") > 0.02


# Matrices

def test_a_matrix_writes_its_values_and_leaves_nan_white(tmp_path) -> None:
    values = torch.tensor([[1.0, torch.nan], [0.25, 0.75]])
    figure = figures.labelled_matrix(values, ["a", "b"], ["c", "d"], "T", digits=2)
    axes = figure.axes[0]
    assert words(axes) == ["1.00", "0.25", "0.75"]
    assert axes.images[0].get_clim() == (0, 1)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["c", "d"]
    ink(figure, tmp_path / "matrix.png")


def test_a_signed_matrix_is_white_at_zero() -> None:
    figure = figures.labelled_matrix(torch.tensor([[-0.5, 0.2]]), ["a"], ["c", "d"], "T",
                                     signed=True)
    assert figure.axes[0].images[0].get_clim() == (-0.5, 0.5)
    assert len(figure.axes) == 2                            # with a colour bar


def test_a_matrix_with_the_wrong_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a matrix \(2, 3\) takes as many labels, got 3 and 2"):
        figures.labelled_matrix(torch.zeros(2, 3), ["a"] * 3, ["b"] * 2, "T")


def test_numbers_are_legible_on_their_cells() -> None:
    figure = figures.labelled_matrix(torch.tensor([[0.0, 1.0]]), ["a"], ["c", "d"], "T", digits=1)
    dark, light = figure.axes[0].texts                      # viridis begins dark, ends light
    assert dark.get_color() == "white" and light.get_color() != "white"


def test_likeness_counts_the_sentences_that_find_their_picture(tmp_path) -> None:
    values = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.6], [-0.4, 0.3, 0.8]])
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    figure = figures.likeness(values, ["one", "two", "three"], pictures)
    assert title(figure) == "2 of 3 sentences are closest to their own picture"
    axes = figure.axes[0]
    framed = [(patch.get_x() + 0.46, patch.get_y() + 0.46) for patch in axes.patches]
    assert np.allclose(framed, [(0, 0), (2, 1), (2, 2)])
    assert len(axes.child_axes) == 3 and ink(figure, tmp_path / "likeness.png") > 0.2


@pytest.mark.parametrize("count", [2, 7])
def test_no_label_is_cut_off(tmp_path, count) -> None:
    """Square cells make the layout guess wrong, unless they keep to their corner."""
    names = [f"a yellow tree above a black mushroom on a gray background {i}"
             for i in range(count)]
    values = torch.eye(count)
    pictures = [Image.new("RGB", (8, 8))] * count
    for figure in (figures.labelled_matrix(values, names, ["end"] * count, "T", digits=2),
                   figures.labelled_matrix(values, names, ["end"] * count, "T"),
                   figures.likeness(values, names, pictures)):
        figures.save(figure, tmp_path / "x.png")
        for label in figure.axes[0].get_yticklabels():
            assert label.get_window_extent().x0 >= 0


def test_a_ranking_keeps_its_order_and_writes_its_values(tmp_path) -> None:
    figure = figures.ranking(["a", "b", "c"], [0.9, 0.5, -0.25], "T")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, -0.25]
    assert [word.strip() for word in words(axes)] == ["0.900", "0.500", "-0.250"]
    assert axes.get_xlim()[0] < -0.25 and axes.yaxis_inverted()
    assert ink(figure, tmp_path / "ranking.png") > 0.05


def test_two_activations_and_their_distance(tmp_path) -> None:
    x = torch.tensor([-1.0, 0.0, 1.0])
    figure = figures.activations(x, {"mine": x * 2, "yours": x + torch.tensor([0, 0, 0.5])})
    assert title(figure) == "mine is never more than 1.000 away from yours (at x = -1.00)"
    assert figure.axes[1].lines[0].get_ydata().tolist() == [-1.0, 0.0, 0.5]
    assert ink(figure, tmp_path / "curves.png") > 0.005


# Networks

@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    from conftest import TINY
    with torch.device("meta"):
        return StableDiffusion(TINY)


def test_parameters_are_shared_out_to_the_last_one(model, tmp_path) -> None:
    with torch.device("meta"):
        v1 = summary(StableDiffusion(config.V1))
    tiny = summary(model)
    figure = figures.parameter_bars({"tiny": tiny, "v1": v1})
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == 8 and sum(widths) == pytest.approx(2)
    assert widths[5] * 1_066_235_307 == pytest.approx(859_520_964)
    share = tiny.parts["unet"].parameters / tiny.parameters
    assert title(figure) == f"The UNet holds {100 * share:.0f} % of tiny and 81 % of v1"
    ticks = [" ".join(tick.get_text().split()) for tick in figure.axes[0].get_yticklabels()]
    assert ticks[1] == "v1 1,066.2 million"
    assert ink(figure, tmp_path / "bars.png") > 0.2


def test_every_array_has_its_bar_in_the_colour_of_its_part(model, tmp_path) -> None:
    content = summary(model)
    figure = figures.array_sizes(content)
    bars = sorted(figure.axes[0].patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [a.parameters for a in content.arrays]
    for bar, array in zip(bars, content.arrays, strict=True):
        kind = {"text_encoder": "text", "unet": "noise"}.get(array.name.split(".")[0], "latent")
        assert to_hex(bar.get_facecolor()).upper() == COLOURS[kind]
    counts = {part.name: part.arrays for part in content.parts.values()}
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert labels == [f"{part} ({counts[part]:,} arrays)" for part in (
        "text_encoder", "unet", "encoder", "decoder")]
    largest = max(content.arrays, key=lambda array: array.parameters)
    sizes = sorted(array.parameters for array in content.arrays)
    count = next(i for i in range(len(sizes)) if sum(sizes[:i + 1]) >= sum(sizes) / 2)
    assert title(figure) == (
        f"The largest of {len(sizes)} arrays is {largest.name} with {largest.parameters:,}; "
        f"the {count} smallest together hold less than half")
    assert ink(figure, tmp_path / "arrays.png") > 0.1


def test_layers_add_up(model, tmp_path) -> None:
    content = summary(model)
    figure = figures.layer_counts(content)
    axes = figure.axes[0]
    assert [int(word) for word in words(axes)] == list(content.layers.values())
    most = max(content.layers, key=lambda kind: content.layers[kind])
    assert title(figure) == (f"{most} is the most frequent of {len(content.layers)} kinds of "
                             f"layer: {content.layers[most]} of them")
    assert ink(figure, tmp_path / "layers.png") > 0.02


def test_stations_are_numbered_and_carry_their_shapes(tmp_path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    ids = torch.arange(30)[None]
    figure = figures.stations({
        "words": [Station("prompt", "text", "a car"), Station("ids", "text", ids),
                  Station("context", "text", torch.randn(1, 30, 7))],
        "end": [Station("latents", "latent", torch.randn(1, 4, 6, 5)),
                Station("picture", "picture", picture, "8 x 8")]}, "Five")
    axes = figure.axes
    assert [cell.get_title(loc="left").split() for cell in axes] == [
        ["1", "prompt"], ["2", "ids"], ["3", "context"], ["4", "latents"], ["5", "picture"], []]
    assert [cell.get_xlabel() for cell in axes] == ["", "1 x 30", "1 x 30 x 7", "1 x 4 x 6 x 5",
                                                    "8 x 8", ""]
    assert axes[1].texts[0].get_text().split() == [*map(str, range(24)), "...", "30", "in", "all"]
    assert axes[3].images[0].get_array().shape == (13, 11)
    low, high = axes[3].images[0].get_clim()
    assert low == -high and ink(figure, tmp_path / "stations.png") > 0.1


def test_a_mosaic_keeps_every_value_apart() -> None:
    channels = np.arange(3 * 2 * 4, dtype=float).reshape(3, 2, 4)
    sheet = mosaic(channels)
    assert sheet.shape == (5, 9)
    assert (sheet[:2, :4] == channels[0]).all() and (sheet[:2, 5:] == channels[1]).all()
    assert (sheet[3:, :4] == channels[2]).all() and np.isnan(sheet[3:, 5:]).all()
    assert np.isnan(sheet[2]).all() and np.isnan(sheet[:, 4]).all()


def test_a_model_of_other_parts_is_drawn_too(tiny: Config) -> None:
    from minisd.vae import VAE
    with torch.device("meta"):
        content = summary(VAE(tiny.vae))
    figure = figures.layer_counts(content)
    assert [int(word) for word in words(figure.axes[0])] == list(content.layers.values())
