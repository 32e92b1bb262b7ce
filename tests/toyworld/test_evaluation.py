"""The evaluation: intervals, resumption, sharing among processes, and its sections end to end."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

import minisd
from minisd import figures
from minisd.checkpoints import weights as checkpoint
from minisd.toyworld import adherence, bench, evaluate, loop, results, train_tokenizer
from minisd.toyworld.bench import ATTRIBUTES, Bench, Job, Options, jobs
from minisd.toyworld.captions import full_caption, vocabulary
from minisd.toyworld.judge import Judge, Reading, Seen, save_judge
from minisd.toyworld.rates import Z_95, as_text, rate, table, wilson_interval
from minisd.toyworld.records import Records, Row, read_summary, update_summary

ALONE = loop.Share()


# Rates

@pytest.mark.parametrize("right, of, low, high", [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0)])
def test_wilson_gives_published_intervals(right: int, of: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, method 3; the last by symmetry with 0 of 29."""
    assert wilson_interval(right, of) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("right, of", [(1, 2), (3, 500), (481, 500), (150, 300)])
def test_the_bounds_are_the_shares_just_compatible_with_the_count(right: int, of: int) -> None:
    for p in wilson_interval(right, of):
        assert abs(right / of - p) == pytest.approx(Z_95 * math.sqrt(p * (1 - p) / of))


@pytest.mark.parametrize("of", [0, 1, 7, 500])
def test_intervals_hold_the_share_and_stay_within_0_and_1(of: int) -> None:
    for right in range(of + 1):
        low, high = wilson_interval(right, of)
        assert 0 <= low <= right / max(of, 1) <= high <= 1
    assert wilson_interval(0, 0) == (0, 1)


def test_no_answer_does_not_count() -> None:
    found = rate([True, None, False, True, None])
    assert (found["right"], found["of"], found["share"]) == (2, 3, 2 / 3)
    assert as_text(found) == "66.7 (20.8-93.9)"
    assert as_text(rate([None])) == "-"


def test_tables_are_aligned() -> None:
    lines = table(("name", "n", "share"), [("a", 5, "1.5"), ("longer", 1000, "-")]).splitlines()
    assert lines == ["name       n  share", "a          5    1.5", "longer  1000      -"]


# Records

def test_rows_of_another_identity_are_never_mixed_in(tmp_path: Path) -> None:
    records = Records(tmp_path, "rows")
    records.add([{"model": "a", "guidance": 3.0, "index": 0}])
    records.add([{"model": "b", "guidance": 3.0, "index": 0},
                 {"model": "a", "guidance": 4.0, "index": 0}])
    assert records.matching({"model": "a", "guidance": 3}) == [
        {"model": "a", "guidance": 3.0, "index": 0}]
    assert records.matching({"model": "c"}) == []
    assert Records(tmp_path, "other").matching({"model": "a"}) == []


def test_half_a_line_is_lost_alone(tmp_path: Path) -> None:
    records = Records(tmp_path, "rows")
    records.add([{"model": "a", "index": i} for i in range(2)])
    with records.own.open("rb+") as file:
        file.truncate(records.own.stat().st_size - 4)
    records.add([{"model": "a", "index": 2}])
    assert [row["index"] for row in records.matching({"model": "a"})] == [0, 2]


def test_all_processes_rows_are_read_and_one_file_is_written(tmp_path: Path) -> None:
    first, second = Records(tmp_path, "rows", 0), Records(tmp_path, "rows", 1)
    first.add([{"model": "a", "index": 0}])
    second.add([{"model": "a", "index": 1}])
    assert first.matching({"model": "a"}) == second.matching({"model": "a"})
    assert len(first.matching({"model": "a"})) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows-0.jsonl", "rows-1.jsonl"]


def test_a_section_of_the_summary_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    assert read_summary(path) == {}
    for section, n in (("vae", 1), ("guidance", 2), ("vae", 3)):
        update_summary(path, section, {"n": n})
    assert read_summary(path) == {"vae": {"n": 3}, "guidance": {"n": 2}}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


# The bench

@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of random weights, and a judge."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(1)
    train_tokenizer.save(folder / "tokenizer", [], vocabulary())
    config = replace(TINY, text=replace(TINY.text, vocab_size=514, max_length=77),
                     vae=replace(TINY.vae, channels=(8, 8, 12, 12)))
    sd = minisd.StableDiffusion(config)
    for name, tensor in sd.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.normal_(tensor, std=0.15)     # the last layers are zero before training
    checkpoint.write_config(folder, config)
    for part in checkpoint.PARTS:
        checkpoint.save(sd.get_submodule(part), folder / f"{part}.safetensors")
    save_judge(Judge(), folder / "judge.safetensors")
    return folder


@pytest.fixture(scope="module")
def sd(model: Path) -> minisd.StableDiffusion:
    return minisd.load(model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(2)
    return Judge().eval().requires_grad_(False)


@pytest.fixture
def on(sd: minisd.StableDiffusion, judge: Judge, tmp_path: Path) -> Bench:
    return Bench(sd, judge, tmp_path / "rows", ALONE, batch=2)


Work = Callable[[Sequence[Job]], list[Row]]


def counting(log: list[int], stop_after: int = 10**6) -> Work:
    """Work that logs what it does, and is interrupted at a batch."""
    def work(batch: Sequence[Job]) -> list[Row]:
        if len(log) >= stop_after:
            raise KeyboardInterrupt
        log.extend(job.index for job in batch)
        return [{"value": 10 * job.index} for job in batch]
    return work


@pytest.mark.parametrize("sampler", ["ddim", "plms"])
def test_prompts_painted_together_are_those_painted_alone(sd, sampler: str) -> None:
    prompts = [job.prompt for job in jobs("seen", 3)]
    asked = {"guidance_scale": 3.0, "steps": 5, "sampler": sampler}
    together = bench.paint(sd, prompts, [5, 0, 9], **asked)
    for prompt, seed, picture in zip(prompts, [5, 0, 9], together, strict=True):
        alone = sd.text_to_image(prompt, seed=seed, **asked)[0]
        difference = np.abs(np.asarray(alone, int) - np.asarray(picture, int))
        assert difference.max() <= 1            # of 255: a rounding that fell the other way
    assert np.asarray(together[0]).std() > 1    # the pictures are not blank


def test_a_sampler_that_starts_below_full_noise_does_so_in_a_batch_too(sd, monkeypatch) -> None:
    """Euler's 0.2 % less; decoded it would hide in the rounding of the pictures."""
    monkeypatch.setattr(sd, "decode", lambda latents: latents)
    asked = {"guidance_scale": 3.0, "steps": 5, "sampler": "euler"}
    together, alone = bench.paint(sd, ["a red car"], [5], **asked), sd.text_to_image(
        "a red car", seed=5, **asked)
    assert torch.allclose(together, alone, rtol=0, atol=1e-4)


def test_what_is_judged_does_not_depend_on_the_batch(on: Bench, tmp_path: Path) -> None:
    """Features are rounded to 5 digits in the rows."""
    found = []
    for size in (1, 2, 5):
        other = replace(on, batch=size, folder=tmp_path / str(size))
        rows = other.paint_and_judge(jobs("seen", 5), sampler="ddim", steps=4, guidance=2.0)
        assert [row["index"] for row in rows] == list(range(5))
        found.append(np.array([row["features"] for row in rows]))
    assert np.abs(found[0] - found[1]).max() < 1e-4
    assert np.abs(found[0] - found[2]).max() < 1e-4
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-3       # of different pictures, they differ


def test_a_job_is_a_scene_with_its_prompt() -> None:
    for split in bench.SPLITS:
        for job in jobs(split, 20, first=7):
            assert job.prompt == full_caption(job.scene)
            assert job.label == {"split": split, "index": job.index, "prompt": job.prompt}
    assert [job.index for job in jobs("seen", 3, 7)] == [7, 8, 9]


def test_a_killed_evaluation_loses_at_most_one_batch(on: Bench) -> None:
    identity, wanted = on.identity(), jobs("seen", 7)
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        on.finish("rows", identity, wanted, counting(done, stop_after=4))
    assert done == [0, 1, 2, 3]
    again: list[int] = []
    rows = on.finish("rows", identity, wanted, counting(again))
    assert again == [4, 5, 6]
    assert [row["value"] for row in rows] == [0, 10, 20, 30, 40, 50, 60]
    once = replace(on, folder=on.folder / "once").finish("rows", identity, wanted, counting([]))
    assert rows == once


def test_more_prompts_later_cost_only_those(on: Bench) -> None:
    on.finish("rows", on.identity(), jobs("seen", 3), counting([]))
    log: list[int] = []
    rows = on.finish("rows", on.identity(), jobs("seen", 5), counting(log))
    assert log == [3, 4] and len(rows) == 5


def test_other_weights_start_over(on: Bench) -> None:
    on.finish("rows", on.identity(), jobs("seen", 3), counting([]))
    changed = copy.deepcopy(on.sd)
    changed.unet.conv_in.bias.add_(1.0)
    log: list[int] = []
    other = replace(on, sd=changed)
    assert other.identity()["model"] != on.identity()["model"]
    other.finish("rows", other.identity(), jobs("seen", 3), counting(log))
    assert log == [0, 1, 2]
    for settings in ({"guidance": 2.0}, {"guidance": 3.0}):
        log.clear()
        on.finish("rows", on.identity(settings), jobs("seen", 3), counting(log))
        assert log == [0, 1, 2], settings


def test_rows_of_another_prompt_are_not_taken(on: Bench, monkeypatch) -> None:
    """Where the drawn world has changed, scene 0 is another scene."""
    on.finish("rows", on.identity(), jobs("seen", 2), counting([]))
    monkeypatch.setattr(bench, "full_caption", lambda scene: "a picture")
    log: list[int] = []
    on.finish("rows", on.identity(), jobs("seen", 2), counting(log))
    assert log == [0, 1]


def test_two_processes_do_half_each_and_get_the_same(on: Bench, monkeypatch) -> None:
    monkeypatch.setattr(loop, "wait_for_all", lambda share: None)
    wanted = jobs("seen", 3) + jobs("held_out", 2)
    logs: list[list[int]] = [[], []]
    for rank in (1, 0):
        one = replace(on, share=loop.Share(rank, 2))
        rows = one.finish("rows", on.identity(), wanted, counting(logs[rank]))
        assert (rows == []) == (rank == 1)
    assert logs == [[0, 2, 1], [1, 0]]
    alone = replace(on, folder=on.folder / "alone")
    assert rows == alone.finish("rows", on.identity(), wanted, counting([]))


def test_a_scene_without_relation_gives_no_answer_about_it() -> None:
    by_count = {len(job.scene.things): job.scene for job in jobs("seen", 30)}
    for count, scene in by_count.items():
        seen = tuple(Seen(t.kind, t.colour, t.x, t.y, 1.0) for t in scene.things)
        found = bench.answers(Reading(seen, scene.background), scene)
        assert found["all"] is True and found["relation"] is (True if count == 2 else None)
        wrong = bench.answers(Reading((), scene.background), scene)
        assert wrong["all"] is False and wrong["relation"] is (False if count == 2 else None)


# The sections, end to end

@pytest.fixture
def small(monkeypatch) -> Iterator[None]:
    """The evaluation in seconds."""
    monkeypatch.setattr(adherence, "GUIDANCES", (1.5, 3.0))
    monkeypatch.setattr(adherence, "REFERENCES", 12)
    monkeypatch.setattr(adherence, "RECIPE", replace(adherence.RECIPE, scenes=10))
    monkeypatch.setattr(evaluate, "SHEET_SEEN", 3)
    monkeypatch.setattr(evaluate, "SHEET_HELD_OUT", 2)
    monkeypatch.setattr(evaluate, "SHOWN_SCENES", 3)
    return None


def run(model: Path, folder: Path, *arguments: str) -> dict[str, Row]:
    """The command on a model; returns the summary."""
    assert evaluate.main([
        *arguments, "--model", str(model), "--judge", str(model / "judge.safetensors"), "--folder",
        str(folder), "--figures", str(folder / "figures"), "--steps", "2", "--batch", "4",
        "--dtype", "float32"]) == 0
    return read_summary(folder / "summary.json")


def test_the_sections_one_after_another(small, model, tmp_path, monkeypatch, capsys) -> None:
    fingerprint = minisd.load(model).fingerprint
    for section in ("vae", "guidance", "adherence", "sheet"):
        summary = run(model, tmp_path, section, "--prompts", "5")
    assert list(summary) == ["vae", "guidance", "adherence", "sheet"]
    for section in summary.values():
        assert section["model"] == fingerprint
        assert {"judge", "dtype", "hardware", "torch", "threads", "processes"} <= set(section)
    assert [row["guidance"] for row in summary["guidance"]["rows"]] == [1.5, 3.0]
    assert all(row["frechet"] > 0 for row in summary["guidance"]["rows"])
    assert summary["adherence"]["guidance"] == summary["guidance"]["best"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "adherence.png", "autoencoded.png", "guidance.png", "header.png", "samples.png"]
    printed = capsys.readouterr().out
    for words in ("PSNR", "best guidance", "pairs held out", "prompts come out right"):
        assert words in printed
    monkeypatch.setattr(bench, "paint", None)       # everything is on disk: nothing is painted
    assert run(model, tmp_path, "guidance", "--prompts", "5") == summary
    assert run(model, tmp_path, "adherence", "--prompts", "4")["adherence"]["groups"][
        "pairs held out"]["n"] == 4


def test_stages_are_measured_each_with_its_own_weights(small, model, tmp_path, sd) -> None:
    early = {name: value * 0.5 for name, value in sd.unet.state_dict().items()}
    torch.save({"step": 120, "average": early}, tmp_path / "early.pt")
    checkpoint.save(sd.unet, tmp_path / "late.safetensors")
    other = shutil.copytree(model, tmp_path / "other words")            # a stage of all its parts
    words = copy.deepcopy(sd.text_encoder)
    torch.nn.init.zeros_(words.final_norm.weight)
    checkpoint.save(words, other / "text_encoder.safetensors")
    rows = run(model, tmp_path, "stages", "--prompts", "2", "--guidance", "2", "--checkpoints",
               str(tmp_path / "early.pt"), str(other), str(tmp_path / "late.safetensors")
               )["stages"]["rows"]
    assert [(row["name"], row["step"]) for row in rows] == [
        ("early", 120), ("other words", None), ("late", None)]
    assert [row["model"] for row in rows[1:]] == [
        minisd.load(path, dtype="float32").fingerprint for path in (other, model)]
    assert len({row["model"] for row in rows}) == 3
    assert all(row["seen"]["all"]["of"] == row["held_out"]["all"]["of"] == 2 for row in rows)
    assert (tmp_path / "figures" / "stages.png").exists()


def test_a_checkpoint_of_other_sizes_is_refused(small, model, tmp_path) -> None:
    torch.save({"step": 1, "average": {"conv_in.weight": torch.zeros(2)}}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="bad.pt does not fit UNet"):
        run(model, tmp_path, "stages", "--guidance", "2", "--checkpoints", str(tmp_path / "bad.pt"))
    with pytest.raises(SystemExit):
        run(model, tmp_path, "stages")


def test_adherence_counts_what_the_judge_answers(small, model, tmp_path, monkeypatch) -> None:
    """A model that gets every held-out scene's colours wrong and everything else right."""

    def judged(self: Bench, wanted: Sequence[Job], **settings: object) -> list[Row]:
        answers = [dict.fromkeys(ATTRIBUTES, True) for _ in wanted]
        for job, answer in zip(wanted, answers, strict=True):
            if job.split == "held_out":
                answer.update(colours=False, all=False)
            if job.scene.relation is None:
                answer["relation"] = None
        return [{"answers": answer} for answer in answers]

    drawn = []
    monkeypatch.setattr(Bench, "paint_and_judge", judged)
    monkeypatch.setattr(figures, "adherence_bars", lambda rows: drawn.extend(rows) or
                        figures.stages([{"name": "x", **dict.fromkeys(bench.SPLITS, rate([]))}]))
    groups = run(model, tmp_path, "adherence", "--prompts", "40",
                 "--guidance", "3")["adherence"]["groups"]
    assert [row["group"] for row in drawn] == ["pairs seen in training", "pairs held out"]
    seen, held = groups["pairs seen in training"], groups["pairs held out"]
    assert (seen["all"]["right"], seen["all"]["of"]) == (40, 40)
    assert seen["relation"]["of"] == groups["  of two things"]["all"]["of"]
    assert groups["  of one thing"]["all"]["of"] + seen["relation"]["of"] == 40
    assert (held["all"]["right"], held["colours"]["right"], held["things"]["right"]) == (0, 0, 40)
    parts = [groups[f"  {name}"]["all"]["of"] for name in ("colour and thing", "thing and thing")]
    assert min(parts) > 0 and sum(parts) >= 40          # a scene may hold both


def test_the_best_guidance_is_that_of_this_very_model(on: Bench) -> None:
    options = Options("x", on.folder)
    with pytest.raises(ValueError, match="run `python -m minisd.toyworld.evaluate guidance` first"):
        adherence.best_guidance(on, options)
    path = on.folder / "summary.json"
    update_summary(path, "guidance", {**on.identity(), "model": "another", "best": 7.0})
    with pytest.raises(ValueError, match="is not known"):
        adherence.best_guidance(on, options)
    update_summary(path, "guidance", {**on.identity(), "best": 4.0})
    assert adherence.best_guidance(on, options) == 4.0
    assert adherence.best_guidance(on, replace(options, guidance=2.5)) == 2.5


def test_pictures_of_the_vae_section_are_measured_as_they_are_seen(on: Bench) -> None:
    """8 bits for each colour, as in the file: at most 0.5 of 255 away from the drawing."""
    images = bench.drawn([job.scene for job in jobs("seen", 2)], 32)
    picture = Image.fromarray(((images[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    assert torch.equal(bench.as_tensor([picture])[0], images[0])


# What ships

def test_export_writes_what_was_measured_on_this_model(small, model, tmp_path, capsys) -> None:
    run(model, tmp_path, "adherence", "--prompts", "3", "--guidance", "2")
    run(model, tmp_path, "export", "--target", str(tmp_path))
    shipped = results.read(tmp_path / results.FILE)
    assert shipped.model == minisd.load(model).fingerprint and list(shipped.sections) == [
        "adherence"]
    assert {(f.split, f.index) for f in shipped.failures} == {
        (split, i) for split in bench.SPLITS for i in range(3)}     # random weights paint nothing
    said = capsys.readouterr().out
    assert "not measured: vae, guidance, stages, speed" in said and "6 failures" in said


def test_export_refuses_where_nothing_was_measured(model, tmp_path) -> None:
    with pytest.raises(ValueError, match="nothing was measured on model"):
        run(model, tmp_path, "export", "--target", str(tmp_path))
    assert not (tmp_path / results.FILE).exists()


# Other processes

@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(model: Path, tmp_path: Path) -> None:
    summaries = []
    for name, start in (("one", ["-m"]),
                        ("two", ["-m", "torch.distributed.run", "--standalone",
                                 "--nproc_per_node=2", "-m"])):
        subprocess.run(
            [sys.executable, *start, "minisd.toyworld.evaluate", "adherence", "--model", str(model),
             "--judge", str(model / "judge.safetensors"), "--folder", str(tmp_path / name),
             "--figures", str(tmp_path / name), "--prompts", "5", "--steps", "2", "--batch", "2",
             "--guidance", "2", "--dtype", "float32"],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text())["adherence"])
    one, two = summaries
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    assert one == two
    assert (tmp_path / "two" / "pictures-1.jsonl").exists()


@pytest.mark.slow
def test_speed_is_measured_on_the_loaded_model_and_from_start_to_file(model, tmp_path, monkeypatch
                                                                      ) -> None:
    monkeypatch.setattr(evaluate, "SPEED_RUNS", 3)
    speed = run(model, tmp_path, "speed")["speed"]
    for what in ("text_to_image", "command"):
        assert len(speed[what]["all"]) == 3 and speed[what]["median"] == sorted(
            speed[what]["all"])[1]
    assert speed["command"]["median"] > speed["text_to_image"]["median"] > 0
