"""Fetches real Stable Diffusion weights, so that what lies in weights/ in the end is right.

A file comes as `NAME.<checksum>.part` and becomes NAME only when its checksum fits: hashed, synced
to disk, renamed in one step. Whatever interrupts a download (a cut, Ctrl-C, a kill, a full disk),
the same command goes on where it stopped. A hub cache on this machine is used before the network.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from minisd.hub import Changed, DownloadError, Hub, Place, Remote, hasher
from minisd.known import KNOWN, File, Model, hashed, progress, verify

try:
    import fcntl
except ImportError:                         # Windows has none: nothing guards the folder there
    fcntl = None                            # type: ignore[assignment]

__all__ = ["KNOWN", "DownloadError", "Model", "fetch", "verify"]

WEIGHTS = Path(__file__).parents[1] / "weights"
SPARE = 2 ** 28                 # bytes of disk to leave free
MOST_CHANGES = 3                # of one file on the hub while it is fetched
SHOWN = 12                      # hex digits of the checksum in the name of a part

LICENCE = "CreativeML Open RAIL-M"
LICENCE_URL = "https://huggingface.co/spaces/CompVis/stable-diffusion-license"
ACCEPTED = "licences-accepted.txt"
LICENCE_TEXT = f"""\
These weights are under the {LICENCE} licence. Its full text is what counts:
  {LICENCE_URL}
In short: you may use, change and pass on the weights, and what you make with them is yours to
answer for. You may not use them to break the law, to harm or exploit anyone, to deceive in order
to harm, to harass, to discriminate, to decide over people's rights without people, or to give
medical advice (Attachment A). Whoever gets the weights from you, changed or not, must get the same
terms and a copy of the licence.
"""


@dataclass(frozen=True)
class Job:
    """One file to fetch, with all that is needed to know that it is right."""

    file: File
    target: Path
    remote: Remote
    digest: str                     # SHA-256, or git's SHA-1
    size: int                       # bytes


def fetch(name: str, root: Path = WEIGHTS, *, half: bool = False, endpoint: str = "",
          token: str = "", accept_licence: bool = False,
          say: Callable[[str], object] = str) -> Path:
    """Fetch a model, or what is missing of it, and return its folder.

    name: one of KNOWN; root: where its folder goes; half: the float16 files, half the size;
    endpoint, token: as for Hub; accept_licence: accepts it, else a terminal asks, once;
    say: gets a line on what is done. Raises ValueError for what makes no sense, DownloadError
    where a file cannot be had, OSError where it cannot be written.
    """
    if name not in KNOWN:
        raise ValueError(f"expected {', '.join(KNOWN)}, got {name!r}: choose one to download")
    model, hub = KNOWN[name], Hub(endpoint, token)
    if half and not model.half:
        raise ValueError(f"{name} has no float16 version that is known here: leave out --half")
    if model.restricted:
        _accept(root / ACCEPTED, accepted=accept_licence)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        jobs: list[Job] = []
        commits: dict[str, str] = {}        # so that all files are of one commit
        for file in model.half if half else model.files:
            target = root / model.folder / file.place.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if _at_hand(file, target, say):
                continue
            place = replace(file.place, revision=commits.get(file.place.repo, file.place.revision))
            job = _ask(hub, replace(file, place=place), target)
            commits[place.repo] = job.remote.place.revision
            if not target.exists() or not _check(target, job.digest, say):
                jobs.append(job)
        _make_sure_of_room(folder, sum(job.size - _have(job) for job in jobs))
        for job in jobs:
            _download(hub, job)
            say(f"{job.target}: downloaded, {job.size:,} bytes, checksum right")
    return folder


# Before the first byte

def _accept(record: Path, *, accepted: bool) -> None:
    """See to it that the licence is accepted, and remember that."""
    if record.is_file() and LICENCE in record.read_text(encoding="utf-8"):
        return
    if not accepted:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ValueError(f"expected the licence of the weights to be accepted, and there is no "
                             f"terminal to ask on: read {LICENCE_URL} and add --accept-licence")
        sys.stderr.write(f"{LICENCE_TEXT}Do you accept? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise DownloadError("the licence was not accepted: nothing was downloaded")
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a", encoding="utf-8") as file:
        file.write(f"{date.today()} {LICENCE} {LICENCE_URL}\n")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other downloads out of a folder; a killed one does not hold it."""
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"another download into {folder} is running: wait for it, or "
                                    f"end it") from error
            except OSError:                 # a file system without locks
                pass
        yield


def _check(target: Path, digest: str, say: Callable[[str], object]) -> bool:
    """True for a file that is right already. Raises DownloadError for any other."""
    size = target.stat().st_size
    if hashed(target, hasher(digest, size)).hexdigest() != digest:
        raise DownloadError(f"{target} is there already ({size:,} bytes) and is not the published "
                            f"file: move it away, or delete it, and download again")
    say(f"{target}: there already, checksum right")
    return True


def _at_hand(file: File, target: Path, say: Callable[[str], object]) -> bool:
    """Whether a file is in place, or could be taken from a hub cache, without any network."""
    if target.exists():
        return bool(file.sha256) and _check(target, file.sha256, say)
    blob = _cached(file)
    if blob is None:
        return False
    part = _part(target, blob.name)
    part.unlink(missing_ok=True)
    try:
        os.link(blob, part)
    except OSError:                         # another disk, or one without links
        _make_sure_of_room(target.parent, blob.stat().st_size)
        shutil.copyfile(blob, part)
    if not _keep(part, target, blob.name):
        say(f"{blob}: damaged, not used")
        return False
    say(f"{target}: taken from {blob}, checksum right")
    return True


def _cached(file: File) -> Path | None:
    """A file in a hub cache on this machine, where its name is its checksum."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    if file.sha256:                         # of whichever repository
        blobs = sorted(cache.glob(f"models--*/blobs/{file.sha256}"))
    else:
        snapshots = cache / f"models--{file.place.repo.replace('/', '--')}" / "snapshots"
        blobs = [(snapshots / file.place.revision / file.place.path).resolve()]
    for blob in blobs:
        if blob.is_file() and len(blob.name) in (40, 64):
            return blob
    return None
