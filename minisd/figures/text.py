"""Text in pictures: tokens as chips, the 77 places of a prompt, a number for each of them."""

from collections.abc import Mapping
from itertools import islice

from matplotlib.patches import FancyBboxPatch, Patch
from torch import Tensor

from minisd.figures import style
from minisd.figures.pixels import array
from minisd.figures.style import COLOURS, ERROR, HEAD, WIDE, Figure, house, titled
from minisd.observe.tokens import readable
from minisd.tokenizer import Encoded

# The places of a prompt by what stands there: words have the colour of text.
KINDS = {"start": "#10264F", "word": COLOURS["text"], "end": "#10264F", "padding": "#C9CDD6"}
LEGEND = {"start, end": KINDS["start"], "word": KINDS["word"], "padding": KINDS["padding"]}
FONT_HAS = 0x2000               # and below: what the typeface is sure to have
LETTER, MARGIN, CHIP, LINE, GAP = 0.125, 0.2, 0.62, 0.8, 0.06      # inches, of chips
LABEL = 30                      # letters of a row's label


def kinds(encoded: Encoded) -> list[str]:
    """What stands at each place: "start", "word", "end" or "padding"."""
    words = encoded.length - 2
    return ["start", *["word"] * words, "end", *["padding"] * (len(encoded.ids) - words - 2)]


@house()
def token_chips(prompts: Mapping[str, Encoded], title: str, *, chosen: int = -1) -> Figure:
    """Each prompt's tokens from start to end, with their ids; the keys are the rows' labels.

    chosen: the place whose chips have a frame.
    """
    names = [style.printable(name, LABEL) for name in prompts]
    label, row = max(map(len, names)) * style.EM * HEAD / 72 + 0.3 * any(names), -1
    starts, chips = [], []                  # the row of each prompt; where each chip lies
    for one in prompts.values():
        x, row = label, row + 1
        starts.append(row)
        every = enumerate(zip(one.tokens, one.ids, kinds(one), strict=True))
        for place, (token, number, kind) in islice(every, one.length):
            text = readable(token, below=FONT_HAS)
            wide = MARGIN + LETTER * max(len(text), 0.8 * len(str(number)), 2)
            if x + wide > WIDE and x > label:
                x, row = label, row + 1
            chips.append((x, row, wide, text, number, kind, place == chosen))
            x += wide + GAP
    figure = titled(title, LINE * (row + 1) + 0.2)
    axes = figure.subplots()
    axes.set(xlim=(0, WIDE), ylim=(-LINE * (row + 1), 0))
    axes.axis("off")
    for name, at in zip(names, starts, strict=True):
        style.embolden(axes.text(0, -LINE * (at + 0.5), name, va="center"))
    for x, at, wide, text, number, kind, framed in chips:
        y = -LINE * (at + 0.5)
        axes.add_patch(FancyBboxPatch((x, y - CHIP / 2), wide, CHIP, facecolor=KINDS[kind],
                                      edgecolor=ERROR if framed else "none", linewidth=4,
                                      boxstyle="round,pad=0,rounding_size=0.1"))
        for up, words, size in ((0.12, text, HEAD), (-0.15, str(number), 10.5)):
            axes.text(x + wide / 2, y + up, words, ha="center", va="center", color="white",
                      fontsize=size)
    return figure


@house()
def place_bars(encoded: Encoded, values: Mapping[str, Tensor], ylabel: str, title: str) -> Figure:
    """One number for each of the 77 places, coloured by what stands there; a panel per key."""
    figure = titled(title, 1.9 * len(values) + 1.0)
    cells = figure.subplots(len(values), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    colours = [KINDS[kind] for kind in kinds(encoded)]
    for axes, (name, heights) in zip(cells, values.items(), strict=True):
        axes.bar(range(len(colours)), array(heights), color=colours)
        axes.set(title=style.wrapped(name, WIDE - 1, HEAD), xlim=(-0.7, len(colours) - 0.3))
        axes.grid(axis="x", visible=False)
    cells[-1].set_xlabel("place")
    figure.supylabel(ylabel, fontsize=HEAD)
    figure.legend(handles=[Patch(facecolor=colour, label=kind) for kind, colour in LEGEND.items()],
                  loc="outside lower center", ncols=len(LEGEND))
    return figure
