"""Exercises of the quickstart: what a negative prompt replaces, and how much work a run is."""

from minisd.diffusion import guide
from minisd.exercises.checking import Check, drawn

check_negative_prompt = Check(
    "my_eps(eps_uncond, eps_negative, eps_cond, guidance_scale)", "returns the guided eps",
    right=lambda u, n, c, g: guide(n, c, g),
    cases=[(drawn(51), drawn(52), drawn(53), 7.5), (drawn(52), drawn(53), drawn(51), 0.5)],
    mistakes={
        "eps_negative has no effect: that is plain guidance.": ("eps_negative", "eps_uncond"),
        "You replaced eps_uncond in one place of two: it stands in the brackets, and before them.":
            [("return eps_negative", "return eps_uncond"), ("- eps_negative", "- eps_uncond")],
        "You walk towards what is not wanted.":
            "return eps_cond + guidance_scale * (eps_negative - eps_cond)"},
    hints=("which of the three predictions does the sum start from?",
           "the negative prompt takes the place of the empty one, wherever that stood."),
    solution="return `eps_negative` + guidance_scale * (eps_cond - `eps_negative`)")

check_predictions = Check(
    "my_predictions(steps, strength)", "returns how many predictions the network makes",
    cases=[(50, 0.9), (13, 0.6), (10, 0.33), (20, 0.0)],
    mistakes={
        "Those are the steps; each takes two predictions.": ("2 * ", ""),
        "1 - strength is the share that is left out.":
            "return 2 * (steps - math.floor(steps * strength))",
        "A part of a step is not run: round the steps down, and then double.":
            [("math.floor", "round"), ("math.floor", ""),
             "return math.floor(2 * steps * strength)"]},
    hints=("how many steps are run, and how many predictions does each of them take?",
           "steps * strength, in whole steps; the empty prompt needs a prediction too."),
    solution="return `2` * math.floor(steps * `strength`)",
    praise="Two for each step that is run: this is where the time goes.")
