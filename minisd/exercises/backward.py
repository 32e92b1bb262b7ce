"""Exercises on the way from noise to a picture: snapshots, a map of runs, edits, and prompts."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minisd.diffusion import add_noise
from minisd.exercises.checking import Answer, Mistake, Verdict, as_tensor, compare
from minisd.observe.pca import principal_plane
from minisd.observe.trace import snapshot_marks

# Backward diffusion

def check_snapshot_marks(answer: Answer | None) -> Verdict:
    """answer(steps, ratio): the numbers of steps done at 0, ratio, 2 ratio, ... and 100 %."""
    cases: list[tuple[Any, ...]] = [(50, 0.25), (10, 0.3), (100, 0.29), (40, 0.1)]
    return compare(_as_list(answer), cases=cases, right=snapshot_marks,
                   hint="multiply 0, ratio, 2 ratio, ... by steps, round down, and end with steps.",
                   mistakes=[
        Mistake("Float dust: 0.29 * 100 is 28.999999999999996 and rounds down to 28. Add a little, "
                "such as 1e-9, before you round.",
                lambda n, r: sorted({int(i * r * n) for i in range(int(1 / r + 1e-9) + 1)} | {n})),
        Mistake("The end is missing where the ratio does not divide 1: 100 % belongs to it.",
                lambda n, r: [int(i * r * n + 1e-9) for i in range(int(1 / r + 1e-9) + 1)]),
        Mistake("The end is missing: range stops before its last number, and 100 % belongs to it.",
                lambda n, r: [m for m in snapshot_marks(n, r) if m < n]),
        Mistake("The beginning is missing: at 0 steps done you see the starting noise.",
                lambda n, r: snapshot_marks(n, r)[1:]),
        Mistake("Both ends are missing: 0 is the starting noise, and the last one the result.",
                lambda n, r: snapshot_marks(n, r)[1:-1]),
        Mistake("You rounded to the nearest. A step that is not finished does not count: round "
                "down.",
                lambda n, r: sorted({round(i * r * n) for i in range(int(1 / r + 1e-9) + 1)}
                                    | {n})),
        Mistake("You rounded up. A step that is not finished does not count: round down.",
                lambda n, r: sorted({math.ceil(i * r * n - 1e-9)
                                     for i in range(int(1 / r + 1e-9) + 1)} | {n})),
        Mistake("Those are shares of the run. Multiply them by the number of steps.",
                lambda n, r: [i * r for i in range(int(1 / r + 1e-9) + 1)]),
    ])


def check_pca(answer: Answer | None) -> Verdict:
    """answer(points): points (n, d) on their two principal axes, (n, 2); axes may point anywhere.
    """
    g = torch.Generator().manual_seed(9)
    spread = torch.tensor([3.0, 0.5, 2.0, 0.2, 1.0])
    points = torch.randn(11, 5, generator=g) * spread + torch.tensor([2.0, -6.0, 0.5, 4.0, 1.0])

    def svd(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.linalg.svd(values, full_matrices=False)

    def centred(values: Tensor) -> Tensor:
        return values - values.mean(0)

    return compare(_turned(answer), cases=[(points,), (points[:7] * 2 - 3,)],
                   right=lambda p: _one_way(principal_plane(p).project(p)),
                   hint="subtract the mean point, take U, S, Vh = torch.linalg.svd(...), and "
                        "project on the first two rows of Vh.",
                   mistakes=[Mistake(words, _sure(turned)) for words, turned in [
        ("The points are not centred: the first axis then runs from 0 to the cloud, not along it. "
         "Subtract points.mean(0).", lambda p: p @ svd(p)[2][:2].T),
        ("The axes come from points that are not centred. Subtract points.mean(0) before the svd "
         "too.", lambda p: centred(p) @ svd(p)[2][:2].T),
        ("You subtracted one number. Each coordinate has a mean of its own: points.mean(0).",
         lambda p: (p - p.mean()) @ svd(p - p.mean())[2][:2].T),
        ("The mean runs along the wrong axis: points.mean(0) is the middle of all points.",
         lambda p: (p - p.mean(1, keepdim=True)) @ svd(p - p.mean(1, keepdim=True))[2][:2].T),
        ("You took columns of Vh. Its rows are the axes: Vh[:2].T.",
         lambda p: centred(p) @ svd(centred(p))[2][:, :2]),
        ("U alone has lost the distances: multiply it by S, or project the points on the axes.",
         lambda p: svd(centred(p))[0][:, :2]),
        ("Those are the last two axes, along which the points vary least. The largest comes first.",
         lambda p: centred(p) @ svd(centred(p))[2][-2:].T),
        ("You projected points that are not centred: right axes, but the map is not around 0.",
         lambda p: p @ svd(centred(p))[2][:2].T),
        ("You divided each coordinate by its spread. Latents share one unit: leave it as it is.",
         lambda p: _standard(p) @ svd(_standard(p))[2][:2].T),
    ]])


# Editing

def check_steps_run(answer: Answer | None) -> Verdict:
    """answer(steps, strength): how many steps image-to-image runs."""
    cases = [(50, 0.9), (100, 0.29), (50, 0.75), (10, 0.35), (20, 0.0), (7, 1.0), (5, 0.1),
             (100, 0.07)]
    return compare(answer, cases=cases, right=lambda n, s: math.floor(n * s + 1e-9),
                   hint="steps * strength, in whole steps. What does Python say to 0.29 * 100?",
                   mistakes=[
        Mistake("Float dust: 0.29 * 100 is 28.999999999999996, and rounded down that is 28. Add a "
                "little, such as 1e-9, before you round down.", lambda n, s: int(n * s)),
        Mistake("You rounded up. A part of a step is not run: round down.",
                lambda n, s: math.ceil(n * s - 1e-9)),
        Mistake("You rounded up, float dust included: 0.07 * 100 is 7.000000000000001, and that "
                "became 8. Round down.", lambda n, s: math.ceil(n * s)),
        Mistake("You rounded to the nearest. A part of a step is not run: round down.",
                lambda n, s: round(n * s)),
        Mistake("Those are the steps that are left out. At strength 1 all are run.",
                lambda n, s: n - math.floor(n * s + 1e-9)),
        Mistake("At strength 0, and where steps * strength is below 1, no step is run at all.",
                lambda n, s: max(1, math.floor(n * s + 1e-9))),
        Mistake("You did not round: there is no half step.", lambda n, s: n * s),
    ])


def check_blend(answer: Answer | None) -> Verdict:
    """answer(latents, original, noise, mask, alpha_bar): the latents that inpainting goes on with.

    mask: 1 where the picture is repainted, 0 where it is kept, (1, 1, h, w).
    """
    g = torch.Generator().manual_seed(10)
    latents, original, noise = (torch.randn(1, 4, 3, 5, generator=g) for _ in range(3))
    mask = (torch.rand(1, 1, 3, 5, generator=g) < 0.4).float()
    cases = [(latents, original, noise, mask, level) for level in (0.36, 0.9)]
    return compare(answer, cases=cases,
                   right=lambda x, o, n, m, a: m * x + (1 - m) * add_noise(o, n, a),
                   hint="inside the mask the run's latents, outside the original's, noised to the "
                        "level of alpha_bar.",
                   mistakes=[
        Mistake("Inside and outside are swapped: white, 1, is where the picture is repainted.",
                lambda x, o, n, m, a: (1 - m) * x + m * add_noise(o, n, a)),
        Mistake("The original is not noised: the run would find a clean border around noise. Noise "
                "it to the level of alpha_bar.", lambda x, o, n, m, a: m * x + (1 - m) * o),
        Mistake("Swapped, and the original is not noised: inside the mask belong the run's "
                "latents.", lambda x, o, n, m, a: (1 - m) * x + m * o),
        Mistake("You noised the run's latents as well: they have their noise already.",
                lambda x, o, n, m, a: add_noise(m * x + (1 - m) * o, n, a)),
        Mistake("The roots are missing: sqrt(alpha_bar) of the picture, sqrt(1 - alpha_bar) of the "
                "noise.", lambda x, o, n, m, a: m * x + (1 - m) * (a * o + (1 - a) * n)),
        Mistake("alpha_bar and 1 - alpha_bar are swapped: alpha_bar belongs to the picture.",
                lambda x, o, n, m, a: m * x + (1 - m) * add_noise(o, n, 1 - a)),
        Mistake("The noise is added on top of the whole picture: a share sqrt(alpha_bar) of it is "
                "left.", lambda x, o, n, m, a: m * x + (1 - m) * (o + (1 - a) ** 0.5 * n)),
        Mistake("Outside the mask there is nothing but noise: the original is missing.",
                lambda x, o, n, m, a: m * x + (1 - m) * n),
        Mistake("Outside the mask there is nothing: add the noised original, times 1 - mask.",
                lambda x, o, n, m, a: m * x),
        Mistake("You added the original everywhere: it counts where the mask is 0 alone.",
                lambda x, o, n, m, a: m * x + add_noise(o, n, a)),
        Mistake("Those are the run's latents: nothing of the original is put back.",
                lambda x, o, n, m, a: x),
    ])


# Prompts

def check_swap_word(answer: Answer | None) -> Verdict:
    """answer(prompt, word, other): the prompt with the other word wherever the first one stands."""
    carpet = "a red car on a red carpet"
    cases = [(carpet, "car", "boat"), (carpet, "red", "blue"),
             ("a hatred of red hats", "red", "green"), ("a cat", "dog", "cow")]
    return compare(answer, cases=cases, right=_swapped, praise="One word, and nothing else.",
                   hint="split the prompt into words, exchange the ones that match, and join them.",
                   mistakes=[
        Mistake("str.replace also finds the word inside longer ones: a carpet becomes a boatpet. "
                "Compare whole words.", lambda p, w, o: p.replace(w, o)),
        Mistake("You exchanged the first one only: what stands twice has to change twice.",
                lambda p, w, o: re.sub(rf"\b{w}\b", o, p, count=1)),
        Mistake("That first hit may lie inside a longer word, and there may be more than one.",
                lambda p, w, o: p.replace(w, o, 1)),
        Mistake("You took the word out. The other one belongs in its place.",
                lambda p, w, o: " ".join(x for x in p.split() if x != w)),
        Mistake("You put the other word beside the first. It takes its place.",
                lambda p, w, o: _swapped(p, w, f"{w} {o}")),
        Mistake("That is a list of words. Join them with spaces.",
                lambda p, w, o: _swapped(p, w, o).split()),
        Mistake("Other and word are swapped: the second argument goes, the third one comes.",
                lambda p, w, o: _swapped(p, o, w)),
    ])


def check_combinations(answer: Answer | None) -> Verdict:
    """answer(axes): one dict of settings per picture of a grid, the last axis running fastest.

    axes: the setting's name -> its values.
    """
    cases = [({"seed": [1, 2], "steps": [5, 10]},),
             ({"seed": [3, 4], "sampler": ["ddim", "heun", "lms"], "steps": [8]},)]
    return compare(answer, cases=cases, right=_combinations,
                   praise="Every combination once, in the order of a grid's rows.",
                   hint="itertools.product(*axes.values()) gives the values; zip the names in.",
                   mistakes=[
        Mistake("zip takes the first of each, then the second of each: the diagonal of the grid. "
                "itertools.product takes every combination.",
                lambda axes: [dict(zip(axes, values, strict=True))
                              for values in zip(*axes.values(), strict=False)]),
        Mistake("Each picture here differs in one setting from the next, but combinations are "
                "missing: give every setting a value in every picture.",
                lambda axes: [{name: v} for name, values in axes.items() for v in values]),
        Mistake("The order is turned: the last axis runs fastest, as along the row of a grid.",
                lambda axes: [{name: one[name] for name in axes}
                              for one in _combinations(dict(reversed(axes.items())))]),
        Mistake("Those are the values without their names: make a dict of each.",
                lambda axes: list(itertools.product(*axes.values()))),
    ])


def _swapped(prompt: str, word: str, other: str) -> str:
    return " ".join(other if x == word else x for x in prompt.split())


def _combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _standard(points: Tensor) -> Tensor:
    return (points - points.mean(0)) / points.std(0)


def _as_list(answer: Answer | None) -> Answer | None:
    """Tuples, ranges and generators are as good as a list; sets are put in order."""
    if answer is None:
        return None

    def listed(*case: Any) -> Any:
        found: Any = answer(*case)
        if isinstance(found, Tensor | str) or not hasattr(found, "__iter__"):
            return found
        return sorted(found) if isinstance(found, set | frozenset) else list(found)

    return listed


def _one_way(coordinates: Any) -> Any:
    """Each column turned so that its largest number is positive: axes may point either way."""
    values = as_tensor(coordinates)
    if values is None or values.ndim != 2 or not values.numel():
        return coordinates
    return values * values.gather(0, values.abs().argmax(0, keepdim=True)).sign()


def _sure(answer: Answer) -> Answer:
    return lambda *case: _one_way(answer(*case))


def _turned(answer: Answer | None) -> Answer | None:
    return _sure(answer) if answer else None
