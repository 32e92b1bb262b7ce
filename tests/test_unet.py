"""The UNet: parity with diffusers over depths, sizes and times; structure; error texts."""

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, moved_by_eps, relative_error, scramble
from torch import Tensor, nn

from minisd.attention import Attention, FeedForward, SpatialTransformer
from minisd.config import V1, Config, UNetConfig
from minisd.resblock import ResBlock
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
SIZES = [(8, 16), (7, 9), (5, 11)]
TIMES = torch.tensor([981.0, 333.25, 0.0])


def pair(config: UNetConfig, *, quiet: bool = False) -> tuple[UNet, nn.Module]:
    """Ours and diffusers', with the same weights."""
    ours, theirs = UNet(config), parity.unet(config)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.UNET)
    return ours, theirs


def inputs(config: UNetConfig, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Latents and context for three pictures and prompts of 13 tokens."""
    return (torch.randn(3, config.latent_channels, *size),
            torch.randn(3, 13, config.context_dim))


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_like_diffusers(config: UNetConfig, quiet: bool) -> None:
    """Even and odd sizes, three times at once, one of them between two timesteps."""
    ours, theirs = pair(config, quiet=quiet)
    for size in SIZES:
        latents, context = inputs(config, size)
        expected = theirs(latents, TIMES, context).sample
        assert relative_error(ours(latents, TIMES, context), expected) < TOLERANCE, size


def test_the_quiet_inputs_see_the_eps_of_every_norm() -> None:
    """1e-5 in ResBlocks, LayerNorms and the head, 1e-6 in the spatial transformers' GroupNorm."""
    config = CONFIGS["as toyworld"]
    model = UNet(config)
    scramble(model, quiet=True)
    latents, context = inputs(config, (7, 9))
    moved = moved_by_eps(model, lambda: model(latents, TIMES, context))
    assert len(moved) == 2 * 11 + 4 * 7 + 1         # ResBlocks, spatial transformers, head
    assert min(moved.values()) > 10 * TOLERANCE, moved


@pytest.mark.parametrize("t", [0, 1, 500, 999, 0.5, 123.75])
def test_one_time_for_all_pictures_like_diffusers(t: float) -> None:
    ours, theirs = pair(CONFIGS["as toyworld"])
    latents, context = inputs(CONFIGS["as toyworld"], (7, 9))
    expected = theirs(latents, t, context).sample
    assert relative_error(ours(latents, torch.tensor(t), context), expected) < TOLERANCE
    assert relative_error(ours(latents, torch.full((3,), t), context), expected) < TOLERANCE


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    model, _ = pair(CONFIGS["as toyworld"])
    latents, context = inputs(CONFIGS["as toyworld"], (7, 9))
    alone = torch.cat([model(latents[i:i + 1], TIMES[i:i + 1], context[i:i + 1])
                       for i in range(3)])
    assert relative_error(model(latents, TIMES, context), alone) < TOLERANCE


def test_picture_time_and_prompt_each_matter() -> None:
    model, _ = pair(CONFIGS["as toyworld"])
    latents, context = inputs(CONFIGS["as toyworld"], (7, 9))
    eps = model(latents, TIMES, context)
    for other in (model(latents + 0.1, TIMES, context), model(latents, TIMES + 5, context),
                  model(latents, TIMES, context.flip(1).roll(1, 0))):
        assert relative_error(other, eps) > 1e-3
    # The prompt's words carry no order of their own here; CLIP's position embedding gives it.
    assert relative_error(model(latents, TIMES, context.flip(1)), eps) < TOLERANCE


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 2), (13, 5)])
def test_any_size_comes_back(tiny: Config, size: tuple[int, int]) -> None:
    model = UNet(tiny.unet)
    latents, context = torch.randn(2, 5, *size), torch.randn(2, 4, 21)
    assert model(latents, torch.tensor(7), context).shape == latents.shape


def test_arguments_are_not_changed(tiny: Config) -> None:
    model = UNet(tiny.unet)
    arguments = (torch.randn(3, 5, 7, 9), TIMES.clone(), torch.randn(3, 13, 21))
    copies = [a.clone() for a in arguments]
    model(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


def test_v1_has_exactly_its_parameters_and_layers() -> None:
    with torch.device("meta"):
        model = UNet(V1.unet)
    assert sum(p.numel() for p in model.parameters()) == 859_520_964
    assert len(model.state_dict()) == 686
    counts = {kind: sum(isinstance(m, kind) for m in model.modules())
              for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, ResBlock,
                           SpatialTransformer, Attention, FeedForward)}
    assert list(counts.values()) == [98, 184, 61, 48, 22, 16, 32, 16]
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    assert not [n for n, _ in model.named_parameters() if n.endswith(("to_q.bias", "to_k.bias",
                                                                      "to_v.bias"))]


def test_v1_at_full_size_gives_back_its_latents() -> None:
    with torch.device("meta"):
        eps = UNet(V1.unet)(torch.empty(2, 4, 64, 64), torch.empty(2), torch.empty(2, 77, 768))
    assert eps.shape == (2, 4, 64, 64)


def test_context_of_another_width_is_refused(tiny: Config) -> None:
    model = UNet(tiny.unet)
    for shape in ((3, 13, 20), (13, 21)):
        with pytest.raises(ValueError, match=r"context has shape .*, this UNet expects \(b, n, "
                           r"21\): encode the prompt with the matching text encoder"):
            model(torch.zeros(3, 5, 7, 9), TIMES, torch.zeros(shape))


def test_latents_of_another_depth_are_refused(tiny: Config) -> None:
    model = UNet(tiny.unet)
    for shape in ((3, 3, 56, 72), (5, 7, 9)):
        with pytest.raises(ValueError, match=r"latents have shape .*, this UNet expects \(b, 5, "
                           r"h, w\): encode pictures with the VAE first"):
            model(torch.zeros(shape), TIMES, torch.zeros(3, 13, 21))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_context_and_one_time_serve_all_latents(tiny: Config, dtype: torch.dtype) -> None:
    """Also where attention goes in slices: 16 x 17 cells in bfloat16."""
    model = UNet(tiny.unet).to(dtype)
    latents, context = torch.randn(3, 5, 16, 17).to(dtype), torch.randn(1, 13, 21).to(dtype)
    with torch.no_grad():
        found = model(latents, TIMES[:1], context)
        assert torch.equal(found, model(latents, TIMES[:1].expand(3), context.expand(3, 13, 21)))


@pytest.mark.parametrize(("times", "contexts"), [(TIMES, 2), (TIMES[:2], 3), (TIMES[None], 3)])
def test_inputs_of_different_number_are_refused(tiny: Config, times: Tensor, contexts: int) -> None:
    with pytest.raises(ValueError, match=r"3 latents came with \d contexts and timesteps of shape "
                                         r"\(.*\): this UNet expects 3 or one of each"):
        UNet(tiny.unet)(torch.zeros(3, 5, 7, 9), times, torch.zeros(contexts, 13, 21))
