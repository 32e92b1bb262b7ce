"""The training: the same weights on one process or two, uninterrupted or killed, and its parts."""

import csv
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_training
import torch
from parity import relative_error
from safetensors.torch import load_file
from tiny_training import RECIPE, fit
from torch import Tensor, nn

import minisd
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.config_file import read_own_config
from minisd.toyworld import data, train
from minisd.toyworld.scenes import KINDS
from minisd.toyworld.training import cache, crops, loop, polish, unet
from minisd.toyworld.training.recipe import Part
from minisd.vae import VAE

STAGES = {part: train.STAGES[part] for part in ("vae", "clip", "unet", "polish")}
PARTS = tuple(name for names in STAGES.values() for name in names)
NEEDED = {"unet": ("vae.pt", "decoder.pt", "clip_search.pt"), "polish": (
    "vae.pt", "decoder.pt", "clip_search.pt", "unet_soft.pt", "config.json")}
# In float64 sums in another order differ by 1e-14 after these steps; a gradient that is divided
# by another number of processes differs by 1.5e-2.
SPLIT_TOLERANCE = 1e-9


@pytest.fixture(autouse=True, scope="module")
def plain() -> Iterator[None]:
    """On one thread, as in the processes that it is compared to, and in float64."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.in_float64(patch.setattr)
        yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def state(folder: Path, name: str) -> dict:
    return torch.load(folder / f"{name}.pt", weights_only=True)


def joined(tensors) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def assert_identical(a: object, b: object) -> None:
    """Nested dictionaries and lists of tensors, to the last bit."""
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    else:
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder in which this process trained every part, without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for part in STAGES:
        fit(folder, part)
    return folder


# One process or two

@pytest.fixture(scope="module")
def shared(whole, tmp_path_factory) -> Path:
    """The same by two gloo processes under torchrun, each part stopped once on the way."""
    folder = tmp_path_factory.mktemp("shared")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         tiny_training.__file__, *(word for part in STAGES for word in (folder, part))],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", PARTS)
def test_two_processes_take_the_same_steps_as_one(whole, shared, name):
    one, two = state(whole, name), state(shared, name)
    assert one["step"] == two["step"] == getattr(RECIPE, name).steps
    for net in ("model", "average"):
        assert relative_error(joined(two[net].values()),
                              joined(one[net].values())) < SPLIT_TOLERANCE
    gradients = [joined(s["exp_avg"] for s in x["optimiser"]["state"].values()) for x in (two, one)]
    assert relative_error(*gradients) < SPLIT_TOLERANCE


@pytest.mark.parametrize("part", PARTS)
def test_the_training_moves_every_part(whole, part):
    """Or the comparison above would compare two starts; what is frozen has no optimiser at all.

    Softmax does not feel a constant added to all scores, nor anything where there is but one cell;
    nor a norm of single channels what is added to each.
    """
    trained = state(whole, part)
    frozen = {"decoder": ("encoder", "quant_conv"), "polish": ("encoder", "quant_conv"),
              "clip_words": ("image",), "clip_search": ("text.",)}.get(part, ())
    names = [name for name in trained["model"] if not name.startswith(frozen)]
    still = {name for name, moments in zip(names, trained["optimiser"]["state"].values(),
                                           strict=True)
             if moments["exp_avg"].abs().max() <= 1e-12}        # rounding
    assert all(name.endswith(("to_k.bias", "self_attn.to_q.weight", "self_attn.to_k.weight",
                              "patch_embedding.0.bias"))
               for name in still), still
    assert relative_error(joined(trained["average"].values()),
                          joined(trained["model"].values())) > 1e-5


def test_processes_that_cannot_work_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "first_ones", lambda value: 7)
    with pytest.raises(RuntimeError, match="not at the step of the first process, but at 0"):
        linear_fit(tmp_path, Part(steps=2, batch=4, lr=1e-3))
    monkeypatch.setattr(loop, "world_size", lambda: 3)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 4 evenly"):
        linear_fit(tmp_path, Part(steps=1, batch=4, lr=1e-3))


# One gradient step

def linear_fit(folder: Path, part: Part, *, name: str = "linear") -> loop.Fit:
    """Least squares on 16 fixed samples; micro-batch i takes the i-th `part.batch` of them."""
    torch.manual_seed(1)
    model = nn.Linear(5, 3)
    x, y = torch.randn(16, 5), torch.randn(16, 3)

    def loss(g: torch.Generator) -> dict[str, Tensor]:
        start = g.initial_seed() % 64 * part.batch
        rows = slice(start, start + part.batch)
        return {"loss": (model(x[rows]) - y[rows]).square().mean(), "first": x[rows][0, 0]}

    return loop.Fit(name, model, part, loss, folder)


def test_two_micro_batches_of_8_are_one_batch_of_16(tmp_path):
    part = Part(steps=3, batch=16, lr=1e-2)
    at_once = linear_fit(tmp_path, part, name="at_once")
    in_two = linear_fit(tmp_path, replace(part, batch=8, accumulate=2), name="in_two")
    for _ in range(part.steps):
        a, b = at_once.take_step(), in_two.take_step()
        assert math.isclose(a["loss"], b["loss"]) and math.isclose(
            a["gradient_norm"], b["gradient_norm"])
    assert relative_error(in_two.model.weight.detach(), at_once.model.weight.detach()) < 1e-12


def test_the_learning_rate_rises_stays_and_falls_along_a_cosine():
    part = Part(steps=100, batch=1, lr=0.5, warmup=10, cooldown=40)
    rates = [loop.learning_rate(part, step) for step in range(part.steps)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert set(rates[10:61]) == {1.0}
    assert rates[60:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 40)) for i in range(40)])
    constant = replace(part, cooldown=0, warmup=0)
    assert {loop.learning_rate(constant, step) for step in range(100)} == {1.0}


def test_the_average_follows_the_formula(tmp_path):
    fitted = linear_fit(tmp_path, Part(steps=40, batch=16, lr=1e-2, ema=0.7))
    expected = fitted.model.weight.detach().clone()
    for step in range(1, 41):
        fitted.take_step()
        decay = min(0.7, step / (step + 10))
        expected = decay * expected + (1 - decay) * fitted.model.weight.detach()
    assert relative_error(fitted.average.weight, expected) < 1e-12
    assert not fitted.average.weight.requires_grad and not fitted.average.training


def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    fitted = linear_fit(tmp_path, Part(steps=9, batch=16, lr=1e-2))
    fitted.take_step()
    before = fitted.model.weight.detach().clone()
    fitted.losses = lambda g: {"loss": fitted.model.weight.sum() * float("nan")}
    with pytest.raises(FloatingPointError, match=r"linear: the gradient is nan at step 1;"):
        fitted.take_step()
    assert torch.equal(fitted.model.weight, before)


def test_a_resumed_run_appends_to_the_metrics_and_draws_its_sheets_on_time(tmp_path, monkeypatch):
    """It takes the rate that the recipe has by then."""
    monkeypatch.setattr(loop, "SHEET_EVERY", 2)

    def again(lr: float, minutes: float | None = None) -> None:
        fitted = linear_fit(tmp_path, Part(steps=6, batch=16, lr=lr, warmup=2))
        fitted.sheet = lambda path, average: path.touch()
        fitted.run(minutes)

    again(0.01, minutes=0)
    assert state(tmp_path, "linear")["step"] == 1
    again(0.02)
    assert sorted(p.name for p in tmp_path.glob("linear-0*.png")) == [
        "linear-000002.png", "linear-000004.png", "linear-000006.png"]
    rows = list(csv.DictReader((tmp_path / "linear.csv").open()))
    assert list(rows[0]) == ["step", "loss", "first", "gradient_norm", "lr", "images_per_second"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["lr"]) for row in rows] == [0.005] + [0.02] * 5
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


# Stopped, killed, started over

@pytest.mark.parametrize("part", STAGES)
def test_a_run_stopped_after_every_step_ends_with_the_same_weights(whole, tmp_path, part):
    for name in NEEDED.get(part, ()):
        shutil.copy(whole / name, tmp_path)
    for _ in range(sum(getattr(RECIPE, name).steps for name in STAGES[part])):
        fit(tmp_path, part, minutes=0)
    for name in STAGES[part]:
        assert_identical(state(tmp_path, name), state(whole, name))


def test_a_killed_run_leaves_a_whole_checkpoint_and_ends_with_the_same_weights(whole, tmp_path):
    """Killed while it saves; that a file has its name only when it is whole: observe/test_files."""
    process = multiprocessing.get_context("spawn").Process(
        target=tiny_training.be_killed, args=(tmp_path,))
    process.start()
    process.join(600)
    assert process.exitcode == 9
    assert state(tmp_path, "vae")["step"] == tiny_training.DYING_STEP - 1
    fit(tmp_path, "vae")
    assert_identical(state(tmp_path, "vae"), state(whole, "vae"))


def test_a_stage_begins_with_the_average_of_the_one_before(whole, tmp_path):
    still = replace(RECIPE, clip_words=Part(steps=1, batch=6, lr=0.0))
    shutil.copy(whole / "clip.pt", tmp_path)
    fit(tmp_path, "clip", minutes=0, recipe=still)
    assert_identical(dict(state(tmp_path, "clip_words")["model"]),
                     dict(state(whole, "clip")["average"]))


# What is exported and started from

@pytest.fixture
def shipped(whole, tmp_path, monkeypatch) -> Path:
    """Tiny weights in the place of those that ship, and `whole` as the run they came from."""
    folder, target = tmp_path / "run", tmp_path / "shipped"
    shutil.copytree(whole, folder)
    words = tiny_training.words()
    train.tokenizer.save(folder / "tokenizer", words.merges, words.known_words)
    checkpoint.write_config(folder, tiny_training.config())
    train.export(folder, target)
    for name, value in (("SHIPPED", target), ("TOYWORLD", tiny_training.config()),
                        ("RECIPE", RECIPE)):
        monkeypatch.setattr(train, name, value)
    return target


def test_what_is_exported_loads_paints_and_can_be_started_from(shipped, whole):
    sd = minisd.load(shipped, device="cpu", dtype="float32")
    assert sd.text_to_image("a red car", steps=5, seed=0)[0].size == (48, 48)
    average = state(whole, "unet_soft")["average"]
    assert relative_error(joined(sd.unet.state_dict().values()),
                          joined(average.values())) < 1e-3          # float16 on disk
    image_tower = load_file(shipped / "image_tower.safetensors")
    assert not any(name.startswith("text.") for name in image_tower)
    for part in ("vae", "clip", "unet"):
        start = train.shipped(part)
        assert start.keys() == state(whole, STAGES[part][0])["model"].keys()
        assert {value.dtype for value in start.values()} == {torch.float32}


def test_one_part_goes_on_from_the_shipped_ones_and_is_all_that_is_exported(shipped, tmp_path):
    """Tokenizer, VAE and CLIP come from there, and stay there; so does the scale factor."""
    before = {path.name: path.read_bytes() for path in shipped.rglob("*.*")}
    folder = tmp_path / "further"
    assert train.main(["unet", "--folder", str(folder), "--from-shipped"]) == 0
    assert {path.stem for path in folder.glob("*.pt") if "latents" not in path.stem} == {
        "unet", "unet_soft"}
    start, after = train.shipped("unet"), state(folder, "unet_soft")["model"]
    assert 0 < relative_error(joined(after.values()), joined(start[name] for name in after)) < 0.05
    assert read_own_config(folder / "config.json") == tiny_training.config()
    assert train.main(["export", "--folder", str(folder), "--target", str(shipped)]) == 0
    changed = {name for name, content in before.items()
               if next(shipped.rglob(name)).read_bytes() != content}
    assert changed == {"unet.safetensors", "losses.json"}


@pytest.mark.parametrize("part", ["vae", "clip"])
def test_what_the_unet_rests_on_is_not_exported_without_it(whole, shipped, part, tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    shutil.copy(whole / f"{STAGES[part][0]}.pt", folder)
    before = {path: path.read_bytes() for path in shipped.rglob("*.*")}
    with pytest.raises(FileNotFoundError, match="holds no trained unet: run .*train unet"):
        train.export(folder, shipped)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(("arguments", "said"), [
    (["export"], "holds nothing that was trained: name the folder"),
    (["unet"], "holds no trained vae: run `python -m minisd.toyworld.train vae --folder"),
    (["vae", "--minutes", "-1"], "--minutes counts for each stage and is 0 or more, got -1")])
def test_mistakes_are_a_sentence_not_a_traceback(shipped, tmp_path, capsys, arguments, said):
    shutil.copytree(shipped / "tokenizer", tmp_path / "new" / "tokenizer")
    with pytest.raises(SystemExit) as error:
        train.main([*arguments, "--folder", str(tmp_path / "new")])
    assert error.value.code and said in f"{error.value} {capsys.readouterr().err}"


# The latents

def test_encoded_scenes_are_kept_for_these_weights_only(tmp_path, monkeypatch):
    config = tiny_training.config().vae
    net, other = VAE(config).eval().requires_grad_(False), VAE(config).eval()

    def cached(net: VAE) -> Tensor:
        return cache.posteriors(net, tmp_path, 5, size=24, seed=0)

    monkeypatch.setattr(cache, "BATCH", 2)
    first = cached(net)
    expected = net.encode(data.to_tensor(data.pictures(range(5), size=24)).double())
    assert first.shape == (5, 2, 5, 3, 3) and first.dtype == torch.float16
    assert relative_error(first.double().unbind(1)[0], expected.mean) < 1e-3    # float16
    assert relative_error(first.double().unbind(1)[1], expected.std) < 1e-3
    assert not torch.equal(cached(other), first)
    monkeypatch.setattr(cache, "encode", None)
    other.load_state_dict(net.state_dict())
    torch.nn.init.zeros_(other.decoder.conv_out.weight)
    assert torch.equal(cached(other), first)                # another decoder changes nothing


def test_the_measured_scale_gives_unit_variance():
    g = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(500, 4, 8, 8, generator=g) + torch.arange(4).view(4, 1, 1)
    std = torch.rand(500, 4, 8, 8, generator=g) * 2
    samples = mean + std * torch.randn(mean.shape, generator=g)
    scale = cache.measure_scale(torch.stack([mean, std], 1))
    assert (samples * scale).std().item() == pytest.approx(1, abs=0.01)
    assert scale == round(scale, 5)


# The decoder's last part

def test_repainted_latents_are_near_those_of_their_scenes_and_kept(whole, tmp_path):
    sd = minisd.StableDiffusion(tiny_training.config(), tiny_training.words())
    posteriors = 3 * torch.rand(10, 2, 5, 6, 6).half()
    factor = sd.config.vae.scale_factor
    found = polish.repaint(sd, posteriors, tmp_path, RECIPE)
    assert found.shape == (RECIPE.repainted, 5, 6, 6) and found.dtype == torch.float16
    for a, b in ((0, 1), (2, 5)):                       # each belongs to its own scene
        own, other = (posteriors[i, 0].float() * factor for i in (a, b))
        assert (found[a].float() - own).norm() < (found[a].float() - other).norm()
    sd.unet.forward = None                              # the second time it is read
    assert torch.equal(polish.repaint(sd, posteriors, tmp_path, RECIPE), found)


def test_a_polished_decoder_is_exported_without_a_unet(whole, shipped, tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    shutil.copytree(shipped / "tokenizer", folder / "tokenizer")
    shutil.copy(whole / "polish.pt", folder)
    (shipped / "vae.safetensors").unlink()
    before = {path: path.read_bytes() for path in shipped.rglob("*.safetensors")}
    train.export(folder, shipped)
    assert {path: path.read_bytes() for path in before} == before
    average = state(whole, "polish")["average"]
    found = load_file(shipped / "vae.safetensors")
    assert relative_error(joined(found[name].double() for name in average),
                          joined(average.values())) < 1e-3


# The UNet's part

def test_snr_weights_are_one_up_to_the_cap_and_fall_beyond():
    snr = torch.tensor([0.1, 5.0, 10.0, 500.0])
    assert unet.snr_weights(snr, cap=5.0).tolist() == pytest.approx([1.0, 1.0, 0.5, 0.01])


def test_some_captions_are_dropped_and_the_others_belong_to_their_scenes():
    shown = crops.whole(range(40), 16) * 75
    stage = SimpleNamespace(recipe=replace(RECIPE, caption_dropout=0.1))
    first, again = (unet.Stage.captions(stage, shown, torch.Generator().manual_seed(0))
                    for _ in range(2))
    assert first == again
    assert abs(first.count("") / 3000 - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 3000)
    for text, crop in zip(first, shown, strict=True):
        assert ({word for word in text.replace(",", "").split() if word in KINDS}
                <= {thing.kind for thing in crop.scene.things})


def test_a_softened_network_says_at_a_scale_what_its_teacher_says_at_a_share_of_it(monkeypatch):
    """Both networks are formulas here: with a caption 3, without one 1, and what the copy has."""
    sd = minisd.StableDiffusion(tiny_training.config(), tiny_training.words())
    stage = unet.Stage("unet_soft", sd, torch.rand(10, 2, 5, 6, 6).half(),
                       replace(RECIPE, soft_share=0.4, caption_dropout=0.0))
    assert stage.teacher is not None and not any(p.requires_grad
                                                 for p in stage.teacher.parameters())
    empty = sd.text_encoder(sd.tokenizer([""]))[0]

    def formula(effect: float):
        return lambda x, t, context: torch.stack([torch.full_like(
            one, 1.0 if torch.allclose(c, empty) else 1.0 + effect)
            for one, c in zip(x, context, strict=True)])

    monkeypatch.setattr(stage.teacher, "forward", formula(2.0))
    for effect, wrong in ((0.8, False), (2.0, True)):
        monkeypatch.setattr(sd.unet, "forward", formula(effect))
        loss = stage.loss(torch.Generator().manual_seed(0))["loss"]
        assert (float(loss) > 1) == wrong and (float(loss) < 1e-12) != wrong


def test_a_close_up_holds_one_of_two_things_whole_and_speaks_of_it_alone():
    """Most things fit; a few are a cell or less wider than the window, which then cuts them."""
    found, cut = crops.close_ups(range(300), 16, seed=3), 0
    scenes = [data.scene(i, seed=3) for i in range(300)]
    assert [(crop.number, *crop.scene.things) for crop in found] == [
        (i, thing) for i, scene in enumerate(scenes) if len(scene.things) == 2
        for thing in scene.things]
    for crop in found:
        thing, full = crop.scene.things[0], scenes[crop.number]
        assert (crop.side, crop.scene.relation) == (8, None)
        assert (crop.scene.background, crop.scene.seed) == (full.background, full.seed)
        missing = max(max(start - (middle - thing.size / 2) * 16,
                          (middle + thing.size / 2) * 16 - start - 8)
                      for start, middle in ((crop.top, thing.y), (crop.left, thing.x)))
        assert missing <= 1 and 0 <= min(crop.top, crop.left) <= max(crop.top, crop.left) <= 8
        cut += missing > 1e-9
    assert cut < 0.1 * len(found)
    assert len({(crop.top, crop.left) for crop in found}) > 30


def test_a_crop_is_the_square_of_latents_that_it_names():
    posteriors = torch.arange(2 * 2 * 3 * 6 * 6).reshape(2, 2, 3, 6, 6)
    shown = [crops.Crop(1, data.scene(0), 2, 3, 3), crops.Crop(0, data.scene(0), 0, 1, 3)]
    assert torch.equal(crops.cut(posteriors, shown), torch.stack(
        [posteriors[1, :, :, 2:5, 3:6], posteriors[0, :, :, 0:3, 1:4]]))
    assert torch.equal(crops.cut(posteriors, crops.whole(range(2), 6)), posteriors)


def test_close_ups_come_before_whole_scenes_and_sheets_are_painted_by_the_average(
        tmp_path, monkeypatch):
    monkeypatch.setattr(unet, "SHEET_SCENES", 2)
    monkeypatch.setattr(unet, "SHEET_STEPS", 5)
    torch.set_default_dtype(torch.float32)          # as in a real training
    try:
        sd = minisd.StableDiffusion(tiny_training.config(), tiny_training.words())
        posteriors = torch.rand(10, 2, 5, 6, 6).half()
        small, whole, _ = (unet.Stage(name, sd, posteriors, RECIPE) for name in STAGES["unet"])
        assert {crop.side for crop in small.crops} == {3} and {c.side for c in whole.crops} == {6}
        trained, average = sd.unet, loop.moving_average(sd.unet, 0.9).module
        with torch.no_grad():
            for p in trained.parameters():
                p.fill_(float("nan"))       # the sheet must not use these
        small.sheet(tmp_path / "sheet.png", average)
    finally:
        torch.set_default_dtype(torch.float64)
    assert (tmp_path / "sheet.png").stat().st_size > 0 and sd.unet is trained
