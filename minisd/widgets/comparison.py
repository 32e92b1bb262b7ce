"""Two prompts side by side: one seed, one noise, and what the words that differ change."""

from collections.abc import Generator
from dataclasses import dataclass
from difflib import SequenceMatcher

import ipywidgets
import numpy as np
from PIL import Image, ImageChops

from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.guidance import FEW_STEPS, FULL, LEAST, MOST, SEEDS, SMALL, STYLE, USUAL
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, sheet

SIDE = 240                      # pixels along each of the three pictures
WIDE, HIGH = 3 * SIDE + 2 * GAP, SIDE + LABEL_HIGH
STEPS = 8                       # of each run, for small models: there are two at a time
MOVED = 32                      # grey levels from which on a pixel counts as changed


@dataclass(frozen=True)
class Change:
    """Words of the first prompt, and those that stand in their place; "" where there are none."""

    before: str
    after: str


def word_changes(first: str, second: str) -> list[Change]:
    """What turns one prompt into the other, word by word."""
    a, b = first.split(), second.split()
    return [Change(" ".join(a[i:j]), " ".join(b[k:m])) for kind, i, j, k, m in
            SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if kind != "equal"]


def prompt_comparison(sd: StableDiffusion, prompts: tuple[str, str] | None = None) -> Explorer:
    """Two prompts, painted together from one seed, and where their pictures differ."""
    words = examples(sd.config.name)
    first, second = prompts or words.keyword_prompts
    small = sum(p.numel() for p in sd.unet.parameters()) < SMALL
    steps = STEPS if small else FEW_STEPS

    def frames(at: Values) -> Generator[Frame, None, None]:
        asked = (at["first"], at["second"])
        runs, early = heard(lambda: [sd.steps(prompt, guidance_scale=at["guidance"],
                                              seed=at["seed"], steps=steps) for prompt in asked])
        pair, late = heard(lambda: [next(run) for run in runs])         # reads the prompts
        while pair[0].index < steps - 1:
            yield Frame(pair[0].index + 1, steps + 1,
                        view(asked, [sd.preview(step.x0)[0] for step in pair], pair))
            pair = [next(run) for run in runs]
        notes = [f"Note: {note}." for note in dict.fromkeys(early + late)]
        painted = [sd.decode(step.x_prev)[0] for step in pair]
        yield Frame(steps + 1, steps + 1, view(asked, painted, pair),
                    " ".join(["Done.", *notes]))

    def text(value: str, name: str) -> ipywidgets.Text:
        return ipywidgets.Text(value, description=name, continuous_update=False, style=STYLE,
                               layout=FULL)

    knobs = {
        "first": text(first, "First prompt"), "second": text(second, "Second prompt"),
        "seed": ipywidgets.IntSlider(min(words.seed, SEEDS), min=0, max=SEEDS, description="Seed",
                                     continuous_update=small, style=STYLE, layout=FULL),
        "guidance": ipywidgets.FloatSlider(
            USUAL, min=LEAST, max=MOST, step=0.5, description="Guidance scale",
            readout_format=".1f", continuous_update=small, style=STYLE, layout=FULL)}
    return Explorer("prompt comparison", knobs, frames, width=WIDE,
                    about="two prompts from one seed, and their difference")


def view(asked: tuple[str, str], pictures: list[Image.Image], pair: list[SampleStep]) -> View:
    """Both pictures and the size of their difference, from black to white."""
    difference = np.asarray(ImageChops.difference(*pictures)).max(2)
    panels = [Panel(picture, label, i * (SIDE + GAP), 0, SIDE) for i, (picture, label) in
              enumerate([*zip(pictures, ("first", "second"), strict=True),
                         (Image.fromarray(difference).convert("RGB"), "difference")])]
    apart = float((pair[0].x0 - pair[1].x0).square().mean().sqrt())
    return View(sheet(WIDE, HIGH, panels), "\n".join([
        told(word_changes(*asked)), f"Step {pair[0].index + 1} of {pair[0].total}: "
        f"{(difference > MOVED).mean():.0%} of the pixels differ by more than {MOVED} levels; x0 "
        f"differs by {apart:.2f} (latents, root mean square)."]))


def told(changes: list[Change]) -> str:
    """The changes in one sentence."""
    if not changes:
        return "The prompts are the same, and so are the pictures."
    return "; ".join(f"“{change.before}” becomes “{change.after}”" if change.before and change.after
                     else f"“{change.after}” is added" if change.after
                     else f"“{change.before}” is gone" for change in changes)
