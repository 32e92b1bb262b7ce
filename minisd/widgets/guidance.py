"""Guidance to move: whole pictures on a slider.

Classifier-free guidance (Ho & Salimans 2022): eps = eps_uncond + g (eps_cond - eps_uncond).
"""

import time
from collections.abc import Generator

import ipywidgets
import numpy as np
from PIL import Image

from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.playground import SMALL

STEPS, FEW_STEPS = 12, 6        # of a run on the sliders, for small models and for large ones
LEAST, MOST, USUAL = -2.0, 20.0, 7.5        # guidance scales
SEEDS = 50                      # on the slider
LONG = 2.0                      # seconds from which on a run says how long it will still take
SIDE = 384                      # pixels along the picture
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


def guidance_explorer(sd: StableDiffusion) -> Explorer:
    """A slider for guidance and one for the seed; the picture paints itself while they move."""
    words = examples(sd.config.name)
    small = sum(p.numel() for p in sd.unet.parameters()) < SMALL
    steps = STEPS if small else FEW_STEPS

    def frames(at: Values) -> Generator[Frame, None, None]:
        began = time.perf_counter()
        run, early = heard(lambda: sd.steps(at["prompt"], guidance_scale=at["guidance"],
                                            seed=at["seed"], steps=steps))
        step, late = heard(lambda: next(run))
        while step.index < step.total - 1:
            yield Frame(step.index + 1, steps, View(sd.preview(step.x0)[0],
                                                    f"{equation(at['guidance'])}\n"),
                        remaining(time.perf_counter() - began, step))
            step = next(run)
        picture = sd.decode(step.x_prev)[0]
        notes = [f"Note: {note}." for note in dict.fromkeys(early + late)]
        seconds = time.perf_counter() - began
        yield Frame(steps, steps, View(picture, f"{equation(at['guidance'])}\n"
                                                f"{counted(at['guidance'], steps, picture)}"),
                    " ".join([f"Painted in {seconds:.1f} s.", *notes]))

    knobs = {
        "guidance": ipywidgets.FloatSlider(
            USUAL, min=LEAST, max=MOST, step=0.5, description="Guidance scale",
            readout_format=".1f", continuous_update=small, style=STYLE, layout=FULL),
        "seed": ipywidgets.IntSlider(
            min(words.seed, SEEDS), min=0, max=SEEDS, description="Seed",
            continuous_update=small, style=STYLE, layout=FULL),
        "prompt": ipywidgets.Text(words.prompt, description="Prompt", continuous_update=False,
                                  style=STYLE, layout=FULL)}
    return Explorer("guidance explorer", knobs, frames, width=SIDE, about="a picture on its way")


def equation(guidance: float) -> str:
    """What the run takes for the noise, in words and signs."""
    if guidance == 0:
        return "eps = eps_uncond: the prompt has no say"
    if guidance == 1:
        return "eps = eps_cond: the prompt, not exaggerated"
    return f"eps = eps_uncond + {guidance:g} * (eps_cond - eps_uncond)"


def counted(guidance: float, steps: int, picture: Image.Image) -> str:
    """The cost of a run, and what became of the picture's levels."""
    passes = steps if guidance in (0, 1) else 2 * steps
    levels = np.asarray(picture)
    ends = np.isin(levels, (0, 255)).mean()
    return (f"{passes} passes through the UNet; contrast {levels.std():.0f} of 255; "
            f"{ends:.0%} of the values at an end of the scale")


def remaining(seconds: float, step: SampleStep) -> str:
    """How long a run that is at `step` after so many seconds will still take, if it is long."""
    left = seconds / (step.index + 1) * (step.total - step.index - 1)
    return f"About {left:.0f} s to go." if left > LONG else ""
