"""Exercises on prompts: one word for another, and all combinations of settings."""

from minisd.exercises.checking import Check

check_swap_word = Check(
    "my_swap(prompt, word, other)", "returns the prompt with other in every place of word",
    cases=[("a red car on a red carpet", "car", "boat"), ("a hatred of red hats", "red", "green"),
           ("a red car on a red carpet", "red", "blue"), ("a cat", "dog", "cow")],
    mistakes={
        "str.replace also finds the word inside longer ones: a carpet becomes a boatpet.":
            "return prompt.replace(word, other)",
        "Join the words with spaces.": ("' '.join", "list")},
    hints=("compare whole words.",
           "split the prompt into words, exchange the ones that match, and join them."),
    solution="return ' '.join(other if `each == word` else each for each in `prompt.split()`)")

check_combinations = Check(
    "my_combinations(axes)", "returns a dict of settings for each picture, the last axis fastest",
    cases=[({"seed": [1, 2], "steps": [5, 10]},),
           ({"seed": [3, 4], "sampler": ["ddim", "heun", "lms"], "steps": [8]},)],
    mistakes={
        "zip alone takes the first of each, then the second: the diagonal of the grid.":
            ("itertools.product", "zip"),
        "The last axis runs fastest, as along the row of a grid.":
            ("return", "axes = dict(reversed(axes.items()))\nreturn")},
    hints=("every value of each setting has to meet every value of the others.",
           "itertools.product(*axes.values()) gives the values; zip the names in."),
    solution="return [dict(`zip`(axes, v)) for v in itertools.`product`(*axes.values())]")
