"""A recorded run: its snapshots, and its way through a file."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from parity import relative_error
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisd.checkpoints.weights import fingerprint
from minisd.diffusion import StepCoefficients
from minisd.observe import preview
from minisd.observe.attention_maps import AttentionMap, record_attention
from minisd.observe.trace import Trace, _digest
from minisd.samplers import SampleStep

PROMPT = "a red car"


def run(total: int, shape: tuple[int, ...] = (1, 5, 7, 9)) -> list[SampleStep]:
    """Steps whose tensors hold the step's number: x_t = i, x0 = 100 + i, x_prev = i + 1."""
    def full(value: float) -> Tensor:
        return torch.full(shape, float(value))

    coefficients = StepCoefficients(1.0, 0.0, 0.0)
    return [SampleStep(i, total, 10.0 * (total - i), full(i), full(0), None, None, full(100 + i),
                       full(i + 1), coefficients, i + 1) for i in range(total)]


def assert_same_steps(ours: Trace | list[SampleStep], theirs: Trace | list[SampleStep]) -> None:
    """To the last bit, every field of every step."""
    for a, b in zip(ours, theirs, strict=True):
        for field in dataclasses.fields(SampleStep):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert type(x) is type(y), field.name
            same = (torch.equal(x, y) and x.dtype == y.dtype) if isinstance(x, Tensor) else x == y
            assert same, field.name


def pixels(pictures: list[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(picture) for picture in pictures]


# Snapshots

def test_snapshots_stand_at_quarters_and_begin_with_noise() -> None:
    snapshots = Trace.record(run(50)).snapshots(0.25)
    assert [s.done for s in snapshots] == [0, 12, 25, 37, 50]
    assert [s.t for s in snapshots] == [500, 380, 250, 130, 0]
    assert [s.x_t.mean().item() for s in snapshots] == [0, 12, 25, 37, 50]
    assert [s.x0.mean().item() for s in snapshots] == [100, 112, 125, 137, 50]
    assert snapshots[0].share == 0 and snapshots[-1].share == 1


@pytest.mark.parametrize("ratio", [0, -0.25, 1.5, float("nan")])
def test_ratios_that_make_no_sense_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Trace.record(run(3)).snapshots(ratio)


def test_pictures_are_decoded_where_recorded_and_previews_elsewhere(sd) -> None:
    trace = sd.trace(PROMPT, steps=8, seed=3, num_images=2, pictures="snapshots")
    quarters, eighths = trace.snapshots(), trace.snapshots(0.125)
    assert [s.decoded for s in quarters] == [True] * 5
    assert [s.decoded for s in eighths] == [True, False] * 4 + [True]
    for snapshot in eighths:
        both = ((snapshot.x_t, snapshot.x_t_picture), (snapshot.x0, snapshot.x0_picture))
        for latents, picture in both:
            side_by_side = sd.decode(latents) if snapshot.decoded else preview.preview(sd, latents)
            assert picture.size == (48 + 2 + 48, 48)
            for i, x in ((0, 0), (1, 50)):
                assert np.array_equal(np.asarray(picture.crop((x, 0, x + 48, 48))),
                                      np.asarray(side_by_side[i]))


@pytest.mark.parametrize(("pictures", "expected"), [("all", [0, 1, 2, 3, 4, 5]), ("none", []),
                                                    ("snapshots", [0, 1, 2, 3, 5])])
def test_which_pictures_are_decoded(sd, pictures, expected) -> None:
    trace = sd.trace(PROMPT, steps=5, seed=0, pictures=pictures)
    assert sorted(trace.pictures) == expected
    assert np.array_equal(trace.preview(2), preview.preview(sd, trace[2].x0)[0])


# Recording

def test_a_trace_is_the_run(sd, picture) -> None:
    seen: list[SampleStep] = []
    asked = {"steps": 6, "seed": 5, "image": picture, "strength": 0.7, "sampler": "euler_a"}
    trace = sd.trace(PROMPT, negative_prompt="blue fish", guidance_scale=3, on_step=seen.append,
                     **asked)
    assert len(trace) == 4 and [s.index for s in seen] == [0, 1, 2, 3]
    assert_same_steps(trace, list(sd.steps(PROMPT, negative_prompt="blue fish", guidance_scale=3,
                                           **asked)))
    assert {name: trace.about[name] for name in (
        "prompt", "negative_prompt", "guidance_scale", "steps", "sampler", "eta", "seed", "height",
        "width", "num_images", "strength", "task", "model", "weights", "dtype", "fingerprint")} == {
        "prompt": PROMPT, "negative_prompt": "blue fish", "guidance_scale": 3.0, "steps": 6,
        "sampler": "euler_a", "eta": 0.0, "seed": 5, "height": 40, "width": 72, "num_images": 1,
        "strength": 0.7, "task": "image_to_image", "model": "tiny", "dtype": "float32",
        "weights": "", "fingerprint": fingerprint(sd)}


@pytest.mark.parametrize(("sampler", "g"), [("ddim", 1.0), ("heun", 3.0)])
def test_attention_is_that_of_each_steps_own_latents(sd, sampler, g) -> None:
    """Of the conditional half; not of the second prediction that some samplers make."""
    asked = {"steps": 5, "num_images": 2, "sampler": sampler, "guidance_scale": g,
             "pictures": "none"}
    trace = sd.trace(PROMPT, attention=True, **asked)
    assert [m.call for m in trace.attention] == [i for i in range(5) for _ in range(7)]
    for step in trace:
        with torch.no_grad(), record_attention(sd.unet, mean_of_heads=True) as alone:
            sd.unet(step.x_t, torch.tensor(step.t), sd.encode_prompt([PROMPT] * 2))
        maps = [m for m in trace.attention if m.call == step.index]
        for ours, expected in zip(maps, alone, strict=True):
            assert ours.layer == expected.layer
            assert relative_error(ours.weights.float(), expected.weights.float()) < 1e-3
    plain = sd.trace(PROMPT, seed=trace.about["seed"], **asked)     # drawn at random at first
    assert plain.attention == () and plain.about == trace.about
    assert plain.about["task"] == "text_to_image" and plain.about["strength"] is None
    assert relative_error(trace.latents, plain.latents) < 1e-5


def test_runs_that_make_no_trace_are_refused(sd, picture) -> None:
    with pytest.raises(ValueError, match="no steps to record"):
        Trace.record([])
    with pytest.raises(ValueError, match="no steps to record"):
        sd.trace(PROMPT, image=picture, strength=0)
    with pytest.raises(ValueError, match="not the steps of one run"):
        Trace.record([run(3)[0], run(3)[2]])
    with pytest.raises(ValueError, match="pictures must be 'snapshots', 'all' or 'none', got 5"):
        sd.trace(PROMPT, pictures=5)


# On disk

def test_a_file_holds_all_of_it(sd, tmp_path) -> None:
    trace = sd.trace(PROMPT, steps=5, seed=3, num_images=2, sampler="plms", attention=True)
    trace.save(tmp_path / "new" / "run.safetensors")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["run.safetensors"]
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        trace.save(tmp_path / "new")
    again = Trace.load(tmp_path / "new" / "run.safetensors")
    assert_same_steps(again, trace)
    assert again.about == trace.about and again.enlarge == trace.enlarge == 8
    assert again.factors is trace.factors is None       # of a latent space that nobody knows
    for a, b in zip(again.attention, trace.attention, strict=True):
        assert (a.layer, a.kind, a.call) == (b.layer, b.kind, b.call)
        assert torch.equal(a.weights, b.weights) and a.weights.dtype == torch.float16
    for a, b in zip(again.snapshots(0.2), trace.snapshots(0.2), strict=True):
        assert (a.done, a.t, a.decoded) == (b.done, b.t, b.decoded)
        for x, y in zip(pixels([a.x_t_picture, a.x0_picture]),
                        pixels([b.x_t_picture, b.x0_picture]), strict=True):
            assert np.array_equal(x, y)


@pytest.mark.parametrize("g", [0.0, 1.0])
def test_predictions_that_were_skipped_stay_none(sd, tmp_path, g) -> None:
    trace = sd.trace(PROMPT, steps=5, seed=3, guidance_scale=g, pictures="none")
    trace = dataclasses.replace(trace, factors=torch.randn(6, 3))
    trace.save(tmp_path / "run")
    again = Trace.load(tmp_path / "run")
    assert_same_steps(again, trace)
    assert torch.equal(again.factors, trace.factors)


@pytest.fixture
def file(tmp_path):
    attention = (AttentionMap("mid", "cross", 0, torch.rand(1, 63, 13).half()),)
    trace = dataclasses.replace(Trace.record(run(3)), about={"prompt": "é"}, attention=attention)
    trace.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", ["cut", "empty", "web page", "a bit", "a letter of a name"])
def test_a_damaged_file_gets_one_clear_error(file, damage) -> None:
    data = bytearray(file.read_bytes())
    if damage == "a bit":
        data[-200] ^= 4
    elif damage == "a letter of a name":
        data[data.index(b'"eps"') + 2] ^= 2
    else:
        data = {"cut": data[:-5], "empty": b"", "web page": b"<!DOCTYPE html>" * 20}[damage]
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"run: it is (damaged, cut off, or|.*, but) no trace"):
        Trace.load(file)


def test_foreign_and_newer_files_are_named(file, tmp_path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="weights: it is a safetensors file, but no trace"):
        Trace.load(tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="no trace at .*nowhere: check the path"):
        Trace.load(tmp_path / "nowhere")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() | {"minisd_trace": "2", "data": "unreadable"}
    save_file({"a": torch.zeros(3)}, tmp_path / "newer", metadata)
    with pytest.raises(ValueError, match="trace of format 2, this program reads 1: upd"):
        Trace.load(tmp_path / "newer")


def rewritten(file, change) -> None:
    """The file with a changed header and tensors, and the checksum that belongs to them."""
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}     # noqa: SIM118
        data = json.loads(opened.metadata()["data"])
    changed = change(data, tensors)
    text = changed if isinstance(changed, str) else json.dumps(data)
    save_file(tensors, file, {"minisd_trace": "1", "data": text, "sha256": _digest(text, tensors),
                              "more": "words"})


def test_what_a_later_program_adds_is_no_obstacle(file) -> None:
    """Within one format, fields and tensors may be added."""
    def add(data, tensors) -> None:
        tensors["extra"] = torch.ones(2)
        for place in (data, data["steps"][0], data["steps"][1]["coefficients"]):
            place["mood"] = "bright"

    rewritten(file, add)
    assert_same_steps(Trace.load(file), run(3))


def put(*keys: str | int, value: object = None):
    """A change that sets, or with no value removes, one entry of the header."""
    def change(data, tensors) -> None:
        for key in keys[:-1]:
            data = data[key]
        if value is None:
            del data[keys[-1]]
        else:
            data[keys[-1]] = value

    return change


def put_tensor(name: str, tensor: Tensor | None):
    def change(data, tensors) -> None:
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor

    return change


PICTURES = torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8)
FORGED = {
    "no JSON": lambda data, tensors: "{", "nested": lambda data, tensors: "[" * 100_000,
    **{f"no {name}": put(name) for name in ("about", "enlarge", "steps", "attention")},
    "about is text": put("about", value="x"), "no steps": put("steps", value=[]),
    "a step is a list": put("steps", 0, value=[1]), "a step too few": put("steps", 2),
    "a step without coefficients": put("steps", 1, "coefficients"),
    "an index beyond": put("steps", 0, "index", value=3),
    "a timestep of 400 digits": put("steps", 0, "t", value=10 ** 400),
    "a coefficient of text": put("steps", 0, "coefficients", "eps", value="1"),
    "a huge picture": put("enlarge", value=10 ** 6),
    "attention without its tensor": put_tensor("attention.0", None),
    "attention of one axis": put_tensor("attention.0", torch.zeros(3)),
    "no latents": put_tensor("latents", None),
    "latents of another number": put_tensor("latents", torch.zeros(3, 1, 5, 7, 9)),
    "latents of integers": put_tensor("latents", torch.zeros(4, 1, 5, 7, 9, dtype=torch.int64)),
    "eps of another shape": put_tensor("eps", torch.zeros(3, 1, 5, 9, 7)),
    "factors of another shape": put_tensor("factors", torch.zeros(5, 3)),
    "pictures of a word": put_tensor("pictures.all", PICTURES),
    "pictures beyond the end": put_tensor("pictures.4", PICTURES),
    "pictures of floats": put_tensor("pictures.1", PICTURES.float()),
    "pictures of two colours": put_tensor("pictures.1", PICTURES[..., :2].contiguous()),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_header_that_fits_no_run_gets_one_clear_error(file, case) -> None:
    """Whole by its checksum, and yet no trace."""
    rewritten(file, FORGED[case])
    with pytest.raises(ValueError, match=r"run: it is damaged, cut off, or no trace \(.{1,250}\)"):
        Trace.load(file)


def test_replaying_needs_no_model(file) -> None:
    """In a process of its own, which never imports a network."""
    code = ("import sys; from minisd.observe.trace import Trace; trace = Trace.load(sys.argv[1]); "
            "print(len(trace.snapshots()), trace.preview(1).size); "
            "assert not {'minisd.unet', 'minisd.vae', 'minisd.pipeline'} & set(sys.modules)")
    found = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert found.stdout == "4 (72, 56)\n", found.stderr
