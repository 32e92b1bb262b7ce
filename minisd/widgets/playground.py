"""The playground: a sentence, its opposite, and four knobs; the picture they make beside them."""

from collections.abc import Generator
from typing import Any

import ipywidgets

from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS
from minisd.widgets import knobs
from minisd.widgets.engine import Frame, Memory
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View, painting, small

MOST_STEPS, MOST_GUIDANCE = 100, 20.0
SMALLEST, LARGEST = 384, 512    # CSS pixels along the picture


class Playground(Explorer):
    """Knobs for `sd`; the last line of a notebook's cell shows them."""

    def __init__(self, sd: StableDiffusion) -> None:
        self.sd, example = sd, examples(sd.config.name)
        negative = knobs.words("Negative prompt", "")
        negative.placeholder = "what you do not want to see"
        board = {
            "prompt": knobs.words("Prompt", example.prompt), "negative_prompt": negative,
            "guidance": knobs.slider("Guidance scale", sd.config.guidance_scale, 0.0,
                                     MOST_GUIDANCE, 0.5),
            "steps": knobs.slider("Steps", sd.config.steps, 1, MOST_STEPS),
            "seed": knobs.words("Seed", str(example.seed)),
            "sampler": knobs.choice("Sampler", list(SAMPLERS), "ddim")}
        width = min(max(sd.config.image_size, SMALLEST), LARGEST)
        super().__init__("playground", board, self._frames, width=width, about="a painted picture",
                         memory=Memory(sd), live=small(sd.unet))
        self.next_seed = ipywidgets.Button(description="Next seed").add_class("minisd-next-seed")
        self.next_seed.on_click(self._next)
        self.buttons.children = (*self.buttons.children, self.next_seed)

    def _frames(self, at: Values) -> Generator[Frame, None, None]:
        run = self.sd.steps(at["prompt"], negative_prompt=at["negative_prompt"],
                            guidance_scale=at["guidance"], steps=at["steps"],
                            sampler=at["sampler"], seed=knobs.seed_of(at["seed"]))
        yield from painting(self.sd, run, lambda pictures, step: View(
            pictures[0], f"Step {step.index + 1} of {step.total}, {step.evaluations} evaluations "
                         f"of the UNet."))

    def _next(self, _: Any) -> None:
        self.knobs["seed"].value = str(knobs.seed_of(self.knobs["seed"].value) + 1)
        self.refresh()


playground = Playground
