"""The one style: colours that every eye tells apart, text of users as text, files written whole."""

import io
import subprocess
import sys
import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import ink, photo
from matplotlib import rcParams
from PIL import Image

from minisd import figures
from minisd.figures import COLOURS, style
from minisd.figures.tiles import Tile

# Prompts that once raised, were typeset as mathematics, or made a canvas of 10,000 pixels.
NASTY = ["a $5 car and a $6 house", r"$\frac$", "$x_$", "$ $", "$$", r"\$", "\ud83c alone",
         "a\tb\0", "x" * 1000, "word " * 500, "🎈 猫 赤い車", "", "a_b^c {x} %"]


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
    """WCAG 2.1 asks for 3:1 of graphics, and 4.5:1 of words."""
    for name, colour in {**COLOURS, "ink": style.INK, "error": style.ERROR}.items():
        contrast = 1.05 / (linear(colour) @ (0.2126, 0.7152, 0.0722) + 0.05)
        assert contrast > (4.5 if name in ("ink", "error") else 3), name


# Text

@pytest.mark.parametrize("text", NASTY)
def test_text_of_a_user_is_drawn_as_text_whatever_it_holds(text: str, tmp_path: Path) -> None:
    """Of a cell that draws for itself too: titles, labels, ticks that the package never saw."""
    own = figures.blank(4)
    axes = own.subplots()
    axes.plot([1, 100], [1, 1000], label=text)
    axes.set(title=text[:60], xlabel=text[:60], xscale="log", yscale="log")
    axes.set_yticks([1, 1000], [text[:40], "b"])
    own.text(0.5, 0.5, text)
    for figure in (own, figures.picture_grid([[photo()]], [text], [text], text),
                   figures.lines({text: ([0, 1], [1, 2])}, text, xlabel="x"),
                   figures.bars({text: 1.0, "b": 2.0}, text),
                   figures.matrix(torch.eye(2), [text, "b"], ["a", text], text, digits=1),
                   figures.maps({text: [Tile(torch.rand(3, 3), text, text)]}, [""], text)):
        assert ink(figure, tmp_path) > 0.001
        width, height = figure.get_size_inches()
        assert width <= style.WIDE + 0.1 and height < 9


def test_dollars_stay_and_what_the_typeface_lacks_is_a_box() -> None:
    assert style.printable("a $5 car") == "a $5 car" and style.printable("猫\ud83c\0é") == "□□□é"
    assert len(style.printable("x" * 1000, 30)) == 30 and style.printable(None) == "None"


# How they are made

def test_styles_of_two_threads_do_not_mix() -> None:
    """matplotlib's settings are global: whoever came second would put back those of the first."""
    before, entered = dict(rcParams), threading.Event()

    def second() -> None:
        with figures.house():
            entered.set()

    thread = threading.Thread(target=second)
    with figures.house():
        thread.start()
        assert not entered.wait(0.3)
    thread.join()
    assert entered.is_set() and dict(rcParams) == before


def test_nothing_touches_pyplot() -> None:
    """pyplot keeps global state that callbacks in other threads corrupt."""
    code = ("import sys; from minisd import figures; "
            "figures.lines({'a': ([0], [1])}, 't')._repr_png_(); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_in_a_notebook_a_figure_takes_half_the_room_and_looks_the_same(tmp_path: Path) -> None:
    down, across = np.meshgrid(*[np.linspace(20, 235, 200)] * 2)
    soft = np.stack([down, across, 255 - down], 2)
    noisy = soft + np.random.default_rng(0).normal(0, 5, soft.shape)
    picture = Image.fromarray(noisy.astype("u1"))
    figure = figures.picture_grid([[picture]], ["a"], ["b"], "A picture")
    figures.save(figure, tmp_path / "whole.png")
    (stored, metadata), whole = figure._repr_png_(), (tmp_path / "whole.png").read_bytes()
    assert len(stored) < 0.55 * len(whole) and metadata == {"alt": "A picture"}
    seen, meant = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)
                   for png in (stored, whole))
    assert np.abs(seen - meant).mean() < 8 and seen[0, 0].min() >= 254
