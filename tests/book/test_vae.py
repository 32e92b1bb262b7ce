"""The autoencoder: parity with diffusers, the Gaussian's identities, sizes, error texts."""

import math

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, moved_by_eps, relative_error, scramble
from torch import nn
from torch.distributions import Normal, kl_divergence

from minisd.config import Config, VAEConfig
from minisd.vae import VAE, Gaussian

CONFIGS = {
    "four levels": VAEConfig(channels=(8, 16, 20, 28), layers_per_block=1, groups=4,
                             scale_factor=1.0, latent_channels=5),
    "v1's depth": VAEConfig(channels=(6, 12, 18, 18), layers_per_block=2, groups=3,
                            scale_factor=1.0),
    "two levels": VAEConfig(channels=(10, 15), layers_per_block=1, groups=5, scale_factor=1.0,
                            latent_channels=7),
}


def pair(config: VAEConfig, *, quiet: bool = False) -> tuple[VAE, nn.Module]:
    """Ours and diffusers'."""
    ours, theirs = VAE(config), parity.vae(config)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.VAE)
    return ours, theirs


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_like_diffusers(config: VAEConfig, quiet: bool) -> None:
    ours, theirs = pair(config, quiet=quiet)
    images, z = torch.rand(2, 3, 40, 56) * 2 - 1, 3 * torch.randn(2, config.latent_channels, 3, 7)
    found, expected = ours.encode(images), theirs.encode(images).latent_dist
    assert relative_error(found.mean, expected.mean) < TOLERANCE
    assert relative_error(found.logvar, expected.logvar) < TOLERANCE
    assert relative_error(found.std, expected.std) < TOLERANCE
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < TOLERANCE
    if quiet:
        moved = [*moved_by_eps(ours.encoder, lambda: ours.encode(images).mean).values(),
                 *moved_by_eps(ours.decoder, lambda: ours.decode(z)).values()]
        assert min(moved) > 10 * TOLERANCE, moved


def test_logvar_is_clamped_at_both_ends_like_diffusers() -> None:
    ours, theirs = pair(CONFIGS["two levels"])
    images = torch.rand(2, 3, 12, 20) * 2 - 1
    for vae in (ours, theirs):
        vae.quant_conv.weight.mul_(100)
    found, expected = ours.encode(images), theirs.encode(images).latent_dist
    assert (found.logvar.min(), found.logvar.max()) == (-30, 20)
    assert relative_error(found.logvar, expected.logvar) < TOLERANCE
    assert found.std.max() == pytest.approx(math.exp(10))
    assert relative_error(found.mean, expected.mean) < TOLERANCE
    assert found.mean.max() > 20                            # the mean is not


# The Gaussian

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_is_the_mean_plus_std_times_the_generators_noise(dtype: torch.dtype) -> None:
    """Noise of float32, whatever the networks compute in."""
    mean, logvar = torch.randn(2, 5, 3, 7, dtype=dtype), torch.randn(2, 5, 3, 7, dtype=dtype)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    sample = Gaussian(mean, logvar).sample(torch.Generator().manual_seed(3))
    assert sample.dtype == dtype
    assert torch.equal(sample, mean + (logvar / 2).exp() * noise)


def test_kl_is_that_of_two_normal_distributions_per_picture() -> None:
    g = Gaussian(torch.randn(2, 5, 3, 7), torch.randn(2, 5, 3, 7))
    expected = kl_divergence(Normal(g.mean, g.std), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(g.kl(), expected)
    assert torch.equal(Gaussian(torch.zeros(2, 5), torch.zeros(2, 5)).kl(), torch.zeros(2))


@pytest.mark.parametrize(("method", "shape", "text"), [
    *(("encode", shape, r"expected pictures \(b, 3, h, w\), h and w multiples of 8, got \(.*\): ")
      for shape in [(3, 40, 56), (2, 4, 40, 56), (2, 3, 41, 56), (2, 3, 40, 60), (2, 3, 0, 56)]),
    *(("decode", shape, r"expected z \(b, 5, h, w\), got \(.*\): pass encode\(\)'s")
      for shape in [(5, 3, 7), (2, 4, 3, 7)])])
def test_other_shapes_are_refused(tiny: Config, method: str, shape, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        getattr(VAE(tiny.vae), method)(torch.zeros(shape))
