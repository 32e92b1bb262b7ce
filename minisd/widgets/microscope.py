"""The sampler microscope: one step of one sampler, as a sum of maps, in digits and in pictures."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import ipywidgets
from PIL import Image
from torch import Tensor

from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, SampleStep, make_rule
from minisd.widgets.engine import Frame
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View
from minisd.widgets.guidance import FULL, STEPS, STYLE, USUAL
from minisd.widgets.maps import GAP, LABEL_HIGH, Panel, largest, sheet, signed_picture
from minisd.widgets.recorded import Recorded

MAPS, MAP = 6, 120              # the largest sum has five terms and its result; pixels of each
PICTURE = 2 * MAP + GAP
WIDE, HIGH = MAPS * (MAP + GAP) - GAP, MAP + PICTURE + 2 * LABEL_HIGH + GAP

Paint = Callable[[Tensor], list[Image.Image]]       # latents -> pictures


@dataclass(frozen=True)
class Term:
    """One part of a step's sum: weight times values."""

    name: str
    weight: float
    values: Tensor              # (b, c, h, w)


def terms(steps: Sequence[SampleStep], index: int, sampler: str) -> list[Term]:
    """What x_prev of step number `index` is the sum of.

    steps: of a run from its start, up to that step at least. A step does not keep the noise it
    drew or the prediction it made ahead: they are what the other terms leave of x_prev.
    """
    step = steps[index]
    c, remembered = step.coefficients, "x0" if sampler == "dpm++2m" else "eps"
    found = [Term("x_t", c.x_t, step.x_t), Term("eps", c.eps, step.eps)]
    for ago, weight in enumerate(c.past, start=1):
        found.append(Term(f"{remembered}, {ago} ago", weight,
                          getattr(steps[index - ago], remembered)))
    for name, weight in (("noise", c.noise), ("eps ahead", c.ahead)):
        if weight:
            rest = step.x_prev - sum(term.weight * term.values for term in found)
            found.append(Term(name, weight, rest / weight))
    return found


def sampler_microscope(sd: StableDiffusion) -> Explorer:
    """Choose a sampler and a step: what the step takes of what, and what it makes of it."""
    words = examples(sd.config.name)
    runs: dict[tuple[str, float], Recorded] = {}

    def run_of(sampler: str, eta: float) -> Recorded:
        key = (sampler, eta if sampler == "ddim" else 0.0)
        if key not in runs:
            runs[key] = Recorded(partial(
                sd.steps, words.prompt, seed=words.seed, guidance_scale=USUAL, steps=STEPS,
                sampler=sampler, eta=key[1]))
        return runs[key]

    def view(run: Recorded, index: int, sampler: str, paint: Paint) -> View:
        step, sum_of = run.steps[index], terms(run.steps, index, sampler)
        pictures = [paint(state)[0] for state in (step.x_t, step.x0, step.x_prev)]
        return View(slide(sum_of, step, pictures), "\n".join([
            headline(run.steps, index), in_letters(sum_of), in_digits(sum_of, step),
            without_rescaling(sd, sampler, step)]))

    def frames(at: Values) -> Generator[Frame, None, None]:
        run, sampler, index = run_of(at["sampler"], at["eta"]), at["sampler"], at["step"] - 1
        for frame in run.until(index):
            yield replace(frame, value=view(run, len(run.steps) - 1, sampler, sd.preview))
        yield Frame(index + 1, index + 2, view(run, index, sampler, sd.preview))
        yield Frame(index + 2, index + 2, view(run, index, sampler, sd.decode),
                    " ".join(["Done.", *(f"Note: {note}." for note in run.notes)]))

    knobs = {
        "sampler": ipywidgets.Dropdown(options=list(SAMPLERS), value="ddim",
                                       description="Sampler", style=STYLE, layout=FULL),
        "eta": ipywidgets.FloatSlider(0, min=0, max=1, step=0.25, description="eta (ddim only)",
                                      readout_format=".2f", style=STYLE, layout=FULL),
        "step": ipywidgets.IntSlider(STEPS // 3, min=1, max=STEPS, description="Step",
                                     style=STYLE, layout=FULL)}
    return Explorer("sampler microscope", knobs, frames, width=WIDE,
                    about="a step as a sum of maps, and x_t, x0 and x_prev as pictures")


def slide(sum_of: Sequence[Term], step: SampleStep, pictures: Sequence[Image.Image]
          ) -> Image.Image:
    """The terms of channel 0 and their sum as maps on one scale; below, what the latents show."""
    shown = [(f"{term.weight:+.3f} {term.name}", term.weight * term.values) for term in sum_of]
    shown.append(("= x_prev", step.x_prev))
    limit = largest(*(values[0, 0] for _, values in shown))
    maps = [Panel(signed_picture(values[0, 0], limit), label, i * (MAP + GAP), 0, MAP)
            for i, (label, values) in enumerate(shown)]
    top = MAP + LABEL_HIGH + GAP
    below = [Panel(picture, label, i * (PICTURE + GAP), top, PICTURE)
             for i, (picture, label) in enumerate(zip(pictures, ("x_t", "x0", "x_prev"),
                                                      strict=True))]
    return sheet(WIDE, HIGH, [*maps, *below])


def headline(steps: Sequence[SampleStep], index: int) -> str:
    """Where the run stands, and what the step cost."""
    step = steps[index]
    before = steps[index - 1].evaluations if index else 0
    return (f"Step {index + 1} of {step.total}, at t = {step.t:.0f}. The UNet was asked "
            f"{times(step.evaluations - before)} for it, {times(step.evaluations)} in all.")


def times(count: int) -> str:
    """How often, in words."""
    return "once" if count == 1 else f"{count} times"


def in_letters(sum_of: Sequence[Term]) -> str:
    """x_prev as a weighted sum."""
    return "x_prev = " + " ".join(
        f"{'+-'[term.weight < 0]} {abs(term.weight):.4f} ({term.name})" for term in sum_of
    ).removeprefix("+ ")


def in_digits(sum_of: Sequence[Term], step: SampleStep) -> str:
    """The same sum at the cell in the middle of channel 0."""
    *_, height, width = step.x_t.shape
    row, column = height // 2, width // 2
    products = " ".join(f"{'+-'[term.weight < 0]} {abs(term.weight):.4f} * "
                        f"({float(term.values[0, 0, row, column]):.3f})" for term in sum_of)
    return (f"Channel 0, row {row}, column {column}: {products.removeprefix('+ ')} "
            f"= {float(step.x_prev[0, 0, row, column]):.3f}")


def without_rescaling(sd: StableDiffusion, sampler: str, step: SampleStep) -> str:
    """The weights of x_t and eps in x / sqrt(alpha_bar), where the signal keeps its size."""
    later = make_rule(sampler, sd.schedule, step.total).timesteps[step.index + 1:][:1]
    if not later:
        return "This is the last step: what is left of the noise goes."
    now, after = sd.schedule.at(step.t), sd.schedule.at(later[0])
    c = step.coefficients
    return (f"In x / sqrt(alpha_bar) the weights are {c.x_t * (now / after) ** .5:.4f} of the "
            f"present latents and {c.eps / after ** .5:+.4f} of eps.")
