"""Timestep embedding, ResBlock, down- and upsampling, each against diffusers."""

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, relative_error, scramble

from minisd.resblock import Downsample, ResBlock, TimestepEmbedding, Upsample


def test_timestep_embedding_like_diffusers() -> None:
    """Cosines first; the frequencies are 10000 ** (-i / half), the divisor not half - 1."""
    from diffusers.models import embeddings

    times = torch.tensor([0.0, 1.0, 333.25, 499.5, 981.0])
    ours, theirs = TimestepEmbedding(12), embeddings.TimestepEmbedding(12, 48)
    scramble(ours)
    copy_weights(ours, theirs, [("linear_", "linear")])
    waves = embeddings.Timesteps(12, flip_sin_to_cos=True, downscale_freq_shift=0)(times)
    assert relative_error(ours(times), theirs(waves)) < TOLERANCE
    assert torch.equal(ours(torch.tensor([981])), ours(torch.tensor([981.0])))


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize(("c_in", "c_out", "time_dim"),
                         [(12, 18, 10), (18, 18, 10), (12, 18, None)])
def test_resblock_like_diffusers(c_in: int, c_out: int, time_dim: int | None, eps: float,
                                 quiet: bool) -> None:
    from diffusers.models.resnet import ResnetBlock2D

    ours = ResBlock(c_in, c_out, groups=6, eps=eps, time_dim=time_dim)
    theirs = ResnetBlock2D(in_channels=c_in, out_channels=c_out, groups=6, eps=eps,
                           temb_channels=time_dim)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.BLOCKS)
    x = torch.randn(3, c_in, 5, 7) * (1e-3 if quiet else 1)
    time = None if time_dim is None else torch.randn(3, time_dim)
    skip = ours.shortcut(x)                     # of what is added to it, which it itself would hide
    assert relative_error(ours(x, time) - skip, theirs(x, time) - skip) < TOLERANCE


@pytest.mark.parametrize(("symmetric", "size"), [
    (True, (8, 6)), (True, (7, 9)), (True, (1, 3)), (False, (8, 6))])
def test_halving_like_diffusers(symmetric: bool, size: tuple[int, int]) -> None:
    """The UNet pads all around, and halves odd sizes too; the VAE pads right and bottom."""
    from diffusers.models.downsampling import Downsample2D

    ours = Downsample(5, symmetric=symmetric)
    theirs = Downsample2D(5, use_conv=True, padding=int(symmetric), name="op")
    scramble(ours)
    copy_weights(ours, theirs, [])
    x = torch.randn(2, 5, *size)
    assert relative_error(ours(x), theirs(x)) < TOLERANCE
    assert ours(x).shape[2:] == tuple(-(-side // 2) for side in size)


@pytest.mark.parametrize("size", [None, (13, 9), (14, 10)])
def test_doubling_like_diffusers(size: tuple[int, int] | None) -> None:
    from diffusers.models.upsampling import Upsample2D

    ours, theirs = Upsample(3), Upsample2D(3, use_conv=True)
    scramble(ours)
    copy_weights(ours, theirs, [])
    x = torch.randn(2, 3, 7, 5)
    assert relative_error(ours(x, size), theirs(x, size)) < TOLERANCE
    assert ours(x, size).shape == (2, 3, *(size or (14, 10)))
