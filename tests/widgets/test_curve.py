"""The curve to look along, and the UNet without some of its skips."""

import re

import numpy as np
import pytest
import torch
from hands import ready, turn
from PIL import Image

from minisd.figures.networks import unet_boxes
from minisd.figures.style import COLOURS
from minisd.widgets import curve_explorer, skip_explorer
from minisd.widgets.curve import HIGH, TOP, WIDE, curve
from minisd.widgets.skips import without

POINTS = {"g = 0": (0.0, 0.0, 0.1), "g = 1": None, "g = 3": (1.0, 0.9, 1.0)}
COLOUR = {name: tuple(int(code[i:i + 2], 16) for i in (1, 3, 5)) for name, code in COLOURS.items()}


def where(picture: Image.Image, colour: str) -> np.ndarray:
    return np.argwhere((np.asarray(picture) == COLOUR[colour]).all(2))


@pytest.mark.parametrize(("chosen", "column"), [("g = 0", 0), ("g = 3", 2)])
def test_the_present_point_is_marked_in_its_column_and_no_word_lies_on_the_curve(
        chosen: str, column: int) -> None:
    shown = curve(POINTS, chosen, "right, of 64 prompts")
    assert where(shown, "time")[:, 1].mean() == pytest.approx((column + 0.5) * WIDE / 3, abs=1)
    assert shown.size == (WIDE, HIGH) and where(shown, "text")[:, 0].min() > TOP - 10
    words = np.argwhere((np.asarray(shown) < 60).all(2))
    assert not ((words[:, 1] < WIDE / 6 - 40) & (words[:, 0] > 20)).any()   # beside the caption


def test_a_point_is_chosen_by_the_bar_or_a_click_and_its_page_comes_in_turns() -> None:
    points = {"step 1": (0.8, 0.7, 0.9), "step 2": (0.4, 0.3, 0.5)}

    def pages(name: str):
        yield [], f"{name}: wait"
        yield [(Image.new("RGB", (8, 8), "red"), name)] * 2, f"{name}: loss {points[name][0]}"

    with ready(curve_explorer("training bar", points, pages, "loss", knob="Stage", across=2,
                              style=".2f")) as widget:
        assert widget.seen.text == "step 2: loss 0.4"
        box, seen = widget.view.children[1].children[0], []
        assert widget.seen.picture.size == (WIDE, int(box.layout.height.removesuffix("px")))
        widget.text.observe(lambda change: seen.append(change.new), "value")
        box.children[1].children[0].click()
        assert turn(widget) == "step 1: loss 0.8" and widget.values == {"point": "step 1"}
        assert "wait" in seen[0] and len(seen) == 2


@pytest.mark.parametrize("number", [0, 2])
def test_a_skip_that_is_off_says_nothing_about_single_cells(toy, number: int) -> None:
    unet, inputs = toy.unet, (torch.randn(1, 5, 6, 6), torch.tensor([5]),
                              toy.encode_prompt("a red car"))
    box = unet_boxes(toy.config.unet, (6, 6))[number]
    layer = [layer for level in unet.up for layer in level.layers][-1 - number]
    taken: list[torch.Tensor] = []
    hook = layer.resnet.register_forward_pre_hook(lambda net, args: taken.append(args[0]))
    whole = unet(*inputs)
    with without(unet, [box]):
        assert not torch.equal(unet(*inputs), whole)
    hook.remove()
    before, after = (x[:, -box.channels:] for x in taken)
    assert after.std((2, 3)).max() < 1e-5 < before.std((2, 3)).min()
    torch.testing.assert_close(after.mean((2, 3)), before.mean((2, 3)))
    assert torch.equal(*(x[:, :-box.channels] for x in taken))
    assert torch.equal(unet(*inputs), whole)                # nothing is left behind


def test_the_skip_explorer_says_what_a_skip_is_worth(toy, soft) -> None:
    with ready(skip_explorer(toy, "a red car", soft)) as widget:
        boxes = [knob for key, knob in widget.knobs.items() if key.startswith("skip")]
        assert [knob.description for knob in boxes][0] == "skip 0: 12 x 6 x 6" and len(boxes) == 6
        both = re.findall(r"(\d+)%", turn(widget, t=20, skip_0=True))
        assert both[0] == both[1] and "At t = 20" in widget.seen.text
        before = widget.seen.picture.tobytes()
        turn(widget, skip_0=False)
        assert widget.seen.picture.tobytes() != before
