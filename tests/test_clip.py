"""CLIP: both towers like transformers', who sees whom, the shared space, error texts."""

import math
from functools import partial

import parity
import pytest
import torch
from parity import TOLERANCE, copy_weights, moved_by_eps, relative_error, scramble
from torch import Tensor

from minisd.clip import MLP, CLIPTextTransformer
from minisd.config import V1, Config, TextConfig
from minisd.toyworld.clip import CLIP, CLIPImageTransformer


def prompts(config: TextConfig) -> Tensor:
    """Four prompts as the tokenizer pads them: start, words, end, end, ... (4, max_length)."""
    ids = torch.full((4, config.max_length), config.end_id)
    for row, words in zip(ids, (0, 1, 5, config.max_length - 2), strict=True):
        row[0] = config.start_id
        row[1:1 + words] = torch.randint(config.start_id, (words,))
    return ids


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_text_tower_like_transformers(tiny: Config, quiet: bool) -> None:
    ours, theirs = CLIPTextTransformer(tiny.text), parity.clip_text(tiny.text)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.ONE_TOWER)
    for ids in (prompts(tiny.text), torch.randint(tiny.text.vocab_size, (4, 6))):
        expected = theirs(ids).last_hidden_state
        assert expected.shape == (4, ids.shape[1], tiny.text.width)
        assert relative_error(ours(ids), expected) < TOLERANCE


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_image_tower_like_transformers(tiny: Config, quiet: bool) -> None:
    assert tiny.image_tower is not None
    ours, theirs = CLIPImageTransformer(tiny.image_tower), parity.clip_image(tiny.image_tower)
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, parity.ONE_TOWER)
    images = torch.rand(2, 3, 20, 20) * 2 - 1
    assert relative_error(ours(images), theirs(images).pooler_output) < TOLERANCE


def test_the_quiet_inputs_see_the_eps_of_every_norm(tiny: Config) -> None:
    assert tiny.image_tower is not None
    text, image = CLIPTextTransformer(tiny.text), CLIPImageTransformer(tiny.image_tower)
    ids, images = prompts(tiny.text), torch.rand(2, 3, 20, 20) * 2 - 1
    for tower, argument, norms in ((text, ids, 2 * 2 + 1), (image, images, 2 * 3 + 2)):
        scramble(tower, quiet=True)
        moved = moved_by_eps(tower, partial(tower, argument))
        assert len(moved) == norms
        assert min(moved.values()) > 10 * TOLERANCE, moved


def test_the_shared_space_like_transformers(tiny: Config) -> None:
    assert tiny.image_tower is not None
    ours, theirs = CLIP(tiny.text, tiny.image_tower), parity.clip(tiny.text, tiny.image_tower)
    scramble(ours)
    ours.logit_scale.fill_(1.7)
    copy_weights(ours, theirs, parity.BOTH_TOWERS)
    ids, images = prompts(tiny.text), torch.rand(2, 3, 20, 20) * 2 - 1
    expected = theirs(input_ids=ids, pixel_values=images)
    text, image = ours.embed_text(ids), ours.embed_images(images)
    assert relative_error(text, expected.text_embeds) < TOLERANCE
    assert relative_error(image, expected.image_embeds) < TOLERANCE
    assert relative_error(ours.scale() * text @ image.T, expected.logits_per_text) < TOLERANCE
    torch.testing.assert_close(text.norm(dim=1), torch.ones(4))


def test_the_temperature_starts_at_clips_and_is_capped(tiny: Config) -> None:
    assert tiny.image_tower is not None
    model = CLIP(tiny.text, tiny.image_tower).requires_grad_(False)
    assert float(model.scale()) == pytest.approx(1 / 0.07)
    model.logit_scale.fill_(9)
    assert float(model.scale()) == 100


def test_quick_gelu_is_its_formula() -> None:
    """x sigmoid(1.702 x): up to 0.02 from GELU, so each would pass for the other by eye."""
    mlp = MLP(21)
    scramble(mlp)
    h = mlp.fc1(x := 2 * torch.randn(4, 6, 21)).double()
    expected = mlp.fc2((h / (1 + (-1.702 * h).exp())).float())
    assert relative_error(mlp(x), expected) < TOLERANCE


def test_a_token_sees_only_what_came_before(tiny: Config) -> None:
    model = CLIPTextTransformer(tiny.text)
    scramble(model)
    ids = prompts(tiny.text)
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % tiny.text.vocab_size
    before, after = model(ids), model(changed)
    assert relative_error(after[:, :5], before[:, :5]) < TOLERANCE
    assert ((after - before)[:, 5:].norm(dim=-1) > 1e-3).all()
    # So a shorter prompt is the beginning of a longer one: its padding changes nothing before it.
    assert relative_error(model(ids[:, :6]), before[:, :6]) < TOLERANCE


def test_the_last_state_is_normalised(tiny: Config) -> None:
    model = CLIPTextTransformer(tiny.text).requires_grad_(False)
    states = model(prompts(tiny.text))
    torch.testing.assert_close(states.mean(-1), torch.zeros(4, 13), atol=1e-5, rtol=0)
    torch.testing.assert_close(states.std(-1, correction=0), torch.ones(4, 13), atol=1e-3, rtol=0)


def test_v1_has_exactly_its_parameters() -> None:
    with torch.device("meta"):
        model = CLIPTextTransformer(V1.text)
    assert sum(p.numel() for p in model.parameters()) == 123_060_480
    assert len(model.state_dict()) == 196
    assert math.isclose(model.layers[0].norm1.eps, 1e-5)


@pytest.mark.parametrize("shape", [(5,), (2, 14), (1, 2, 3)])
def test_token_ids_of_a_wrong_shape_are_refused(tiny: Config, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"token ids have shape .*, expected \(b, n\) with n up "
                       r"to 13: encode prompts with the model's tokenizer"):
        CLIPTextTransformer(tiny.text)(torch.zeros(shape, dtype=torch.long))
