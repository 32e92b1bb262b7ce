"""Files written whole: under a temporary name, flushed to the disk, then renamed."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_BEHIND = 3600.0        # seconds without a change: whoever wrote this temporary file was killed


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name once its bytes are on the disk.

    Older ones in the folder, left behind by killed runs, are removed. Raises IsADirectoryError
    where `path` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(".minisd-*.part"):
        with suppress(OSError):     # another process may be first
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                old.unlink()
    part = path.parent / f".minisd-{secrets.token_hex(8)}.part"
    try:
        yield part
        with part.open("r+b") as file:      # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:           # Ctrl-C too leaves nothing behind
        part.unlink(missing_ok=True)
        raise
