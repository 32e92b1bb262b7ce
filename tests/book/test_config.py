"""Presets: v1's published sizes and numbers of parameters."""

import torch
from torch import nn

from minisd.attention import Attention, FeedForward, SpatialTransformer
from minisd.config import TOYWORLD, V1
from minisd.pipeline import StableDiffusion
from minisd.resblock import ResBlock


def test_v1_has_its_published_sizes() -> None:
    assert (V1.text.vocab_size, V1.text.max_length) == (49408, 77)
    assert V1.vae.scale_factor == 0.18215
    assert V1.text.heads == 12          # no parameter count shows the numbers of heads and groups
    assert V1.unet.groups == V1.vae.groups == 32
    assert [c // V1.unet.heads for c in V1.unet.channels] == [40, 80, 160, 160]
    assert V1.unet.context_dim == V1.text.width == 768
    assert (V1.schedule.beta_start, V1.schedule.beta_end, V1.schedule.timesteps) == (
        0.00085, 0.012, 1000)
    assert (V1.guidance_scale, V1.steps, V1.image_size) == (7.5, 50, 512)
    assert (TOYWORLD.guidance_scale, TOYWORLD.steps) == (7.5, 25)


def test_v1_has_exactly_its_layers_and_parameters_and_takes_no_memory() -> None:
    with torch.device("meta"):
        sd = StableDiffusion(V1)
        eps = sd.unet(torch.empty(2, 4, 64, 64), torch.empty(2), torch.empty(2, 77, 768))
    assert eps.shape == (2, 4, 64, 64)
    assert {name: (sum(p.numel() for p in part.parameters()), len(part.state_dict()))
            for name, part in sd.named_children()} == {
        "text_encoder": (123_060_480, 196), "unet": (859_520_964, 686), "vae": (83_653_863, 248)}
    kinds = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, ResBlock, SpatialTransformer,
             Attention, FeedForward)
    assert [sum(isinstance(m, kind) for m in sd.unet.modules()) for kind in kinds] == [
        98, 184, 61, 48, 22, 16, 32, 16]
    assert all(tensor.is_meta for tensor in sd.state_dict(keep_vars=True).values())
    assert sd.schedule.alpha_bar.device.type == "cpu"
