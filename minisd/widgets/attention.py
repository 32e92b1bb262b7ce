"""The attention explorer: where the picture reads a word, in which layer, by which head, when.

One run of the sampler is recorded, only as far as somebody looks, and kept; after that every knob
but one is a look-up. The one is how strongly the word is read: at 1 the run is as it is, anything
else is another run, from the same seed, in which the weights of that word are multiplied.
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import isqrt

import ipywidgets
import torch
from torch import Tensor

from minisd.figures.pixels import lit, magnitude
from minisd.observe.attention_maps import (
    AttentionMap,
    attention_layers,
    edit_attention,
    record_attention,
    scale_word,
    word_maps,
)
from minisd.observe.preview import preview
from minisd.observe.tokens import word_tokens
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.settings import plan
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, KeptRun, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View, small

STEPS, RUNS = 20, 6             # of a run, and runs that are kept
SIDE = 320                      # pixels along each of the two pictures
EVERY, MEAN = "mean of all layers", "mean of the heads"
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)


def attention_explorer(sd: StableDiffusion, prompt: str = "", *, seed: int | None = None,
                       steps: int = STEPS) -> Explorer:
    """Look at every word of a prompt while its picture is painted.

    prompt, seed: the model's own examples unless given. Raises what sd.steps raises for arguments
    that make no sense.
    """
    example = examples(sd.config.name)
    reader = Reader(sd, prompt or example.story_prompt, example.seed if seed is None else seed,
                    steps)
    word = example.story_word if example.story_word in reader.words else list(reader.words)[1]
    board = {
        "word": knobs.buttons("Word", list(reader.words), word),
        "layer": knobs.choice("Layer", [EVERY, *reader.layers]),
        "head": knobs.choice("Head", [MEAN, *(f"head {i + 1}"
                                              for i in range(sd.config.unet.heads))]),
        "step": knobs.slider("Step", -(-steps // 2), 1, steps),
        "strength": ipywidgets.SelectionSlider(
            options=[(f"{factor:g}", factor) for factor in STRENGTHS], value=1.0,
            description="Its weight, times", continuous_update=False, **knobs.COMMON)}
    return Explorer("attention explorer", board, reader.frames, width=2 * SIDE + GAP,
                    memory=Memory(sd), live=small(sd.unet),
                    about=f"where “{reader.prompt}” is read")


class Reader:
    """The runs of one prompt, and what can be looked up in them."""

    def __init__(self, sd: StableDiffusion, prompt: str, seed: int, steps: int) -> None:
        if sd.tokenizer is None:
            raise ValueError("this model has no tokenizer: set sd.tokenizer to look at words")
        plan(sd.config, prompt, {"seed": seed, "steps": steps})     # refuses what makes no sense
        self.sd, self.prompt, self.seed, self.steps = sd, prompt, seed, steps
        self.words = word_tokens(sd.tokenizer, prompt)
        self.layers = {name.partition(".attention.")[0]: name
                       for name in attention_layers(sd.unet)}
        self.runs = Memory(sd, RUNS)

    def frames(self, at: Values) -> Generator[Frame, None, None]:
        """The run goes on until the step is reached, with a preview of each, and is then shown."""
        run, index = self.run(at["word"], at["strength"]), at["step"] - 1
        for frame in run.until(index):
            yield Frame(frame.done, frame.total, self._view(run, frame.done - 1, at),
                        f"Step {frame.done} of {self.steps} ...")
        if index not in run.pictures:
            yield Frame(index + 1, index + 2, self._view(run, index, at))
            run.pictures[index], = self.sd.decode(run.steps[index][0].x0)
        yield Frame(index + 2, index + 2, self._view(run, index, at),
                    f"Step {index + 1} of {self.steps}.")

    def run(self, word: str, strength: float) -> KeptRun:
        """The kept run, or a new one; with a word read as it is, all words share one."""
        key = ("", 1.0) if strength == 1 else (word, strength)
        return self.runs.get(key, lambda: KeptRun(
            lambda: self.sd.steps(self.prompt, seed=self.seed, steps=self.steps),
            partial(self._advance, *key)))

    def _advance(self, word: str, strength: float, run: Iterator[SampleStep]
                 ) -> tuple[SampleStep, list[AttentionMap]]:
        """One step, and maps of what each word, not each token, took after the multiplication."""
        with ExitStack() as stack:
            if strength != 1:
                edit = scale_word(self.words[word], strength)
                stack.enter_context(edit_attention(self.sd.unet, edit, rows=1))
            record = stack.enter_context(record_attention(self.sd.unet, rows=1))
            step = next(run)
        return step, [replace(entry, weights=torch.stack([
            entry.weights[..., tokens].float().sum(-1) for tokens in self.words.values()], -1))
            for entry in record]

    def heat(self, run: KeptRun, index: int, at: Values) -> Tensor:
        """The share of each cell's attention that the word takes, (side, side)."""
        maps = run.steps[index][1]
        if at["layer"] != EVERY:
            maps = [entry for entry in maps if entry.layer == self.layers[at["layer"]]]
        if at["layer"] != EVERY and at["head"] != MEAN:
            head = int(at["head"].removeprefix("head ")) - 1
            maps = [replace(entry, weights=entry.weights[:, head]) for entry in maps]
        side = isqrt(max(entry.weights.shape[-2] for entry in maps))
        return word_maps(maps, list(self.words).index(at["word"]), (side, side))

    def _view(self, run: KeptRun, index: int, at: Values) -> View:
        heat, decoded = self.heat(run, index, at), run.pictures.get(index)
        picture = decoded or preview(self.sd, run.steps[index][0].x0)[0]
        kind = "decoded" if decoded else "a preview"
        shown, how = (lit(picture, heat), "lit by the map") if heat.any() else (picture, "not lit")
        return View(sheet((SIDE, [
            (shown, f"x0, step {index + 1}, {kind}, {how}"),
            (magnitude(heat), f"“{at['word']}”, brightest: {heat.max():.1%}")])),
            self._text(heat, at))

    def _text(self, heat: Tensor, at: Values) -> str:
        tokens, every = len(self.words[at["word"]]), self.sd.config.text.max_length
        lines = [f"“{at['word']}” takes {heat.mean():.2%} of the attention, {heat.max():.2%} in "
                 f"the cell that reads it most; all {every} tokens alike would take "
                 f"{tokens / every:.2%}."]
        if at["layer"] == EVERY and at["head"] != MEAN:
            lines.append("Heads of different layers have nothing in common: choose a layer first.")
        if at["strength"] != 1:
            lines.append(f"In every layer and step, its weight is multiplied by "
                         f"{at['strength']:g}.")
        return "\n".join(lines)
