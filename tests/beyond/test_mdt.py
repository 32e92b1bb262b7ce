"""The masked diffusion transformer: patches, masks, positions, the start as identity, sizes."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from minisd.beyond import mdt
from minisd.beyond.mdt import (
    MDT,
    Block,
    MDTConfig,
    RelativeAttention,
    draw_kept,
    patches,
    pictures,
    waves,
)

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "20_masked_diffusion_transformer.ipynb"
TINY = MDTConfig(side=12, context_dim=10, width=24, heads=3, encoder_blocks=2, decoder_blocks=1,
                 latent_channels=5)


def shaken(network: nn.Module) -> nn.Module:
    """With all weights drawn anew, for what begins as zero says nothing."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    return network


def batch(b: int = 3, h: int = 8, w: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(b, 5, h, w), torch.tensor([3.0, 500.0, 999.0])[:b], torch.randn(b, 7, 10)


def test_patches_are_taken_row_by_row_and_come_back() -> None:
    latents = torch.randn(3, 5, 8, 12)
    cut = patches(latents, 2)
    assert cut.shape == (3, 24, 20)
    assert cut[1, 7].view(2, 2, 5).permute(2, 0, 1).equal(latents[1, :, 2:4, 2:4])
    assert pictures(cut, 4, 6, 2).equal(latents)


def test_it_begins_as_the_identity_and_predicts_nothing() -> None:
    block, x = Block(TINY), torch.randn(3, 9, 24)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(3))[None]
    assert block(x, torch.randn(3, 24), torch.randn(3, 7, 10), places).equal(x)
    assert not shaken(block)(x, torch.randn(3, 24), torch.randn(3, 7, 10), places).equal(x)
    assert MDT(TINY)(*batch()).abs().max() == 0


def test_the_relative_bias_is_a_function_of_the_difference() -> None:
    attention = RelativeAttention(24, 3, grid=6)
    with torch.no_grad():
        attention.bias.copy_(torch.randn_like(attention.bias))
    places = torch.tensor([[[0, 1], [2, 4], [2, 0], [4, 3]]])
    bias = attention.relative(places)                                       # 1 heads 4 4
    assert attention.relative(places + torch.tensor([1, 0])).equal(bias)    # wherever they stand
    assert bias[0, :, 0, 1].equal(bias[0, :, 2, 3])             # both pairs differ by 2 and 3
    assert not bias[0, :, 0, 1].equal(bias[0, :, 1, 0])         # the opposite has its own entry,
    opposite = attention.bias.flip(0).view(11, 11, 3)           # which is the table's mirror image
    assert bias[0, :, 1, 0].equal(opposite[-2 + 5, -3 + 5])
    assert bias[0, :, 0, 0].equal(bias[0, :, 3, 3])


def test_the_bias_enters_the_scores() -> None:
    attention = RelativeAttention(24, 3, grid=6)
    places = torch.cartesian_prod(torch.arange(2), torch.arange(2))[None]
    with torch.no_grad():
        attention.bias[5 * 11 + 5] = 1e4                    # the difference 0: each to itself
    x = torch.randn(2, 4, 24)
    alone = attention.to_out(attention.to_qkv(x).chunk(3, -1)[2])
    torch.testing.assert_close(attention(x, places), alone)


def test_the_encoder_sees_kept_patches_only() -> None:
    network, (latents, t, context) = shaken(MDT(TINY)), batch()
    kept = draw_kept(3, 24, TINY.mask_ratio, torch.Generator().manual_seed(0))
    hidden = torch.ones(3, 24, dtype=torch.bool).scatter(1, kept, False)
    noisy = patches(latents, 2) + hidden[..., None] * torch.randn(3, 24, 20)
    changed = pictures(noisy, 4, 6, 2)
    assert not changed.equal(latents)
    torch.testing.assert_close(network(changed, t, context, kept),
                               network(latents, t, context, kept))
    assert not network(changed, t, context).allclose(network(latents, t, context))
    lengths = []
    for block in (network.encoder[0], network.decoder[0]):
        block.register_forward_hook(lambda module, inputs, x: lengths.append(x.shape[1]))
    network(latents, t, context, kept)
    assert lengths == [kept.shape[1], 24]


def test_the_interpolater_leaves_kept_patches_untouched() -> None:
    network, x = shaken(MDT(TINY)), torch.randn(3, 17, 24)
    kept = draw_kept(3, 24, TINY.mask_ratio, torch.Generator().manual_seed(0))
    places = torch.cartesian_prod(torch.arange(4), torch.arange(6))[None]
    positions = torch.randn(24, 24)
    full = network.fill(x, kept, torch.randn(3, 24), torch.randn(3, 7, 10), places, positions)
    for i in range(3):
        assert full[i, kept[i]].equal(x[i] + positions[kept[i]])
        hidden = [n for n in range(24) if n not in kept[i]]
        assert not full[i, hidden].allclose(network.mask_token + positions[hidden])


def test_order_of_kept_patches_does_not_matter() -> None:
    network, inputs = shaken(MDT(TINY)), batch()
    kept = draw_kept(3, 24, TINY.mask_ratio, torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(*inputs, kept.flip(1)), network(*inputs, kept), rtol=1e-4,
                               atol=1e-4)
    all_kept = torch.arange(24).expand(3, -1)
    torch.testing.assert_close(network(*inputs, all_kept), network(*inputs), rtol=1e-4, atol=1e-4)


def test_masks_differ_and_have_the_ratio_between_its_limits() -> None:
    g = torch.Generator().manual_seed(0)
    kept = draw_kept(50, 64, (0.3, 0.3), g)
    assert kept.shape == (50, 45) and all(len(set(row)) == 45 for row in kept.tolist())
    assert len({tuple(sorted(row)) for row in kept.tolist()}) == 50
    sizes = {draw_kept(2, 64, (0.3, 0.5), g).shape[1] for _ in range(200)}
    assert min(sizes) == 32 and max(sizes) in (44, 45)


def test_timestep_and_every_token_of_the_prompt_count() -> None:
    network, (latents, t, context) = shaken(MDT(TINY)), batch()
    before = network(latents, t, context)
    assert not network(latents, t + 5, context).allclose(before)
    for token in (0, 6):
        other = context.clone()
        other[:, token] += 1
        assert not network(latents, t, other).allclose(before)


def test_without_masking_it_is_the_same_network_less_the_interpolater() -> None:
    plain = MDT(replace(TINY, mask_ratio=(0.0, 0.0)))
    masked = MDT(TINY)
    extra = set(masked.state_dict()) - set(plain.state_dict())
    assert {name.partition(".")[0] for name in extra} == {"interpolater", "mask_token"}
    masked = shaken(masked)
    plain.load_state_dict({k: v for k, v in masked.state_dict().items() if k not in extra})
    inputs = batch()
    assert plain(*inputs).equal(masked(*inputs))
    with pytest.raises(ValueError, match="without masking"):
        plain(*inputs, draw_kept(3, 24, (0.3, 0.3), torch.Generator()))


def test_the_number_of_parameters_is_that_of_the_formula() -> None:
    def formula(c: MDTConfig) -> int:
        d, text, g = c.width, c.context_dim, c.side // c.patch
        values = c.patch ** 2 * c.latent_channels
        block = ((4 * d * d + 4 * d + (2 * g - 1) ** 2 * c.heads)           # over the patches
                 + (2 * d * d + 2 * text * d + d)                           # over the prompt
                 + (12 * d * d + 9 * d) + (9 * d * d + 9 * d))              # GEGLU, modulation
        blocks = c.encoder_blocks + c.decoder_blocks + (c.mask_ratio[1] > 0)
        time = d * d // 4 + d + d * d + d
        return (blocks * block + (values * d + d) + time + (text * d + d) + 2 * g * g * d
                + d * (c.mask_ratio[1] > 0) + (2 * d * d + 2 * d) + (d * values + values))

    for config in (TINY, MDTConfig(side=16, context_dim=128),
                   MDTConfig(side=16, context_dim=128, mask_ratio=(0.0, 0.0))):
        assert sum(p.numel() for p in MDT(config).parameters()) == formula(config)


def test_positions_begin_as_waves_of_row_and_column() -> None:
    first = waves(6, 24)
    assert first[2, 3, :12].equal(first[2, 5, :12]) and first[2, 3, 12:].equal(first[4, 3, 12:])
    assert len({tuple(x.tolist()) for x in first.flatten(0, 1)}) == 36


def test_bad_input_is_refused() -> None:
    network, (latents, t, context) = MDT(TINY), batch()
    for bad in (latents[:, :4], torch.randn(3, 5, 14, 12), torch.randn(3, 5, 7, 12)):
        with pytest.raises(ValueError, match="expected \\(b, 5, h, w\\)"):
            network(bad, t, context)
    with pytest.raises(ValueError, match="context"):
        network(latents, t, context[..., :9])
    with pytest.raises(ValueError, match="multiple of patch"):
        replace(TINY, side=13)
    with pytest.raises(ValueError, match="mask_ratio"):
        replace(TINY, mask_ratio=(0.5, 0.3))


def definitions(source: str) -> dict[str, str]:
    """Classes and functions by name, without docstrings and comments."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner):
                    del inner.body[0]
            found[node.name] = ast.unparse(node)
    return found


def test_the_notebook_builds_the_packages_own_code() -> None:
    sources = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    built: dict[str, str] = {}
    for source in sources:
        if source.startswith("# minisd/beyond/mdt.py\n"):
            built |= definitions(source)
    package = definitions(Path(mdt.__file__).read_text())
    assert built == {name: code for name, code in package.items()
                     if name not in ("MDTConfig", "check")}
