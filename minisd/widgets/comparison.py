"""Two prompts side by side: one seed, one noise, and what the words that differ change."""

from collections.abc import Generator
from difflib import SequenceMatcher
from typing import NamedTuple

from PIL import Image

from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, MOVED, moved, sheet
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View, painting, small

SIDE = 240                      # pixels along each of the three pictures
STEPS = 12
SEEDS = 50                      # on the slider
MANY = 300                      # words of a prompt that are compared; no model reads as many


class Change(NamedTuple):
    """Words of the first prompt, and those that stand in their place; "" where there are none."""

    before: str
    after: str


def word_changes(first: str, second: str) -> tuple[Change, ...]:
    """What turns one prompt into the other, word by word."""
    a, b = first.split()[:MANY], second.split()[:MANY]
    return tuple(Change(" ".join(a[i:j]), " ".join(b[k:m])) for kind, i, j, k, m in
                 SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if kind != "equal")


def prompt_comparison(sd: StableDiffusion) -> Explorer:
    """Two prompts, painted together from one seed, and where their pictures differ."""
    example = examples(sd.config.name)
    first, second = example.keyword_prompts

    def frames(at: Values) -> Generator[Frame, None, None]:
        asked = (at["first"], at["second"])
        run = sd.steps(asked, guidance_scale=at["guidance"], seed=[at["seed"]] * 2, steps=STEPS)
        yield from painting(sd, run, view)

    board = {"first": knobs.words("First prompt", first),
             "second": knobs.words("Second prompt", second),
             "seed": knobs.slider("Seed", min(example.seed, SEEDS), 0, SEEDS),
             "guidance": knobs.slider("Guidance scale", sd.config.guidance_scale, -2.0, 20.0, 0.5)}
    return Explorer("prompt comparison", board, frames, width=3 * SIDE + 2 * GAP,
                    memory=Memory(sd), live=small(sd.unet),
                    about="two prompts from one seed, and their difference")


def view(pictures: list[Image.Image], step: SampleStep) -> View:
    """Both pictures and the size of their difference, from black to white."""
    difference = moved(*pictures)
    shown = [(pictures[0], "first"), (pictures[1], "second"),
             (Image.fromarray(difference.astype("uint8")), "difference")]
    apart = float((step.x0[0] - step.x0[1]).square().mean().sqrt())
    return View(sheet((SIDE, shown)), (
        f"Step {step.index + 1} of {step.total}: {(difference > MOVED).mean():.0%} of the pixels "
        f"differ by more than {MOVED} levels; x0 differs by {apart:.2f} (latents, root mean "
        f"square)."))
