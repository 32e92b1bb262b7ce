"""The figures: what they say, where their numbers come from, and that the colours can be seen."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from minisd import figures
from minisd.figures import COLOURS, training
from minisd.toyworld import loop
from minisd.toyworld.rates import rate
from minisd.toyworld.recipe import Part


def of(right: int, count: int) -> dict:
    return dict(rate([True] * right + [False] * (count - right)))


def title(figure: Figure) -> str:
    assert figure._suptitle is not None
    return " ".join(figure._suptitle.get_text().split())


def ink(figure: Figure, path: Path) -> float:
    """The share of a saved figure's pixels that are not white."""
    figures.save(figure, path)
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


# The colours

def linear(colour: str) -> np.ndarray:
    """sRGB -> linear light."""
    c = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """Linear sRGB -> CIELAB (D65), where a distance of 2 is barely seen."""
    to_xyz = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750],
                       [.0193339, .1191920, .9503041]])
    xyz = to_xyz @ light.clip(0, 1) / (0.95047, 1, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# What is left of linear sRGB without one kind of cone (Machado et al. 2009, severity 1).
EYES = {
    "all cones": np.eye(3),
    "no red": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216],
               [-.003882, -.048116, 1.051998]],
    "no green": [[.367322, .860646, -.227968], [.280085, .672501, .047413],
                 [-.011820, .042940, .968881]],
    "no blue": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602],
                [.004733, .691367, .303900]]}


@pytest.mark.parametrize("eye", EYES)
def test_the_colours_are_told_apart_by_every_eye(eye: str) -> None:
    seen = {name: lab(np.array(EYES[eye]) @ linear(c)) for name, c in COLOURS.items()}
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 25, (a, b)


def test_the_colours_stand_out_on_white() -> None:
    """WCAG 2.1 asks for 3:1 of graphics."""
    for name, colour in COLOURS.items():
        assert 1.05 / (linear(colour) @ (0.2126, 0.7152, 0.0722) + 0.05) > 3, name


# Losses

def csv_file(folder: Path, lines: str, name: str = "unet") -> Path:
    path = folder / f"{name}.csv"
    path.write_text(lines)
    return path


def test_losses_of_a_resumed_training_are_those_that_count(tmp_path: Path) -> None:
    """Steps 3 and 4 were done twice, the second time otherwise; step 5 belongs to the first."""
    path = csv_file(tmp_path, "step,loss,lr\n1,5,0\n2,4,0\n3,3,0\n4,2,0\n5,1,0\n3,30,0\n4,20,0\n")
    steps, loss = training.read_losses(path)
    assert steps.tolist() == [1, 2, 3, 4] and loss.tolist() == [5, 4, 30, 20]


def test_lines_that_a_kill_cut_short_are_skipped(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "step,lr,loss\n1,0,5\n2,0\n2,0,4\n\n3,0,")
    steps, loss = training.read_losses(path)
    assert steps.tolist() == [1, 2] and loss.tolist() == [5, 4]


@pytest.mark.parametrize("text", ["", "step,loss\n", "step,accuracy\n1,2\n"])
def test_no_losses_no_figure(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="no losses yet"):
        figures.losses(csv_file(tmp_path, text))


@pytest.mark.parametrize("count", [1, 2, 60, 1000])
def test_the_running_mean_is_the_mean_of_the_neighbours(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    smooth = training.running_mean(values, 5)
    assert smooth.shape == values.shape
    for i in range(count):
        assert smooth[i] == pytest.approx(values[max(0, i - 2):i + 3].mean())


def test_losses_are_drawn_raw_and_smooth_on_a_log_axis(tmp_path: Path) -> None:
    rows = "".join(f"{i},{1 / i}\n" for i in range(1, 1001))
    figure = figures.losses(csv_file(tmp_path, "step,loss\n" + rows, "vae"))
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "gradient steps" and "no unit" in axes.get_ylabel()
    raw, smooth = axes.lines
    assert len(raw.get_ydata()) == len(smooth.get_ydata()) == 1000
    assert raw.get_color() == COLOURS["latent"]
    assert title(figure) == "vae: the loss falls from 1 to 0.00101 in 1,000 steps"
    assert 0.01 < ink(figure, tmp_path / "vae.png") < 0.5


def test_a_loss_that_rises_is_called_so(tmp_path: Path) -> None:
    figure = figures.losses(csv_file(tmp_path, "step,loss\n1,0.5\n2,2\n"))
    assert title(figure) == "unet: the loss rises from 0.5 to 2 in 2 steps"


def test_training_draws_its_losses_beside_the_csv(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)

    def loss(g: torch.Generator, share: loop.Share) -> dict[str, torch.Tensor]:
        return {"loss": model(torch.randn(4, 3, generator=g)).square().mean()}

    def fit(steps: int, share: loop.Share) -> loop.Fit:
        part = Part(steps=steps, batch=4, lr=1e-2)
        return loop.Fit("toy", model, part, loss, tmp_path, sheet_every=2, share=share)

    fit(3, loop.Share()).run()
    picture = tmp_path / "toy-losses.png"
    assert Image.open(picture).size == (900, 500)
    picture.unlink()
    fit(3, loop.Share(1, 1))._draw_losses()
    assert not picture.exists()             # that is the first process's work
    fit(3, loop.Share()).run()              # nothing left to train: the figure comes back
    assert picture.exists()


# Adherence

ATTRIBUTES = ("things", "colours", "relation", "background", "all")
BARS = [{"group": "seen", "rates": {a: of(9, 10) for a in ATTRIBUTES}},
        {"group": "held out", "rates": {a: of(7, 10) for a in ATTRIBUTES}}]
CURVE = [{"guidance": g, "all": of(right, 50), "frechet": d}
         for g, right, d in ((1.5, 20, 0.3), (2.0, 45, 0.1), (4.0, 48, 0.2), (8.0, 0, 0.9))]
STAGES = [{"name": name, "seen": of(a, 20), "held_out": of(b, 20)}
          for name, a, b in (("first", 0, 0), ("middle", 10, 5), ("last", 20, 16))]


def test_bars_of_adherence(tmp_path: Path) -> None:
    figure = figures.adherence_bars(BARS)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(ATTRIBUTES)
    assert [bar.get_height() for bar in axes.patches] == [0.9] * 5 + [0.7] * 5
    assert "in %" in axes.get_ylabel()
    assert title(figure) == "Everything is right for 90.0 % (seen), 70.0 % (held out)"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["seen (n = 10)", "held out (n = 10)"]
    assert ink(figure, tmp_path / "bars.png") > 0.05


def test_the_guidance_curve_shows_gain_cost_and_both(tmp_path: Path) -> None:
    figure = figures.guidance_curve(CURVE)
    labels = {axes.get_xlabel(): axes for axes in figure.axes}
    distance = labels["guidance scale (no unit)"]
    trade = labels["Fréchet distance to drawn scenes (left is better)"]
    assert distance.lines[0].get_ydata().tolist() == [0.3, 0.1, 0.2, 0.9]
    assert [text.get_text() for text in trade.texts] == ["1.5", "2", "4", "8"]
    assert title(figure) == ("Guidance 4 follows the prompt best (96 %); at 2 the pictures are "
                             "closest to drawn ones")
    assert ink(figure, tmp_path / "curve.png") > 0.01


def test_intervals_are_drawn_from_low_to_high() -> None:
    figure = figures.stages(STAGES)
    bars = figure.axes[0].collections[0].get_segments()
    drawn = [tuple(segment[:, 1]) for segment in bars]
    expected = [(row["seen"]["low"], row["seen"]["high"]) for row in STAGES]
    assert np.allclose(drawn, expected)


def test_stages_stand_in_the_order_of_training(tmp_path: Path) -> None:
    figure = figures.stages(STAGES)
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["first", "middle", "last"]
    assert title(figure) == ("Adherence goes from 0 % to 100 % for pairs seen in training, from "
                             "0 % to 80 % for pairs held out")
    assert ink(figure, tmp_path / "stages.png") > 0.01


# Pictures

def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (16, 16), (200, 10 * i, 0)) for i in range(count)]


def test_a_grid_of_pictures_has_its_labels(tmp_path: Path) -> None:
    figure = figures.picture_grid([pictures(3), pictures(2)], ["drawn", "painted"],
                                  ["one", "two", "three"], "Two rows")
    assert len(figure.axes) == 6
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["drawn", "painted"]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["one", "two", "three"]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert title(figure) == "Two rows"
    assert ink(figure, tmp_path / "grid.png") > 0.2


def test_a_grid_with_the_wrong_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="1 rows of 2 pictures .* got 1 and 3"):
        figures.picture_grid([pictures(2)], ["a"], ["b", "c", "d"], "")


def test_every_picture_of_a_sheet_has_its_caption(tmp_path: Path) -> None:
    captions = [f"a picture number {i} of a very long caption that needs lines" for i in range(5)]
    figure = figures.sample_sheet(pictures(5), captions, "Five of six places", columns=3)
    shown = [" ".join(axes.get_xlabel().split()) for axes in figure.axes]
    assert shown == [*captions, ""]
    assert ink(figure, tmp_path / "sheet.png") > 0.2


# How they are made

def test_drawing_leaves_no_trace_outside_the_figure(tmp_path: Path) -> None:
    before = dict(rcParams)
    figures.save(figures.stages(STAGES), tmp_path / "new" / "stages.png")
    assert dict(rcParams) == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["stages.png"]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_name_says_the_format(tmp_path: Path, kind: str) -> None:
    figures.save(figures.stages(STAGES), tmp_path / f"stages.{kind}")
    start = (tmp_path / f"stages.{kind}").read_bytes()[:8]
    assert start.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        figures.save(figures.stages(STAGES), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_touches_pyplot(tmp_path: Path) -> None:
    """pyplot keeps global state that callbacks in other threads corrupt."""
    code = ("import sys; from pathlib import Path; from PIL import Image; "
            "from minisd import figures; "
            "figure = figures.picture_grid([[Image.new('RGB', (8, 8))]], ['a'], [], 't'); "
            f"figures.save(figure, Path({str(tmp_path / 'a.png')!r})); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
