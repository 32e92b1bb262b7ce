"""Exercises of the notebook on guidance: the sum, another convention of it, and what it costs."""


from minisd.diffusion import guide
from minisd.exercises.checking import Answer, Mistake, Verdict, compare, drawn


def check_guide(answer: Answer | None) -> Verdict:
    """answer(eps_uncond, eps_cond, guidance_scale) -> eps, all of the shape (1, 4, h, w)."""
    return compare(
        answer, right=guide,
        cases=[(drawn(1), drawn(2), 7.5), (drawn(3), drawn(4), 0.5), (drawn(5), drawn(6), 3)],
        hint="start from eps_uncond, and go guidance_scale times the way from there to eps_cond",
        mistakes=[
            Mistake("The sign is wrong: you walk away from the prompt. Add guidance_scale times "
                    "(eps_cond - eps_uncond), do not subtract it.",
                    lambda u, c, g: u - g * (c - u)),
            Mistake("The two predictions are swapped: start from eps_uncond and walk towards "
                    "eps_cond.", lambda u, c, g: c + g * (u - c)),
            Mistake("You start from eps_cond. That is another convention, in which 0 switches "
                    "guidance off; here you start from eps_uncond.",
                    lambda u, c, g: c + g * (c - u)),
            Mistake("You wrote (guidance_scale - 1) times the difference: that factor goes with "
                    "eps_cond as the start. From eps_uncond it is guidance_scale times.",
                    lambda u, c, g: u + (g - 1) * (c - u)),
            Mistake("You wrote g * eps_cond + (g - 1) * eps_uncond: the weights have to add up to "
                    "1, so it is (1 - g) * eps_uncond.", lambda u, c, g: g * c + (g - 1) * u),
            Mistake("You return the difference alone: add it to eps_uncond.",
                    lambda u, c, g: g * (c - u)),
            Mistake("You add eps_cond itself: add what it has more than eps_uncond, "
                    "(eps_cond - eps_uncond).", lambda u, c, g: u + g * c),
            Mistake("guidance_scale has no effect in your answer.", lambda u, c, g: c),
        ])


def check_other_convention(answer: Answer | None) -> Verdict:
    """answer(guidance_scale) -> the s with which eps_cond + s (eps_cond - eps_uncond) is equal."""
    return compare(
        answer, right=lambda g: g - 1, cases=[(7.5,), (1.0,), (0.0,), (3.0,)],
        hint="write both sums as so much of eps_cond and so much of eps_uncond, and compare what "
             "stands before eps_uncond",
        praise="Both programs give the same picture: one calls it 7.5, the other 6.5.",
        mistakes=[
            Mistake("With the same number the other program goes one whole difference further: it "
                    "starts at eps_cond already.", lambda g: g),
            Mistake("The wrong way round: the other program starts further along, so it needs a "
                    "smaller number.", lambda g: g + 1),
            Mistake("The sign is wrong: at guidance_scale 7.5 your number would push away from "
                    "the prompt.", lambda g: 1 - g),
        ])


def check_passes(answer: Answer | None) -> Verdict:
    """answer(guidance_scale, steps) -> predictions that the UNet makes for one picture of DDIM."""
    return compare(
        answer, right=lambda g, steps: steps if g in (0, 1) else 2 * steps,
        cases=[(7.5, 50), (1, 50), (0, 20), (0.5, 20), (-1, 10), (3, 1)],
        hint="at which two scales does one of the two predictions fall out of the sum?",
        praise="Guidance costs a second prediction at every step, except where the sum needs one.",
        mistakes=[
            Mistake("Twice the steps is right in general, but put 0 and 1 into the sum: there one "
                    "prediction falls out and need not be made.", lambda g, steps: 2 * steps),
            Mistake("At guidance 0 one prediction falls out as well: which one?",
                    lambda g, steps: steps if g == 1 else 2 * steps),
            Mistake("At guidance 1 one prediction falls out as well: which one?",
                    lambda g, steps: steps if g == 0 else 2 * steps),
            Mistake("Some programs do treat every scale up to 1 as no guidance. This one takes "
                    "the sum at its word: 0.5 and -1 need both predictions.",
                    lambda g, steps: steps if g <= 1 else 2 * steps),
            Mistake("From 0 to 1 you count one prediction, but between the two, at 0.5, both are "
                    "needed.", lambda g, steps: steps if 0 <= g <= 1 else 2 * steps),
            Mistake("One prediction per step is what guidance 1 needs. The sum has two.",
                    lambda g, steps: steps),
        ])
