"""The recorder of attention and its editor, on a tiny UNet; word maps, on maps made by hand."""

import threading

import pytest
import torch
from parity import relative_error
from torch import Tensor

from minisd.attention import Attention
from minisd.observe.attention_maps import (
    AttentionMap,
    attention_layers,
    edit_attention,
    record_attention,
    scale_word,
    word_maps,
)

PROMPT = "a red car"
HALF = 1e-3                     # of a weight: float16 rounds at 5e-4
LAYERS = ["down.0.layers.0.attention.block.cross_attn",
          "down.2.layers.0.attention.block.cross_attn",
          "mid.layers.0.attention.block.cross_attn",
          "up.0.layers.0.attention.block.cross_attn", "up.0.layers.1.attention.block.cross_attn",
          "up.2.layers.0.attention.block.cross_attn", "up.2.layers.1.attention.block.cross_attn"]


@pytest.fixture(autouse=True)
def no_listener_is_left(sd):
    yield
    assert not any(m.listeners for m in sd.modules() if isinstance(m, Attention))


def evaluate(sd, prompts: tuple[str, ...] = ("", PROMPT), size: tuple[int, int] = (7, 9)
             ) -> Tensor:
    """One call of the UNet on one picture for every prompt."""
    latents = torch.randn(1, 5, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return sd.unet(latents.expand(len(prompts), -1, -1, -1), torch.tensor(500.0),
                       sd.encode_prompt(prompts))


# Recording

def test_every_layer_and_call_is_recorded_by_name(sd) -> None:
    with record_attention(sd.unet) as record:
        evaluate(sd)
        assert len(record) == 7
        evaluate(sd, (PROMPT,) * 3)
    evaluate(sd)
    assert [m.layer for m in record] == LAYERS * 2
    assert [m.call for m in record] == [0] * 7 + [1] * 7
    assert {m.kind for m in record} == {"cross"}
    cells = [63, 2 * 3, 2 * 3, 2 * 3, 2 * 3, 63, 63]        # 7 x 9, 4 x 5 (no attention), 2 x 3
    for m, b, n in zip(record, [2] * 7 + [3] * 7, cells * 2, strict=True):
        assert m.weights.shape == (b, 2, n, 13) and m.weights.dtype == torch.float16
        torch.testing.assert_close(m.weights.float().sum(-1), torch.ones(b, 2, n), atol=5e-3,
                                   rtol=0)


def test_rows_keep_the_conditional_half_and_heads_can_be_averaged(sd) -> None:
    with (record_attention(sd.unet) as whole, record_attention(sd.unet, rows=1) as half,
          record_attention(sd.unet, mean_of_heads=True) as mean):
        evaluate(sd)
    for a, b, c in zip(whole, half, mean, strict=True):
        assert torch.equal(a.weights[1:], b.weights)
        assert c.weights.shape == (2, *a.weights.shape[2:])
        torch.testing.assert_close(c.weights.float(), a.weights.float().mean(1), atol=HALF, rtol=0)
    assert relative_error(whole[0].weights[:1].float(), half[0].weights.float()) > 0.01


def test_self_attention_and_other_networks_can_be_recorded(sd, picture) -> None:
    with record_attention(sd.unet, kind="self", layers="up.0") as record:
        evaluate(sd)
    assert [m.weights.shape[2:] for m in record] == [(6, 6)] * 2
    assert {m.kind for m in record} == {"self"}
    with (record_attention(sd.text_encoder, kind=None) as words,
          record_attention(sd.vae, kind=None) as pixels):
        sd.encode_prompt(PROMPT)
        sd.encode_image(picture)
    assert [m.layer for m in words] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert not words[0].weights.triu(1).any()                       # no token looks ahead
    assert [m.layer for m in pixels] == ["encoder.mid.attention.self_attn"]
    assert len(attention_layers(sd.unet, None)) == 14


def test_listeners_go_whatever_happens(sd) -> None:
    with pytest.raises(KeyError), record_attention(sd.unet) as record:
        evaluate(sd)
        raise KeyError
    assert len(record) == 7
    with pytest.raises(KeyError), edit_attention(sd.unet, scale_word(1, 0)), \
            record_attention(sd.unet):
        raise KeyError          # the fixture looks for what is left


def test_what_another_thread_computes_is_neither_heard_nor_changed(sd) -> None:
    """A widget paints with the same network while a cell records."""
    plain, beside = evaluate(sd), []
    thread = threading.Thread(target=lambda: beside.append(evaluate(sd)))
    with record_attention(sd.unet) as record, edit_attention(sd.unet, lambda w, _: 0 * w):
        thread.start()
        thread.join()
        assert len(record) == 0
        assert relative_error(evaluate(sd), plain) > 1e-2
    assert relative_error(beside[0], plain) < 1e-5


@pytest.mark.parametrize(("asked", "text"), [
    ({"layers": ["middle"]}, "no attention of kind cross at middle: this network has down.0.lay"),
    ({"layers": ["up.1"]}, "no attention of kind cross at up.1"),   # that level has none
    ({"layers": ["u"]}, "no attention of kind cross at u:"),        # whole parts of names only
    ({"kind": "both"}, "kind must be 'self', 'cross' or None, got 'both'")])
def test_layers_that_do_not_exist_are_named(sd, asked, text) -> None:
    with pytest.raises(ValueError) as error, record_attention(sd.unet, **asked):
        pass
    assert text in str(error.value)


# Editing

def test_a_recorder_or_an_edit_that_changes_nothing_changes_results_by_rounding(sd) -> None:
    plain = evaluate(sd)
    with record_attention(sd.unet, kind=None):
        assert relative_error(evaluate(sd), plain) < 1e-5
    for edit in (lambda weights, layer: None, lambda weights, layer: weights, scale_word(2, 1.0)):
        with edit_attention(sd.unet, edit):
            assert relative_error(evaluate(sd), plain) < 1e-5
    assert torch.equal(evaluate(sd), plain)


def test_a_word_taken_away_changes_only_the_conditional_half(sd) -> None:
    with record_attention(sd.unet):
        plain = evaluate(sd)
    with edit_attention(sd.unet, scale_word(2, 0.0), rows=1):
        edited = evaluate(sd)
    assert torch.equal(edited[0], plain[0])
    assert relative_error(edited[1], plain[1]) > 1e-3
    with edit_attention(sd.unet, scale_word(2, 0.0)):
        both = evaluate(sd)
    assert relative_error(both[0], plain[0]) > 1e-3 and torch.equal(both[1], edited[1])


def test_a_recorder_inside_an_edit_sees_what_was_edited(sd) -> None:
    seen: list[str] = []

    def edit(weights: Tensor, layer: str) -> Tensor:
        seen.append(layer)
        return scale_word([0, 4], 0.5)(weights, layer)

    with (record_attention(sd.unet) as before, edit_attention(sd.unet, edit, rows=1),
          record_attention(sd.unet) as after):
        evaluate(sd)
    assert seen == LAYERS
    for a, b in zip(before, after, strict=True):
        factor = torch.ones(2, 13)
        factor[1, [0, 4]] = 0.5
        torch.testing.assert_close(b.weights.float(),
                                   a.weights.float() * factor[:, None, None], atol=HALF, rtol=0)


def test_edits_of_another_shape_and_words_that_do_not_exist_are_refused(sd) -> None:
    with pytest.raises(ValueError, match=r"down.0.* returned weights of shape \(2, 2, 63\), exp"), \
            edit_attention(sd.unet, lambda weights, layer: weights.sum(-1)):
        evaluate(sd)
    for wrong in (13, -1, [2, 13], []):
        with pytest.raises(ValueError, match="token_index must be from 0 to 12, got"):
            scale_word(wrong, 0)(torch.zeros(1, 2, 6, 13), "mid")


# Word maps

def made(weights: Tensor, call: int = 0, kind: str = "cross") -> AttentionMap:
    return AttentionMap("mid", kind, call, weights.half())


def test_a_word_map_shows_where_the_word_was_read() -> None:
    fine, coarse = torch.zeros(1, 2, 5 * 7, 4), torch.zeros(2, 3 * 4, 4)
    fine[0, 0, 2 * 7 + 6, 3] = 1.0                  # one head, row 2, column 6
    coarse[1, 1 * 4 + 3, 3] = 1.0                   # heads averaged; row 1, column 3
    coarse[0, :, 3] = 1.0                           # of another picture of the batch
    heat = word_maps([made(fine), made(coarse, 5), made(fine, kind="self")], 3, (5, 7))
    assert heat.shape == (5, 7) and heat.dtype == torch.float32
    assert heat.argmax() == 2 * 7 + 6 and heat[:, 0].max() == 0
    assert float(heat[2, 6]) == pytest.approx((0.5 + 1) / 2)
    both = made(torch.full((1, 12, 4), 0.25))               # several tokens are added up
    torch.testing.assert_close(word_maps([both], [1, 3], (5, 7)), torch.full((5, 7), 0.5))


def test_word_maps_say_what_is_missing() -> None:
    maps = [made(torch.zeros(1, 12, 4))]
    with pytest.raises(ValueError, match="the record holds no cross-attention"):
        word_maps([made(torch.zeros(1, 12, 4), kind="self")], 0, (5, 7))
    with pytest.raises(ValueError, match=r"12 cells belongs to no level of latents of \(8, 8\)"):
        word_maps(maps, 0, (8, 8))
