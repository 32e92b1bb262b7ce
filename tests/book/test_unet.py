"""The UNet: parity with diffusers over depths, sizes and timesteps; structure; error texts."""

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, moved_by_eps, relative_error, scramble
from torch import Tensor, nn

from minisd.config import Config, UNetConfig
from minisd.unet import UNet

CONFIGS = {
    "as toyworld": UNetConfig(channels=(12, 18, 30), attention=(False, True, True),
                              layers_per_block=1, heads=3, context_dim=21, groups=6,
                              latent_channels=5),
    "as v1": UNetConfig(channels=(12, 18, 30, 30), attention=(True, True, True, False),
                        layers_per_block=2, heads=2, context_dim=10, groups=6),
    "text at the ends": UNetConfig(channels=(8, 12, 20), attention=(True, False, True),
                                   layers_per_block=2, heads=4, context_dim=9, groups=2,
                                   latent_channels=3),
    "narrowing": UNetConfig(channels=(30, 18), attention=(False, True), layers_per_block=1,
                            heads=2, context_dim=11, groups=3, latent_channels=7),
    "one level": UNetConfig(channels=(12,), attention=(True,), layers_per_block=2, heads=3,
                            context_dim=7, groups=4, latent_channels=5),
}
SIZES = [(8, 16), (7, 9), (5, 11), (1, 3)]
TIMES = torch.tensor([981.0, 333.25, 0.0])


def pair(config: UNetConfig, *, quiet: bool = False) -> tuple[UNet, nn.Module]:
    """Ours and diffusers'."""
    ours, theirs = UNet(config), parity.unet(config)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.UNET)
    return ours, theirs


def inputs(config: UNetConfig, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Latents and context for three pictures and prompts of 13 tokens."""
    return torch.randn(3, config.latent_channels, *size), torch.randn(3, 13, config.context_dim)


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_like_diffusers(config: UNetConfig, quiet: bool) -> None:
    """Even and odd sizes, a picture, a timestep and a prompt for each row."""
    ours, theirs = pair(config, quiet=quiet)
    for size in SIZES:
        latents, context = inputs(config, size)
        expected = theirs(latents, TIMES, context).sample
        assert relative_error(ours(latents, TIMES, context), expected) < TOLERANCE, size
    if quiet and config is CONFIGS["as toyworld"]:
        latents, context = inputs(config, (7, 9))
        moved = moved_by_eps(ours, lambda: ours(latents, TIMES, context))
        assert min(moved.values()) > 10 * TOLERANCE, moved


def test_one_timestep_and_one_context_serve_all_latents_like_diffusers() -> None:
    ours, theirs = pair(CONFIGS["as toyworld"])
    latents, context = inputs(CONFIGS["as toyworld"], (7, 9))
    for t in (0, 1, 500, 999, 0.5, 123.75):
        expected = theirs(latents, t, context[:1].expand(3, -1, -1)).sample
        for timesteps in (torch.tensor(t), torch.tensor([t]), torch.full((3,), t)):
            assert relative_error(ours(latents, timesteps, context[:1]), expected) < TOLERANCE


@pytest.mark.parametrize(("latents", "timesteps", "context"), [
    ((3, 3, 56, 72), (3,), (3, 13, 21)), ((5, 7, 9), (3,), (3, 13, 21)),
    ((3, 5, 7, 9), (2,), (3, 13, 21)), ((3, 5, 7, 9), (1, 3), (3, 13, 21)),
    ((3, 5, 7, 9), (3,), (3, 13, 20)), ((3, 5, 7, 9), (3,), (13, 21)),
    ((3, 5, 7, 9), (3,), (2, 13, 21))])
def test_inputs_of_other_shapes_are_refused(tiny: Config, latents, timesteps, context) -> None:
    text = (r"context has shape .*, this UNet expects \(3, n, 21\): encode the prompt with the "
            r"matching text encoder" if latents[1] == 5 and timesteps == (3,) else
            r"latents \(.*\), timesteps \(.*\): this UNet expects \(b, 5, h, w\) and \(b,\)")
    with pytest.raises(ValueError, match=text):
        UNet(tiny.unet)(torch.zeros(latents), torch.zeros(timesteps), torch.zeros(context))
