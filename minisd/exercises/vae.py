"""Exercises on the VAE: what is lost, a sample of the posterior, and the scale factor."""

from minisd.exercises.checking import Check, Words, drawn
from minisd.observe import pictures

PICTURE = drawn(6, 3, 8, 12).clamp(-1, 1)

check_psnr = Check(
    "my_psnr(a, b)", "returns the PSNR in dB of two pictures in [-1, 1]",
    right=lambda a, b: pictures.psnr(a[None], b[None])[0],
    cases=[(PICTURE, 0.9 * PICTURE), (PICTURE, drawn(7, 3, 8, 12).clamp(-1, 1))],
    mistakes={
        "The peak is wrong. From -1 to 1 the range is 2 wide, and it counts squared: 2 ** 2.":
            [("2 ** 2", "1"), ("2 ** 2", "255 ** 2")],
        "Square the differences.": ("square", "abs")},
    hints=("compare the mean of the squared differences with the square of the largest possible.",
           "10 * log10(peak ** 2 / mse), where peak is the width of the pictures' range."),
    solution="return 10 * torch.log10(`2 ** 2` / (a - b).`square`().mean())")

check_posterior_sample = Check(
    "my_sample(mean, logvar, noise)", "returns a sample of the posterior",
    cases=[(drawn(7), drawn(8) - 1, drawn(9)), (drawn(9), 0 * drawn(8) - 6, drawn(7))],
    mistakes={
        "exp(logvar) is the variance. Noise is scaled by the standard deviation, its root.":
            [("0.5 * ", ""), ("torch.exp(0.5 * logvar)", "0.5 * logvar.exp()")],
        "logvar is the logarithm of the variance.": ("torch.exp(0.5 * logvar)", "logvar"),
        "The noise is missing.": (" * noise", "")},
    hints=("mean + std * noise: how do you get the standard deviation?",
           "logvar is log(std ** 2). Which power of e is std?"),
    solution="return mean + torch.exp(`0.5 * logvar`) * `noise`")

check_to_z = Check(
    "my_to_z(latents, scale_factor)", "returns z, what the decoder takes",
    cases=[(drawn(8), 0.18215), (drawn(8), 0.4)],
    mistakes={
        "You forgot the scale factor, 0.18215 in v1.": (" / scale_factor", ""),
        "That is the way from z to latents.": ("/", "*")},
    hints=("the encoder's z was scaled to make latents of standard deviation 1.",
           "latents = z * scale_factor. Solve it for z."),
    solution="return `latents` / `scale_factor`")

check_why_latents = Words(
    "why does Stable Diffusion not denoise the pixels themselves?",
    "a picture has 48 times as many numbers as its latents, most of them detail that no prompt "
    "decides. The decoder restores it in one pass; the UNet runs dozens of times on few numbers, "
    "those that say what is to be seen.")
