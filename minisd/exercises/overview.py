"""Exercises of the overview: the size of a convolution, and the shape of the latents."""

from torch import nn

from minisd.config import V1
from minisd.exercises.checking import Check

check_conv_parameters = Check(
    "my_conv_parameters(c_in, c_out, k)", "returns the number of parameters, biases included",
    right=lambda i, o, k: sum(p.numel() for p in nn.Conv2d(i, o, k, device="meta").parameters()),
    cases=[(4, 320, 3), (320, 4, 1), (640, 1280, 3)], tolerance=0.0,
    mistakes={
        "You forgot the bias: one for each output channel.": (" + 1", ""),
        "A window is k wide and k high: k * k weights.": ("k * k", "k"),
        "There is a bias for each output channel.": "return c_out * c_in * k * k + c_in"},
    hints=("count the weights of a single output channel first.",
           "one output channel is a sum over c_in windows of k x k, plus one bias."),
    solution="return c_out * (`c_in * k * k` + `1`)")

check_latent_shape = Check(
    "my_latent_shape(height, width)", "returns the shape (channels, height, width) of v1's latents",
    right=lambda h, w: (V1.vae.latent_channels, h // V1.vae.downscale, w // V1.vae.downscale),
    cases=[(512, 512), (512, 768), (128, 64)], tolerance=0.0,
    mistakes={
        "Height and width are swapped: rows come first.": "return 4, width // 8, height // 8",
        "A picture has three channels, latents have four.": ("4", "3"),
        "The channels come first.": "return height // 8, width // 8, 4"},
    hints=("three numbers: which of them depends on the picture's size?",
           "four channels, and one cell for every 8 x 8 pixels."),
    solution="return 4, height // `8`, `width // 8`")
