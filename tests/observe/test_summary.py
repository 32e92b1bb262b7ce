"""Counts and costs: exact at v1's published sizes, by hand where a hand can count, no weights."""

import functools

import pytest
import torch
from conftest import TINY
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minisd.attention import FeedForward
from minisd.config import TOYWORLD, V1, Config
from minisd.observe import summary as observed
from minisd.observe.summary import BlockCost, cost, summary
from minisd.pipeline import StableDiffusion
from minisd.resblock import ResBlock
from minisd.speed import accelerate
from minisd.unet import UNet

CONFIGS = (V1, TOYWORLD, TINY)
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


@functools.cache
def empty(config: Config) -> StableDiffusion:
    """Shapes without memory."""
    with torch.device("meta"):
        return StableDiffusion(config)


@functools.cache
def costs(config: Config) -> list[BlockCost]:
    """Of a picture of the default size."""
    return cost(empty(config))


def totals(rows: list[BlockCost]) -> dict[str, tuple[int, int]]:
    """Parameters and FLOPs of each part."""
    return {part: (sum(row.parameters for row in own), sum(row.flops for row in own))
            for part in dict.fromkeys(row.part for row in rows)
            for own in [[row for row in rows if row.part == part]]}


# What a model is

@each_config
def test_what_is_counted_is_all_there_is(config: Config) -> None:
    sd = empty(config)
    content = summary(sd)
    assert {a.name: a.shape for a in content.arrays} == {
        name: tuple(value.shape) for name, value in sd.state_dict().items()}
    assert all(a.parameters == sd.get_parameter(a.name).numel() for a in content.arrays)
    parts = content.parts
    assert list(parts) == ["text_encoder", "unet", "vae", "encoder", "decoder"]
    for total, halves in ((parts["vae"], ["encoder", "decoder"]),
                          (content, ["text_encoder", "unet", "vae"])):
        assert total.parameters == sum(parts[half].parameters for half in halves)
        for kind, count in total.layers.items():
            assert count == sum(parts[half].layers.get(kind, 0) for half in halves), kind
    for layer in (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.Embedding, ResBlock):
        assert content.layers[layer.__name__] == sum(isinstance(m, layer) for m in sd.modules())


def test_any_module_has_a_summary_and_parts() -> None:
    content = summary(empty(TINY).unet)
    assert list(content.parts) == ["time_embedding", "conv_in", "down", "mid", "up", "norm_out",
                                   "conv_out"]
    assert content.model == "UNet" and content.parameters == sum(
        part.parameters for part in content.parts.values())
    assert summary(FeedForward(3)).layers == {"Linear": 2}
    with pytest.raises(ValueError, match="no parameters"):
        summary(nn.Identity())


def test_faster_kernels_are_counted_as_what_they_stand_for() -> None:
    with torch.device("meta"):
        fast = accelerate(StableDiffusion(TINY))
    assert summary(fast).layers == summary(empty(TINY)).layers
    assert cost(fast) == costs(TINY)


# What a model does

def test_v1_costs_what_is_published() -> None:
    """At 512 x 512, to the last published digit, and exactly as torch counts them."""
    rows = costs(V1)
    assert totals(rows) == {
        "text_encoder": (123_060_480, 13_298_503_680),
        "unet": (859_520_964, 803_273_441_280),             # 0.803 TFLOP
        "encoder": (34_163_664, 1_116_658_466_816),         # 1.117 TFLOP
        "decoder": (49_490_199, 2_514_518_933_504)}         # 2.515 TFLOP
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["text_encoder.final_norm"] == (1, 77, 768)
    assert shapes["unet.time_embedding"] == (1, 1280)
    assert shapes["unet.mid.layers.0.attention"] == (1, 1280, 8, 8)
    assert shapes["unet.conv_out"] == (1, 4, 64, 64)
    assert shapes["vae.quant_conv"] == (1, 8, 64, 64)
    assert shapes["vae.decoder.conv_out"] == (1, 3, 512, 512)


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: config.name)
def test_the_blocks_together_cost_what_torch_counts_of_the_whole(config: Config) -> None:
    """Odd latent sizes and few tokens: nothing is left out, and nothing counted twice."""
    sd, tokens, (h, w) = empty(config), 11, (7, 9)
    rows = cost(sd, latent_size=(h, w), tokens=tokens)
    factor, channels = config.vae.downscale, config.vae.latent_channels
    with torch.device("meta"), torch.no_grad():
        passes = {
            "text_encoder": lambda: sd.text_encoder(torch.zeros(1, tokens, dtype=torch.long)),
            "unet": lambda: sd.unet(torch.empty(1, channels, h, w), torch.empty(1),
                                    torch.empty(1, tokens, config.unet.context_dim)),
            "encoder": lambda: sd.vae.encode(torch.empty(1, 3, factor * h, factor * w)),
            "decoder": lambda: sd.vae.decode(torch.empty(1, channels, h, w))}
        for part, run in passes.items():
            with FlopCounterMode(display=False) as counter:
                run()
            assert totals(rows)[part][1] == counter.get_total_flops()


@each_config
def test_blocks_are_disjoint_and_together_everything(config: Config) -> None:
    sd, content = empty(config), summary(empty(config))
    rows = costs(config)
    for part, (parameters, _) in totals(rows).items():
        assert parameters == content.parts[part].parameters
    for row in rows:
        block = sd.get_submodule(row.name)
        assert row.kind == type(block).__name__
        assert row.parameters == sum(p.numel() for p in block.parameters())
    assert [row.name for row in rows if row.output_shape is None] == [
        "text_encoder.position_embedding"]
    side = config.image_size // config.vae.downscale
    last = {row.part: row.output_shape for row in rows}
    assert last == {
        "text_encoder": (1, config.text.max_length, config.text.width),
        "unet": (1, config.unet.latent_channels, side, side),
        "encoder": (1, 2 * config.vae.latent_channels, side, side),
        "decoder": (1, 3, config.image_size, config.image_size)}


def test_rows_come_in_the_order_of_running() -> None:
    """Also where modules are declared in another: the VAE's attention between its ResBlocks."""
    names = [row.name for row in cost(empty(TINY).vae, latent_size=(2, 2))]
    middle = [name for name in names if name.startswith("decoder.mid")]
    assert middle == ["decoder.mid.resnets.0", "decoder.mid.attention", "decoder.mid.resnets.1"]
    assert names.index("post_quant_conv") < names.index("decoder.conv_in")


def test_parts_by_themselves_cost_the_same() -> None:
    sd, side, whole = empty(TINY), (6, 6), totals(costs(TINY))
    assert totals(cost(sd.unet, latent_size=side, tokens=13)) == {"unet": whole["unet"]}
    assert cost(sd.unet, latent_size=side) == cost(sd.unet, latent_size=side, tokens=77)
    assert totals(cost(sd.text_encoder)) == {"text_encoder": whole["text_encoder"]}
    assert totals(cost(sd.vae, latent_size=side)) == {
        part: whole[part] for part in ("encoder", "decoder")}


def test_a_model_with_weights_is_not_run() -> None:
    network = UNet(TINY.unet)
    hook = network.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    assert cost(network, latent_size=(3, 5)) == cost(empty(TINY).unet, latent_size=(3, 5))
    hook.remove()
    assert not any(module._forward_hooks for module in network.modules())


def test_what_cannot_be_measured_is_refused() -> None:
    sd = empty(TINY)
    with pytest.raises(TypeError, match="got Decoder: pass the network"):
        cost(sd.vae.decoder)  # type: ignore[arg-type]
    for network in (sd.unet, sd.vae):
        with pytest.raises(ValueError, match="latent_size is missing.*by itself"):
            cost(network)
    for sizes, said in (({"latent_size": (0, 4)}, "at least 1"), ({"tokens": 0}, "at least 1"),
                        ({"tokens": 14}, "n at most 13")):
        with pytest.raises(ValueError, match=said):
            cost(sd, **sizes)


# As text

def test_a_summary_prints_its_totals() -> None:
    lines = [line.split() for line in str(summary(empty(V1))).splitlines()]
    assert "1,066,235,307 parameters in 1,130 arrays" in str(summary(empty(V1)))
    for line in (["unet", "686", "859,520,964", "80.6%"], ["encoder", "108", "34,163,664", "3.2%"],
                 ["total", "1,130", "1,066,235,307", "100.0%"],
                 ["Conv2d", "0", "98", "28", "36", "162"],
                 ["Attention", "12", "32", "1", "1", "46"]):
        assert line in lines


def test_info_tells_all_and_every_array_on_request() -> None:
    text = observed.info(V1)
    for part in ("v1\n", str(summary(empty(V1))), observed.cost_table(costs(V1)),
                 "unet 0.803 TFLOP, encoder 1.117 TFLOP, decoder 2.515 TFLOP",
                 "786,432 numbers", "16,384 numbers, 48 times fewer",
                 "2 x text_encoder + 100 x unet + 1 x decoder = 82.868 TFLOP"):
        assert part in text
    table = observed.cost_table(costs(V1)).split("\n\n")[1].splitlines()
    assert table[0].split() == ["unet", "type", "output", "parameters", "MFLOP", "share"]
    assert table[-1].split()[0] == "total" and "859,520,964" in table[-1]
    brief, full = observed.info(TINY), observed.info(TINY, arrays=True)
    listed = full.removeprefix(brief).splitlines()[2:]
    assert full.startswith(brief) and listed[0].split() == ["array", "shape", "parameters"]
    assert [line.split()[0] for line in listed[1:]] == list(empty(TINY).state_dict())
