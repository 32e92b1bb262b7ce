"""Faster kernels: the same numbers up to rounding, at all layers, and only where they may."""

import copy
from itertools import product

import pytest
import torch
from parity import relative_error
from torch import Tensor, nn

import minisd
from minisd import speed
from minisd.config import TOYWORLD
from minisd.pipeline import StableDiffusion
from minisd.speed import kernels

# float32 rounds at 6e-8 and bfloat16 at 4e-3; through a network there are about a hundred roundings
# one after the other, whose errors add like a random walk.
NETWORK = {torch.float32: 1e-5, torch.bfloat16: 1e-1}
each_dtype = pytest.mark.parametrize("dtype", NETWORK, ids=str)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that run from here on."""
    ran: list[str] = []
    double, split = kernels.double, Tensor.split
    monkeypatch.setattr(kernels, "double", lambda x, conv: ran.append("double") or double(x, conv))
    monkeypatch.setattr(Tensor, "split", lambda x, size: ran.append("rows") or split(x, size))
    return ran


# Every layer of a model

def large_enough(monkeypatch) -> None:
    """Thresholds so low that small models run the kernels everywhere."""
    monkeypatch.setattr(kernels, "ROWS", 8)
    monkeypatch.setattr(kernels, "MANY_CELLS", 4)
    monkeypatch.setattr(kernels, "MANY_CHANNELS", 4)


def results(model: StableDiffusion) -> dict[str, Tensor]:
    """Of all networks, for a batch of odd size."""
    config, g = model.config, torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(model.dtype)

    channels, factor = config.unet.latent_channels, config.vae.downscale
    with torch.no_grad():
        posterior = model.vae.encode(noise(1, 3, 8 * factor, 10 * factor).clamp(-1, 1))
        return {"context": model.text_encoder(torch.arange(5)[None]),
                "unet": model.unet(noise(3, channels, 7, 10), torch.tensor([1.0, 500.5, 999.0]),
                                   noise(3, config.text.max_length, config.unet.context_dim)),
                "mean": posterior.mean, "logvar": posterior.logvar,
                "picture": model.vae.decode(noise(2, channels, 8, 10))}


@pytest.mark.parametrize("low", [True, False])
@each_dtype
def test_a_tiny_model_and_toyworld_agree_within_rounding(sd, monkeypatch, dtype, low) -> None:
    if low:
        large_enough(monkeypatch)
    toyworld = minisd.load("toyworld", device="cpu", dtype=dtype, fast=False)
    for model in (copy.deepcopy(sd).to(dtype), toyworld):
        expected = results(model)
        names, classes = list(model.state_dict()), [type(m) for m in model.modules()]
        assert speed.accelerate(model) is model
        assert classes != [type(m) for m in model.modules()]
        assert names == list(model.state_dict())
        ran = spied(monkeypatch)
        for name, value in results(model).items():
            assert relative_error(value, expected[name]) < NETWORK[dtype], name
        if low:
            assert set(ran) == {"rows", *["double"] * (dtype == torch.float32)}


def test_every_layer_that_has_a_faster_one_gets_it() -> None:
    """And the VAE's convolutions lie channels last, in bfloat16 the UNet's too."""
    with torch.device("meta"):
        blank = StableDiffusion(TOYWORLD)
    for dtype in NETWORK:
        sd = speed.accelerate(copy.deepcopy(blank).to(dtype).to_empty(device="cpu"))
        kinds = [type(module) for module in sd.modules()]
        for book, fast in speed.FAST.items():
            assert book not in kinds and fast in kinds and fast.__name__ == book.__name__
        for net, last in ((sd.vae, True), (sd.unet, dtype == torch.bfloat16)):
            layouts = {module.weight.is_contiguous(memory_format=torch.channels_last)
                       for module in net.modules()
                       if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)}
            assert layouts == {last}


# Only where they may

def test_gradients_go_through_the_books_own_formula(sd, monkeypatch) -> None:
    large_enough(monkeypatch)
    fast = speed.accelerate(copy.deepcopy(sd))
    x, t = torch.randn(2, 5, 8, 10), torch.tensor(500.0)
    context = sd.encode_prompt(["", "a red car"])
    ran, slopes = spied(monkeypatch), []
    for wanted, model in product(("latents", "weights"), (sd, fast)):
        model = copy.deepcopy(model).requires_grad_(wanted == "weights")
        latents = x.clone().requires_grad_(wanted == "latents")
        model.unet(latents, t, context).square().sum().backward()
        slopes.append(latents.grad if wanted == "latents" else model.unet.conv_in.weight.grad)
        assert ran == []
    for expected, found in (slopes[:2], slopes[2:]):
        assert relative_error(found, expected) < 1e-5
    with torch.no_grad():
        fast.requires_grad_(True).unet(x, t, context)
    assert ran


def test_on_another_device_the_book_runs(sd, monkeypatch) -> None:
    """Where the device is asked for each call, a model may move after it was accelerated."""
    large_enough(monkeypatch)
    fast = speed.accelerate(copy.deepcopy(sd))
    ran = spied(monkeypatch)
    with torch.no_grad():
        fast.vae.decode(torch.randn(1, 5, 4, 4))
        assert ran
        ran.clear()
        fast.to("meta").vae.decode(torch.randn(1, 5, 4, 4, device="meta"))
    assert ran == []
    with torch.device("meta"):
        blank = StableDiffusion(TOYWORLD)
    before = [type(module) for module in blank.modules()]
    assert [type(module) for module in speed.accelerate(blank).modules()] == before


