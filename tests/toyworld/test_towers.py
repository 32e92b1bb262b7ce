"""toyworld's CLIP: both towers and the space they share like transformers'."""

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

from minisd.toyworld.clip import CLIP, PatchEmbedding


@pytest.mark.parametrize("quiet", [False, True], ids=["loud", "quiet"])
def test_both_towers_like_transformers(tiny, quiet, monkeypatch) -> None:
    from transformers import CLIPConfig, CLIPModel

    ours, images = CLIP(tiny.text, tiny.image_tower), torch.rand(2, 3, 20, 20) * 2 - 1
    theirs = CLIPModel(CLIPConfig(text_config=transformer(tiny.text),
                                  vision_config=transformer(tiny.image_tower),
                                  projection_dim=tiny.image_tower.projection_dim))
    # Our stem takes the place of their one convolution, off which their tower reads its dtype.
    monkeypatch.setattr(PatchEmbedding, "weight", torch.zeros(()), raising=False)
    theirs.vision_model.embeddings.patch_embedding = ours.image.patch_embedding
    scramble(ours, quiet=quiet)
    ours.logit_scale.fill_(1.7)
    copy_weights(ours, theirs, [
        *TOWER, (r"pre_layrnorm", "pre_norm"), (r"post_layernorm", "post_norm"),        # sic
        (r"^text_model", "text"), (r"^vision_model", "image"),
        (r"visual_projection", "image_projection")])
    ids = torch.randint(tiny.text.vocab_size, (4, 13))
    ids[:, -1] = tiny.text.vocab_size - 1                   # the end, where a prompt is read
    expected = theirs(input_ids=ids, pixel_values=images)
    text, image = ours.embed_text(ids), ours.embed_images(images)
    assert relative_error(text, expected.text_embeds) < TOLERANCE
    assert relative_error(image, expected.image_embeds) < TOLERANCE
    assert relative_error(ours.scale() * text @ image.T, expected.logits_per_text) < TOLERANCE
    torch.testing.assert_close(text.norm(dim=1), torch.ones(4))
    moved = moved_by_eps(ours.image, lambda: ours.embed_images(images))
    moved = {name: far for name, far in moved.items() if "patch" not in name}   # those are shared
    assert len(moved) == 2 * 3 + 2
    assert not quiet or min(moved.values()) > 10 * TOLERANCE, moved


def test_patches_are_embedded_by_halving_convolutions() -> None:
    stem = PatchEmbedding(32, 16)
    assert [layer.out_channels for layer in stem if hasattr(layer, "stride")] == [8, 16, 32, 32, 32]
    assert stem(torch.rand(2, 3, 48, 48)).shape == (2, 32, 3, 3)
    for width, patch in ((32, 12), (24, 16)):
        with pytest.raises(ValueError, match="a power of two and width a multiple of 32, got"):
            PatchEmbedding(width, patch)


def test_the_temperature_starts_at_clips_and_is_capped(tiny) -> None:
    model = CLIP(tiny.text, tiny.image_tower).requires_grad_(False)
    assert float(model.scale()) == pytest.approx(1 / 0.07)
    model.logit_scale.fill_(9)
    assert float(model.scale()) == 100
