"""How outlines and flatness are measured: what is drawn is ideal, what is spoilt is not."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minisd.toyworld.evaluation.shapes import measure
from minisd.toyworld.scenes import KINDS, Scene, Thing, draw

CIRCLE = Scene((Thing("circle", "red", 0.45, 0.55, 0.5),), "sky", None, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_are_flat_and_true_to_their_outline_wherever_they_stand(kind) -> None:
    """A pixel's edge is in or out, so thin parts leave a few per cent."""
    for background, x in (("white", 0.4), ("night", 0.6)):
        scene = Scene((Thing(kind, "orange", x, 0.5, 0.5),), background, None, 1)
        found = measure(draw(scene), replace(scene, things=(replace(scene.things[0], x=0.5),)))
        assert found["outline"] < 0.1 and found["spread"] < 0.5, (background, found)


def test_a_dent_moves_the_outline_and_grain_the_spread() -> None:
    whole = measure(draw(CIRCLE), CIRCLE)
    dented = Image.fromarray(draw(CIRCLE))
    empty = draw(replace(CIRCLE, things=()))
    box = (20, 60, 50, 90)
    dented.paste(Image.fromarray(empty).crop(box), box)
    found = measure(np.asarray(dented), CIRCLE)
    assert found["outline"] > whole["outline"] + 0.05 and found["spread"] > 10
    grain = np.random.default_rng(0).normal(0, 6, (128, 128, 3))
    grainy = measure((draw(CIRCLE) + grain).clip(0, 255).astype(np.uint8), CIRCLE)
    assert 4 < grainy["spread"] < 6 and grainy["outline"] < whole["outline"] + 0.01
    assert measure(empty, CIRCLE) == {"outline": 1.0, "spread": 0.0}
