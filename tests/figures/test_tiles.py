"""Sheets of pictures and maps: every tile in its place, with its label, on the right scale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import ink, photo, title

from minisd import figures
from minisd.figures import Tile, style
from minisd.figures.style import COLOURS


def maps(figure: figures.Figure) -> list:
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_a_grid_of_pictures_has_its_labels(tmp_path: Path) -> None:
    figure = figures.picture_grid([[photo(i) for i in range(3)], [photo(3), photo(4)]],
                                  ["drawn", "painted"], ["one", "two", "three"], "Two rows")
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["drawn", "painted"]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["one", "two", "three"]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert title(figure) == "Two rows" and ink(figure, tmp_path) > 0.2


def test_pictures_are_as_large_as_the_page_allows() -> None:
    few, many = (figures.picture_grid([[photo()] * n], [""], [], "t") for n in (3, 9))
    assert few.get_figwidth() == pytest.approx(style.WIDE, abs=1)
    assert many.get_figwidth() == pytest.approx(style.WIDE, abs=0.1)
    small = figures.picture_grid([[photo()] * 2], ["a"], [], "t", side=1.0)
    assert small.get_figwidth() <= 7.0


def test_every_picture_of_a_sheet_has_its_caption(tmp_path: Path) -> None:
    captions = [f"a picture number {i} of a very long caption that needs lines" for i in range(15)]
    figure = figures.sample_sheet([photo(i) for i in range(15)], captions, "Fifteen")
    shown = [" ".join(axes.get_xlabel().split()) for axes in figure.axes]
    assert shown == [*captions, ""] and ink(figure, tmp_path) > 0.2


@pytest.mark.parametrize(("scale", "limits"), [("each", [1, 3, 5]), ("row", [3, 3, 5]),
                                               ("all", [5, 5, 5])])
def test_maps_share_a_scale_or_have_their_own(tmp_path: Path, scale: str, limits: list) -> None:
    rows = {"one": [torch.full((2, 2), 1.0), torch.full((2, 2), -3.0)],
            "two": [torch.full((2, 2), 5.0)]}
    figure = figures.maps(rows, ["a", "b"], "Maps", signed=True, scale=scale, unit="latents")
    assert [shown.get_clim() for shown in maps(figure)[:3]] == [(-x, x) for x in limits]
    assert {shown.get_cmap().name for shown in maps(figure)[:3]} == {"RdBu_r"}
    notes = [axes.get_xlabel() for axes in figure.axes[:3]]
    assert notes == (["at most 1", "at most 3", "at most 5"] if scale == "each" else [""] * 3)
    bars = [axes.get_ylabel() for axes in figure.axes[4:]]
    assert bars == {"each": [], "row": ["latents"] * 2, "all": ["latents"]}[scale]
    assert ink(figure, tmp_path) > 0.1


def test_magnitudes_begin_at_0_and_zeros_have_a_scale() -> None:
    figure = figures.maps({"": [torch.tensor([[0.05]]), torch.zeros(2, 2)]}, ["a", "b"], "t")
    assert [shown.get_clim() for shown in maps(figure)] == [(0, pytest.approx(0.05)), (0, 1)]
    assert figure.axes[0].get_xlabel() == "at most 5.0 %"


def test_a_mark_frames_its_cell_and_pictures_may_stand_beside_maps() -> None:
    figure = figures.maps({"": [photo(), Tile(torch.rand(4, 6), mark=(3, 1))]}, ["a", "b"], "t")
    box = figure.axes[1].patches[0]
    assert (box.get_x(), box.get_y(), box.get_width()) == (0.5, 2.5, 1)
    for wrong in ({"scale": "none"}, {}):
        with pytest.raises(ValueError, match="expected scale"):
            figures.maps({"": [photo()] * 3}, ["a", "b"], "t", **wrong)


def test_stations_are_numbered_and_carry_their_shapes(tmp_path: Path) -> None:
    latents = torch.randn(1, 4, 6, 5)
    figure = figures.stations({
        "words": [Tile("a car", "prompt", kind="text"),
                  Tile(torch.arange(30)[None], "ids", kind="text"),
                  Tile(torch.randn(1, 30, 7), "context", kind="text")],
        "end": [Tile(latents, "latents", kind="latent"),
                Tile(photo(), "picture", "8 x 8", "picture")]}, "Five")
    axes = figure.axes
    assert [cell.get_title().split() for cell in axes] == [
        ["1", "prompt"], ["2", "ids"], ["3", "context"], ["4", "latents"], ["5", "picture"], []]
    assert [cell.get_xlabel() for cell in axes] == ["", "1 x 30", "1 x 30 x 7", "1 x 4 x 6 x 5",
                                                    "8 x 8", ""]
    assert " ".join(axes[1].texts[0].get_text().split()) == (
        ", ".join(map(str, range(15))) + ", ... 30 in all")
    sheet = axes[3].images[0].get_array()                       # four channels, kept apart
    assert sheet.shape == (13, 11) and sheet.mask[6].all() and sheet.mask[:, 5].all()
    assert np.array_equal(sheet[7:, :5], latents[0, 2])
    assert axes[3].title.get_color() == COLOURS["latent"] and ink(figure, tmp_path) > 0.1


# Numbers as pixels

def test_signed_maps_are_white_at_0_red_above_blue_below() -> None:
    shown = np.asarray(figures.signed(torch.tensor([[-9.0, 0.0, 3.0, 9.0]]), 3.0), int)[0]
    assert (shown[1] > 240).all() and (shown[2] == shown[3]).all()
    assert shown[0, 2] > shown[0, 0] and shown[3, 0] > shown[3, 2]
    assert np.asarray(figures.signed(torch.zeros(2, 2))).min() > 240


def test_a_picture_is_lit_where_the_map_is_large() -> None:
    heat = torch.zeros(4, 4)
    heat[0, 0] = 0.02
    flat = photo().resize((40, 40)).point(lambda _: 200)
    lit = np.asarray(figures.lit(flat, heat))
    assert lit.shape == (40, 40, 3) and lit[0, 0, 0] == 200 and lit[-1, -1, 0] == 30
    assert (np.asarray(figures.lit(flat, torch.zeros(4, 4))) == 30).all()
    heat = np.asarray(figures.magnitude(torch.tensor([[0.0, 2.0]]), "gray"))
    assert heat[0, 0, 0] == 0 and heat[0, 1, 0] == 255
