"""Exercises on prompts: one word for another, and all combinations of settings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from minisd.exercises.checking import Check


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


check_swap_word = Check(
    "my_swap(prompt, word, other)", "returns the prompt with other in every place of word",
    right=lambda p, w, o: " ".join(o if x == w else x for x in p.split()),
    cases=[("a red car on a red carpet", "car", "boat"), ("a hatred of red hats", "red", "green"),
           ("a red car on a red carpet", "red", "blue"), ("a cat", "dog", "cow")],
    mistakes={
        "str.replace also finds the word inside longer ones: a carpet becomes a boatpet.":
            lambda p, w, o: p.replace(w, o),
        "Join the words with spaces.": lambda p, w, o: [o if x == w else x for x in p.split()]},
    hints=("compare whole words.",
           "split the prompt into words, exchange the ones that match, and join them."),
    solution="return ' '.join(other if `each == word` else each for each in `prompt.split()`)")

check_combinations = Check(
    "my_combinations(axes)", "returns a dict of settings for each picture, the last axis fastest",
    right=combinations,
    cases=[({"seed": [1, 2], "steps": [5, 10]},),
           ({"seed": [3, 4], "sampler": ["ddim", "heun", "lms"], "steps": [8]},)],
    mistakes={
        "zip alone takes the first of each, then the second: the diagonal of the grid.":
            lambda axes: [dict(zip(axes, v, strict=True))
                          for v in zip(*axes.values(), strict=False)],
        "The last axis runs fastest, as along the row of a grid.":
            lambda axes: combinations(dict(reversed(axes.items())))},
    hints=("every value of each setting has to meet every value of the others.",
           "itertools.product(*axes.values()) gives the values; zip the names in."),
    solution="return [dict(`zip`(axes, v)) for v in itertools.`product`(*axes.values())]")
