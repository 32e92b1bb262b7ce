"""The evaluation as it ships: what is exported, what is left out, and what is read again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minisd.checkpoints.load import WEIGHTS, load
from minisd.toyworld import results
from minisd.toyworld.bench import ATTRIBUTES, Job
from minisd.toyworld.rates import rate
from minisd.toyworld.records import Records, Row, update_summary

MADE = {"model": "aaa", "judge": "jjj", "dtype": "float32"}
PAINTED = {**MADE, "sampler": "ddim", "steps": 50, "guidance": 4.0}


def row(job: Job, *wrong: str, **settings: object) -> Row:
    """What a bench writes of a picture in which some attributes are wrong."""
    answers: dict[str, bool | None] = {name: name not in wrong for name in ATTRIBUTES}
    answers["all"] = not wrong
    if job.scene.relation is None:
        answers["relation"] = None
    return {**PAINTED, **settings, **job.label, "answers": answers, "read": "nothing, unclear",
            "features": [0.0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation of model aaa; the stages were measured on an earlier one."""
    rates = {name: rate([True, True, False]) for name in ATTRIBUTES}
    summary: dict[str, Row] = {
        "vae": {**MADE, "seen": {"n": 3, "psnr_mean": 31.123456}},
        "guidance": {**MADE, "sampler": "plms", "n": 3, "best": 4.0, "rows": [
            {"guidance": 1.5, **rates, "frechet": 0.0123456}]},
        "adherence": {**PAINTED, "n": 30, "groups": {"pairs seen in training": {"n": 3, **rates}}},
        "stages": {**PAINTED, "model": "old", "rows": []},
        "sheet": {**PAINTED, "n": 64, "right": 60}}
    for name, values in summary.items():
        update_summary(tmp_path / "summary.json", name, values)
    Records(tmp_path, "pictures").add([
        *(row(Job("seen", i), "things") for i in range(30)),
        *(row(Job("held_out", i), "colours", "relation") for i in (7, 2, 5)),
        row(Job("held_out", 1)),
        row(Job("held_out", 30), "things"),
        row(Job("held_out", 0), "things", model="old"),
        row(Job("held_out", 3), "things", guidance=5.0),
        row(Job("held_out", 4), "things", sampler="plms"),
        row(Job("held_out", 6), "things") | {"prompt": "a scene of another world"}])
    return tmp_path


def test_sections_of_another_model_are_left_out_and_named(folder: Path) -> None:
    found, left_out = results.collect(folder, "aaa", "jjj")
    assert list(found.sections) == ["vae", "guidance", "adherence"]
    assert len(left_out) == 1 and left_out[0].startswith("stages is left out: it is of model old")
    assert found.missing == ["stages", "speed"]
    nothing, left_out = results.collect(folder, "aaa", "another judge")
    assert nothing.sections == {} and nothing.failures == () and len(left_out) == 4


def test_failures_are_the_first_of_both_splits_under_the_same_settings(folder: Path) -> None:
    failures = results.collect(folder, "aaa", "jjj")[0].failures
    assert len(failures) == results.MOST_FAILURES
    assert [(f.split, f.index) for f in failures[:8]] == [
        ("seen", 0), ("held_out", 2), ("seen", 1), ("held_out", 5), ("seen", 2), ("held_out", 7),
        ("seen", 3), ("seen", 4)]
    first = failures[1]
    assert first.prompt == first.job.prompt == Job("held_out", 2).prompt
    assert first.wrong == (("colours", "relation") if first.job.scene.relation else ("colours",))
    assert first.read == "nothing, unclear"


def test_rows_of_two_processes_count_once(folder: Path) -> None:
    Records(folder, "pictures", 1).add([row(Job("held_out", 2), "colours", "relation")])
    failures = results.collect(folder, "aaa", "jjj")[0].failures
    assert [(f.split, f.index) for f in failures].count(("held_out", 2)) == 1


def test_numbers_are_rounded_and_counts_are_not() -> None:
    assert results.rounded({"n": 123456, "rows": [{"frechet": 0.0123456, "name": "1.23456"}],
                            "share": 2 / 3, "none": None, "yes": True}) == {
        "n": 123456, "rows": [{"frechet": 0.01235, "name": "1.23456"}], "share": 0.6667,
        "none": None, "yes": True}


def test_what_is_written_is_read_again(folder: Path) -> None:
    found, _ = results.collect(folder, "aaa", "jjj")
    path = folder / results.FILE
    results.write(path, found)
    assert results.read(path) == found
    assert path.stat().st_size < 20_000 and "features" not in path.read_text()
    assert not list(folder.glob("*.part"))


def test_nothing_is_not_written(folder: Path) -> None:
    path = folder / results.FILE
    path.write_text("before")
    with pytest.raises(ValueError, match="nothing was measured on model bbb: run `python -m"):
        results.write(path, results.collect(folder, "bbb", "jjj")[0])
    assert path.read_text() == "before"


def test_a_missing_file_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"evaluation.json is not there: .* export`"):
        results.read(tmp_path / results.FILE)


def test_before_anything_is_measured_everything_is_missing() -> None:
    assert results.Results().missing == list(results.SECTIONS)
    assert replace(results.Results(), sections={"vae": {}}).missing[0] == "guidance"


def test_the_shipped_evaluation_is_small_and_of_the_shipped_weights() -> None:
    path = WEIGHTS / "toyworld" / results.FILE
    if not path.exists():
        pytest.skip("weights/toyworld has no evaluation.json: run `evaluate export`")
    shipped = results.read(path)
    assert shipped.model == load("toyworld").fingerprint
    assert path.stat().st_size < 100_000 and json.loads(path.read_text())
    assert all(section["model"] == shipped.model for section in shipped.sections.values())
    for failure in shipped.failures:
        assert failure.prompt == failure.job.prompt and failure.wrong
