"""Exercises on distillation: what the student has to predict, and what it can no longer do."""

from minisd.exercises.checking import Check, Words, drawn

check_target_eps = Check(
    "my_target_eps(x_t, x_s, alpha_bar_t, alpha_bar_s)", "returns the eps with which one DDIM step "
    "from x_t, at the level alpha_bar_t, lands on x_s, at alpha_bar_s",
    cases=[(drawn(1, 2, 4, 5), drawn(2, 2, 4, 5), 0.1, 0.4),
           (drawn(3, 2, 4, 5), drawn(4, 2, 4, 5), 0.5, 1.0)],
    praise="Any place can be reached in one step, if the right noise is predicted.",
    mistakes={
        "x_t keeps its share times sqrt(alpha_bar_s / alpha_bar_t); alpha_bar alone is its square.":
            ("(alpha_bar_s / alpha_bar_t) ** 0.5", "(alpha_bar_s / alpha_bar_t)"),
        "The ratio is of the level where the step ends to the one where it begins.":
            ("(alpha_bar_s / alpha_bar_t)", "(alpha_bar_t / alpha_bar_s)"),
        "The noise of x_t goes with its share: subtract keep * sqrt(1 - alpha_bar_t).":
            ("keep * (1 - alpha_bar_t) ** 0.5", "(1 - alpha_bar_t) ** 0.5"),
        "What is left of x_s without the kept part is what eps has to make.":
            ("(x_s - keep * x_t)", "(x_s - x_t)")},
    hints=("DDIM: x_s = sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s) eps, with the x0 that x_t and "
           "eps imply.",
           "put that x0 in: x_s = keep * x_t + (a number) * eps. Then solve for eps."),
    solution="""\
        keep = `(alpha_bar_s / alpha_bar_t) ** 0.5`
        slope = (1 - alpha_bar_s) ** 0.5 - `keep * (1 - alpha_bar_t) ** 0.5`
        return (x_s - keep * x_t) / slope""")

check_why_guidance_is_fixed = Words(
    "why can the guidance scale that the student learned not be changed, and why does a negative "
    "prompt not act as it did?",
    "every target was computed with guidance 7.5 from the empty prompt, and the sum stands in the "
    "weights. The student was never trained on the empty prompt, so its prediction for that, or "
    "for a negative prompt, means nothing to move away from. Whoever wants the slider back gives "
    "the scale to the network as an input, and trains with many (Meng et al. 2023).")
