"""What the evaluation found, as it ships: `evaluation.json` beside the weights.

It holds the sections that were measured on the shipped weights, with four significant digits (a
share of 500 prompts has not even three), and the first pictures that were judged wrong. A number
and a prompt are enough to paint such a picture again.
"""

import json
from dataclasses import asdict, dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from minisd.toyworld.evaluation.bench import SPLITS, Job, Row, read_summary, write_json

FILE = "evaluation.json"
SECTIONS = ("vae", "guidance", "adherence", "search")       # of a summary, that ship
MOST_FAILURES = 24
MEASURE = "python -m minisd.toyworld.evaluate"


@dataclass(frozen=True)
class Failure:
    """A picture that does not show what its prompt says, by the judge."""

    split: str                  # "seen" or "held_out", see `bench.Job`
    index: int                  # the scene's number in the split, and the seed of the picture
    prompt: str
    read: str                   # what the judge saw instead
    wrong: list[str]            # attributes that do not agree with the prompt, without "all"

    @property
    def job(self) -> Job:
        return Job(self.split, self.index)


@dataclass(frozen=True)
class Results:
    """What is known of one model; empty before anything was measured."""

    model: str = ""             # fingerprints
    judge: str = ""
    sections: dict[str, Row] = field(default_factory=dict)      # as `evaluate` writes its summary
    failures: list[Failure] = field(default_factory=list)       # the first of both splits

    @property
    def missing(self) -> list[str]:
        """The sections that were not measured."""
        return [name for name in SECTIONS if name not in self.sections]


def export(folder: Path, target: Path, model: str, judge: str) -> str:
    """Write what a folder holds on one model and judge, by their fingerprints.

    Returns what was written, and what was not measured on these two. Raises ValueError, and leaves
    the file as it was, where there is nothing.
    """
    summary = json.loads(json.dumps(read_summary(folder)),      # again, with rounded fractions
                         parse_float=lambda text: float(f"{float(text):.4g}"))
    sections = {name: summary[name] for name in SECTIONS if name in summary
                and (summary[name]["model"], summary[name]["judge"]) == (model, judge)}
    if not sections:
        raise ValueError(f"nothing was measured on model {model}: run `{MEASURE} all` on it, and "
                         f"then `{MEASURE} export`")
    wrong = [Failure(**one) for one in sections.get("adherence", {}).pop("failures", [])]
    in_turn = chain(*zip_longest(*([one for one in wrong if one.split == split]
                                   for split in SPLITS)))
    results = Results(model, judge, sections, [one for one in in_turn if one][:MOST_FAILURES])
    write_json(target / FILE, asdict(results), indent=1)
    missing = ", ".join(results.missing) or "nothing"
    return (f"not measured on model {model} with judge {judge}: {missing}\n"
            f"{target / FILE}: {', '.join(sections)}, {len(results.failures)} failures")


def read(path: Path) -> Results:
    """What `export` wrote. Raises FileNotFoundError that says how to make the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: measure the model with `{MEASURE} all`, "
                                f"then write the file with `{MEASURE} export`")
    held = json.loads(path.read_text(encoding="utf-8"))
    return Results(**{**held, "failures": [Failure(**one) for one in held["failures"]]})
