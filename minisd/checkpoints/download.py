"""Fetches real Stable Diffusion weights, so that what lies in weights/ in the end is right.

A file comes as `NAME.<checksum>.part` and becomes NAME only when its SHA-256 fits. Whatever
interrupts a download (a cut, Ctrl-C, a kill, a full disk), the same command goes on where it
stopped. A hub cache on this machine is used before the network.

Of huggingface_hub two parts are used: `get_hf_file_metadata`, which says what a file is, and
`http_get`, which goes on from any byte, tries several times to, and sends the token to no other
host. Its `hf_hub_download` (2.4) does not go on with what another process left, and looks at no
checksums.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from filelock import Timeout
from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock

from minisd.checkpoints.known import KNOWN, LICENCE, File, sha256
from minisd.checkpoints.places import WEIGHTS
from minisd.checkpoints.untrusted import shown

ENDPOINT = "https://huggingface.co"
ADDRESS = re.compile(r"https?://([a-z\d.-]+|\[[\da-f:.]+\])(:\d{1,5})?(/(?!hf_)[\w./~-]*)?",
                     re.ASCII | re.IGNORECASE)
SPARE = 2 ** 28                 # bytes of disk to leave free
PATIENCE = 30.0                 # seconds for the hub's first answer
ACCEPTED = "licences-accepted.txt"
LICENCE_URL = "https://huggingface.co/spaces/CompVis/stable-diffusion-license"
REFUSALS: tuple[tuple[type[Exception], str], ...] = (
    (errors.GatedRepoError, "{repo} is gated: accept its terms at {endpoint}/{repo}, then pass a "
     "token of the same account with --token or HF_TOKEN"),
    (errors.RepositoryNotFoundError, "{endpoint} shows no repository {repo}: check --endpoint, or "
     "pass a token that has access with --token or HF_TOKEN"),
    (errors.RevisionNotFoundError, "{repo} has no revision {revision} any more: see "
     "weights/README.md for other sources"),
    (errors.EntryNotFoundError, "{repo} has no file {path} at revision {revision}: see "
     "weights/README.md for other sources"),
    (errors.HfHubHTTPError, "{endpoint} answered {status} for {path}: check --endpoint, the token "
     "and the network, or try again later"),
    (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, which forbids downloads: unset it"),
    (Exception, "cannot reach {endpoint} ({reason}): go online, or check --endpoint and the proxy; "
     "the same command goes on where it stopped"))

Say = Callable[[str], object]


class DownloadError(RuntimeError):
    """Says in one line what went wrong and what to do."""


def fetch(name: str, root: Path = WEIGHTS, *, half: bool = False, endpoint: str = "",
          token: str = "", accept_licence: bool = False, say: Say = str) -> Path:
    """Fetch a model, or what is missing of it, and return its folder.

    name: one of KNOWN; root: where its folder goes; half: the float16 files, half the size;
    endpoint, token: default to $HF_ENDPOINT and $HF_TOKEN; accept_licence: accepts it, else a
    terminal asks, once; say: gets a line for each file. Raises ValueError for what makes no sense,
    DownloadError where a file cannot be had, OSError where it cannot be written.
    """
    if name not in KNOWN:
        raise ValueError(f"expected {', '.join(KNOWN)}, got '{shown(name)}': choose one of them")
    model, hub = KNOWN[name], Hub(endpoint, token)
    if half and not model.half:
        raise ValueError(f"argument --half: no float16 version of {name} is known: leave it out")
    if model.restricted:
        _accept(root / ACCEPTED, accepted=accept_licence)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(root / f".{name}.lock", timeout=0.1):     # a killed download frees it
            _fetch_all(hub, model.half if half else model.files, root / model.folder, say)
    except Timeout as error:
        raise DownloadError(f"another download of {name} into {root} is running: wait for it, or "
                            f"end it") from error
    return root / name


def _fetch_all(hub: "Hub", files: tuple[File, ...], folder: Path, say: Say) -> None:
    """What has to come from the network; all of it is asked for before any of it comes."""
    missing: list[File] = []
    commits: dict[str, str] = {}            # so that all files of a repository are of one commit
    for file in files:
        if file.sha256 and _at_hand(file, folder, say):
            continue
        there = hub.ask(replace(file, revision=commits.get(file.repo, file.revision)))
        commits[file.repo] = there.revision
        if file.sha256 or not _at_hand(there, folder, say):
            missing.append(there)
    needed = sum(max(0, file.size - _size(part_path(file, folder))) for file in missing)
    free = shutil.disk_usage(folder.parent).free
    if needed and free < needed + SPARE:
        raise DownloadError(f"expected {(needed + SPARE) / 1e9:.1f} GB of free disk for {folder}, "
                            f"got {free / 1e9:.1f} GB: free some, or choose another folder")
    for file in missing:
        part = part_path(file, folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        hub.fetch(file, part)
        if sha256(part) != file.sha256:
            part.unlink()
            raise DownloadError(f"{file.path} came with wrong bytes (its checksum does not fit) "
                                f"and was removed: download it again, or elsewhere with "
                                f"--endpoint")
        part.replace(folder / file.path)
        say(f"{folder / file.path}: downloaded, checksum right")


# Without the network

def _accept(record: Path, *, accepted: bool) -> None:
    """See to it that the licence is accepted, and remember that."""
    if record.is_file() and LICENCE in record.read_text(encoding="utf-8"):
        return
    if not accepted:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ValueError(f"expected the licence of the weights to be accepted, and there is no "
                             f"terminal to ask on: read {LICENCE_URL} and add --accept-licence")
        text = Path(__file__).with_name("licence.txt").read_text(encoding="utf-8")
        sys.stderr.write(f"{text}Do you accept? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise DownloadError("the licence was not accepted: nothing was downloaded")
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a", encoding="utf-8") as file:
        file.write(f"{date.today()} {LICENCE} {LICENCE_URL}\n")


def _at_hand(file: File, folder: Path, say: Say) -> bool:
    """Whether a file is in place, or in a hub cache, under whichever repository, and linked here.

    Raises DownloadError where another file is in its place.
    """
    target = folder / file.path
    if target.exists():
        if sha256(target) != file.sha256:
            raise DownloadError(f"{target} is there already and is not the published file: move it "
                                f"away, or delete it, and download again")
        say(f"{target}: there already, checksum right")
        return True
    cache = Path(constants.HF_HUB_CACHE)
    for blob in cache.glob(f"models--*/blobs/{file.sha256}"):   # they are named by their checksum
        if sha256(blob) == file.sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(blob, target)
            except OSError:                 # another disk, or one without links
                shutil.copyfile(blob, part_path(file, folder))
                part_path(file, folder).replace(target)
            say(f"{target}: taken from {blob}, checksum right")
            return True
    return False


def part_path(file: File, folder: Path) -> Path:
    """Where a file lies until it is whole: one place for each version of it."""
    return (folder / file.path).with_name(f"{Path(file.path).name}.{file.sha256[:12]}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# The network

class Hub:
    """Where to ask, and the token that no other host ever sees."""

    def __init__(self, endpoint: str = "", token: str = "") -> None:
        """Both default to the environment. Raises ValueError, which repeats no secret."""
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self.token = (token or os.environ.get("HF_TOKEN", "")).strip()
        if not ADDRESS.fullmatch(self.endpoint):
            masked = re.sub(r"[^/@]*@|(?<=[?#]).*|hf_\w+", "***", self.endpoint)
            raise ValueError(f"argument --endpoint: expected an address such as {ENDPOINT}, "
                             f"without user and password, got '{shown(masked)}'")
        if not re.fullmatch("[!-~]*", self.token):
            raise ValueError("argument --token: expected ASCII letters and digits, got others: "
                             "copy the token again")

    def ask(self, file: File) -> File:
        """A file with its commit, size and SHA-256 as the hub has them. Raises DownloadError."""
        try:
            found = get_hf_file_metadata(self.url(file), token=self.token or False,
                                         timeout=PATIENCE, endpoint=self.endpoint)
        except Exception as error:
            raise self.refusal(error, file) from error
        digest = (found.etag or "").lower()
        if not re.fullmatch("[0-9a-f]{64}", digest):        # git's own checksum, of a small file
            digest = file.sha256
        if not digest or file.sha256 not in ("", digest):
            raise DownloadError(f"{self.endpoint} gives {'another' if digest else 'no'} checksum "
                                f"of {file.path}: log in to the network, or try another "
                                f"--endpoint")
        return replace(file, sha256=digest, size=found.size or 0,
                       revision=found.commit_hash or file.revision)

    def fetch(self, file: File, part: Path) -> None:
        """Append the rest of a file to what has come of it. Raises DownloadError."""
        headers = {"accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {self.token}"} if self.token else {}
        if _size(part) > file.size:
            part.unlink()                   # what came before does not fit: begin again
        while True:
            have = _size(part)
            try:
                with part.open("ab") as sink:
                    http_get(self.url(file), sink, resume_size=have, headers=headers,
                             expected_size=file.size or None, displayed_filename=file.path)
                    sink.flush()
                    os.fsync(sink.fileno())
                return
            except Exception as error:
                if isinstance(error, OSError) and error.strerror:
                    raise DownloadError(f"cannot write {part} ({error.strerror}): make room or "
                                        f"allow it; the same command goes on from there") from error
                if not have < _size(part) < file.size:      # nothing new came, or too much
                    raise self.refusal(error, file) from error

    def url(self, file: File) -> str:
        return hf_hub_url(file.repo, file.path, revision=file.revision, endpoint=self.endpoint)

    def refusal(self, error: Exception, file: File) -> DownloadError:
        """What an error of the library means, in one line."""
        line = next(line for kind, line in REFUSALS if isinstance(error, kind))
        reason = shown(str(error).partition("\n")[0]) or type(error).__name__
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        return DownloadError(line.format(**vars(file), endpoint=self.endpoint, reason=reason,
                                         status=status))
