"""Time embedding, ResBlock, halving and doubling, each against diffusers and its own formula."""

import math

import parity
import pytest
import torch
import torch.nn.functional as F
from parity import TOLERANCE, copy_weights, relative_error, scramble

from minisd.resblock import Downsample, ResBlock, TimeEmbedding, Upsample, timestep_embedding

TIMES = torch.tensor([0.0, 1.0, 333.25, 499.5, 981.0])


def test_the_embedding_is_its_formula() -> None:
    """cos(t w_i) first, then sin, w_i = 10000 ** (-i / half); the divisor is half, not half - 1."""
    waves, half = timestep_embedding(TIMES, 12), 6
    assert waves.shape == (5, 12)
    assert waves.dtype == torch.float32
    for row, t in zip(waves.double(), TIMES.double(), strict=True):
        angles = t * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        # t * w loses 6e-8 of up to 999, so the angle is right to 6e-5.
        torch.testing.assert_close(row, torch.cat([angles.cos(), angles.sin()]), atol=6e-5, rtol=0)
    assert torch.equal(timestep_embedding(torch.tensor([3]), 12),
                       timestep_embedding(torch.tensor([3.0]), 12))


def test_time_embedding_like_diffusers() -> None:
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    ours, theirs = TimeEmbedding(12), TimestepEmbedding(12, 48)
    scramble(ours)
    copy_weights(ours, theirs, [("linear_", "linear")])
    waves = Timesteps(12, flip_sin_to_cos=True, downscale_freq_shift=0)(TIMES)
    assert relative_error(ours(TIMES), theirs(waves)) < TOLERANCE


@pytest.mark.parametrize("quiet", [False, True])
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


def test_time_enters_through_silu_between_the_convolutions() -> None:
    block = ResBlock(12, 18, groups=6, eps=1e-5, time_dim=10)
    scramble(block)
    x, time = torch.randn(3, 12, 5, 7), torch.randn(3, 10)
    shifted = block.conv1(F.silu(block.norm1(x)))
    shifted = shifted + block.time_proj(time * torch.sigmoid(time))[:, :, None, None]
    expected = block.shortcut(x) + block.conv2(F.silu(block.norm2(shifted)))
    assert relative_error(block(x, time), expected) < TOLERANCE
    with pytest.raises(AssertionError, match="needs the time"):
        block(x)


def test_groupnorm_eps_decides_on_quiet_inputs() -> None:
    """Why the parity inputs have to be quiet: what a wrong eps moves, loud and quiet."""
    x = torch.randn(3, 12, 5, 7)
    moved = [relative_error(F.group_norm(s * x, 6, eps=1e-6), F.group_norm(s * x, 6, eps=1e-5))
             for s in (1.0, 1e-3)]
    assert moved[0] < TOLERANCE < 0.5 < moved[1]
    # 1 / sqrt(var + eps) at var = s^2
    expected = math.sqrt((1e-6 + 1e-5) / (1e-6 + 1e-6)) - 1
    assert moved[1] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 3)])
def test_the_unet_halves_like_diffusers(size: tuple[int, int]) -> None:
    from diffusers.models.downsampling import Downsample2D

    ours = Downsample(5, symmetric=True)
    theirs = Downsample2D(5, use_conv=True, padding=1, name="op")
    scramble(ours)
    copy_weights(ours, theirs, [])
    x = torch.randn(2, 5, *size)
    assert relative_error(ours(x), theirs(x)) < TOLERANCE
    assert ours(x).shape[2:] == tuple(-(-side // 2) for side in size)


def test_the_vae_halves_like_diffusers() -> None:
    from diffusers.models.downsampling import Downsample2D

    ours = Downsample(5, symmetric=False)
    theirs = Downsample2D(5, use_conv=True, padding=0, name="op")
    scramble(ours)
    copy_weights(ours, theirs, [])
    x = torch.randn(2, 5, 8, 6)
    assert relative_error(ours(x), theirs(x)) < TOLERANCE
    assert ours(x).shape == (2, 5, 4, 3)


def test_where_the_two_paddings_look() -> None:
    """The first output sees the input's corner at kernel position (1, 1), or at (0, 0)."""
    corner = torch.zeros(1, 1, 6, 8)
    corner[..., 0, 0] = 1
    for symmetric, position in ((True, (1, 1)), (False, (0, 0))):
        layer = Downsample(1, symmetric=symmetric)
        layer.conv.bias.data.zero_()
        assert layer(corner)[0, 0, 0, 0] == layer.conv.weight[0, 0][position]


@pytest.mark.parametrize("size", [None, (13, 9), (14, 10)])
def test_doubling_like_diffusers(size: tuple[int, int] | None) -> None:
    from diffusers.models.upsampling import Upsample2D

    ours, theirs = Upsample(3), Upsample2D(3, use_conv=True)
    scramble(ours)
    copy_weights(ours, theirs, [])
    x = torch.randn(2, 3, 7, 5)
    assert relative_error(ours(x, size), theirs(x, size)) < TOLERANCE
    assert ours(x, size).shape == (2, 3, *(size or (14, 10)))


@pytest.mark.parametrize(("size", "wanted", "four"), [
    ((16, 16), None, True), ((23, 17), None, True), ((16, 16), (32, 32), True),
    ((16, 16), (31, 32), False), ((15, 17), None, False)])
def test_large_maps_are_doubled_by_four_small_convolutions_to_the_same_result(
        size: tuple[int, int], wanted: tuple[int, int] | None, four: bool,
        monkeypatch: pytest.MonkeyPatch) -> None:
    ours, taken = Upsample(3), []
    scramble(ours)
    monkeypatch.setattr(ours, "_doubled",
                        lambda x: taken.append(x) or Upsample._doubled(ours, x))
    x = torch.randn(2, 3, *size, requires_grad=True)
    found = ours(x, wanted)
    repeated = F.interpolate(x, size=wanted or (2 * size[0], 2 * size[1]), mode="nearest")
    expected = F.conv2d(repeated, ours.conv.weight, ours.conv.bias, padding=1)
    assert bool(taken) == four
    assert found.is_contiguous()
    assert relative_error(found.detach(), expected.detach()) < TOLERANCE
    (slope,), (right,) = (torch.autograd.grad(y.square().sum(), x) for y in (found, expected))
    assert relative_error(slope, right) < TOLERANCE


def test_how_maps_are_doubled_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a picture would come out otherwise alone than among others."""
    ours, taken = Upsample(3), []
    monkeypatch.setattr(ours, "_doubled", taken.append)
    for batch in (1, 40):
        ours(torch.randn(batch, 3, 8, 9))
        ours(torch.randn(batch, 3, 16, 16))
    assert [len(x) for x in taken] == [1, 40]
