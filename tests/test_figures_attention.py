"""The figures of attention and of the UNet: the numbers in their titles, and what they refuse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from matplotlib.figure import Figure
from PIL import Image

from minisd import figures
from minisd.config import TOYWORLD, V1, UNetConfig
from minisd.figures import attention, features, unet
from minisd.observe import summary as anatomy
from minisd.resblock import timestep_embedding
from minisd.unet import UNet


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def flat(level: int, side: int = 40) -> Image.Image:
    return Image.new("RGB", (side, side), (level,) * 3)


def ink(figure: Figure, path: Path) -> float:
    figures.save(figure, path)
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


# The U

def blank(config: UNetConfig) -> UNet:
    with torch.device("meta"):
        return UNet(config)


@pytest.mark.parametrize(("config", "size"), [(TINY.unet, (7, 9)), (TOYWORLD.unet, (16, 16)),
                                              (V1.unet, (64, 64))], ids=["tiny", "toyworld", "v1"])
def test_the_drawing_has_the_blocks_of_the_network(config: UNetConfig, size) -> None:
    network, boxes = blank(config), unet.plan(config, size)
    rows = [row for row in anatomy.cost(network, latent_size=size)
            if row.kind in ("ResBlock", "Downsample", "Upsample") or row.name in ("conv_in",
                                                                                  "conv_out")]
    assert [box.shape for box in boxes] == [row.output_shape[1:] for row in rows]
    layers = [m for m in network.modules() if type(m).__name__ == "Layer"]
    drawn = [box for box in boxes if box.kind == "layer"]
    places = [row.name.removesuffix(".resnet") for row in rows if row.kind == "ResBlock"]
    in_order = [network.get_submodule(place) for place in places]
    assert len(layers) == len(drawn)
    assert [box.channels_in for box in drawn] == [m.resnet.conv1.in_channels for m in in_order]
    assert [box.attention for box in drawn] == [m.attention is not None for m in in_order]


@pytest.mark.parametrize("config", [TINY.unet, TOYWORLD.unet, V1.unet,
                                    replace(TINY.unet, channels=(6,), attention=(True,))])
def test_every_skip_joins_one_box_to_one_other_of_its_size(config: UNetConfig) -> None:
    boxes = unet.plan(config, (32, 24))
    put = {box.skip: box for box in boxes if box.side == "down"}
    taken = [box for box in boxes if box.side == "up" and box.skip >= 0]
    assert [box.skip for box in taken] == sorted(put, reverse=True)
    assert all(put[box.skip].shape[1:] == box.shape[1:] for box in taken)


def test_the_map_counts_skips_and_cells(tmp_path: Path) -> None:
    figure = figures.unet_map(V1.unet, (64, 64))
    assert title(figure) == ("12 results are put aside on the way down and taken up again; at the "
                             "bottom 64 cells stand for 4,096")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "64 x 64" in words and "8 x 8" in words and words.count("2560") == 5
    assert 0.03 < ink(figure, tmp_path / "map.png") < 0.5


def test_costs_add_up_and_the_title_names_the_largest() -> None:
    rows = anatomy.cost(blank(TOYWORLD.unet), latent_size=(16, 16))
    figure = figures.unet_costs(rows)
    weights, work = figure.axes
    for axes, divisor, total in ((weights, 1e6, sum(r.parameters for r in rows)),
                                 (work, 1e9, sum(r.flops for r in rows))):
        assert sum(bar.get_width() for bar in axes.patches) * divisor == pytest.approx(total)
    own = {}
    for row in rows:
        own[unet.stage(row.name)] = own.get(unet.stage(row.name), 0) + row.parameters
    name, most = max(own.items(), key=lambda item: item[1])
    assert title(figure).startswith(
        f"{name} has the most parameters ({100 * most / sum(own.values()):.0f} %)")
    assert list(own) == ["time", "in", "down[0]", "down[1]", "down[2]", "mid", "up[0]", "up[1]",
                         "up[2]", "out"]


def test_costs_of_another_network_are_refused() -> None:
    rows = anatomy.cost(blank(TINY.unet), latent_size=(8, 8))
    with pytest.raises(ValueError, match=r"anatomy.cost\(sd.unet"):
        figures.unet_costs([replace(row, part="decoder") for row in rows])


def test_waves_are_compared_with_the_timestep_asked_for() -> None:
    waves = timestep_embedding(torch.arange(1000), 64)
    figure = figures.time_waves(waves, 300)
    curve = next(axes for axes in figure.axes if axes.get_ylabel() == "cosine similarity")
    likeness = curve.lines[0].get_ydata()
    assert likeness[300] == pytest.approx(1, abs=1e-5)
    near, far = likeness[310], likeness[999]
    assert title(figure) == (f"Neighbours in time look alike: t = 310 resembles t = 300 by "
                             f"{near:.2f}, t = 999 by {far:.2f}")
    assert "t = 0 by" in title(figures.time_waves(waves, 900))


def test_told_times_names_the_best_and_the_worst() -> None:
    figure = figures.told_times([0, 100, 200], [0.8, 0.2, 0.5], 110)
    assert title(figure) == ("The error is least (0.20) when it is told t = 100, and 4.0 times as "
                             "large at worst")


def test_feature_maps_show_the_channels_that_vary_most(tmp_path: Path) -> None:
    values = torch.zeros(6, 4, 5)
    values[4], values[1] = torch.randn(4, 5), 3 * torch.randn(4, 5)
    values[2] = 50.0                                        # large, but the same everywhere
    assert features.most_varied(values, 2) == [1, 4]
    figure = figures.feature_maps({"one": values, "two": torch.randn(1, 2, 2)}, "Two stages",
                                  channels=2)
    assert [axes.get_xlabel() for axes in figure.axes] == ["ch. 1", "ch. 0", "ch. 4", ""]
    shown = figure.axes[0].images[0]
    assert shown.norm.vmin == -shown.norm.vmax
    assert ink(figure, tmp_path / "maps.png") > 0.1


def test_along_the_u_names_where_the_picture_is() -> None:
    figure = figures.along_the_u(["in", "mid", "out"], [0.1, 0.9, 0.0], [0.8, 0.2, 0.99],
                                 [0.05, 0.3, 0.01])
    assert title(figure) == ("The picture shows most at “mid” (correlation 0.90); what comes out "
                             "at the end is noise (0.99)")
    assert list(figure.axes[0].lines[2].get_ydata()) == [0.05, 0.3, 0.01]


def test_skip_bars_name_the_worst_cut() -> None:
    figure = figures.skip_bars(["a", "b", "c"], [0.1, 0.724, 0.3])
    assert title(figure) == "Cutting “b” changes the noise most: by 72 %"
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([10, 72.4, 30])


# Attention

def test_a_picture_is_lit_where_the_share_is_large() -> None:
    heat = torch.zeros(4, 4)
    heat[0, 0] = 0.02
    lit = attention.lit(flat(200), heat)
    assert lit.shape == (40, 40, 3) and lit[0, 0, 0] == 200 and lit[-1, -1, 0] == 30
    assert (attention.lit(flat(200), torch.zeros(4, 4)) == 30).all()


def test_every_word_has_its_map_and_its_largest_share() -> None:
    maps = {"start": torch.full((4, 4), 0.5), "car": torch.rand(4, 4) * 0.01}
    figure = figures.word_maps_sheet(flat(9), maps, "Words", columns=2)
    first, *others = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["the picture", "start", "car", ""]
    assert first.get_xlabel() == "" and others[0].get_xlabel() == "at most 50 %"
    assert others[1].get_xlabel() == f"at most {100 * maps['car'].max():.1f} %"
    lit = figures.lit_pictures(flat(9), maps, "Words", marks=[(0, 0), (3, 1)])
    mark = lit.axes[1].patches[0]
    assert (mark.get_x(), mark.get_y(), mark.get_width()) == (9.5, 29.5, 10)
    with pytest.raises(ValueError, match="2 maps take as many marks"):
        figures.lit_pictures(flat(9), maps, "Words", marks=[(0, 0)])


def test_a_grid_of_maps_has_its_labels() -> None:
    row = [torch.rand(3, 3) for _ in range(3)]
    figure = figures.heat_grid({"one": row, "two": row}, ["a", "b", "c"], "Six maps")
    assert [axes.get_ylabel() for axes in figure.axes] == ["one", "", "", "two", "", ""]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="3 maps, one for a column"):
        figures.heat_grid({"one": row, "two": row[:2]}, ["a", "b", "c"], "")


def test_the_change_is_measured_where_the_word_is_read() -> None:
    heat, after = torch.zeros(4, 4), np.full((40, 40, 3), 100, np.uint8)
    heat[0] = 1.0
    after[:10] += 60                                        # all of the quarter that reads it
    after[10:20, :20] += 30                                 # a sixth of the rest
    moved = attention.change(flat(100), Image.fromarray(after), (4, 4))
    assert moved[0].tolist() == [60] * 4 and moved[1].tolist() == [30, 30, 0, 0]
    assert attention.inside_and_outside(moved, heat) == (60, 5)
    figure = figures.removal(flat(100), Image.fromarray(after), heat, "car")
    assert title(figure) == ("Without “car”, the quarter that reads it most changes by 60.0 grey "
                             "levels, the rest by 5.0")


def test_what_is_read_and_what_matters_may_be_two_words() -> None:
    figure = figures.word_effects(["start", "red", "car"], [0.6, 0.3, 0.1], [0.1, 0.2, 0.75])
    assert title(figure) == "“start” is read most (60 %); “car” changes the prediction most (0.75)"
    figure = figures.word_effects(["start", "red"], [0.6, 0.3], [0.9, 0.2])
    assert title(figure) == "“start” is read most (60 %) and changes the prediction most (0.90)"


def test_the_scale_is_needed() -> None:
    figure = figures.scale_needed([2, 512], [0.3, 0.97], [0.2, 0.21], keys=16)
    assert title(figure) == ("At d = 512, one of 16 random keys takes 97 % without the scale, 21 % "
                             "with it")


@pytest.mark.parametrize("draw", [
    lambda: figures.unet_map(TOYWORLD.unet, (16, 16)),
    lambda: figures.heat_grid({"one": [torch.rand(3, 3)]}, ["a"], "One map"),
    lambda: figures.removal(flat(9), flat(9), torch.zeros(4, 4), "car")])
def test_jupyter_shows_them(draw) -> None:
    assert draw()._repr_png_().startswith(b"\x89PNG")
