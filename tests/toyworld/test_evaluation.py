"""The evaluation: intervals, resumption, sharing among processes, its sections, and what ships."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from parity import scramble

import minisd
from minisd.checkpoints import weights as checkpoint
from minisd.checkpoints.places import SHIPPED
from minisd.toyworld import evaluate
from minisd.toyworld.captions import vocabulary
from minisd.toyworld.evaluation import bench, rates, results, sections
from minisd.toyworld.evaluation.bench import ATTRIBUTES, Bench, Job, Row, jobs
from minisd.toyworld.evaluation.judge import Judge
from minisd.toyworld.evaluation.rates import rate, wilson_interval
from minisd.toyworld.training import tokenizer

# Rates

@pytest.mark.parametrize("right, of, low, high", [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0)])
def test_wilson_gives_published_intervals(right: int, of: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, method 3; the last by symmetry with 0 of 29."""
    assert wilson_interval(right, of) == pytest.approx((low, high), abs=5e-5)


def test_no_answer_does_not_count_and_tables_show_rates_and_numbers() -> None:
    found = rate([True, None, False, True, None])
    assert (found["right"], found["of"], found["share"]) == (2, 3, 2 / 3)
    rows = {"one": {"n": 5, "name": "x", "all": found, "parts": {"all": rate([None])}},
            "longer": {"n": 1000, "name": "y", "all": found, "parts": {"all": found}}}
    assert rates.table("what", rows).splitlines() == [
        "what       n               all             parts",
        "one        5  66.7 (20.8-93.9)                 -",
        "longer  1000  66.7 (20.8-93.9)  66.7 (20.8-93.9)"]


# The bench

@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of random weights, and a judge."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer.save(folder / "tokenizer", [], vocabulary())
    config = replace(TINY, text=replace(TINY.text, vocab_size=514, max_length=77),
                     vae=replace(TINY.vae, channels=(8, 8, 12, 12)))
    sd = minisd.StableDiffusion(config)
    scramble(sd)                                        # the last layers are zero before training
    checkpoint.write_config(folder, config)
    for part in checkpoint.PARTS:
        checkpoint.save(sd.get_submodule(part), folder / f"{part}.safetensors")
    checkpoint.save(Judge(), folder / "judge.safetensors")
    return folder


@pytest.fixture(scope="module")
def sd(model: Path) -> minisd.StableDiffusion:
    return minisd.load(model, device="cpu", dtype="float32")


@pytest.fixture
def on(sd: minisd.StableDiffusion, tmp_path: Path) -> Bench:
    torch.manual_seed(2)
    judge = Judge().eval().requires_grad_(False)
    return Bench(sd, judge, tmp_path / "rows", tmp_path / "figures", batch=2, steps=4)


def counting(log: list[int], stop_after: int = 10**6) -> Callable[[Sequence[Job]], list[Row]]:
    """Work that logs what it does, and is interrupted at a batch."""
    def work(batch: Sequence[Job]) -> list[Row]:
        if len(log) >= stop_after:
            raise KeyboardInterrupt
        log.extend(job.index for job in batch)
        return [{"value": 10 * job.index} for job in batch]
    return work


def test_a_killed_evaluation_loses_at_most_one_batch(on: Bench) -> None:
    identity, wanted, done, again = on.identity(), jobs("seen", 7), [], []
    with pytest.raises(KeyboardInterrupt):
        on.finish("rows", identity, wanted, counting(done, stop_after=4))
    rows = on.finish("rows", identity, wanted, counting(again))
    assert (done, again) == ([0, 1, 2, 3], [4, 5, 6])
    assert [row["value"] for row in rows] == [0, 10, 20, 30, 40, 50, 60]
    more: list[int] = []
    assert len(on.finish("rows", identity, jobs("seen", 9), counting(more))) == 9
    assert more == [6, 7, 8]                # the last batch has grown


def test_rows_of_other_weights_settings_or_prompts_are_never_taken(on: Bench, monkeypatch) -> None:
    on.finish("rows", on.identity(), jobs("seen", 3), counting([]))
    changed = copy.deepcopy(on.sd)
    changed.unet.conv_in.bias.add_(1.0)
    other = replace(on, sd=changed)
    for identity in (other.identity(), on.identity(guidance=2.0), on.identity(guidance=3.0)):
        log: list[int] = []
        on.finish("rows", identity, jobs("seen", 3), counting(log))
        assert log == [0, 1, 2], identity
    monkeypatch.setattr(bench, "full_caption", lambda scene: "a picture")   # of another world
    log = []
    on.finish("rows", on.identity(), jobs("seen", 3), counting(log))
    assert log == [0, 1, 2]


# The sections, end to end

@pytest.fixture
def small(monkeypatch) -> None:
    """The evaluation in seconds."""
    for name, value in (("GUIDANCES", (0.0, 3.0)), ("REFERENCES", 12), ("SHEET_SEEN", 3),
                        ("RECIPE", replace(sections.RECIPE, scenes=10)), ("SHEET_HELD_OUT", 2)):
        monkeypatch.setattr(sections, name, value)


def run(model: Path, folder: Path, *arguments: str) -> dict[str, Row]:
    """The command on a model; returns the summary."""
    assert evaluate.main([
        *arguments, "--model", str(model), "--judge", str(model / "judge.safetensors"), "--folder",
        str(folder), "--steps", "2", "--batch", "4", "--dtype", "float32"]) == 0
    return bench.read_summary(folder)


def test_the_sections_one_after_another(small, model, tmp_path, monkeypatch, capsys) -> None:
    fingerprint = checkpoint.fingerprint(minisd.load(model))
    for section in ("vae", "guidance", "adherence", "sheet"):
        summary = run(model, tmp_path, section, "--prompts", "5", "--samplers", "ddim", "plms")
    assert list(summary) == ["vae", "guidance", "adherence", "sheet"]
    for section in summary.values():
        assert section["model"] == fingerprint
        assert {"judge", "dtype", "hardware", "torch", "threads", "processes"} <= set(section)
    guidance = summary["guidance"]
    assert list(guidance["curves"]) == ["plms"]
    for rows in (guidance["rows"], *guidance["curves"].values()):
        assert [row["guidance"] for row in rows] == [0.0, 3.0]
        assert all(row["frechet"] > 0 and row["paired"] > 0 for row in rows)
    assert summary["vae"]["seen"]["paired"] > 0
    assert summary["adherence"]["guidance"] == TINY.guidance_scale == 7.5      # the model's own
    assert summary["adherence"]["shapes"]["drawn"]["outline"] < 0.1
    one, two = (summary["adherence"]["groups"][f"  of {name}"]
                for name in ("one thing", "two things"))
    assert (one["relation"]["of"], two["relation"]["of"]) == (0, two["n"]) and one["n"] > 0
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "guidance.png", "header.png", "samples.png"]
    printed = capsys.readouterr().out
    for words in ("psnr_mean", "best ", "pairs held out", "SD v1.5", "outline", "right "):
        assert words in printed
    monkeypatch.setattr(Bench, "paint", None)       # everything is on disk: nothing is painted
    assert run(model, tmp_path, "guidance", "--prompts", "5", "--samplers", "ddim",
               "plms") == summary
    assert run(model, tmp_path, "adherence", "--prompts", "4")["adherence"]["groups"][
        "pairs held out"]["n"] == 4


def test_search_finds_pictures_that_fit_one_word_two_and_five(monkeypatch, tmp_path) -> None:
    """The towers that ship, on one hundred pictures; on ten hundreds 100, 89 and 97 % fit."""
    monkeypatch.setattr(sections, "GALLERIES", 1)
    assert evaluate.main(["search", "--folder", str(tmp_path), "--dtype", "float32"]) == 0
    rows = bench.read_summary(tmp_path)["search"]["rows"]
    assert list(rows) == ["1", "2", "5"] and rows["1"]["all"]["of"] == 16
    assert all(row["all"]["share"] > 0.8 for row in rows.values()), rows


def test_adherence_counts_what_the_judge_answers(small, model, tmp_path, monkeypatch) -> None:
    """A model that gets only the kinds and backgrounds of held-out scenes right."""

    def judged(self: Bench, wanted: Sequence[Job], guidance: float) -> list[Row]:
        rows = []
        for job, features in zip(wanted, self.features(self.drawn(wanted)).tolist(), strict=True):
            answers = dict.fromkeys(ATTRIBUTES, True)
            if job.split == "held_out":
                answers.update(colours=False, relation=False, all=False)
            if job.scene.relation is None:
                answers["relation"] = None
            rows.append({**job.label, "answers": answers, "read": "nothing", "shape": None,
                         "features": features})
        return rows

    monkeypatch.setattr(Bench, "paint_and_judge", judged)
    found = run(model, tmp_path, "adherence", "--prompts", "40", "--guidance", "3")["adherence"]
    seen, held = (found["groups"][name] for name in ("pairs seen in training", "pairs held out"))
    assert (seen["all"]["right"], seen["all"]["of"]) == (40, 40)
    one, two = (found["groups"][f"  of {name}"]["n"] for name in ("one thing", "two things"))
    assert seen["relation"]["of"] == two == 40 - one
    assert (held["all"]["right"], held["colours"]["right"], held["things"]["right"]) == (0, 0, 40)
    parts = [found["groups"][f"  {name}"]["n"] for name in ("colour and thing", "thing and thing")]
    assert min(parts) > 0 and sum(parts) >= 40          # a scene may hold both
    marks = found["composition"]
    assert [mark["of"] for mark in marks["pairs seen"].values()] == [one, two, one, two, two]
    assert [mark["share"] for mark in marks["pairs held out"].values()] == [1, 1, 0, 0, 0]
    assert [row["paired"] for row in found["distance"].values()] == pytest.approx([0, 0], abs=1e-6)
    assert len(found["failures"]) == 40 and found["failures"][0]["wrong"][0] == "colours"


@pytest.mark.parametrize("arguments, said", [
    (["export"], "nothing was measured on model"),
    (["vae", "--prompts", "1"], "at least 2"), (["guidance", "--samplers", "x"], "invalid choice")])
def test_mistakes_are_a_sentence_not_a_traceback(model, tmp_path, capsys, arguments, said) -> None:
    with pytest.raises(SystemExit) as error:
        run(model, tmp_path, *arguments, "--target", str(tmp_path))
    assert error.value.code and said in f"{error.value} {capsys.readouterr().err}"
    assert not (tmp_path / results.FILE).exists()


# What ships

def test_what_was_measured_on_one_model_is_exported_and_read_again(tmp_path: Path) -> None:
    made = {"model": "aaa", "judge": "jjj"}
    failures = [{**job.label, "read": "nothing, unclear", "wrong": ["colours"]}
                for job in (*jobs("seen", 30), *jobs("held_out", 2, first=4))]
    bench.write_json(tmp_path / "summary.json", {
        "vae": {**made, "seen": {"n": 3, "psnr_mean": 31.123456}},
        "adherence": {**made, "n": 30, "rate": rate([True, True, False]), "failures": failures},
        "guidance": {**made, "model": "old", "rows": []}, "sheet": {**made, "n": 64, "right": 60}})
    said = results.export(tmp_path, tmp_path, "aaa", "jjj")
    assert "not measured on model aaa with judge jjj: guidance, search" in said
    found = results.read(tmp_path / results.FILE)
    assert (found.model, found.judge, list(found.sections)) == ("aaa", "jjj", ["vae", "adherence"])
    assert found.sections["vae"]["seen"] == {"n": 3, "psnr_mean": 31.12}
    assert found.sections["adherence"]["rate"]["share"] == 0.6667
    assert "failures" not in found.sections["adherence"]
    assert [(f.split, f.index) for f in found.failures[:5]] == [
        ("seen", 0), ("held_out", 4), ("seen", 1), ("held_out", 5), ("seen", 2)]
    assert len(found.failures) == results.MOST_FAILURES
    first = found.failures[1]
    assert first.prompt == first.job.prompt and first.wrong == ["colours"]
    with pytest.raises(ValueError, match="nothing was measured on model bbb"):
        results.export(tmp_path, tmp_path, "bbb", "jjj")
    assert results.read(tmp_path / results.FILE) == found
    with pytest.raises(FileNotFoundError, match=r"nowhere is not there: .* export`"):
        results.read(tmp_path / "nowhere")
    assert results.Results().missing == list(results.SECTIONS)


def test_the_shipped_evaluation_is_small_and_of_the_shipped_weights() -> None:
    path = SHIPPED / results.FILE
    shipped = results.read(path)
    assert shipped.model == checkpoint.fingerprint(minisd.load("toyworld"))
    assert path.stat().st_size < 100_000
    assert all(section["model"] == shipped.model for section in shipped.sections.values())
    for one in shipped.failures:
        assert one.prompt == one.job.prompt and one.wrong


# Other processes

@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(model: Path, tmp_path: Path) -> None:
    found = []
    for name, start in (("one", ["-m"]),
                        ("two", ["-m", "torch.distributed.run", "--standalone",
                                 "--nproc_per_node=2", "-m"])):
        subprocess.run(
            [sys.executable, *start, "minisd.toyworld.evaluate", "adherence", "--model", str(model),
             "--judge", str(model / "judge.safetensors"), "--folder", str(tmp_path / name),
             "--prompts", "5", "--steps", "2", "--batch", "2", "--guidance", "2",
             "--dtype", "float32"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found.append(json.loads((tmp_path / name / "summary.json").read_text())["adherence"])
    one, two = found
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    assert one == two
    files = list((tmp_path / "two" / "rows").iterdir())
    assert len(files) == 2 * 3                  # each of two processes has 5 prompts, 2 at once
