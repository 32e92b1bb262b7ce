"""The map of the whole path, from a prompt to a picture, that opens every notebook."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from minisd.figures.style import COLOURS, INK, Figure, blank, entitle, house

# Station: centre (x, y), the kind of thing whose colour it has, and whether it is a network.
STATIONS: dict[str, tuple[float, float, str, bool]] = {
    "prompt": (0.6, 2.0, "text", False),
    "tokens": (2.2, 2.0, "text", False),
    "text encoder": (4.0, 2.0, "text", True),
    "context": (5.9, 2.0, "text", False),
    "seed": (0.6, 0.6, "noise", False),
    "noise": (2.2, 0.6, "noise", False),
    "schedule": (4.0, 0.6, "time", False),
    "UNet": (5.9, 0.6, "noise", True),
    "guidance": (7.6, 0.6, "noise", False),
    "sampler": (9.3, 0.6, "time", False),
    "latents": (9.3, 2.0, "latent", False),
    "VAE": (10.9, 2.0, "latent", True),
    "picture": (12.5, 2.0, "picture", False)}
WAYS = [("prompt", "tokens"), ("tokens", "text encoder"), ("text encoder", "context"),
        ("context", "UNet"), ("seed", "noise"), ("noise", "schedule"), ("schedule", "UNet"),
        ("UNet", "guidance"), ("guidance", "sampler"), ("sampler", "latents"),
        ("latents", "VAE"), ("VAE", "picture")]
WIDE, HIGH, GAP = 1.3, 0.62, 0.06
ARROW = {"arrowstyle": "-|>", "mutation_scale": 13, "color": INK, "linewidth": 1.3, "shrinkA": 0,
         "shrinkB": 0}


@house()
def path_map(*here: str) -> Figure:
    """The path with the stations named in `here` lit; networks are boxes with square corners.

    Raises ValueError for a station that is not on the map.
    """
    unknown = [name for name in here if name not in STATIONS]
    if unknown:
        raise ValueError(f"no station {unknown[0]!r} on the map: expected {', '.join(STATIONS)}")
    figure = blank(2.7)
    axes = figure.subplots()
    axes.set(xlim=(-0.2, 13.3), ylim=(-0.35, 2.5), aspect="equal")
    axes.axis("off")
    for a, b in WAYS:
        _way(axes, a, b)
    _again(axes)
    for name in STATIONS:
        _station(axes, name, lit=name in here)
    part = f"; this page: {', '.join(here)}" if len(here) < len(STATIONS) else ""
    entitle(figure, f"From a prompt to a picture{part}")
    return figure


def _station(axes: Axes, name: str, *, lit: bool) -> None:
    x, y, kind, network = STATIONS[name]
    colour = COLOURS[kind]
    axes.add_patch(FancyBboxPatch(
        (x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, linewidth=2.2 if network else 1.4,
        boxstyle="square,pad=0" if network else "round,pad=0,rounding_size=0.25",
        facecolor=colour if lit else "white", edgecolor=colour))
    axes.text(x, y, name.replace(" ", "\n"), ha="center", va="center", fontsize=11.5,
              color="white" if lit else INK)


def _way(axes: Axes, a: str, b: str) -> None:
    """An arrow from the edge of one station to the edge of the next."""
    (xa, ya, *_), (xb, yb, *_) = STATIONS[a], STATIONS[b]
    dx, dy = np.sign([xb - xa, yb - ya]) * (WIDE / 2 + GAP, HIGH / 2 + GAP)
    axes.annotate("", (xb - dx, yb - dy), (xa + dx, ya + dy), arrowprops=ARROW)


def _again(axes: Axes) -> None:
    """The loop: what the sampler leaves goes into the UNet at the next step."""
    (xs, ys, *_), (xu, *_) = STATIONS["sampler"], STATIONS["UNet"]
    low = ys - HIGH / 2 - 0.32
    axes.plot([xs, xs, xu, xu], [ys - HIGH / 2 - GAP, low, low, ys - HIGH / 2 - 0.2], color=INK,
              linewidth=1.3)
    axes.annotate("", (xu, ys - HIGH / 2 - GAP), (xu, low), arrowprops=ARROW)
    axes.text((xs + xu) / 2, low + 0.06, "x_t, at every step", ha="center", va="bottom",
              fontsize=9.5)
