"""What the notebooks ask of v1 is within the budget: counted, not computed.

Nine notebooks run here, cell by cell, on a model of v1's configuration whose networks only count:
each call adds the operations that v1's network would need for such an input, and returns numbers
that fit together (a UNet that knows the picture behind every prompt). Its parameters lie on the
meta device. The notebooks that take networks apart (04 to 07, 11) need real ones: theirs have v1's
layers at a tenth of its width, and each layer that is called, whether the package's or a learner's,
adds what it would compute at v1's width.
"""

import builtins
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import minisd
from minisd import StableDiffusion, diffusion
from minisd.checkpoints.vocabulary import packaged_tokenizer
from minisd.config import V1
from minisd.observe.budget import NOTEBOOK, SLOW, TERA, costs
from minisd.observe.recording import Recorded, record
from minisd.observe.summary import cost
from minisd.vae import Gaussian

FOLDER = Path(__file__).parents[2] / "notebooks"
LAPTOP = 0.2                    # TFLOP a second
COUNTED = ("00_quickstart", "08_forward_diffusion", "09_noise_and_guidance", "10_samplers",
           "12_backward_diffusion", "13_editing", "14_prompts", "16_evaluation", "17_model_card")
TAKEN_APART = ("04_attention", "05_text_encoder", "06_vae", "07_unet", "11_capstone")
NARROW = replace(                       # no two layers of v1 have the same shape here but not there
    V1, text=replace(V1.text, width=72), vae=replace(V1.vae, channels=(24, 48, 96, 96), groups=24),
    unet=replace(V1.unet, channels=(32, 64, 128, 128), context_dim=72))


@cache
def prices(side: tuple[int, int]) -> Counter[str]:
    """TFLOP of one row through each part of v1, for latents of side (height, width)."""
    with torch.device("meta"):
        rows = cost(StableDiffusion(V1), latent_size=side)
    found: Counter[str] = Counter()
    for row in rows:
        found[row.part] += row.flops / TERA
    return found


def counting_model(spent: Counter[str]) -> StableDiffusion:
    """v1 whose networks add what they would compute to `spent`, by part, in TFLOP."""
    with torch.device("meta"):
        sd = StableDiffusion(V1)
    sd.tokenizer, shrink = packaged_tokenizer(), V1.vae.downscale

    def text_encoder(ids: Tensor) -> Tensor:
        spent["text_encoder"] += len(ids) * prices((64, 64))["text_encoder"]
        waves = torch.arange(V1.text.width) * 0.1
        return torch.sin(ids[..., None].float().cumsum(1) * 1e-3 + waves)

    def unet(x_t: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        spent["unet"] += len(x_t) * prices(tuple(x_t.shape[-2:]))["unet"]
        level = torch.tensor([sd.schedule.at(t) for t in timesteps.tolist()])
        level = level.float().clamp(max=0.9999)[:, None, None, None].expand(len(x_t), 1, 1, 1)
        known = context.float().mean(1)[:, :4 * 8 * 8].unflatten(1, (4, 8, 8))
        known = F.interpolate(known, x_t.shape[-2:]).expand(len(x_t), -1, -1, -1)
        return diffusion.predict_eps(x_t.float(), known, level)

    def encode(pixels: Tensor) -> Gaussian:
        small = F.avg_pool2d(pixels, shrink)
        spent["encoder"] += len(pixels) * prices(tuple(small.shape[-2:]))["encoder"]
        mean = torch.cat([small, small.mean(1, keepdim=True)], 1) / V1.vae.scale_factor
        return Gaussian(mean, torch.full_like(mean, -10))

    def decode(z: Tensor) -> Tensor:
        spent["decoder"] += len(z) * prices(tuple(z.shape[-2:]))["decoder"]
        return F.interpolate(z[:, :3] * V1.vae.scale_factor, scale_factor=shrink)

    sd.text_encoder.forward, sd.unet.forward = text_encoder, unet
    sd.vae.encode, sd.vae.decode = encode, decode
    return sd


def cells(name: str) -> Iterator[str]:
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            yield cell.source


@pytest.fixture()
def spent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    if packaged_tokenizer() is None:
        pytest.skip("needs CLIP's vocabulary, from requirements-dev.txt")
    found: Counter[str] = Counter()
    sd = counting_model(found)
    monkeypatch.setattr(StableDiffusion, "device", torch.device("cpu"))
    monkeypatch.setattr(StableDiffusion, "dtype", torch.float32)
    monkeypatch.setattr(minisd, "load", lambda *_, **__: sd)
    monkeypatch.setattr("minisd.checkpoints.weights.fingerprint", lambda _: "v1")
    monkeypatch.setattr(builtins, "display", lambda *_: None, raising=False)
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    return found


@pytest.fixture()
def layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The narrow model for v1; what is spent on its layers, and on those of networks like it."""
    if packaged_tokenizer() is None:
        pytest.skip("needs CLIP's vocabulary, from requirements-dev.txt")
    with torch.device("meta"):
        whole = StableDiffusion(V1).state_dict()
    torch.manual_seed(0)
    sd = StableDiffusion(NARROW, packaged_tokenizer()).eval().requires_grad_(False)
    wide = {small.shape: whole[name].shape for name, small in sd.state_dict().items()}
    found: Counter[str] = Counter()

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        weight = getattr(layer, "to_q", layer)._parameters.get("weight")
        if weight is None or weight.is_meta:
            return
        shape = wide.get(weight.shape, weight.shape)
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found["layers"] += 2 * output.numel() / len(weight) * prod(shape) / TERA
        elif hasattr(layer, "to_q"):                        # q k and its product with v
            (rows, cells, _), tokens = inputs[0].shape, inputs[-1].shape[1]
            found["attention"] += 4 * rows * cells * tokens * shape[0] / TERA

    monkeypatch.setattr(minisd, "load", lambda *_, **__: sd)
    monkeypatch.setattr("minisd.observe.budget.costs", lambda config, pixels: costs(
        V1 if config == NARROW else config, pixels))
    monkeypatch.setattr("minisd.widgets.explorer.PAINTS_AT_ONCE", 0)
    monkeypatch.chdir(FOLDER)                   # where 11 looks for the learner's cells
    monkeypatch.setattr(builtins, "display", lambda *_: None, raising=False)
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    hook = register_module_forward_hook(count)
    yield found
    hook.remove()


@torch.no_grad()
def test_counted_layer_by_layer_a_picture_costs_the_same(layer_by_layer: Counter[str]) -> None:
    minisd.load().text_to_image("a cat", steps=5, height=64, width=64)
    part = prices((8, 8))
    expected = 2 * part["text_encoder"] + 10 * part["unet"] + part["decoder"]
    assert layer_by_layer.total() == pytest.approx(expected, rel=1e-6)


def test_a_picture_costs_what_v1_needs(spent: Counter[str]) -> None:
    """0.803 TFLOP a row and step and 2.515 to decode; 50 guided steps alone are over the budget."""
    minisd.load().text_to_image("a cat", steps=50)
    assert spent["unet"] == pytest.approx(50 * 2 * 0.803, rel=1e-3)
    assert spent["decoder"] == pytest.approx(2.515, rel=1e-3)
    assert spent.total() > NOTEBOOK


def run_cells(name: str) -> Iterator[str]:
    """Run a notebook's cells one after the other; yields each when it has run.

    What a cell switches off for its kernel, warnings or gradients, is on again at the end.
    """
    namespace = vars(SimpleNamespace(__name__=f"notebook_{name}"))
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        for source in cells(name):
            exec(compile(source, f"<{name}>", "exec"), namespace)
            yield source


@pytest.mark.parametrize("name", COUNTED)
def test_on_v1_a_notebook_stays_within_its_budget(name: str, spent: Counter[str],
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    stays_within(name, spent, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN_APART)
def test_so_does_one_that_takes_networks_apart(name: str, layer_by_layer: Counter[str],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    stays_within(name, layer_by_layer, capsys)


def stays_within(name: str, spent: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    silent, before = [], 0.0
    for source in run_cells(name):
        if spent.total() - before > SLOW * LAPTOP and "announce(" not in source:
            silent.append(f"{spent.total() - before:.1f} TFLOP in:\n{source}")
        before = spent.total()
    capsys.readouterr()                         # what the cells print
    print(f"{name}: {spent.total():.1f} TFLOP, "
          + ", ".join(f"{part} {tera:.1f}" for part, tera in spent.items()))
    assert spent.total() <= NOTEBOOK
    assert not silent, "these cells do not say beforehand how long they take:\n" + "\n".join(silent)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_what_was_recorded_of_v1_runs_again_without_it(name: str, spent: Counter[str],
                                                       tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells as they stand ask a recording for nothing else than they asked the model."""
    record(minisd.load(), tmp_path, torch.float32)
    assert [*run_cells(name)] and spent.total()
    monkeypatch.setattr(minisd, "load", lambda *_, **__: replay)
    replay, asked = Recorded(tmp_path), spent.total()
    assert [*run_cells(name)] and spent.total() == asked
