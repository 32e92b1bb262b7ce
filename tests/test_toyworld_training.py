"""The training: the same weights on one process or two, uninterrupted or killed, and its parts."""

import csv
import math
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training
import torch
from parity import relative_error
from safetensors.torch import load_file
from tiny_training import RECIPE, fit
from torch import Tensor, nn

import minisd
from minisd.checkpoints import weights as checkpoint
from minisd.diffusion import make_schedule
from minisd.toyworld import data, latents, loop, train, train_clip, train_unet, train_vae, views
from minisd.toyworld.recipe import Part
from minisd.toyworld.scenes import KINDS, Thing
from minisd.vae import VAE

DRAW_LOSSES = loop.Fit._draw_losses
STAGES = {part: train.STAGES[part] for part in ("vae", "clip", "unet")}
PARTS = tuple(name for names in STAGES.values() for name in names)
NEEDED = ("vae.pt", "decoder.pt", "clip_foils.pt")      # by the UNet
SPLIT_TOLERANCE = 6e-5      # float32 sums in another order, through two stages of a few steps
KINK_TOLERANCE = 1e-4       # of gradients: those of the VAE's L1 error jump where its sign changes


@pytest.fixture(autouse=True, scope="module")
def plain_arithmetic() -> Iterator[None]:
    """So that results are comparable to the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)            # as in the processes that it is compared to
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.plain(patch.setattr)
        yield
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
    elif isinstance(a, Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


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
    """The same by two gloo processes under torchrun, each part stopped once on the way.

    The UNet stands on the first folder's VAE and CLIP, or their tiny differences would add up.
    """
    folder = tmp_path_factory.mktemp("shared")
    for name in NEEDED:
        (folder / "unet").mkdir(exist_ok=True)
        shutil.copy(whole / name, folder / "unet")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         tiny_training.__file__, folder, "vae", folder, "clip", folder / "unet", "unet"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for path in (folder / "unet").glob("unet*.pt"):
        path.rename(folder / path.name)
    return folder


@pytest.mark.parametrize("name", PARTS)
def test_two_processes_take_the_same_steps_as_one(whole, shared, name):
    one, two = state(whole, name), state(shared, name)
    assert one["step"] == two["step"] == getattr(RECIPE, name).steps
    for net in ("model", "average"):
        assert relative_error(joined(two[net].values()),
                              joined(one[net].values())) < SPLIT_TOLERANCE
    gradients = [joined(s["exp_avg"] for s in x["optimiser"]["state"].values()) for x in (two, one)]
    assert relative_error(*gradients) < KINK_TOLERANCE


# Softmax does not feel a constant added to all scores, nor anything where there is but one cell.
UNMOVED = {"vae": {"to_k.bias"}, "decoder": {"to_k.bias"}, "clip": {"to_k.bias"},
           "clip_words": {"to_k.bias"}, "clip_foils": {"to_k.bias"},
           "unet_small": {"self_attn.to_q.weight", "self_attn.to_k.weight"}, "unet": set()}


@pytest.mark.parametrize("part", PARTS)
def test_the_training_moves_every_part(whole, part):
    """Or the comparison above would compare two starts."""
    trained = state(whole, part)
    names = [key for key in trained["model"]
             if part != "decoder" or key.startswith(("decoder", "post_quant_conv"))]
    moments = trained["optimiser"]["state"]
    aside = {name for name in names if part == "clip_words" and name.startswith("image")}
    assert len(names) == len(moments) + len(aside)
    unmoved = {name for i, name in enumerate(names)
               if name not in aside and not moments[i]["exp_avg"].any()}
    assert all(name.endswith(tuple(UNMOVED[part])) for name in unmoved), unmoved
    assert len(unmoved) < len(names) / 10
    assert relative_error(joined(trained["average"].values()),
                          joined(trained["model"].values())) > 1e-5


def test_the_decoder_is_trained_on_alone(whole):
    """So the latents stay what the UNet learned, and the encoded scenes on disk stay right."""
    before, after = state(whole, "vae")["average"], state(whole, "decoder")["average"]
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"decoder", "post_quant_conv"}
    vae = train.trained_vae(tiny_training.config(), whole)
    assert_identical(dict(vae.state_dict()), dict(after))


def test_a_share_is_every_world_th_sample():
    batch = torch.arange(6)
    parts = [loop.Share(rank, 3).of(batch) for rank in range(3)]
    assert [p.tolist() for p in parts] == [[0, 3], [1, 4], [2, 5]]
    assert torch.equal(loop.Share().of(batch), batch)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path):
    with pytest.raises(ValueError, match="4 processes cannot share a batch of 6 evenly"):
        loop.Fit("x", nn.Linear(1, 1), Part(1, 6, 1e-3), no_loss, tmp_path, share=loop.Share(0, 4))


def test_processes_that_do_not_see_one_folder_are_told(tmp_path, monkeypatch):
    one = linear_fit(tmp_path, Part(steps=2, batch=4, lr=1e-3))
    monkeypatch.setattr(one, "_first_of", lambda value: 7)
    with pytest.raises(RuntimeError, match="at step 0 here and at step 7 in the first process"):
        one.resume()


# One gradient step

def no_loss(g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
    raise AssertionError("not to be called")


def linear_fit(folder: Path, part: Part, *, name: str = "linear",
               spoil: Callable[[int, Tensor], Tensor] = lambda step, loss: loss) -> loop.Fit:
    """Least squares on 16 fixed samples; micro-batch i takes the i-th `part.batch` of them."""
    torch.manual_seed(1)
    model = nn.Linear(5, 3)
    x, y = torch.randn(16, 5), torch.randn(16, 3)

    def loss(g: torch.Generator, share: loop.Share) -> dict[str, Tensor]:
        start = g.initial_seed() % 64 * part.batch
        rows = slice(start, start + part.batch)
        value = (model(x[rows]) - y[rows]).square().mean()
        return {"loss": spoil(fitted.step, value), "first": x[rows][0, 0]}

    fitted = loop.Fit(name, model, part, loss, folder)
    return fitted


def test_two_micro_batches_of_8_are_one_batch_of_16(tmp_path):
    part = Part(steps=3, batch=16, lr=1e-2)
    at_once = linear_fit(tmp_path, part, name="at_once")
    in_two = linear_fit(tmp_path, replace(part, batch=8, accumulate=2), name="in_two")
    for _ in range(part.steps):
        a, b = at_once.take_step(), in_two.take_step()
        assert math.isclose(a["loss"], b["loss"], rel_tol=1e-6)
        assert math.isclose(a["gradient_norm"], b["gradient_norm"], rel_tol=1e-5)
    assert relative_error(in_two.model.weight.detach(), at_once.model.weight.detach()) < 1e-6


def test_the_generators_of_all_micro_batches_differ():
    draws = {tuple(torch.randint(2**31, (4,), generator=loop.generator(seed, step, micro)).tolist())
             for seed in (0, 1) for step in range(20) for micro in range(3)}
    assert len(draws) == 2 * 20 * 3
    first, again = (torch.randn(5, generator=loop.generator(3, 14, 1)) for _ in range(2))
    assert torch.equal(first, again)


def test_the_learning_rate_rises_stays_and_falls_along_a_cosine():
    part = Part(steps=100, batch=1, lr=0.5, warmup=10, cooldown=40)
    rates = [loop.learning_rate(part, step) for step in range(part.steps)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert set(rates[10:61]) == {0.5}
    assert rates[60:] == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 40)) for i in range(40)])
    constant = replace(part, cooldown=0, warmup=0)
    assert {loop.learning_rate(constant, step) for step in range(100)} == {0.5}


def test_the_average_follows_the_formula(tmp_path):
    fitted = linear_fit(tmp_path, Part(steps=40, batch=16, lr=1e-2, ema=0.7))
    expected = fitted.model.weight.detach().double().clone()
    for step in range(1, 41):
        fitted.take_step()
        decay = min(0.7, step / (step + 10))
        expected = decay * expected + (1 - decay) * fitted.model.weight.detach().double()
    assert relative_error(fitted.average.weight.double(), expected) < 1e-6
    assert not fitted.average.weight.requires_grad and not fitted.average.training


def test_networks_have_no_buffers_that_the_average_would_miss():
    assert not list(minisd.StableDiffusion(tiny_training.config()).buffers())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(tmp_path, bad):
    fitted = linear_fit(tmp_path, Part(steps=9, batch=16, lr=1e-2),
                        spoil=lambda step, loss: loss * bad if step == 4 else loss)
    for _ in range(4):
        fitted.take_step()
    before = fitted.model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=r"linear: the gradient is (nan|inf) at step 4;"):
        fitted.take_step()
    assert torch.equal(fitted.model.weight, before)


def test_metrics_become_one_row_per_step(tmp_path):
    fitted = linear_fit(tmp_path, Part(steps=5, batch=16, lr=1e-2, warmup=2))
    fitted.run()
    rows = list(csv.DictReader((tmp_path / "linear.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    assert list(rows[0]) == ["step", "loss", "first", "gradient_norm", "lr", "images_per_second"]
    assert [float(row["lr"]) for row in rows] == [0.005, 0.01, 0.01, 0.01, 0.01]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_sheets_are_drawn_on_time_and_resumed_runs_append_to_the_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Fit, "_draw_losses", DRAW_LOSSES)

    def again() -> loop.Fit:
        fitted = linear_fit(tmp_path, Part(steps=6, batch=16, lr=1e-2))
        fitted.sheet, fitted.sheet_every = Path.touch, 2
        return fitted

    again().run(minutes=0)
    assert state(tmp_path, "linear")["step"] == 1
    again().run()
    assert sorted(p.name for p in tmp_path.glob("linear-0*.png")) == [
        "linear-000002.png", "linear-000004.png", "linear-000006.png"]
    assert (tmp_path / "linear-losses.png").stat().st_size > 0
    rows = list(csv.DictReader((tmp_path / "linear.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]


# Stopped, killed, started over

@pytest.mark.parametrize("part", STAGES)
def test_a_run_stopped_after_every_step_ends_with_the_same_weights(whole, tmp_path, part):
    for name in NEEDED if part == "unet" else ():
        shutil.copy(whole / name, tmp_path)
    for _ in range(sum(getattr(RECIPE, name).steps for name in STAGES[part])):
        fit(tmp_path, part, minutes=0)
    for name in STAGES[part]:
        assert_identical(state(tmp_path, name), state(whole, name))


@pytest.fixture(scope="module")
def processes():
    """Fresh processes that fork from one with torch loaded, so that they start quickly."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["minisd.toyworld.train"])
    return context


@pytest.fixture(scope="module")
def unharmed(processes, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("unharmed")
    assert live(processes, folder) == 0
    return state(folder, "toy")


def live(processes, folder: Path, die_at: str = "") -> int:
    process = processes.Process(target=tiny_training.run_toy, args=(folder, die_at))
    process.start()
    process.join(600)
    return process.exitcode


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(processes, unharmed, tmp_path):
    rng, kills, step = random.Random(5), 0, 0
    path = tmp_path / "toy.pt"
    while kills < 5:
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = processes.Process(target=tiny_training.run_toy, args=(tmp_path,))
        process.start()
        while process.is_alive() and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join(600)
        kills += 1
        reached = state(tmp_path, "toy")["step"]
        assert reached >= step
        step = reached
        if process.exitcode == 0:
            break
    assert kills >= 2, "the machine is too fast for this test: raise TOY.steps"
    assert live(processes, tmp_path) == 0
    assert_identical(state(tmp_path, "toy"), unharmed)


@pytest.mark.parametrize(("die_at", "left"), [("half", -1), ("written", -1), ("replaced", 0)])
def test_a_kill_during_a_save_leaves_the_old_checkpoint_or_the_new_one(
        processes, unharmed, tmp_path, die_at, left):
    assert live(processes, tmp_path, die_at) == -9
    assert state(tmp_path, "toy")["step"] == tiny_training.DYING_STEP + left
    assert live(processes, tmp_path) == 0
    assert_identical(state(tmp_path, "toy"), unharmed)


def test_a_finished_run_is_not_run_again(whole, tmp_path):
    for name in STAGES["clip"]:
        shutil.copy(whole / f"{name}.pt", tmp_path)
    fit(tmp_path, "clip")
    for name in STAGES["clip"]:
        assert_identical(state(tmp_path, name), state(whole, name))
        assert not (tmp_path / f"{name}.csv").exists()


def test_every_stage_of_clip_begins_with_the_average_of_the_one_before(whole, tmp_path):
    still = Part(steps=1, batch=6, lr=0.0)
    for before, stage in pairwise(train_clip.STAGES):
        folder = tmp_path / stage
        folder.mkdir()
        for name in train_clip.STAGES[:train_clip.STAGES.index(stage)]:
            shutil.copy(whole / f"{name}.pt", folder)
        train_clip.train(tiny_training.config(), replace(RECIPE, **{stage: still}), folder,
                         tiny_training.tokenizer(), share=loop.Share(), minutes=0)
        assert_identical(dict(state(folder, stage)["model"]),
                         dict(state(whole, before)["average"]))
    last = state(whole, train_clip.STAGES[-1])["average"]
    assert_identical(dict(train.trained_clip(tiny_training.config(), whole).state_dict()),
                     dict(last))


def test_training_can_start_from_given_weights(whole, tmp_path):
    for name in NEEDED:
        shutil.copy(whole / name, tmp_path)
    start = {key: value.clone() for key, value in state(whole, "unet")["average"].items()}
    fit(tmp_path, "unet", minutes=0, start=start)
    assert not (tmp_path / "unet_small.pt").exists()        # the small stage is skipped
    after = state(tmp_path, "unet")
    moved = relative_error(joined(after["model"].values()), joined(start.values()))
    assert after["step"] == 1 and 0 < moved < 0.05          # one step of half the learning rate


def test_what_is_exported_loads_paints_and_can_be_started_from(whole, tmp_path, monkeypatch):
    folder, shipped = tmp_path / "run", tmp_path / "shipped"
    shutil.copytree(whole, folder)
    tiny_training.write_shipped(folder)
    checkpoint.write_config(folder, replace(tiny_training.config(), name="exported"))
    train.export(folder, shipped)
    sd = minisd.load(shipped, device="cpu", dtype="float32")
    assert sd.config.name == "exported"
    assert sd.text_to_image("a red car", steps=5, seed=0)[0].size == (48, 48)
    average = state(whole, "unet")["average"]
    assert relative_error(joined(sd.unet.state_dict().values()),
                          joined(average.values())) < 1e-3          # float16 on disk
    monkeypatch.setattr(train, "SHIPPED", shipped)
    assert train.shipped("clip").keys() == state(whole, "clip")["model"].keys()
    image_tower = load_file(shipped / "image_tower.safetensors")
    assert not any(name.startswith("text.") for name in image_tower)
    for part in STAGES:
        start = train.shipped(part)
        assert {value.dtype for value in start.values()} == {torch.float32}
        fit(tmp_path / "again" / part, part, minutes=0, start=start) if part != "unet" else None


@pytest.fixture
def shipped(whole, tmp_path, monkeypatch) -> Path:
    """Tiny weights in the place of those that ship."""
    folder, target = tmp_path / "run", tmp_path / "shipped"
    shutil.copytree(whole, folder)
    tiny_training.write_shipped(folder)
    train.export(folder, target)
    monkeypatch.setattr(train, "SHIPPED", target)
    monkeypatch.setattr(train, "TOYWORLD", tiny_training.config())
    monkeypatch.setattr(train, "RECIPE", RECIPE)
    return target


def test_one_part_goes_on_from_the_shipped_ones_and_is_all_that_is_exported(shipped, tmp_path):
    """Tokenizer, VAE and CLIP come from there, and stay there; so does the scale factor."""
    before = {path.name: path.read_bytes() for path in shipped.rglob("*.*")}
    folder = tmp_path / "further"
    assert train.main(["unet", "--folder", str(folder), "--from-shipped"]) == 0
    assert {path.stem for path in folder.glob("*.pt") if "latents" not in path.stem} == {"unet"}
    assert checkpoint.read_config(folder) == tiny_training.config()
    train.export(folder, shipped)
    changed = {name for name, content in before.items()
               if next(shipped.rglob(name)).read_bytes() != content}
    assert changed == {"unet.safetensors", "losses.json"}
    assert relative_error(load_file(shipped / "unet.safetensors")["conv_in.weight"].float(),
                          state(folder, "unet")["average"]["conv_in.weight"]) < 1e-3


@pytest.mark.parametrize("part", ["vae", "clip"])
def test_what_the_unet_rests_on_is_not_exported_without_it(whole, shipped, part, tmp_path):
    folder = tmp_path / "part"
    folder.mkdir()
    shutil.copy(whole / f"{STAGES[part][0]}.pt", folder)
    before = {path: path.read_bytes() for path in shipped.rglob("*.*")}
    with pytest.raises(FileNotFoundError, match="holds no trained unet: run .*train unet"):
        train.export(folder, shipped)
    assert {path: path.read_bytes() for path in before} == before


def test_a_part_that_was_never_trained_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no trained vae: run .*train vae"):
        fit(tmp_path, "unet")


# The VAE's part

def test_random_crops_depend_on_the_generator_alone():
    images = data.pictures(range(4), size=48)
    draw = [train_vae.random_crops(images, 9, 24, torch.Generator().manual_seed(s))
            for s in (1, 1, 2)]
    assert draw[0].shape == (9, 3, 24, 24) and draw[0].abs().max() <= 1
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


def test_random_crops_are_parts_of_scenes_and_now_and_then_whole_ones():
    images = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    crops = train_vae.random_crops(images, 8, 8, torch.Generator().manual_seed(0))
    scenes = data.to_tensor(images)
    windows = scenes.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    halves = torch.nn.functional.avg_pool2d(scenes, 2)
    for i, crop in enumerate(crops):
        candidates = halves if i % train_vae.WHOLE_SHARE == 0 else windows
        assert any(torch.allclose(crop, c, atol=1e-6) for c in candidates)


def test_errors_of_pictures_by_hand():
    a, b = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert train_vae.edge_error(a, b) == 1.0                # 1 across, 0 down
    assert train_vae.psnr(a, b).item() == pytest.approx(-10 * math.log10(0.5 / 4), abs=1e-5)
    assert train_vae.psnr(b + 9, b + 9).isfinite().all()


# The latents

@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(3)
    return VAE(tiny_training.config().vae).eval().requires_grad_(False)


def test_encoded_scenes_are_what_the_encoder_says(vae, monkeypatch):
    monkeypatch.setattr(latents, "BATCH", 2)
    images = data.pictures(range(5), size=24)
    found = latents.encode(vae, images)
    expected = vae.encode(data.to_tensor(images))
    assert found.shape == (5, 2, 5, 3, 3) and found.dtype == torch.float16
    assert relative_error(found[:, 0].float(), expected.mean) < 1e-3        # float16
    assert relative_error(found[:, 1].float(), expected.std) < 1e-3


def test_encoded_scenes_are_kept_for_these_weights_only(vae, tmp_path, monkeypatch):
    def cached(net: VAE) -> Tensor:
        return latents.cached(net, tmp_path, 3, size=24, seed=0, share=loop.Share())

    first = cached(vae)
    other = VAE(vae.config).eval()
    other.decoder.load_state_dict(vae.decoder.state_dict())
    assert not torch.equal(cached(other), first)
    monkeypatch.setattr(latents, "encode", None)
    assert torch.equal(cached(vae), first)
    other.load_state_dict(vae.state_dict())
    torch.nn.init.zeros_(other.decoder.conv_out.weight)
    assert torch.equal(cached(other), first)                # another decoder changes nothing


def test_the_measured_scale_gives_unit_variance():
    g = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(500, 4, 8, 8, generator=g) + torch.arange(4).view(4, 1, 1)
    std = torch.rand(500, 4, 8, 8, generator=g) * 2
    samples = mean + std * torch.randn(mean.shape, generator=g)
    scale = latents.measure_scale(torch.stack([mean, std], 1))
    assert (samples * scale).std().item() == pytest.approx(1, abs=0.01)
    assert scale == round(scale, 5)


# The UNet's part

def test_snr_weights_are_one_up_to_the_cap_and_fall_beyond():
    weights = train_unet.snr_weights(torch.tensor([0.1, 5.0, 10.0, 500.0]), cap=5.0)
    assert weights.tolist() == pytest.approx([1.0, 1.0, 0.5, 0.01])
    snr = make_schedule(tiny_training.config().schedule).snr()
    assert (train_unet.snr_weights(snr, 5.0) * snr).max() <= 5.0 + 1e-9


def test_half_of_the_timesteps_are_drawn_where_layouts_are_decided():
    stage = SimpleNamespace(recipe=replace(RECIPE, early_share=0.5, early_from=600),
                            alpha_bar=torch.zeros(1000))
    t = train_unet.Stage.timesteps(stage, 40_000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64 and t.min() == 0 and t.max() == 999
    counts = t.bincount(minlength=1000)
    low, high = counts[:600].sum() / 40_000, counts[600:].sum() / 40_000
    assert abs(low - 0.5 * 0.6) < 0.01 and abs(high - (0.5 + 0.5 * 0.4)) < 0.01
    for flat in (counts[:600], counts[600:]):
        assert flat.float().std() < 1.3 * flat.float().mean().sqrt()


def test_a_tenth_of_the_captions_is_dropped_and_the_others_belong_to_their_scenes():
    shown = views.whole(range(40), 16) * 75
    stage = SimpleNamespace(recipe=replace(RECIPE, caption_dropout=0.1))
    first, again = (train_unet.Stage.captions(stage, shown, torch.Generator().manual_seed(0))
                    for _ in range(2))
    assert first == again
    dropped = first.count("")
    assert abs(dropped / 3000 - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 3000)
    for scene, text in zip((view.scene for view in shown), first, strict=True):
        words = {t.kind for t in scene.things} | set(scene.background.split())
        assert all(kind in words for kind in text.replace(",", "").split()
                   if kind in KINDS)


def test_a_close_up_holds_one_of_two_things_whole_and_speaks_of_it_alone():
    """Most things fit; a few are a cell or less wider than the window, which then cuts them."""
    found, cut = views.close_ups(range(300), 16, seed=3), 0
    scenes = [data.scene(i, seed=3) for i in range(300)]
    expected = [(i, thing) for i, scene in enumerate(scenes) if len(scene.things) == 2
                for thing in scene.things]
    assert [(v.number, *v.scene.things) for v in found] == expected
    for view in found:
        thing, full = view.scene.things[0], scenes[view.number]
        assert (view.side, view.scene.relation) == (8, None)
        assert (view.scene.background, view.scene.seed) == (full.background, full.seed)
        missing = max(max(start - (middle - thing.size / 2) * 16,
                          (middle + thing.size / 2) * 16 - start - 8)
                      for start, middle in ((view.top, thing.y), (view.left, thing.x)))
        assert missing <= 1 and 0 <= min(view.top, view.left) <= max(view.top, view.left) <= 8
        cut += missing > 1e-9
    assert cut < 0.1 * len(found)
    assert len({(view.top, view.left) for view in found}) > 30


def test_a_close_up_shows_as_little_as_possible_of_the_other_thing():
    left, right = (Thing("star", "red", x, 0.5, 0.3) for x in (0.2, 0.75))
    rng = np.random.default_rng(0)
    assert {views._window(left, right, 16, rng)[1] for _ in range(50)} == {0}
    assert {views._window(right, left, 16, rng)[1] for _ in range(50)} == {7, 8}


def test_a_close_up_is_the_square_of_latents_that_its_window_names():
    posteriors = torch.arange(2 * 2 * 3 * 6 * 6).reshape(2, 2, 3, 6, 6)
    shown = [views.View(1, data.scene(0), 2, 3, 3), views.View(0, data.scene(0), 0, 1, 3)]
    assert torch.equal(views.cut(posteriors, shown), torch.stack(
        [posteriors[1, :, :, 2:5, 3:6], posteriors[0, :, :, 0:3, 1:4]]))
    assert torch.equal(views.cut(posteriors, views.whole(range(2), 6)), posteriors)


def test_the_first_stage_learns_from_close_ups_and_the_second_from_whole_scenes(tmp_path):
    sd = minisd.StableDiffusion(tiny_training.config(), tiny_training.tokenizer())
    posteriors = torch.rand(10, 2, 5, 6, 6).half()
    small, whole = (train_unet.Stage(name, sd, posteriors, RECIPE, tmp_path, share=loop.Share())
                    for name in ("unet_small", "unet"))
    assert {view.side for view in small.views} == {3} and {v.side for v in whole.views} == {6}
    assert [view.number for view in whole.views] == list(range(10))


def test_the_stage_draws_a_sheet_with_its_average_and_goes_on_with_its_net(whole, tmp_path,
                                                                           monkeypatch):
    monkeypatch.setattr(train_unet, "SHEET_SCENES", 2)
    monkeypatch.setattr(train_unet, "SHEET_STEPS", 5)
    sd = minisd.StableDiffusion(tiny_training.config(), tiny_training.tokenizer())
    posteriors = torch.rand(10, 2, 5, 6, 6).half()
    stage = train_unet.Stage("unet_small", sd, posteriors, RECIPE, tmp_path, share=loop.Share())
    with torch.no_grad():
        for p in sd.unet.parameters():
            p.fill_(float("nan"))       # the sheet must not use these
    trained = sd.unet
    stage.sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0 and sd.unet is trained
