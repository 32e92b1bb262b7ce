"""Files written whole: under a temporary name, flushed to the disk, then renamed."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

LEFT_BEHIND = 3600.0        # seconds without a change: whoever wrote this temporary file was killed
RANDOM_BYTES = 8            # in a temporary name, as hexadecimal digits


@contextmanager
def written_whole(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name once its bytes are on the disk.

    A link is followed. Temporary files that killed runs left behind in the folder are removed.
    new: never over another file, even one that came meanwhile. Raises FileExistsError then,
    IsADirectoryError where `path` is a folder, and OSError with the name of `path` where it cannot
    be written; then nothing is left of it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if new and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists already", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "is no folder, or a link to one that is not there",
                                 str(path.parent)) from error
    target = Path(os.path.realpath(path))
    for old in target.parent.glob(f".minisd-{'[0-9a-f]' * 2 * RANDOM_BYTES}.part"):
        with suppress(OSError):             # another process may be first
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                old.unlink()
    part = target.parent / f".minisd-{secrets.token_hex(RANDOM_BYTES)}.part"
    try:
        yield part
        with part.open("r+b") as file:      # Windows flushes only what may be written
            os.fsync(file.fileno())
        if new:
            _take_free_name(part, target)
        else:
            os.replace(part, target)
    except SafetensorError as error:        # the library's word for what the disk refuses
        raise OSError(f"{path} cannot be written ({error})") from error
    except OSError as error:
        if error.filename in (None, part, str(part)):
            error.filename = str(path)
        raise
    finally:                                # Ctrl-C too leaves nothing behind
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _take_free_name(part: Path, target: Path) -> None:
    """Of several programs only one gets a name. Raises FileExistsError for the others.

    A hard link takes it in one step: a kill leaves the whole file under the name, or nothing.
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:                         # a file system without hard links
        target.touch(exist_ok=False)
        os.replace(part, target)
