"""Fetches real Stable Diffusion weights, so that what lies in weights/ in the end is right.

A file comes as `NAME.<checksum>.part` and becomes NAME only when its checksum fits: hashed, synced
to disk, renamed in one step. Whatever interrupts a download (a cut, Ctrl-C, a kill, a full disk),
the same command goes on where it stopped. A hub cache on this machine is used before the network.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from minisd.checkpoints.hub import Changed, DownloadError, Hub, Remote
from minisd.checkpoints.known import KNOWN, File, Model, hashed, hasher, progress, verify

try:
    import fcntl
except ImportError:                         # Windows has none: nothing guards the folder there
    fcntl = None                            # type: ignore[assignment]

__all__ = ["KNOWN", "DownloadError", "Model", "fetch", "verify"]

WEIGHTS = Path(__file__).parents[2] / "weights"
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


Say = Callable[[str], object]


def _quiet(line: str) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """One file to fetch, with all that is needed to know that it is right."""

    file: File
    target: Path
    remote: Remote
    digest: str                     # SHA-256, or git's SHA-1
    size: int                       # bytes


def fetch(name: str, root: Path = WEIGHTS, *, half: bool = False, endpoint: str = "",
          token: str = "", accept_licence: bool = False, say: Say = _quiet) -> Path:
    """Fetch a model, or what is missing of it, and return its folder.

    name: one of KNOWN; root: where its folder goes; half: the float16 files, half the size;
    endpoint, token: as for Hub; accept_licence: accepts it, else a terminal asks, once;
    say: gets a line for each file. Raises ValueError for what makes no sense, DownloadError where
    a file cannot be had, OSError where it cannot be written.
    """
    if name not in KNOWN:
        raise ValueError(f"expected {', '.join(KNOWN)}, got {name!r}: choose one to download")
    model, hub = KNOWN[name], Hub(endpoint, token)
    if half and not model.half:
        raise ValueError(f"argument --half: no float16 version of {name} is known here: leave it "
                         f"out")
    if model.restricted:
        _accept(root / ACCEPTED, accepted=accept_licence)
    with _alone(root, name):
        jobs = _plan(hub, model.half if half else model.files, root / model.folder, say=say)
        _make_room(root, sum(job.size - _part_size(job) for job in jobs))
        for job in jobs:
            _download(hub, job)
            say(f"{job.target}: downloaded, checksum right")
    return root / name


def _plan(hub: Hub, files: Iterable[File], folder: Path, *, say: Say) -> list[Job]:
    """What has to come from the network, all of it asked for before any of it comes."""
    jobs: list[Job] = []
    commits: dict[str, str] = {}            # so that all files of a repository are of one commit
    for file in files:
        target = folder / file.place.path
        if _at_hand(file, target, say):
            continue
        place = replace(file.place, revision=commits.get(file.place.repo, file.place.revision))
        job = _ask(hub, replace(file, place=place), target)
        commits[place.repo] = job.remote.place.revision
        if not target.exists() or not _check(target, job.digest, say):
            jobs.append(job)
    return jobs


# Without the network

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
def _alone(root: Path, name: str) -> Iterator[None]:
    """Keep other downloads of a model away; a killed one does not hold the lock."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"another download of {name} into {root} is running: wait "
                                    f"for it, or end it") from error
            except OSError:                 # a file system without locks
                pass
        yield


def _check(target: Path, digest: str, say: Say) -> bool:
    """True for a file that is right already. Raises DownloadError for any other."""
    size = target.stat().st_size
    if hashed(target, hasher(digest, size)).hexdigest() != digest:
        raise DownloadError(f"{target} is there already ({size:,} bytes) and is not the published "
                            f"file: move it away, or delete it, and download again")
    say(f"{target}: there already, checksum right")
    return True


def _at_hand(file: File, target: Path, say: Say) -> bool:
    """Whether a file is in place, or could be put there from a hub cache, without the network."""
    if target.exists():
        return bool(file.sha256) and _check(target, file.sha256, say)
    blob = _cached(file)
    if blob is None:
        return False
    size = blob.stat().st_size
    part = part_path(target, blob.name)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        os.link(blob, part)
    except OSError:                         # another disk, or one without links
        _make_room(part.parent, size)
        shutil.copyfile(blob, part)
    try:
        Part(target, blob.name, size).finish()
    except DownloadError:
        say(f"{blob}: damaged, not used")
        return False
    say(f"{target}: taken from {blob}, checksum right")
    return True


def _cached(file: File) -> Path | None:
    """A file in a hub cache on this machine, where its name is its checksum."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    hub = Path(os.environ.get("HF_HOME") or home) / "hub"
    cache = Path(os.environ.get("HF_HUB_CACHE") or hub).expanduser()
    if file.sha256:                         # of whichever repository
        blobs = sorted(cache.glob(f"models--*/blobs/{file.sha256}"))
    else:
        snapshots = cache / f"models--{file.place.repo.replace('/', '--')}" / "snapshots"
        blobs = [(snapshots / file.place.revision / file.place.path).resolve()]
    usable = (blob for blob in blobs if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name)
              and blob.is_file())
    return next(usable, None)


def _make_room(folder: Path, needed: int) -> None:
    """Raises DownloadError where the disk lacks `needed` bytes and some to spare."""
    free = shutil.disk_usage(folder).free
    if needed and free < needed + SPARE:
        raise DownloadError(f"expected {(needed + SPARE) / 1e9:.1f} GB of free disk for {folder}, "
                            f"got {free / 1e9:.1f} GB: free some, or choose another folder")


# From the network

class Part:
    """What has come of a file so far, in a file beside its place, and the hash of that."""

    def __init__(self, target: Path, digest: str, size: int) -> None:
        """Go on with what is there; parts of other versions of the file are removed."""
        self.target, self.digest, self.whole = target, digest, size
        self.path = part_path(target, digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(f"{target.name}.*.part"):
            if old != self.path or old.stat().st_size > size:
                old.unlink()
        self.size, self.hash = 0, hasher(digest, size)
        if self.path.exists():
            self.size = self.path.stat().st_size
            hashed(self.path, self.hash)

    def append(self, chunk: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(chunk)
        self.hash.update(chunk)
        self.size += len(chunk)

    def drop(self) -> None:
        """Begin again. The file is removed, not emptied: it may be a link to a cache's."""
        self.path.unlink(missing_ok=True)
        self.size, self.hash = 0, hasher(self.digest, self.whole)

    def finish(self) -> None:
        """Give the file its name. Raises DownloadError, and removes it, where it is wrong."""
        if self.hash.hexdigest() != self.digest:
            self.drop()
            raise DownloadError(f"{self.target.name} came with wrong bytes (its checksum does not "
                                f"fit) and was removed: download it again, or elsewhere with "
                                f"--endpoint")
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)
        if hasattr(os, "O_DIRECTORY"):      # the new name too; Windows cannot and need not
            folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def part_path(target: Path, digest: str) -> Path:
    """Where a file lies until it is whole: one place for each version of it."""
    return target.with_name(f"{target.name}.{digest[:SHOWN]}.part")


def _part_size(job: Job) -> int:
    path = part_path(job.target, job.digest)
    return min(path.stat().st_size, job.size) if path.exists() else 0


def _ask(hub: Hub, file: File, target: Path) -> Job:
    """What the hub would send, compared with what is known. Raises DownloadError."""
    remote = hub.head(file.place)
    digest, size = file.sha256 or remote.etag, file.size or remote.size
    hasher(digest, 0)
    if size is None:
        raise DownloadError(f"{hub.endpoint} does not say how long {file.place.path} is: try "
                            f"another --endpoint")
    if remote.size not in (None, size) or len(remote.etag) == len(digest) and remote.etag != digest:
        raise DownloadError(f"{hub.endpoint} has another {file.place.path} than the published one "
                            f"({remote.size} bytes instead of {size}, or another checksum): try "
                            f"another --endpoint")
    return Job(file, target, remote, digest, size)


def _download(hub: Hub, job: Job) -> None:
    """Fetch one file, from where an earlier attempt stopped. Raises DownloadError."""
    for _ in range(MOST_CHANGES):
        part = Part(job.target, job.digest, job.size)
        try:
            with progress(job.file.place.path, job.size, part.size) as bar:
                for position, chunk in hub.stream(job.remote, job.size, part.size):
                    if position != part.size:
                        part.drop()         # the server had to begin again
                    part.append(chunk)
                    bar.update(part.size - bar.n)
            return part.finish()
        except Changed:
            job = _ask(hub, job.file, job.target)
        except OSError as error:
            raise DownloadError(f"cannot write {part.path} ({error.strerror}): make room or allow "
                                f"it; the same command goes on from there") from error
    raise DownloadError(f"{job.file.place.path} keeps changing on {hub.endpoint}: try again later")
