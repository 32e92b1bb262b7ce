"""Exercises on editing: how many steps a strength runs, and what a mask keeps."""

from minisd.diffusion import add_noise
from minisd.exercises.checking import Check, drawn

check_steps_run = Check(
    "my_steps_run(steps, strength)", "returns how many steps image-to-image runs",
    cases=[(50, 0.9), (100, 0.29), (10, 0.35), (20, 0.0), (7, 1.0), (5, 0.1), (100, 0.07)],
    mistakes={
        "Float dust: 0.29 * 100 is 28.999999999999996. Add a little, 1e-9, before you round down.":
            (" + 1e-9", ""),
        "A part of a step is not run: round down, not up or to the nearest.":
            ["return math.ceil(steps * strength)", "return round(steps * strength)"],
        "Those are the steps that are left out.": ("return", "return steps -")},
    hints=("a share of the steps, in whole steps.",
           "steps * strength, rounded down. What does Python say to 0.29 * 100?"),
    solution="return math.floor(`steps * strength` + `1e-9`)")

check_blend = Check(
    "my_blend(latents, original, noise, mask, alpha_bar)", "returns the latents to go on with",
    right=lambda x, o, n, m, a: m * x + (1 - m) * add_noise(o, n, a),
    cases=[(drawn(1), drawn(2), drawn(3), (drawn(4, 1, 1, 3, 5) < 0).float(), 0.36)],
    mistakes={
        "Inside and outside are swapped: where the mask is 1 the picture is repainted.":
            ("return", "mask = 1 - mask\nreturn"),
        "The original is not noised: the run would find a clean border around noise.":
            ("* noised", "* original")},
    hints=("which latents belong inside the mask, and which outside?",
           "inside the run's, outside the original's, noised to the level of alpha_bar."),
    solution="""\
        noised = alpha_bar ** 0.5 * original + `(1 - alpha_bar) ** 0.5` * noise
        return mask * `latents` + (1 - mask) * `noised`""")
