"""Inside the UNet, in pictures: the waves of time, what its layers hold, what its skips carry."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import cosine_similarity

from minisd.figures.style import COLOURS, HOUSE, INK, PALE, SIGNED, Figure, blank, entitle, percent

FIRST = 250                     # timesteps in the map of waves; more would blur the fast ones
MAPS = 4                        # channels of a stage that are shown
WIDEST = 12.0                   # inches, of a row of maps


# Time

@rc_context(HOUSE)
def time_waves(embeddings: Tensor, t: int) -> Figure:
    """Embeddings (T, dim) of all timesteps as a map, and how much each resembles that of t."""
    values = embeddings.float().cpu()
    total, dim = values.shape
    likeness = cosine_similarity(values, values[t:t + 1]).numpy()
    figure = blank(10.5, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    shown = left.imshow(values[:FIRST].T.numpy(), cmap=SIGNED, vmin=-1, vmax=1, aspect="auto",
                        interpolation="nearest")
    left.grid(False)
    left.axhline(dim / 2 - 0.5, color=INK, linewidth=1)
    left.set(xlabel="timestep t", ylabel="component", title="cosines above, sines below")
    figure.colorbar(shown, ax=left, ticks=[-1, 0, 1])
    right.plot(likeness, color=COLOURS["time"])
    right.axvline(t, color=INK, linewidth=1, linestyle=":")
    right.set(xlabel="timestep t", ylabel="cosine similarity", ylim=(min(0, likeness.min()), 1.05),
              title=f"likeness to t = {t}")
    near, far = min(t + 10, total - 1), 0 if t >= total / 2 else total - 1
    entitle(figure, f"Neighbours in time look alike: t = {near} resembles t = {t} by "
                    f"{likeness[near]:.2f}, t = {far} by {likeness[far]:.2f}")
    return figure


@rc_context(HOUSE)
def told_times(told: Sequence[int], errors: Sequence[float], t: int) -> Figure:
    """How wrong the predicted noise is when the UNet is told these times and the truth is t."""
    best = told[int(np.argmin(errors))]
    figure = blank(8, 3.6)
    axes = figure.subplots()
    axes.plot(told, errors, "o-", color=COLOURS["time"])
    axes.axvline(t, color=INK, linewidth=1.2, linestyle=":")
    axes.annotate(f"the truth, t = {t}", (t, max(errors)), xytext=(6, 0),
                  textcoords="offset points", va="top", fontsize=11.5)
    axes.set(xlabel="the time that the UNet is told", ylim=(0, None),
             ylabel="error of the noise\n(1: as large as the noise)")
    entitle(figure, f"The error is least ({min(errors):.2f}) when it is told t = {best}, and "
                    f"{max(errors) / min(errors):.1f} times as large at worst")
    return figure


# What the layers hold

@rc_context(HOUSE)
def feature_maps(stages: Mapping[str, Tensor], title: str, *, channels: int = MAPS) -> Figure:
    """The most varied channels of each stage's (c, h, w), a column for each; 0 is white."""
    side = min(1.25, WIDEST / len(stages))
    figure = blank(side * len(stages) + 0.4, (side + 0.1) * channels + 1.0)
    cells = figure.subplots(channels, len(stages), squeeze=False)
    for column, (name, values) in enumerate(stages.items()):
        picked = most_varied(values, channels)
        size = " x ".join(map(str, values.shape))
        cells[0, column].set_title(f"{name}\n{size}", loc="center", fontsize=10.5)
        for row, channel in enumerate(picked):
            _signed(cells[row, column], values[channel])
            cells[row, column].set_xlabel(f"ch. {channel}", fontsize=10.5, labelpad=1)
        for row in range(len(picked), channels):
            cells[row, column].axis("off")
    entitle(figure, title)
    return figure


def most_varied(values: Tensor, count: int) -> list[int]:
    """The channels of (c, h, w) whose cells differ most from each other, in ascending order."""
    spread = values.float().flatten(1).std(dim=1)
    return sorted(spread.topk(min(count, len(spread))).indices.tolist())


def _signed(axes: Axes, values: Tensor) -> None:
    """One map (h, w), blue below 0, red above."""
    pixels = values.float().cpu().numpy()
    top = float(np.abs(pixels).max()) or 1.0
    axes.imshow(pixels, cmap=SIGNED, vmin=-top, vmax=top, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


@rc_context(HOUSE)
def along_the_u(stages: Sequence[str], same_picture: Sequence[float],
                same_noise: Sequence[float], neither: Sequence[float]) -> Figure:
    """What each stage keeps when the noise, or the picture under it, is exchanged: correlations.

    neither: when both are, which is how much alike any two of its maps are.
    """
    figure = blank(9.5, 3.9)
    axes = figure.subplots()
    places = range(len(stages))
    for values, kind, marker, label in (
            (same_picture, "picture", "o", "the same picture, other noise"),
            (same_noise, "noise", "s", "the same noise, another picture")):
        axes.plot(places, values, f"{marker}-", color=COLOURS[kind], label=label)
    axes.plot(places, neither, "--", color=INK, alpha=PALE, label="neither")
    axes.set_xticks(places, stages)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(ylabel="correlation\nof the feature maps")
    figure.legend(loc="outside lower center", ncols=3, fontsize=12)
    top = int(np.argmax(same_picture))
    entitle(figure, f"The picture shows most at “{stages[top]}” (correlation "
                    f"{same_picture[top]:.2f}); what comes out at the end is noise "
                    f"({same_noise[-1]:.2f})")
    return figure


@rc_context(HOUSE)
def skip_bars(names: Sequence[str], changes: Sequence[float]) -> Figure:
    """How far the predicted noise moves when one skip is set to zero, for each of them."""
    figure = blank(9, 0.36 * len(names) + 1.6)
    axes = figure.subplots()
    axes.barh(list(names), [100 * change for change in changes], color=COLOURS["latent"])
    axes.invert_yaxis()
    axes.set(xlabel="change of the predicted noise, % of its size",
             ylabel="skip, in the order\nin which they are taken up")
    worst = int(np.argmax(changes))
    entitle(figure, f"Cutting “{names[worst]}” changes the noise most: by "
                    f"{percent(changes[worst])}")
    return figure
