"""Exercises on guidance: the guided sum, another convention of it, and what it costs."""

from minisd.diffusion import guide
from minisd.exercises.checking import Check, drawn

check_guide = Check(
    "my_guide(eps_uncond, eps_cond, guidance_scale)", "returns the guided eps",
    right=guide, cases=[(drawn(1), drawn(2), 7.5), (drawn(3), drawn(4), 0.5)],
    mistakes={
        "guidance_scale - 1 goes with starting at eps_cond.": lambda u, c, g: u + (g - 1) * (c - u),
        "You start from eps_cond. In that convention 0 switches guidance off; here 1 does.":
            lambda u, c, g: c + g * (c - u),
        "You walk away from the prompt.": lambda u, c, g: guide(u, c, -g),
        "The start is missing, eps_uncond.": lambda u, c, g: g * (c - u)},
    hints=("start from one of the two predictions and walk towards the other.",
           "start from eps_uncond, and go guidance_scale times the way from there to eps_cond."),
    solution="return eps_uncond + `guidance_scale` * (`eps_cond` - eps_uncond)")

check_other_convention = Check(
    "my_s(guidance_scale)", "returns the s that gives the same picture in the other program",
    right=lambda g: g - 1, cases=[(7.5,), (1.0,), (0.0,)],
    mistakes={
        "With the same number it goes further, for it starts at eps_cond.": lambda g: g,
        "It starts further along, and needs a smaller number.": lambda g: g + 1},
    hints=("write both sums as so much of eps_cond and so much of eps_uncond.",
           "1 - guidance_scale stands before eps_uncond here, and -s there."),
    solution="return guidance_scale `- 1`",
    praise="Both programs give the same picture: one calls it 7.5, the other 6.5.")

check_passes = Check(
    "my_passes(guidance_scale, steps)", "returns how many predictions the UNet makes",
    right=lambda g, n: n if g in (0, 1) else 2 * n,
    cases=[(7.5, 50), (1, 50), (0, 20), (0.5, 20), (-1, 10)],
    mistakes={
        "Put 0 and 1 into the sum: at both of them one prediction falls out.":
            (lambda g, n: 2 * n, lambda g, n: n if g == 1 else 2 * n),
        "Some programs take every scale up to 1 as no guidance. Here 0.5 needs both predictions.":
            (lambda g, n: n if g <= 1 else 2 * n, lambda g, n: n if 0 <= g <= 1 else 2 * n)},
    hints=("two predictions a step, unless the sum does not need one of them.",
           "(1 - g) * eps_uncond + g * eps_cond: at which two scales does a factor vanish?"),
    solution="return steps if guidance_scale in (`0, 1`) else `2` * steps",
    praise="Guidance costs a second prediction, except where the sum needs one.")
