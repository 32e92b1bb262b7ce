"""Distillation: the student walks the painter's way, and learns from where the teacher's leads."""

import copy
import json
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import words

import minisd
from minisd.beyond import distill
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.places import SHIPPED
from minisd.pipeline import StableDiffusion
from minisd.toyworld.evaluation import bench
from minisd.toyworld.evaluation.judge import load_judge
from minisd.toyworld.training.recipe import Part

PART = Part(steps=3, batch=2, lr=1e-3, warmup=2)


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    torch.manual_seed(0)
    return StableDiffusion(tiny_training.config(), words()).eval()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_training.plain(monkeypatch.setattr)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
        sd: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without guidance and with as many steps, both go the same way; with either, they do not."""
    def loss() -> dict[str, float]:
        made = distill.Distillation(sd, PART)
        return {name: value.item() for name, value in
                made.loss(torch.Generator().manual_seed(0)).items()}

    monkeypatch.setattr(distill, "TEACHER_STEPS", 1)
    guided = loss()
    monkeypatch.setattr(distill, "GUIDANCE", 1.0)
    same = loss()
    monkeypatch.setattr(distill, "TEACHER_STEPS", 2)
    finer = loss()
    assert list(same) == ["loss", "step 1", "step 2", "step 3", "step 4"]
    for values in guided, finer:
        assert all(same[name] < 1e-6 * value for name, value in values.items())
        assert values["loss"] == pytest.approx(sum(values.values()) - values["loss"])


def test_the_student_is_painted_with_as_it_was_trained(
        sd: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places where the teacher is asked, and the timesteps, are those of a run of Painter."""
    made, asked = distill.Distillation(sd, PART), []
    monkeypatch.setattr(made, "teach", lambda predict, x, i: asked.append(x) or x)
    monkeypatch.setattr(distill, "caption", lambda scene, rng: "a red circle")
    monkeypatch.setattr(distill.loop, "shard", lambda x: x * (1 - made.levels[0]) ** 0.5)
    made.loss(torch.Generator().manual_seed(0))
    rows = iter(asked[0].split(1))
    monkeypatch.setattr("minisd.beyond.painter.prior", lambda shape, sigma, D, g: (
        next(rows) * (1 + sigma ** 2) ** 0.5))
    steps = list(distill.painter(sd, made.student).steps(["a red circle"] * 2, seed=0))
    assert [step.t for step in steps] == pytest.approx(made.times[:-1], abs=1e-3)
    assert steps[-1].evaluations == distill.STEPS == len(asked)
    for step, x in zip(steps, asked, strict=True):
        torch.testing.assert_close(step.x_t, x, rtol=0, atol=1e-3 * float(x.std()))


def test_the_teacher_takes_its_own_steps_with_guidance(sd: StableDiffusion) -> None:
    """From level to level as the sampler dpm++2m does, forgetting in between."""
    made = distill.Distillation(sd, PART)
    made.times[1], made.levels[1] = 749.0, sd.schedule.at(749)      # as that sampler rounds it
    settings = {"sampler": "dpm++2m", "guidance_scale": distill.GUIDANCE, "seed": 0}
    run = minisd.settings.plan(sd.config, "a red circle", settings)
    whole = list(sd.steps("a red circle", steps=8, **settings))
    shown = made.teach(sd._predictor(run), whole[0].x_t, 0)
    torch.testing.assert_close(shown, whole[2].x_t, rtol=0, atol=1e-4 * float(shown.abs().max()))


def test_a_training_that_is_interrupted_ends_with_the_same_weights(
        sd: StableDiffusion, tmp_path: Path) -> None:
    before = copy.deepcopy(sd.state_dict())
    whole = distill.Distillation(sd, PART).fit(tmp_path / "whole").state_dict()
    for _ in range(PART.steps):
        distill.Distillation(sd, PART).fit(tmp_path / "parted", minutes=0)
    parted = distill.trained(sd, tmp_path / "parted").unet.state_dict()
    assert all(parted[name].equal(value) for name, value in whole.items())
    assert not all(before[f"unet.{name}"].equal(value) for name, value in whole.items())
    assert all(sd.state_dict()[name].equal(value) for name, value in before.items())
    with pytest.raises(FileNotFoundError, match="minisd.beyond.distill train"):
        distill.trained(sd, tmp_path / "empty")


def test_it_is_exported_and_measured(sd: StableDiffusion, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "load_model", lambda *_, **__: sd)
    monkeypatch.setattr(distill, "TRAINING", PART)
    monkeypatch.setattr(distill, "CURVES", {"ddim": ("ddim", 3.0, 2, (5,)),
                                            "distilled": ("euler", 1.0, 1, (1, 4))})
    places = ["--folder", str(tmp_path), "--target", str(tmp_path)]
    for what in ("train", "export"):
        distill.main([what, *places])
    distill.main(["measure", *places, "--prompts", "3"])
    found = json.loads((tmp_path / "few_steps.json").read_text())
    assert {name: [row["evaluations"] for row in rows] for name, rows in found["curves"].items()
            } == {"ddim": [10], "distilled": [1, 4]}
    assert found["seen"]["evaluations"] == found["held_out"]["evaluations"] == 4
    assert found["held_out"]["all"]["of"] == found["held_out"]["n"] == 3
    assert found["teacher"] != found["student"]


def test_what_ships_follows_its_prompts_in_four_steps() -> None:
    teacher = minisd.load("toyworld", dtype="float32")
    few = distill.load(teacher)
    found = json.loads((SHIPPED / "few_steps.json").read_text())
    assert found["student"] == checkpoint.fingerprint(few)
    assert found["teacher"] == checkpoint.fingerprint(teacher)
    wanted = bench.jobs("seen", 12)
    run = list(few.steps([job.prompt for job in wanted], seed=[job.index for job in wanted]))
    assert run[-1].evaluations == 4 and run[-1].eps_uncond is None
    pictures = bench.as_tensor(few.decode(run[-1].x_prev))
    readings = load_judge(SHIPPED / "judge.safetensors").read(pictures)
    right = [bench.answers(reading, job.scene)["all"]
             for reading, job in zip(readings, wanted, strict=True)]
    assert sum(map(bool, right)) >= 10          # 95 % of 500 are right
