"""The VAE explorer and the noise slider on a tiny random model."""

import io
import math
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hands import enlarged, ready, status, tile, turn
from PIL import Image

from minisd import images
from minisd.observe.reading import to_tensor
from minisd.widgets import noise, noise_slider, vae, vae_explorer
from minisd.widgets.drawing import GAP, LABEL_HIGH

SIDE = 48           # of the tiny model's pictures


def painted(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture
def explorer(toy):
    with ready(vae_explorer(toy, {"one": painted(1), "two": painted(2, 100, 60)})) as widget:
        yield widget


@pytest.fixture
def slider(toy):
    with ready(noise_slider(toy, painted(3))) as widget:
        yield widget


def place(widget, row: int, column: int, side: int) -> bytes:
    return tile(widget, column * (side + GAP), row * (side + LABEL_HIGH + GAP) + LABEL_HIGH,
                side).tobytes()


def cropped(picture: Image.Image) -> bytes:
    square, = images.to_pil(to_tensor(picture, size=(SIDE, SIDE)))
    return enlarged(square, vae.SIDE).tobytes()


def send(widget, name: str, content: bytes) -> None:
    """As the browser does when a file was chosen."""
    widget.upload.value = ({"name": name, "type": "image/png", "size": len(content),
                            "content": memoryview(content), "last_modified": datetime.now(UTC)},)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


# The VAE explorer

def test_it_shows_the_original_and_what_comes_back(explorer, toy) -> None:
    back, = toy.decode(toy.encode_image(painted(1)))
    assert place(explorer, 0, 0, vae.SIDE) == enlarged(painted(1), vae.SIDE).tobytes()
    assert place(explorer, 0, 1, vae.SIDE) == enlarged(back, vae.SIDE).tobytes()
    error = np.asarray(back, float) - np.asarray(painted(1), float)
    decibels = 10 * math.log10(255 ** 2 / (error ** 2).mean())
    assert explorer.seen.text == (f"6,912 numbers became 180 latents, 0.0260 of them. "
                                  f"{decibels:.1f} dB (PSNR)")
    turn(explorer, picture="two")
    assert place(explorer, 0, 0, vae.SIDE) == cropped(painted(2, 100, 60))


@pytest.mark.parametrize("channel", range(5))
def test_every_channel_is_multiplied_before_decoding(explorer, toy, channel: int) -> None:
    before = explorer.seen.picture
    turn(explorer, **{f"channel_{channel}": -0.5})
    latents = toy.encode_image(painted(1))
    latents[:, channel] *= -0.5
    expected, = toy.decode(latents)
    assert place(explorer, 0, 1, vae.SIDE) == enlarged(expected, vae.SIDE).tobytes()
    changed = np.asarray(explorer.seen.picture) != np.asarray(before)
    side = (vae.WIDTH - 4 * GAP) // 5
    maps = changed[vae.SIDE + 2 * LABEL_HIGH + GAP:].any((0, 2))
    columns = [bool(maps[c * (side + GAP):c * (side + GAP) + side].any()) for c in range(5)]
    assert columns == [c == channel for c in range(5)]
    explorer.undo.click()
    turn(explorer)
    assert {knob.value for knob in explorer.channels} == {1.0} and "memory" in status(explorer)


def test_pictures_of_ones_own_come_in_by_upload_and_are_kept_apart(explorer) -> None:
    own = painted(4, 90, 60).convert("RGBA")
    send(explorer, "cat.png", png(own))
    turn(explorer)
    assert explorer.choice.value == "cat.png" and explorer.upload.value == ()
    assert place(explorer, 0, 0, vae.SIDE) == cropped(own)
    send(explorer, "cat.png", png(painted(5)))
    turn(explorer)
    assert explorer.choice.options == ("one", "two", "cat.png", "cat.png (2)")
    assert place(explorer, 0, 0, vae.SIDE) == cropped(painted(5))


@pytest.mark.parametrize("content", [b"not a picture", b"", png(painted(4))[:60]])
def test_what_is_no_picture_is_named_and_the_widget_goes_on(explorer, content, capfd) -> None:
    send(explorer, "notes.txt", content)
    assert "notes.txt is no picture that can be read: expected a PNG or JPEG" in status(explorer)
    turn(explorer, picture="one")
    assert capfd.readouterr() == ("", "")


def test_a_preview_comes_first_and_no_picture_is_refused(explorer, toy) -> None:
    first, last = explorer._frames(explorer.values)
    assert "preview" in first.value.text and "dB" in last.value.text
    with pytest.raises(ValueError, match="at least one picture by its name"):
        vae_explorer(toy, {})


# The noise slider

def test_x_t_is_the_sum_of_picture_and_noise(slider, toy) -> None:
    text = turn(slider, t=400, seed="7")
    alpha_bar = float(toy.schedule.alpha_bar[400])
    drawn = torch.randn(1, 5, 6, 6, generator=torch.Generator().manual_seed(7))
    x_t = (math.sqrt(alpha_bar) * toy.encode_image(painted(3))
           + math.sqrt(1 - alpha_bar) * drawn)
    assert place(slider, 1, 0, noise.SIDE) == enlarged(toy.decode(x_t)[0], noise.SIDE).tobytes()
    assert text == (f"t = 400: alpha_bar = {alpha_bar:.4f}\n"
                    f"x_t = {alpha_bar ** 0.5:.3f} x_0 + {(1 - alpha_bar) ** 0.5:.3f} noise\n"
                    f"signal-to-noise ratio {alpha_bar / (1 - alpha_bar):.3g}: "
                    f"the noise outweighs the picture")
    turn(slider, seed=str(2 ** 40))
    slider.knobs["seed"].value = "-1"
    assert "a seed is a whole number" in status(slider)
