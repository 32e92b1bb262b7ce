"""Guidance to move: one number of the guided sum in digits, and whole pictures on a slider.

Classifier-free guidance (Ho & Salimans 2022): eps = eps_uncond + g (eps_cond - eps_uncond).
"""

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image

from minisd.diffusion import guide
from minisd.pipeline import StableDiffusion
from minisd.samplers import SampleStep
from minisd.widgets.engine import Frame, heard
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, largest, sheet, signed_picture
from minisd.widgets.playground import SMALL
from minisd.widgets.recorded import Recorded

STEPS, FEW_STEPS = 12, 6        # of a run on the sliders, for small models and for large ones
LEAST, MOST, USUAL = -2.0, 20.0, 7.5        # guidance scales
SEEDS = 50                      # on the slider
LONG = 2.0                      # seconds from which on a run says how long it will still take
SIDE, MAP = 384, 168            # pixels along the picture, and along one map of the guided sum
STYLE = {"description_width": "10em"}
FULL = {"width": "auto"}


# Whole pictures

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


# One number

def guided_pixel(sd: StableDiffusion) -> Explorer:
    """The guided sum at one cell of the latents, in digits, beside the maps it comes from.

    The x_t are those of one run at the usual guidance, computed as far as they are looked at.
    """
    words = examples(sd.config.name)
    cells = sd.config.image_size // sd.config.vae.downscale
    run = Recorded(lambda: sd.steps(words.prompt, seed=words.seed, guidance_scale=USUAL,
                                    steps=STEPS))

    def frames(at: Values) -> Generator[Frame, None, None]:
        for frame in run.until(at["step"] - 1):
            yield replace(frame, value=shown(run.steps[-1], at))
        total = at["step"] + 1
        yield Frame(total, total, shown(run.steps[at["step"] - 1], at),
                    " ".join(["Done.", *(f"Note: {note}." for note in run.notes)]))

    def whole(value: int, high: int, name: str, low: int = 0) -> ipywidgets.IntSlider:
        return ipywidgets.IntSlider(value, min=low, max=high, description=name, style=STYLE,
                                    layout=FULL)

    knobs = {
        "guidance": ipywidgets.FloatSlider(
            USUAL, min=LEAST, max=MOST, step=0.5, description="Guidance scale",
            readout_format=".1f", style=STYLE, layout=FULL),
        "step": whole(STEPS // 3, STEPS, "Step of the run", low=1),
        "channel": whole(0, sd.config.unet.latent_channels - 1, "Channel"),
        "row": whole(cells // 2, cells - 1, "Row"),
        "column": whole(cells // 2, cells - 1, "Column")}
    return Explorer("guided pixel", knobs, frames, width=4 * MAP + 3 * GAP,
                    about="four maps of predicted noise: unconditional, conditional, their "
                          "difference, and the guided sum")


def shown(step: SampleStep, at: Values) -> View:
    """One step's sum as maps and in digits."""
    return View(sum_maps(step, at), sum_in_digits(step, at))


def sum_maps(step: SampleStep, at: Values) -> Image.Image:
    """eps_uncond, eps_cond, their difference and the guided sum, with the chosen cell framed."""
    uncond, cond, guided = predictions(step, at)
    limit, change = largest(uncond, cond), cond - uncond
    shown = [("eps_uncond", uncond, limit), ("eps_cond", cond, limit),
             (f"difference, {limit / largest(change):.0f} times", change, largest(change)),
             ("eps, guided", guided, limit)]
    panels = [Panel(signed_picture(values, scale), label, i * (MAP + GAP), 0, MAP,
                    mark=(at["row"], at["column"]))
              for i, (label, values, scale) in enumerate(shown)]
    return sheet(4 * MAP + 3 * GAP, MAP + LABEL_HIGH, panels)


def sum_in_digits(step: SampleStep, at: Values) -> str:
    """The sum at the chosen cell, and how much the prompt matters over the whole of x_t."""
    uncond, cond, guided = (float(values[at["row"], at["column"]])
                            for values in predictions(step, at))
    assert step.eps_uncond is not None and step.eps_cond is not None
    share = float((step.eps_cond - step.eps_uncond).norm() / step.eps_uncond.norm())
    return (f"t = {step.t:.0f}, channel {at['channel']}, row {at['row']}, column {at['column']}\n"
            f"impact of the prompt = {cond:.3f} - ({uncond:.3f}) = {cond - uncond:+.3f}\n"
            f"eps = {uncond:.3f} + {at['guidance']:g} * ({cond - uncond:+.3f}) = {guided:.3f}\n"
            f"Over all cells and channels the impact is {share:.1%} as large as eps_uncond.")


def predictions(step: SampleStep, at: Values) -> list[Any]:
    """eps_uncond, eps_cond and the guided sum, of the chosen channel, (h, w) each."""
    assert step.eps_uncond is not None and step.eps_cond is not None
    guided = guide(step.eps_uncond, step.eps_cond, at["guidance"])
    return [eps[0, at["channel"]] for eps in (step.eps_uncond, step.eps_cond, guided)]
