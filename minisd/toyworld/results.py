"""What the evaluation found, as it ships: `evaluation.json` beside the weights.

It holds the sections that were measured on the shipped weights, rounded to what their counts can
tell, and the first pictures that were judged wrong. A number and a prompt are enough to paint
such a picture again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from minisd.observe.files import written_whole
from minisd.toyworld.bench import SPLITS, Job
from minisd.toyworld.records import Records, Row, read_summary

FILE = "evaluation.json"
SECTIONS = ("vae", "guidance", "adherence", "stages", "speed")      # of a summary, that ship
MOST_FAILURES = 24
DIGITS = 4                      # significant ones; a share of 500 prompts has not even three
MEASURE = "python -m minisd.toyworld.evaluate"


@dataclass(frozen=True)
class Failure:
    """A picture that does not show what its prompt says, by the judge."""

    split: str                  # "seen" or "held_out", see `bench.Job`
    index: int                  # the scene's number in the split, and the seed of the picture
    prompt: str
    read: str                   # what the judge saw instead
    wrong: tuple[str, ...]      # attributes that do not agree with the prompt, without "all"

    @property
    def job(self) -> Job:
        return Job(self.split, self.index)


@dataclass(frozen=True)
class Results:
    """What is known of one model; empty before anything was measured."""

    model: str = ""             # fingerprints
    judge: str = ""
    sections: dict[str, Row] = field(default_factory=dict)      # as `evaluate` writes its summary
    failures: tuple[Failure, ...] = ()          # of the section "adherence", the first of each kind

    @property
    def missing(self) -> list[str]:
        """The sections that were not measured."""
        return [name for name in SECTIONS if name not in self.sections]


def collect(folder: Path, model: str, judge: str) -> tuple[Results, list[str]]:
    """The results of one model and one judge in an evaluation's folder.

    Args:
        model, judge: their fingerprints.
    Returns:
        the results, and for each section of another model or judge a sentence that says so.
    """
    summary = read_summary(folder / "summary.json")
    sections, left_out = {}, []
    for name in SECTIONS:
        found = summary.get(name)
        if found is None:
            continue
        if (found["model"], found["judge"]) == (model, judge):
            sections[name] = rounded(found)
        else:
            left_out.append(f"{name} is left out: it is of model {found['model']} and judge "
                            f"{found['judge']}, and these are {model} and {judge}")
    failures = find_failures(folder, summary["adherence"]) if "adherence" in sections else ()
    return Results(model, judge, sections, failures), left_out


def find_failures(folder: Path, section: Row) -> tuple[Failure, ...]:
    """The first pictures of the section "adherence" that are wrong, of both splits in turn.

    Pictures of scenes that the world has since drawn anew are left out.
    """
    settings = {key: section[key]
                for key in ("model", "judge", "dtype", "sampler", "steps", "guidance")}
    rows = {(row["split"], row["index"]): row
            for row in Records(folder, "pictures").matching(settings)
            if row["index"] < section["n"] and not row["answers"]["all"]}
    found = [Failure(split, index, row["prompt"], row["read"], tuple(
        name for name, right in row["answers"].items() if right is False and name != "all"))
        for (split, index), row in rows.items() if row["prompt"] == Job(split, index).prompt]
    return tuple(_in_turn(found)[:MOST_FAILURES])


def _in_turn(failures: Sequence[Failure]) -> list[Failure]:
    """The first of each split, then the second of each ..."""
    ordered = sorted(failures, key=lambda failure: failure.index)
    columns = [[failure for failure in ordered if failure.split == split] for split in SPLITS]
    return [one for turn in zip_longest(*columns) for one in turn if one is not None]


def rounded(value: Any) -> Any:
    """The same rows and lists with every fraction in `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def write(path: Path, results: Results) -> None:
    """Write them whole or not at all.

    Raises ValueError where there is nothing to write, and leaves the file as it was.
    """
    if not results.sections:
        raise ValueError(f"nothing was measured on model {results.model}: run `{MEASURE} all` on "
                         f"it, and then `{MEASURE} export`")
    with written_whole(path) as part:
        part.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What `write` wrote. Raises FileNotFoundError that says how to make the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: measure the model with `{MEASURE} all`, "
                                f"then write the file with `{MEASURE} export`")
    held = json.loads(path.read_text(encoding="utf-8"))
    failures = [Failure(one["split"], one["index"], one["prompt"], one["read"],
                        tuple(one["wrong"])) for one in held["failures"]]
    return Results(held["model"], held["judge"], held["sections"], tuple(failures))
