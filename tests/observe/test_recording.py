"""A recording in the place of a model: what was run runs again without weights, nothing else."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import minisd
from minisd.observe.attention_maps import record_attention
from minisd.observe.budget import Budget
from minisd.observe.recording import ABOUT, Recorded, record
from minisd.pipeline import StableDiffusion

RUN = {"seed": 1, "steps": 5, "height": 16, "width": 24, "guidance_scale": 3.0}


def repaint(sd: StableDiffusion, picture: Image.Image) -> Image.Image:
    mask = np.arange(24) < np.full((16, 1), 8)
    return sd.inpaint("a fish", picture, mask, steps=5, seed=2)[0]


@pytest.fixture(scope="module")
def recorded(sd, tmp_path_factory) -> tuple[StableDiffusion, Recorded, list]:
    """The model that was recorded, its recording, and what was painted meanwhile."""
    folder, mine = tmp_path_factory.mktemp("class") / "run", copy.deepcopy(sd)
    mine.weights = "tiny"
    record(mine, folder, torch.float32)
    painted = mine.text_to_image("a red car", num_images=2, **RUN)
    repaint(mine, painted[0])
    return mine, Recorded(folder), painted


def test_what_was_run_runs_again_without_weights(recorded) -> None:
    mine, replay, painted = recorded
    assert all(weight.is_meta for weight in replay.parameters())
    again = replay.text_to_image("a red car", num_images=2, **RUN)
    assert [p.tobytes() for p in again] == [p.tobytes() for p in painted]
    assert repaint(replay, painted[0]).size == (24, 16)


def test_rows_of_a_batch_are_found_one_by_one(recorded) -> None:
    """Each of two pictures alone, and the half of guided runs that guidance 1 needs."""
    mine, replay, painted = recorded
    alone = replay.trace("a red car", **{**RUN, "seed": 2}, pictures="none")
    assert alone.latents.shape[0] == 1 and len(alone) == 5
    first = next(replay.steps("a red car", **{**RUN, "guidance_scale": 1}))
    torch.testing.assert_close(first.eps, next(mine.steps("a red car", **RUN)).eps_cond)


def test_rounding_is_forgiven_and_another_input_is_not(recorded) -> None:
    _, replay, _ = recorded
    step = next(replay.steps("a red car", **RUN))
    context = replay.encode_prompt("a red car")

    def predict(x_t: Tensor, t: float = step.t) -> Tensor:
        return replay.unet(x_t, torch.tensor([t]), context)

    noise = torch.randn(step.x_t.shape)
    assert torch.equal(predict(step.x_t + 1e-6 * noise), predict(step.x_t))
    for wrong in ((step.x_t + 1e-3 * noise,), (step.x_t, step.t - 1), (step.x_t.mT,)):
        with pytest.raises(ValueError, match="no such call of unet.forward"):
            predict(*wrong)


@pytest.mark.parametrize("ask", [
    lambda sd: sd.text_to_image("a blue car", **RUN),
    lambda sd: sd.text_to_image("a red car", **{**RUN, "guidance_scale": 2.9}),
    lambda sd: sd.text_to_image("a red car", **{**RUN, "seed": 7}),
    lambda sd: sd.decode(torch.zeros(1, 5, 2, 3))])
def test_what_was_not_recorded_says_what_was(recorded, ask) -> None:
    with pytest.raises(ValueError, match="of tiny, .*no such call.*'a red car'.*load a model"):
        ask(recorded[1])


@pytest.mark.parametrize("ask", [
    lambda sd: sd.trace("a red car", attention=True, **RUN),
    lambda sd: sd.vae.encoder(torch.zeros(1, 3, 8, 8)),
    lambda sd: sd.unet.conv_in(torch.zeros(1, 5, 8, 8))])
def test_the_inside_of_a_network_is_not_there(recorded, ask) -> None:
    with pytest.raises(ValueError, match="nothing of the layers inside them"):
        ask(recorded[1])


def test_listening_ends_where_it_failed(recorded) -> None:
    _, replay, _ = recorded
    with pytest.raises(ValueError, match="layers"), record_attention(replay.unet):
        replay.text_to_image("a red car", **RUN)
    assert replay.text_to_image("a red car", **RUN)


def test_a_recording_is_loaded_like_a_model_and_made_by_a_variable(sd, tmp_path, monkeypatch,
                                                                   capsys) -> None:
    monkeypatch.setenv("MINISD_RECORD", str(tmp_path / "run"))
    mine = minisd.load("toyworld")
    ids = mine.encode_prompt("a red car")
    monkeypatch.delenv("MINISD_RECORD")
    monkeypatch.setenv("MINISD_MODEL", str(tmp_path / "run"))
    replay = minisd.load()
    assert isinstance(replay, Recorded) and replay.weights == "toyworld"
    assert torch.equal(replay.encode_prompt("a red car"), ids)
    assert replay.tokenizer.unseen_words("a zebra") == ["zebra"]
    Budget(replay, tera=1e-9).announce(10 ** 6)
    assert not capsys.readouterr().out          # a recording computes nothing


def test_two_models_do_not_share_a_recording(sd, tmp_path) -> None:
    record(copy.deepcopy(sd), tmp_path, torch.float32)
    other = copy.deepcopy(sd)
    other.weights = "v1-5"
    with pytest.raises(ValueError, match="is a recording of .*another folder in MINISD_RECORD"):
        record(other, tmp_path, torch.float32)


def test_a_damaged_recording_is_named(sd, tmp_path) -> None:
    record(copy.deepcopy(sd), tmp_path, torch.float32).encode_prompt("a red car")
    file = next(tmp_path.glob("text_encoder*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        Recorded(tmp_path)
    (tmp_path / ABOUT).write_text(json.dumps({"weights": "x"}))
    with pytest.raises(ValueError, match="damaged"):
        Recorded(tmp_path)
