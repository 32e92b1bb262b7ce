"""toyworld's CLIP: both towers and the space they share like transformers'."""

from functools import partial

import pytest
import torch
from parity import (
    TOLERANCE,
    TOWER,
    copy_weights,
    moved_by_eps,
    relative_error,
    scramble,
    transformer,
)
from torch import Tensor, nn

from minisd.config import Config
from minisd.toyworld.clip import CLIP, CLIPImageTransformer

IMAGE = [*TOWER, (r"pre_layrnorm", "pre_norm"), (r"post_layernorm", "post_norm")]      # sic
BOTH = [(r"^text_model", "text"), (r"^vision_model", "image"),
        (r"visual_projection", "image_projection"), *IMAGE]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 20, 20) * 2 - 1


def reference(config: Config) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(text_config=transformer(config.text),
                                vision_config=transformer(config.image_tower),
                                projection_dim=config.image_tower.projection_dim))


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_the_image_tower_like_transformers(tiny, images, quiet) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    ours = CLIPImageTransformer(tiny.image_tower)
    theirs = CLIPVisionModel(CLIPVisionConfig(**transformer(tiny.image_tower)))
    scramble(ours, quiet=quiet)
    copy_weights(ours, theirs, [(r"^vision_model\.", ""), *IMAGE])
    assert relative_error(ours(images), theirs(images).pooler_output) < TOLERANCE
    moved = moved_by_eps(ours, partial(ours, images))
    assert len(moved) == 2 * 3 + 2
    assert not quiet or min(moved.values()) > 10 * TOLERANCE, moved


def test_the_shared_space_like_transformers(tiny, images) -> None:
    ours, theirs = CLIP(tiny.text, tiny.image_tower), reference(tiny)
    scramble(ours)
    ours.logit_scale.fill_(1.7)
    copy_weights(ours, theirs, BOTH)
    ids = torch.randint(tiny.text.vocab_size, (4, 13))
    ids[:, -1] = tiny.text.vocab_size - 1                   # the end, where a prompt is read
    expected = theirs(input_ids=ids, pixel_values=images)
    text, image = ours.embed_text(ids), ours.embed_images(images)
    assert relative_error(text, expected.text_embeds) < TOLERANCE
    assert relative_error(image, expected.image_embeds) < TOLERANCE
    assert relative_error(ours.scale() * text @ image.T, expected.logits_per_text) < TOLERANCE
    torch.testing.assert_close(text.norm(dim=1), torch.ones(4))


def test_the_temperature_starts_at_clips_and_is_capped(tiny) -> None:
    model = CLIP(tiny.text, tiny.image_tower).requires_grad_(False)
    assert float(model.scale()) == pytest.approx(1 / 0.07)
    model.logit_scale.fill_(9)
    assert float(model.scale()) == 100
