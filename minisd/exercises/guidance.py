"""Exercises on guidance: the guided sum, another convention of it, and what it costs."""

from minisd.diffusion import guide
from minisd.exercises.checking import Check, drawn

check_guide = Check(
    "my_guide(eps_uncond, eps_cond, guidance_scale)", "returns the guided eps",
    right=guide, cases=[(drawn(1), drawn(2), 7.5), (drawn(3), drawn(4), 0.5)],
    mistakes={
        "guidance_scale - 1 goes with starting at eps_cond.":
            ("guidance_scale", "(guidance_scale - 1)"),
        "You start from eps_cond. In that convention 0 switches guidance off; here 1 does.":
            ("return eps_uncond", "return eps_cond"),
        "You walk away from the prompt.": ("+", "-"),
        "The start is missing, eps_uncond.": ("eps_uncond + ", "")},
    hints=("start from one of the two predictions and walk towards the other.",
           "start from eps_uncond, and go guidance_scale times the way from there to eps_cond."),
    solution="return eps_uncond + `guidance_scale` * (`eps_cond` - eps_uncond)")

check_other_convention = Check(
    "my_s(guidance_scale)", "returns the s that gives the same picture in the other program",
    cases=[(7.5,), (1.0,), (0.0,)],
    mistakes={
        "With the same number it goes further, for it starts at eps_cond.": (" - 1", ""),
        "It starts further along, and needs a smaller number.": ("- 1", "+ 1")},
    hints=("write both sums as so much of eps_cond and so much of eps_uncond.",
           "1 - guidance_scale stands before eps_uncond here, and -s there."),
    solution="return guidance_scale `- 1`",
    praise="Both programs give the same picture: one calls it 7.5, the other 6.5.")

check_passes = Check(
    "my_passes(guidance_scale, steps)", "returns how many predictions the UNet makes",
    cases=[(7.5, 50), (1, 50), (0, 20), (0.5, 20), (-1, 10)],
    mistakes={
        "Put 0 and 1 into the sum: at both of them one prediction falls out.":
            ["return 2 * steps", ("in (0, 1)", "== 1")],
        "Some programs take every scale up to 1 as no guidance. Here 0.5 needs both predictions.":
            [("in (0, 1)", "<= 1"), ("in (0, 1)", ">= 0 and guidance_scale <= 1")]},
    hints=("two predictions a step, unless the sum does not need one of them.",
           "(1 - g) * eps_uncond + g * eps_cond: at which two scales does a factor vanish?"),
    solution="return steps if guidance_scale in (`0, 1`) else `2` * steps",
    praise="Guidance costs a second prediction, except where the sum needs one.")
