"""The VAE explorer and the noise slider on a tiny random model, without a browser."""

import base64
import io
import math
import re
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion, images
from minisd.widgets import noise, noise_slider, vae, vae_explorer
from minisd.widgets.maps import GAP, LABEL_HIGH
from minisd.widgets.pictures import VIEW

SOON = 300.0        # seconds for what takes milliseconds when the machine is free
SIDE = 48           # of the tiny model's pictures


def painted(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Squares of colour, which survive being cropped and resized."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    from conftest import TINY
    torch.manual_seed(0)
    return StableDiffusion(TINY).eval()


@pytest.fixture
def explorer(sd):
    widget = vae_explorer(sd, {"one": painted(1), "two": painted(2, 100, 60)})
    assert widget.engine.wait(SOON)
    yield widget
    widget.view.close()


@pytest.fixture
def slider(sd):
    widget = noise_slider(sd, painted(3))
    assert widget.engine.wait(SOON)
    yield widget
    widget.view.close()


def tile(widget, row: int, column: int, side: int) -> bytes:
    """What a place of the sheet shows."""
    left, top = column * (side + GAP), row * (side + LABEL_HIGH + GAP) + LABEL_HIGH
    return widget.seen.picture.crop((left, top, left + side, top + side)).tobytes()


def enlarged(picture: Image.Image, side: int) -> bytes:
    return picture.resize((side, side), Image.Resampling.NEAREST).tobytes()


def finished(widget) -> str:
    assert widget.engine.wait(SOON)
    assert widget.engine.error is None
    return widget.seen.text


def status(widget) -> str:
    assert widget.engine.wait(SOON)
    return re.sub("<[^>]*>", "", widget.engine.status.value)


def send(widget, name: str, content: bytes) -> None:
    """As the browser does when a file was chosen."""
    widget.upload.value = ({"name": name, "type": "image/png", "size": len(content),
                            "content": memoryview(content), "last_modified": datetime.now(UTC)},)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


# The VAE explorer

def test_it_shows_the_original_and_what_comes_back(explorer, sd) -> None:
    latents = sd.encode_image(painted(1))
    back, = sd.decode(latents)
    assert tile(explorer, 0, 0, vae.SIDE) == enlarged(painted(1), vae.SIDE)
    assert tile(explorer, 0, 1, vae.SIDE) == enlarged(back, vae.SIDE)
    error = np.asarray(back, float) - np.asarray(painted(1), float)
    decibels = 10 * math.log10(255 ** 2 / (error ** 2).mean())
    assert explorer.seen.text == (f"6,912 numbers became 180 latents, 0.0260 of them. "
                                  f"{decibels:.1f} dB (PSNR)")


@pytest.mark.parametrize("channel", range(5))
def test_every_channel_is_multiplied_before_decoding(explorer, sd, channel: int) -> None:
    before = explorer.seen.picture
    explorer.knobs[f"channel_{channel}"].value = -0.5
    finished(explorer)
    latents = sd.encode_image(painted(1))
    latents[:, channel] *= -0.5
    expected, = sd.decode(latents)
    assert tile(explorer, 0, 1, vae.SIDE) == enlarged(expected, vae.SIDE)
    changed = np.asarray(explorer.seen.picture) != np.asarray(before)
    side = (vae.WIDTH - 4 * GAP) // 5
    maps = changed[vae.SIDE + 2 * LABEL_HIGH + GAP:].any((0, 2))
    columns = [bool(maps[c * (side + GAP):c * (side + GAP) + side].any()) for c in range(5)]
    assert columns == [c == channel for c in range(5)]


def test_another_picture_is_cropped_to_the_models_size(explorer, sd) -> None:
    explorer.choice.value = "two"
    finished(explorer)
    square, = images.to_pil(images.from_pil(painted(2, 100, 60), size=(SIDE, SIDE)))
    assert tile(explorer, 0, 0, vae.SIDE) == enlarged(square, vae.SIDE)


def test_undo_puts_every_channel_back(explorer) -> None:
    first = explorer.seen
    for knob in explorer.channels[:2]:
        knob.value = 2.0
        finished(explorer)
    explorer.undo.click()
    finished(explorer)
    assert {knob.value for knob in explorer.channels} == {1.0}
    assert explorer.seen is first and "Shown from memory." in status(explorer)


def test_a_picture_of_ones_own_comes_in_by_upload(explorer) -> None:
    before = explorer.seen.picture
    own = painted(4, 90, 60).convert("RGBA")
    send(explorer, "cat.png", png(own))
    finished(explorer)
    assert explorer.choice.value == "cat.png" and explorer.upload.value == ()
    assert explorer.choice.options == ("one", "two", "cat.png")
    square, = images.to_pil(images.from_pil(own, size=(SIDE, SIDE)))
    assert tile(explorer, 0, 0, vae.SIDE) == enlarged(square, vae.SIDE)
    assert explorer.seen.picture.tobytes() != before.tobytes()


def test_two_files_of_one_name_are_kept_apart(explorer) -> None:
    shown = []
    for seed in (4, 5):
        send(explorer, "cat.png", png(painted(seed)))
        finished(explorer)
        shown.append(tile(explorer, 0, 0, vae.SIDE))
    assert explorer.choice.value == "cat.png (2)" and shown[0] != shown[1]


@pytest.mark.parametrize("content", [b"not a picture", b"", png(painted(4))[:60]])
def test_what_is_no_picture_is_named_and_the_widget_goes_on(explorer, content, capfd) -> None:
    send(explorer, "notes.txt", content)
    assert status(explorer).startswith("Error (ValueError): ")
    assert re.search("expected a (PNG or JPEG file|whole picture)", status(explorer))
    assert "0x" not in status(explorer)
    explorer.choice.value = "one"
    finished(explorer)
    assert capfd.readouterr() == ("", "")


def test_a_preview_comes_first_and_a_long_wait_is_announced(explorer) -> None:
    explorer.seconds = 12.3
    first, last = explorer._frames(explorer.values)
    assert (first.done, first.total, last.done) == (1, 2, 2)
    assert first.note == "Decoding, about 12 s ..." and "preview" in first.value.text
    assert "dB" in last.value.text and explorer.seconds < SOON


def test_sliders_of_a_large_model_wait_for_the_mouse(sd, monkeypatch) -> None:
    assert vae_explorer(sd, {"one": painted(1)}).channels[0].continuous_update
    monkeypatch.setattr(vae, "SMALL", 0)
    assert not vae_explorer(sd, {"one": painted(1)}).channels[0].continuous_update


def test_no_picture_no_explorer(sd) -> None:
    with pytest.raises(ValueError, match="at least one picture by its name"):
        vae_explorer(sd, {})


# The noise slider

def test_x_t_is_the_sum_of_picture_and_noise(slider, sd) -> None:
    slider.knobs["t"].value, slider.knobs["seed"].value = 400, 7
    text = finished(slider)
    alpha_bar = float(sd.schedule.alpha_bar[400])
    drawn = torch.randn(1, 5, 6, 6, generator=torch.Generator().manual_seed(7))
    x_t = (math.sqrt(alpha_bar) * sd.encode_image(painted(3))
           + math.sqrt(1 - alpha_bar) * drawn)
    assert tile(slider, 1, 0, noise.SIDE) == enlarged(sd.decode(x_t)[0], noise.SIDE)
    assert text == (f"t = 400: alpha_bar = {alpha_bar:.4f}\n"
                    f"x_t = {alpha_bar ** 0.5:.3f} x_0 + {(1 - alpha_bar) ** 0.5:.3f} noise\n"
                    f"signal-to-noise ratio {alpha_bar / (1 - alpha_bar):.3g}: "
                    f"the noise outweighs the picture")


@pytest.mark.parametrize(("knob", "value"), [("t", 0), ("t", 999), ("seed", 1)])
def test_both_knobs_change_the_picture(slider, knob: str, value: int) -> None:
    before = slider.seen.picture.tobytes()
    slider.knobs[knob].value = value
    finished(slider)
    assert slider.seen.picture.tobytes() != before


def test_with_t_the_same_noise_grows_and_the_picture_fades(slider) -> None:
    strength = []
    for t in (50, 300, 900):
        slider.knobs["t"].value = t
        finished(slider)
        shown = [np.frombuffer(tile(slider, 0, column, noise.SIDE), np.uint8).astype(float)
                 for column in range(3)]
        strength.append([np.abs(values - 247).mean() for values in shown[:2]])
    fading, growing = zip(*strength, strict=True)
    assert fading[0] > fading[1] > fading[2] and growing[0] < growing[1] < growing[2]


def test_the_words_turn_where_noise_and_picture_weigh_the_same(sd) -> None:
    even = int((sd.schedule.alpha_bar < 0.5).nonzero()[0])
    assert "the noise outweighs the picture" in noise.in_digits(sd.schedule, even)
    assert "the picture outweighs the noise" in noise.in_digits(sd.schedule, even - 1)


def test_the_marked_timestep_moves_along_the_curves(sd) -> None:
    marks = []
    for t in (0, 500, 999):
        drawn = np.asarray(noise.schedule_picture(sd.schedule, t)).astype(int)
        is_mark = np.abs(drawn - (0xD0, 0x5B, 0x13)).sum(2) < 30
        marks.append(np.flatnonzero(is_mark.mean(0) > 0.5).mean() / drawn.shape[1])
    assert marks == pytest.approx([0, 0.5, 1], abs=0.02)


def test_channels_lie_in_a_square() -> None:
    for channels, size in ((4, (13, 11)), (5, (20, 11)), (1, (6, 5))):
        assert noise.mosaic(torch.randn(channels, 5, 6)).size == size


# Both

def test_on_paper_each_is_a_picture_with_its_settings(explorer, slider) -> None:
    for widget, said in ((explorer, "vae explorer: picture one, channel 0 1.0"),
                         (slider, "noise slider: t 333, seed 0")):
        data, _ = widget._repr_mimebundle_()
        assert VIEW in data and data["text/plain"].startswith(said)
        paper = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        width, height = widget.seen.picture.size
        shown = paper.crop((20, 20, 700, 20 + round(680 * height / width)))
        expected = widget.seen.picture.resize(shown.size, Image.Resampling.LANCZOS)
        away = np.asarray(shown.convert("RGB"), float) - np.asarray(expected, float)
        assert np.abs(away).mean() < 8              # it has fewer colours
        assert paper.height > shown.height + 100                    # room for the words


def test_pictures_have_words_for_those_who_do_not_see_them(explorer, slider) -> None:
    assert 'alt="original, decoded, difference, and the latent channels: picture one, ' in (
        explorer.picture.value)
    assert 'alt="a picture&#x27;s latents, noise, their sum x_t, and x_t decoded: t 333, ' in (
        slider.picture.value)
