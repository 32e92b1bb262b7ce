"""The token explorer: a sentence becomes buttons, one for each token; a pressed one shows how it
came to be, from its bytes, merge by merge.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
from PIL import Image, ImageDraw, ImageFont

from minisd.observe.tokens import join, readable, token_bytes
from minisd.pipeline import StableDiffusion
from minisd.tokenizer import END, END_OF_WORD, START, Tokenizer
from minisd.widgets.engine import Engine, Frame
from minisd.widgets.examples import examples
from minisd.widgets.pictures import COLOURS, card, mimebundle

FIRST_VIEW = 60.0               # seconds a cell waits for it, to have something to show on paper
TEXT = "#0356DC"                # the colour of text in figures/style.py
FOOTER = "A still picture: run this cell, and every token becomes a button."
ASCII = 128                     # the letters of the font that draws on paper
WIDE, HIGH, GAP, LETTERS = 680, 30, 8, 17       # pixels, of the drawing and of its boxes


@dataclass(frozen=True)
class Rung:
    """A word's symbols after one merge; the first rung, merge None, holds its bytes."""

    merge: int | None           # its rank among the merges, 0 is the first that was learned
    symbols: tuple[str, ...]

    @property
    def name(self) -> str:
        return "bytes" if self.merge is None else f"merge {self.merge:,}"


@dataclass(frozen=True)
class Chip:
    """One token of a prompt, or all of its padding."""

    place: int                  # 0 .. 76
    token: str                  # as in the vocabulary
    id: int
    places: int = 1             # more for padding
    ladder: tuple[Rung, ...] = ()       # of the word that it is part of; empty for start and end
    within: int = 0             # which of the last rung's symbols it is

    @property
    def merge(self) -> int | None:
        """The merge that made it; None for a single byte."""
        return next((rung.merge for rung in self.ladder if self.token in rung.symbols), None)

    @property
    def padding(self) -> bool:
        return self.places > 1

    @property
    def name(self) -> str:
        text = readable(self.token)
        return f"padding ({self.places} times {text})" if self.padding else text


@dataclass(frozen=True)
class Reading:
    """A prompt as the model sees it."""

    prompt: str
    chips: tuple[Chip, ...]
    notes: tuple[str, ...]      # what was dropped, what the model never saw


def token_explorer(sd: StableDiffusion) -> "TokenExplorer":
    """A sentence of your own as tokens of sd's vocabulary; the last line of a cell shows it.

    Raises ValueError for a model without a tokenizer.
    """
    if sd.tokenizer is None:
        raise ValueError("this model has no tokenizer to explore: put vocab.json and merges.txt "
                         "into a folder tokenizer/ beside its weights")
    return TokenExplorer(sd, sd.tokenizer)


# What is shown

class Reader:
    """Prompts to readings."""

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        self.tokenizer, self.model = tokenizer, model
        self.ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}

    def __call__(self, prompt: str) -> Reading:
        encoded = self.tokenizer.encode(prompt)
        found = self.tokenizer.backend.encode(prompt, add_special_tokens=False).tokens
        chips = [Chip(0, START, self.tokenizer.start_id)]
        for word in words(found):
            ladder = self.ladder(word)
            chips += [Chip(len(chips) + i, token, self.tokenizer.vocab[token], 1, ladder, i)
                      for i, token in enumerate(word)]
        del chips[encoded.length - 1:]                      # what did not fit
        chips.append(Chip(len(chips), END, self.tokenizer.end_id))
        spare = self.tokenizer.max_length - len(chips)
        if spare > 1:
            chips.append(Chip(len(chips), END, self.tokenizer.end_id, spare))
        elif spare:
            chips.append(Chip(len(chips), END, self.tokenizer.end_id))
        return Reading(prompt, tuple(chips), tuple(self._notes(prompt, encoded.dropped)))

    def ladder(self, word: Sequence[str]) -> tuple[Rung, ...]:
        """A word's way from bytes to tokens: at each rung the pair that was learned first joins."""
        if word[0] in (START, END):
            return ()
        letters = "".join(word).removesuffix(END_OF_WORD)
        symbols = [*letters[:-1], letters[-1] + END_OF_WORD]
        rungs = [Rung(None, tuple(symbols))]
        while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False)
                        if pair in self.ranks]:
            best = min(pairs, key=self.ranks.__getitem__)
            symbols = join(symbols, best)
            rungs.append(Rung(self.ranks[best], tuple(symbols)))
        return tuple(rungs)

    def _notes(self, prompt: str, dropped: str) -> list[str]:
        unseen = self.tokenizer.unseen_words(prompt)
        return [*[f"No room for {dropped!r}."] * bool(dropped),
                *[f"{self.model} never saw {', '.join(map(repr, unseen))}."] * bool(unseen)]


def words(tokens: Sequence[str]) -> list[list[str]]:
    """Tokens in the groups within which they were merged."""
    groups: list[list[str]] = [[]]
    for token in tokens:
        groups[-1].append(token)
        if token.endswith(END_OF_WORD) or token in (START, END):
            groups.append([])
    return [group for group in groups if group]


def described(chip: Chip, places: int) -> str:
    """A token in words."""
    if chip.padding:
        return (f"Places {chip.place} to {places - 1}: padding. The end token, id {chip.id:,}, "
                f"again and again.")
    what = f"Place {chip.place} of 0 to {places - 1}: {readable(chip.token)!r}, id {chip.id:,}"
    if not chip.ladder:
        return f"{what}. A control token: it stands for no letter."
    letters, born = token_bytes(chip.token), chip.merge
    return (f"{what}{'' if born is None else f' = {chip.id - born} + merge {born:,}'}. "
            f"{counted(len(letters), 'byte')}: {letters.hex(' ')}.")


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# The widget

class TokenExplorer:
    """The widget; `reading` is what it shows, `chip` the token that is pressed."""

    def __init__(self, sd: StableDiffusion, tokenizer: Tokenizer) -> None:
        self.reader = Reader(tokenizer, sd.config.name)
        self.reading: Reading | None = None
        self.engine = Engine(self._read, self._show)
        self.prompt = ipywidgets.Text(
            examples(sd.config.name).prompt, description="Prompt", continuous_update=True,
            layout={"width": "auto"})
        self.token = ipywidgets.ToggleButtons(
            options=[], description="Tokens", style={"button_width": "auto"})
        self.text = ipywidgets.HTML()
        for name in ("prompt", "token", "text"):
            getattr(self, name).add_class(f"minisd-{name}")
        self.engine.status.add_class("minisd-status")
        self.view = ipywidgets.VBox([self.prompt, self.token, self.text, self.engine.status],
                                    layout={"max_width": "60em"})
        self.view.add_class("minisd-token-explorer")
        self.engine.follow(self.view)
        self.prompt.observe(lambda _: self.read(), "value")
        self.token.observe(lambda _: self._describe(), "value")
        self.read()

    @property
    def chip(self) -> Chip | None:
        """The pressed token; None before the first prompt is read."""
        if self.reading is None or self.token.value is None:
            return None
        return self.reading.chips[min(self.token.value, len(self.reading.chips) - 1)]

    def read(self) -> None:
        """What the text field says."""
        self.engine.submit(self.prompt.value, "Reading ...")

    def _read(self, prompt: str) -> Generator[Frame, None, None]:
        reading = self.reader(prompt)
        own = sum(bool(chip.ladder) for chip in reading.chips)
        sizes = (counted(own, "token"), counted(len(prompt), "character"),
                 counted(len(prompt.encode()), "byte"))
        yield Frame(1, 1, reading, " ".join([f"{', '.join(sizes)}.", *reading.notes]))

    def _show(self, prompt: str, frame: Frame) -> None:
        self.reading = frame.value
        chips = self.reading.chips
        at = self.token.value
        if at is None:                          # at first: the one with the longest way
            at = max(range(len(chips)), key=lambda i: len(chips[i].ladder))
        self.token.options = [(chip.name, i) for i, chip in enumerate(chips)]
        self.token.value = min(at, len(chips) - 1)
        self._describe()

    def _describe(self) -> None:
        chip = self.chip
        if chip is not None:
            self.text.value = (f"<p>{escape(described(chip, self.reader.tokenizer.max_length))}"
                               f"</p>{ladder_html(chip)}")

    # On paper

    def __repr__(self) -> str:
        read = self.reading
        return f"token explorer: {read.prompt if read else self.prompt.value!r}, " + (
            f"{readable(self.chip.token)!r} pressed" if self.chip else "not read yet")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None
                          ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and a card with the same tokens for pages without a kernel."""
        self.engine.wait(FIRST_VIEW)
        reading, chip = self.reading, self.chip
        if reading is None or chip is None:
            return mimebundle(self.view, card(None, {"Prompt": self.prompt.value}, FOOTER),
                              repr(self))
        places = self.reader.tokenizer.max_length
        sheet = card(drawing(reading, chip), {"Prompt": reading.prompt},
                     f"{described(chip, places)}\n{FOOTER}")
        return mimebundle(self.view, sheet, repr(self))


def ladder_html(chip: Chip) -> str:
    """The rungs of a token's word as rows of boxes; the token itself is filled."""
    rows = []
    for i, rung in enumerate(chip.ladder):
        last = i == len(chip.ladder) - 1
        boxes = "".join(
            f'<span style="display: inline-block; margin: 2px 4px 2px 0; padding: 1px 8px; '
            f'border: 1px solid {TEXT}; border-radius: 4px; font-family: monospace'
            f'{f"; background: {TEXT}; color: white" if last and at == chip.within else ""}">'
            f'{escape(readable(symbol))}</span>' for at, symbol in enumerate(rung.symbols))
        rows.append(f'<tr><td style="padding-right: 1em; text-align: right">'
                    f'{rung.name}</td>'
                    f'<td style="text-align: left">{boxes}</td></tr>')
    return f"<table>{''.join(rows)}</table>" if rows else ""


def drawing(reading: Reading, chosen: Chip) -> Image.Image:
    """The tokens, and below them the rungs of the pressed one."""
    font = ImageFont.load_default(LETTERS)
    boxes: list[tuple[int, int, str, bool]] = []            # x, y, text, filled
    notes: list[tuple[int, int, str]] = []                  # without a box

    def row(texts: Sequence[tuple[str, bool]], left: int, top: int) -> int:
        """Boxes side by side, in as many lines as they need; returns where the next row begins."""
        x = left
        for text, filled in texts:
            width = round(font.getlength(text)) + 2 * GAP
            if x + width > WIDE and x > left:
                x, top = left, top + HIGH + GAP
            boxes.append((x, top, text, filled))
            x += width + GAP
        return top + HIGH + GAP

    y = row([(_on_paper(chip), chip is chosen) for chip in reading.chips], 0, 0) + 2 * GAP
    left = 110 if chosen.ladder else 0
    for i, rung in enumerate(chosen.ladder):
        last = i == len(chosen.ladder) - 1
        notes.append((0, y + 4, rung.name))
        y = row([(readable(symbol, below=ASCII), last and at == chosen.within)
                 for at, symbol in enumerate(rung.symbols)], left, y)
    sheet = Image.new("RGB", (WIDE + 1, y), COLOURS["paper"])
    pen = ImageDraw.Draw(sheet)
    for x, top, text, filled in boxes:
        right = x + round(font.getlength(text)) + 2 * GAP
        pen.rounded_rectangle((x, top, right, top + HIGH), 5, TEXT if filled else COLOURS["paper"],
                              TEXT)
        pen.text((x + GAP, top + 5), text, COLOURS["paper" if filled else "ink"], font)
    for x, top, text in notes:
        pen.text((x, top), text, COLOURS["ink"], font)
    return sheet


def _on_paper(chip: Chip) -> str:
    text = readable(chip.token, below=ASCII)
    return f"padding ({chip.places} x)" if chip.padding else text
