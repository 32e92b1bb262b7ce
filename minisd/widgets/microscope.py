"""The sampler microscope: one step of one sampler, as a sum of maps, in digits and in pictures."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from minisd.figures.pixels import largest, signed
from minisd.observe.preview import preview
from minisd.pipeline import StableDiffusion
from minisd.samplers import SAMPLERS, SampleStep, make_sampler
from minisd.widgets import knobs
from minisd.widgets.drawing import GAP, sheet
from minisd.widgets.engine import Frame, Memory, Recorded
from minisd.widgets.examples import examples
from minisd.widgets.explorer import Explorer, Values, View, small

MAPS, MAP = 6, 140              # the largest sum has five terms and its result; pixels of each
PICTURE = 2 * MAP + GAP
STEPS = 12


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
    c, remembered = step.coefficients, "x0" if SAMPLERS[sampler].of_x0 else "eps"
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
    example, memory, live = examples(sd.config.name), Memory(sd), small(sd.unet)

    def frames(at: Values) -> Generator[Frame, None, None]:
        sampler, index = at["sampler"], at["step"] - 1
        eta = at["eta"] if sampler == "ddim" else 0.0
        run: Recorded = memory.get((sampler, eta), lambda: Recorded(lambda: sd.steps(
            example.prompt, seed=example.seed, steps=STEPS, sampler=sampler, eta=eta)))

        def view(at_step: int, paint: Callable[[Tensor], list[Image.Image]]) -> View:
            step, sum_of = run.steps[at_step], terms(run.steps, at_step, sampler)
            pictures = [paint(state)[0] for state in (step.x_t, step.x0, step.x_prev)]
            return View(slide(sum_of, step, pictures), "\n".join([
                headline(run.steps, at_step), in_digits(sum_of, step),
                without_rescaling(sd, sampler, step)]))

        for frame in run.until(index):
            yield replace(frame, value=view(len(run.steps) - 1, lambda x: preview(sd, x)))
        yield Frame(index + 1, index + 2, view(index, lambda x: preview(sd, x)))
        yield Frame(index + 2, index + 2, view(index, sd.decode))

    board = {"sampler": knobs.choice("Sampler", list(SAMPLERS), "ddim"),
             "eta": knobs.slider("eta (ddim only)", 0.0, 0.0, 1.0, 0.25, live=live),
             "step": knobs.slider("Step", STEPS // 3, 1, STEPS, live=live)}
    return Explorer("sampler microscope", board, frames, width=MAPS * (MAP + GAP) - GAP,
                    memory=memory, live=live,
                    about="a step as a sum of maps, and x_t, x0 and x_prev as pictures")


def slide(sum_of: Sequence[Term], step: SampleStep, pictures: Sequence[Image.Image]
          ) -> Image.Image:
    """The terms of channel 0 and their sum as maps on one scale; below, what the latents show."""
    shown = [(f"{term.weight:+.3f} {term.name}", term.weight * term.values) for term in sum_of]
    shown.append(("= x_prev", step.x_prev))
    limit = largest(*(values[0, 0] for _, values in shown))
    maps = [(signed(values[0, 0], limit), label) for label, values in shown]
    below = list(zip(pictures, ("x_t", "x0", "x_prev"), strict=True))
    return sheet((MAP, [*maps, *[(None, "")] * (MAPS - len(maps))]), (PICTURE, below))


def headline(steps: Sequence[SampleStep], index: int) -> str:
    """Where the run stands, and what the step cost."""
    step = steps[index]
    before = steps[index - 1].evaluations if index else 0
    return (f"Step {index + 1} of {step.total}, at t = {step.t:.0f}: {step.evaluations - before} "
            f"of {step.evaluations} network evaluations so far.")


def in_digits(sum_of: Sequence[Term], step: SampleStep) -> str:
    """x_prev as a weighted sum, by name, and at the cell in the middle of channel 0."""
    y, x = (side // 2 for side in step.x_t.shape[-2:])

    def added(parts: Sequence[str]) -> str:
        return " ".join(f"{'+-'[term.weight < 0]} {abs(term.weight):.4f} {part}" for term, part in
                        zip(sum_of, parts, strict=True)).removeprefix("+ ")

    values = [f"* ({float(term.values[0, 0, y, x]):.3f})" for term in sum_of]
    return (f"x_prev = {added([f'({term.name})' for term in sum_of])}\nChannel 0, row {y}, column "
            f"{x}: {added(values)} = {float(step.x_prev[0, 0, y, x]):.3f}")


def without_rescaling(sd: StableDiffusion, sampler: str, step: SampleStep) -> str:
    """The weights of x_t and eps in x / sqrt(alpha_bar), where the signal keeps its size."""
    levels = make_sampler(sampler, sd.schedule, step.total).alpha_bar[step.index:step.index + 2]
    if step.index + 1 == step.total:
        return "This is the last step: what is left of the noise goes."
    (now, after), c = levels, step.coefficients
    return (f"In x / sqrt(alpha_bar) the weights are {c.x_t * (now / after) ** .5:.4f} of the "
            f"present latents and {c.eps / after ** .5:+.4f} of eps.")
