"""Files written whole: under a temporary name, flushed to the disk, then renamed."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_BEHIND = 3600.0        # seconds without a change: whoever wrote this temporary file was killed


@contextmanager
def written_whole(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name once its bytes are on the disk.

    new: never over what is there, whoever else writes in the folder. A link stays one, and the
    file that it names is written. Older temporary files in the folder, left behind by killed runs,
    are removed. Raises IsADirectoryError where `path` is a folder, FileExistsError for `new`; an
    error of the disk gets the name of `path`.
    """
    if new and os.path.lexists(path):
        raise FileExistsError(f"{path} exists already")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
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
        if new:
            _claim(path, part)
        else:
            os.replace(part, path)
    except BaseException as error:      # Ctrl-C too leaves nothing behind
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename = str(path)
        raise


def _claim(path: Path, part: Path) -> None:
    """Give a file a name that is free: of several programs only one gets it."""
    try:
        os.link(part, path)
        part.unlink()
    except FileExistsError:
        raise
    except OSError:                 # a file system without links
        path.touch(exist_ok=False)
        os.replace(part, path)
