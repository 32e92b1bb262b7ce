"""Finished work on disk, so that a killed evaluation continues and several processes share one.

Every finished prompt is a line of JSON that carries what made it: the fingerprints of the weights,
the sampler and the rest of its `identity`. Each process appends to a file of its own and reads all
of them, so a run may be continued by more or fewer processes; rows of another identity are left
alone and never mixed in. Processes on several machines need the folder on a shared disk.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minisd.observe.files import written_whole

Row = dict[str, Any]


class Records:
    """The rows called `name` in a folder."""

    def __init__(self, folder: Path, name: str, rank: int = 0) -> None:
        """rank: of this process; no two that run at once may have the same."""
        self.folder, self.name = folder, name
        self.own = folder / f"{name}-{rank}.jsonl"

    def matching(self, identity: Mapping[str, Any]) -> list[Row]:
        """The rows of all processes, past ones too, that carry exactly this identity."""
        found = []
        for path in sorted(self.folder.glob(f"{self.name}-*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = _parsed(line)
                if all(row.get(key) == value for key, value in identity.items()):
                    found.append(row)
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they are on the disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with self.own.open("a+b") as file:
            # A kill may have left half a line: it must not swallow the first new one.
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def _parsed(line: str) -> Row:
    """The row of a line; an empty one for what a kill cut short."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def read_summary(path: Path) -> dict[str, Row]:
    """The sections measured so far; {} before the first."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def update_summary(path: Path, section: str, values: Row) -> None:
    """Replace one section and leave the others; a kill leaves the old file or the new one."""
    text = json.dumps({**read_summary(path), section: values}, indent=2) + "\n"
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
