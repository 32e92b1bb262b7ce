"""The attention explorer: where the picture reads a word, in which layer, by which head, when.

One run of the sampler is recorded, only as far as somebody looks, and kept; after that every knob
but one is a look-up. The one is how strongly the word is read: at 1 the run is as it is, anything
else is another run, from the same seed, in which the weights of that word are multiplied.
"""

from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isqrt

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minisd.observe.attention_maps import (
    attention_layers,
    edit_attention,
    record_attention,
    scale_word,
)
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.tokenizer import Tokenizer
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet

SMALL = 100_000_000             # parameters of a UNet that paints while one looks
STEPS, FEW_STEPS = 20, 10       # of a run, for a small model and for a large one
RUNS = 6                        # that are kept
SIDE = 300                      # pixels along each of the two pictures
DARK = 0.15                     # what is left of the light where the word is not read
EVERY, MEAN = "mean of all layers", "mean of the heads"
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
# viridis (Smith and van der Walt 2015), in equal steps from 0 to 1.
HEAT = np.array([(68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
                 (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44),
                 (253, 231, 37)], float)
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


def attention_explorer(sd: StableDiffusion, prompt: str = "", *, seed: int | None = None,
                       steps: int | None = None) -> Explorer:
    """Look at every word of a prompt while its picture is painted.

    prompt, seed: the model's own examples unless given. steps: of the run; 20 unless the model is
    large. Raises what sd.steps raises for arguments that make no sense.
    """
    example, small = examples(sd.config.name), sum(p.numel() for p in sd.unet.parameters()) < SMALL
    reader = Reader(sd, prompt or example.story_prompt, example.seed if seed is None else seed,
                    (STEPS if small else FEW_STEPS) if steps is None else steps, small=small)
    word = example.story_word if example.story_word in reader.words else list(reader.words)[1]
    knobs = {
        "word": ipywidgets.ToggleButtons(
            options=list(reader.words), value=word, description="Word",
            style={**STYLE, "button_width": "auto"}, layout=FULL),
        "layer": ipywidgets.Dropdown(options=[EVERY, *reader.layers], description="Layer",
                                     style=STYLE, layout=FULL),
        "head": ipywidgets.Dropdown(
            options=[MEAN, *(f"head {i + 1}" for i in range(sd.config.unet.heads))],
            description="Head", style=STYLE, layout=FULL),
        "step": ipywidgets.IntSlider(
            -(-reader.steps // 2), min=1, max=reader.steps, description="Step",
            continuous_update=small, style=STYLE, layout=FULL),
        "strength": ipywidgets.SelectionSlider(
            options=[(f"{factor:g}", factor) for factor in STRENGTHS], value=1.0,
            description="Its weight, times", continuous_update=False, style=STYLE, layout=FULL)}
    return Explorer("attention explorer", knobs, reader.frames, width=2 * SIDE + GAP,
                    about=f"where “{reader.prompt}” is read")


def word_tokens(tokenizer: Tokenizer, prompt: str) -> dict[str, list[int]]:
    """The positions of each word's tokens: "start" and the words, then "end" and "padding".

    A word that comes again is numbered, as in "a (2)".
    """
    encoded, found, begin = tokenizer.encode(prompt), dict[str, list[int]](), 1
    found["start"] = [0]
    for i in range(1, encoded.length - 1):
        if encoded.tokens[i].endswith("</w>") or i == encoded.length - 2:
            text = tokenizer.decode(encoded.ids[begin:i + 1]) or encoded.tokens[i]
            found[_unused(text, found)] = list(range(begin, i + 1))
            begin = i + 1
    found[_unused("end", found)] = [encoded.length - 1]
    if encoded.length < len(encoded.ids):
        found[_unused("padding", found)] = list(range(encoded.length, len(encoded.ids)))
    return found


def _unused(text: str, taken: dict[str, list[int]]) -> str:
    number = 1 + sum(name == text or name.startswith(f"{text} (") for name in taken)
    return text if number == 1 else f"{text} ({number})"


@dataclass
class Run:
    """One run as far as it has gone."""

    steps: Iterator[SampleStep]
    seen: list[SampleStep] = field(default_factory=list)
    maps: list[dict[str, Tensor]] = field(default_factory=list)     # layer -> (heads, n, words)
    pictures: dict[int, Image.Image] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)      # warnings that it gave, each once


class Reader:
    """The runs of one prompt, and what can be looked up in them."""

    def __init__(self, sd: StableDiffusion, prompt: str, seed: int, steps: int, *,
                 small: bool) -> None:
        if sd.tokenizer is None:
            raise ValueError("this model has no tokenizer: set sd.tokenizer to look at words")
        self.sd, self.prompt, self.seed, self.steps, self.small = sd, prompt, seed, steps, small
        self.words = word_tokens(sd.tokenizer, prompt)
        self.layers = {name.partition(".attention.")[0]: name
                       for name in attention_layers(sd.unet)}
        self.runs: OrderedDict[tuple[str, float], Run] = OrderedDict()
        self._run("", 1.0)                  # what makes no sense is refused here

    def frames(self, at: Values) -> Generator[Frame, None, None]:
        """The run goes on until the step is reached, with a preview of each, and is then shown."""
        run, notes = heard(lambda: self._run(at["word"], at["strength"]))
        run.notes += notes
        index, total = at["step"] - 1, at["step"] + 1
        while len(run.seen) <= index:
            try:
                _, more = heard(lambda: self._advance(run, at["word"], at["strength"]))
            except BaseException:
                self.runs.clear()           # a generator that has raised does not go on
                raise
            run.notes = list(dict.fromkeys(run.notes + more))
            done = len(run.seen)
            yield Frame(done, total, self._view(run, done - 1, at, quick=True),
                        " ".join(run.notes) or f"Step {done} of {self.steps} ...")
        if index not in run.pictures:
            yield Frame(index + 1, total, self._view(run, index, at, quick=True))
        yield Frame(total, total, self._view(run, index, at, quick=False),
                    " ".join(run.notes) or f"Step {index + 1} of {self.steps}.")

    def _run(self, word: str, strength: float) -> Run:
        """The kept run, or a new one; with a word read as it is, all words share one."""
        key = ("", 1.0) if strength == 1 else (word, strength)
        if key not in self.runs:
            steps = self.sd.steps(self.prompt, seed=self.seed, steps=self.steps)
            self.runs[key] = Run(steps)
            while len(self.runs) > RUNS:
                self.runs.popitem(last=False)
        self.runs.move_to_end(key)
        return self.runs[key]

    def _advance(self, run: Run, word: str, strength: float) -> None:
        """One step. What a word takes is recorded before it is multiplied."""
        with ExitStack() as stack:
            record = stack.enter_context(record_attention(self.sd.unet, rows=1))
            if strength != 1:
                edit = scale_word(self.words[word], strength)
                stack.enter_context(edit_attention(self.sd.unet, edit, rows=1))
            step = next(run.steps)
        run.maps.append({entry.layer: self._by_word(entry.weights[0]) for entry in record})
        run.seen.append(step)

    def _by_word(self, weights: Tensor) -> Tensor:
        """(heads, n, 77) -> (heads, n, words): the tokens of a word are added up."""
        return torch.stack([weights[..., tokens].float().sum(-1)
                            for tokens in self.words.values()], dim=-1)

    def _view(self, run: Run, index: int, at: Values, *, quick: bool) -> View:
        heat = self.heat(run, index, at)
        picture = self._picture(run, index, quick=quick)
        kind = "a preview" if quick and index not in run.pictures else "decoded"
        panels = [Panel(_lit(picture, heat), f"x0 after step {index + 1}, {kind}", 0, 0, SIDE),
                  Panel(_coloured(heat), f"“{at['word']}”, brightest: {heat.max():.1%}",
                        SIDE + GAP, 0, SIDE)]
        return View(sheet(2 * SIDE + GAP, SIDE + LABEL_HIGH, panels), self._text(heat, at))

    def _picture(self, run: Run, index: int, *, quick: bool) -> Image.Image:
        if index in run.pictures:
            return run.pictures[index]
        x0 = run.seen[index].x0
        if quick:
            return self.sd.preview(x0)[0]
        run.pictures[index], = self.sd.decode(x0)
        return run.pictures[index]

    def heat(self, run: Run, index: int, at: Values) -> Tensor:
        """The share of each cell's attention that the word takes, (side, side)."""
        column, maps = list(self.words).index(at["word"]), run.maps[index]
        chosen = list(maps.values()) if at["layer"] == EVERY else [maps[self.layers[at["layer"]]]]
        heads = slice(None)
        if at["head"] != MEAN and at["layer"] != EVERY:
            head = int(at["head"].removeprefix("head ")) - 1
            heads = slice(head, head + 1)
        shares = [weights[heads, :, column].mean(0) for weights in chosen]      # n
        side = isqrt(max(map(len, shares)))
        squares = [share.view(1, 1, isqrt(len(share)), -1) for share in shares]
        return torch.cat([F.interpolate(square, (side, side), mode="bilinear")[0]
                          for square in squares]).mean(0)

    def _text(self, heat: Tensor, at: Values) -> str:
        tokens, every = len(self.words[at["word"]]), self.sd.config.text.max_length
        lines = [f"“{at['word']}” takes {heat.mean():.2%} of the attention, {heat.max():.2%} in "
                 f"the cell that reads it most; all {every} tokens alike would take "
                 f"{tokens / every:.2%}."]
        if at["layer"] == EVERY and at["head"] != MEAN:
            lines.append("Heads of different layers have nothing in common: choose a layer first.")
        if at["strength"] != 1:
            lines.append(f"In every layer and step, what it takes is multiplied by "
                         f"{at['strength']:g}.")
        return "\n".join(lines)


def _lit(picture: Image.Image, heat: Tensor) -> Image.Image:
    """The picture, as bright as the map (h, w) says, relative to its maximum."""
    light = F.interpolate((heat / heat.max().clamp(min=1e-9))[None, None],
                          (picture.height, picture.width), mode="bilinear")[0, 0, ..., None]
    pixels = np.asarray(picture.convert("RGB"), float) * (DARK + (1 - DARK) * light.numpy())
    return Image.fromarray(pixels.round().astype(np.uint8))


def _coloured(heat: Tensor) -> Image.Image:
    """The map itself, a pixel per cell, from 0 to its maximum."""
    shares = (heat / heat.max().clamp(min=1e-9)).numpy()
    at = np.linspace(0, 1, len(HEAT))
    levels = np.stack([np.interp(shares, at, anchors) for anchors in HEAT.T], axis=-1)
    return Image.fromarray(levels.round().astype(np.uint8))
