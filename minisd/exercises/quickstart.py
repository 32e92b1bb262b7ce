"""Exercises of the first notebook: what a negative prompt replaces, and how much work a run is."""

import math

from minisd.diffusion import guide
from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn


def check_negative_prompt(answer: Answer | None) -> Verdict:
    """answer(eps_uncond, eps_negative, eps_cond, guidance_scale): eps, of their shape."""
    u, n, c = (drawn(seed) for seed in (51, 52, 53))
    return compare(
        answer, cases=[(u, n, c, 7.5), (n, c, u, 3), (c, u, n, 0.5)],
        right=lambda u, n, c, g: guide(n, c, g),
        hint="take the equation of guidance, and let eps_negative stand wherever eps_uncond did",
        praise="The negative prompt takes the place of the empty one, and nothing else changes.",
        mistakes=[
            Mistake("That is guidance without a negative prompt: eps_negative has no effect.",
                    lambda u, n, c, g: u + g * (c - u)),
            Mistake("You start from eps_uncond still: eps_negative takes its place in front of the "
                    "sum too.", lambda u, n, c, g: u + g * (c - n)),
            Mistake("You start from eps_negative, but the bracket still measures from eps_uncond. "
                    "Replace it there too.", lambda u, n, c, g: n + g * (c - u)),
            Mistake("The sign is wrong: you walk away from the prompt, past what is not wanted.",
                    lambda u, n, c, g: n - g * (c - n)),
            Mistake("The two are swapped: you walk from the prompt to what is not wanted.",
                    lambda u, n, c, g: c + g * (n - c)),
            Mistake("You start from eps_cond. Start from eps_negative and walk towards eps_cond.",
                    lambda u, n, c, g: c + g * (c - n)),
            Mistake("You return the difference alone: add it to eps_negative.",
                    lambda u, n, c, g: g * (c - n)),
            Mistake("The guided sum first, then the negative prediction taken away: eps_negative "
                    "is not taken away, it takes the place of eps_uncond.",
                    lambda u, n, c, g: u + g * (c - u) - n),
        ])


def check_predictions(answer: Answer | None) -> Verdict:
    """answer(steps, strength): predictions that image-to-image asks for, with guidance."""
    return compare(
        answer, cases=[(50, 0.9), (13, 0.6), (10, 0.33), (20, 0.0), (7, 1.0)],
        right=lambda steps, strength: 2 * math.floor(steps * strength),
        hint="how many steps are run, in whole steps? And how many prompts are asked about at "
             "each of them, the empty one included?",
        praise="Two for each step that is run: this is where the time goes.",
        mistakes=[
            Mistake("Those are the steps. At each of them the network is asked twice, with your "
                    "prompt and with the empty one.", lambda n, s: math.floor(n * s)),
            Mistake("Twice for every step, but the strength says that only a share of the steps "
                    "is run.", lambda n, s: 2 * n),
            Mistake("All the steps, and one prediction for each: the strength leaves steps out, "
                    "and guidance asks twice.", lambda n, s: n),
            *(Mistake("1 - strength is the share that is left out. At strength 1 all steps are "
                      "run.", left_out) for left_out in (
                lambda n, s: 2 * (n - math.floor(n * s)),
                lambda n, s: 2 * math.floor(n * (1 - s)),
                lambda n, s: 2 * round(n * (1 - s)))),
            Mistake("You rounded to the nearest. A part of a step is not run: round down.",
                    lambda n, s: 2 * round(n * s)),
            Mistake("You rounded up. A part of a step is not run: round down.",
                    lambda n, s: 2 * math.ceil(n * s)),
            Mistake("You did not round: there is no half step.", lambda n, s: 2 * n * s),
            Mistake("Round down before you double: the network is asked for both predictions of a "
                    "step, or for none.", lambda n, s: math.floor(2 * n * s)),
            Mistake("Off by one: one step too many. The picture under noise, where the run begins, "
                    "is there before any step.", lambda n, s: 2 * (math.floor(n * s) + 1)),
            Mistake("Where steps * strength is below 1, no step is run at all.",
                    lambda n, s: 2 * max(1, math.floor(n * s))),
        ])
