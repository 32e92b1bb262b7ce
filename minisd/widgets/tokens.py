"""The token explorer: a sentence becomes buttons, one for each token; a pressed one shows how it
came to be, from its bytes, merge by merge.
"""

from collections.abc import Generator
from dataclasses import dataclass

from minisd.figures.style import as_picture, printable
from minisd.figures.text import FONT_HAS, token_chips
from minisd.observe.tokens import Rung, ladder, merged_together, readable, token_bytes
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import END
from minisd.widgets import knobs
from minisd.widgets.engine import Frame
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Request, Values, View

WIDE = 760                      # CSS pixels of the picture


@dataclass(frozen=True)
class Chip:
    """One token of a prompt, or all of its padding."""

    place: int                  # 0 .. 76
    token: str                  # as in the vocabulary
    id: int
    places: int = 1             # more for padding
    ladder: tuple[Rung, ...] = ()       # of the word that it is part of; empty for start and end

    @property
    def name(self) -> str:
        text = readable(self.token, below=FONT_HAS)
        return printable(f"padding ({self.places} times {text})" if self.places > 1 else text)


class TokenExplorer(Explorer):
    """A sentence of your own as tokens of sd's vocabulary, with a button for each of them.

    Raises ValueError for a model without a tokenizer.
    """

    def __init__(self, sd: StableDiffusion) -> None:
        if sd.tokenizer is None:
            raise ValueError("this model has no tokenizer to explore: put vocab.json and "
                             "merges.txt into a folder tokenizer/ beside its weights")
        self.tokenizer, prompt = sd.tokenizer, examples(sd.config.name).prompt
        self.ranks = {pair: rank for rank, pair in enumerate(self.tokenizer.merges)}
        chips = self.chips(prompt)                  # at first the one with the longest way
        longest = max(range(len(chips)), key=lambda i: len(chips[i].ladder))
        self.token = knobs.buttons("Tokens", self._options(prompt), longest)
        super().__init__("token explorer", {"prompt": knobs.words("Prompt", prompt, live=True),
                                            "token": self.token}, self._frames, width=WIDE,
                         about="the tokens of a prompt with their ids")

    def chips(self, prompt: str) -> list[Chip]:
        """The prompt as the model sees it."""
        encoded = self.tokenizer.encode(prompt)
        chips: list[Chip] = []
        for word in merged_together(encoded.tokens[:encoded.length]):
            rungs = ladder(word, self.ranks)
            chips += [Chip(len(chips) + i, token, encoded.ids[len(chips) + i], 1, rungs)
                      for i, token in enumerate(word)]
        spare = len(encoded.ids) - encoded.length
        return chips + [Chip(len(chips), END, self.tokenizer.end_id, spare)] * bool(spare)

    def _options(self, prompt: str) -> list[tuple[str, int]]:
        return [(chip.name, i) for i, chip in enumerate(self.chips(prompt))]

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        prompt, chips = at["prompt"], self.chips(at["prompt"])
        chip = chips[min(at["token"] or 0, len(chips) - 1)]
        self.tokenizer(prompt)                      # which warns of what is dropped or was unseen
        sizes = ", ".join((counted(sum(bool(one.ladder) for one in chips), "token"),
                           counted(len(prompt), "character"),
                           counted(len(prompt.encode()), "byte")))
        picture = as_picture(token_chips({"": self.tokenizer.encode(prompt)}, sizes,
                                         chosen=chip.place))
        yield Frame(1, 1, View(picture, described(chip, self.tokenizer.max_length)), f"{sizes}.")

    def _show(self, request: Request, frame: Frame) -> None:
        super()._show(request, frame)
        at, options = dict(request), self._options(dict(request)["prompt"])
        if tuple(options) != tuple(self.token.options):
            self.token.options = options            # whose value is then the first
            self.token.value = min(at["token"] or 0, len(options) - 1)


token_explorer = TokenExplorer


def described(chip: Chip, places: int) -> str:
    """A token in words, and below them the rungs that lead to it."""
    if chip.places > 1:
        return (f"Places {chip.place} to {places - 1}: padding. The end token, id {chip.id:,}, "
                f"again and again.")
    what = f"Place {chip.place} of 0 to {places - 1}: {readable(chip.token)!r}, id {chip.id:,}"
    if not chip.ladder:
        return f"{what}. A control token: it stands for no letter."
    letters = token_bytes(chip.token)
    born = next((rung.merge for rung in chip.ladder if chip.token in rung.symbols), None)
    rungs = [f"{rung.name}: {'  '.join(map(readable, rung.symbols))}" for rung in chip.ladder]
    return "\n".join([f"{what}{'' if born is None else f' = {chip.id - born} + merge {born:,}'}. "
                      f"{counted(len(letters), 'byte')}: {letters.hex(' ')}.", *rungs])


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
