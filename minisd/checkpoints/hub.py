"""How a model hub hands out files, on the standard library alone.

    HEAD {endpoint}/{repo}/resolve/{revision}/{path}     what the file is
    GET  the same address, with `Range: bytes=N-`        its bytes from N on

A large file is answered by a redirect to a storage host, under an address that is signed for a
while. The hub's own answer says what will come: X-Linked-Size, and X-Linked-Etag, the SHA-256. A
small file comes at once; its ETag is git's SHA-1 of it. X-Error-Code says why a file is refused.

A connection may end at any byte, so `Hub.stream` asks again from where it was cut, with waits that
are bounded in number and in time. What it yields is checked by whoever keeps it (download.py).
"""

import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from string import punctuation
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

ENDPOINT = "https://huggingface.co"
TIMEOUT = 30.0                  # seconds of silence after which a connection counts as cut
CHUNK = 2 ** 18                 # bytes read at once
MOST_REDIRECTS = 10
MOST_ATTEMPTS = 1000            # for one file
MOST_BARREN = 8                 # attempts in a row that bring nothing new
LONGEST_WAIT = 300.0            # seconds between two bytes, all waits together
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (408, 429, 500, 502, 503, 504)       # worth asking again
CANNOT_SATISFY = 416                        # there is no such range of bytes
NETWORK = (OSError, HTTPException)          # how connections fail

REFUSALS = {                    # by X-Error-Code, else by status
    "GatedRepo": "{repo} is gated: accept its terms at {endpoint}/{repo}, then pass a token of the "
                 "same account with --token or HF_TOKEN",
    "RepoNotFound": "{endpoint} shows no repository {repo}: check --endpoint, or pass a token that "
                    "has access with --token or HF_TOKEN",
    "RevisionNotFound": "{repo} has no revision {revision} any more: see weights/README.md for "
                        "other sources",
    "EntryNotFound": "{repo} has no file {path} at revision {revision}: see weights/README.md for "
                     "other sources",
    "401": "{host} asks who wants {path} (401): pass a valid token with --token or HF_TOKEN",
    "403": "{host} forbids {path} (403): your token has no access, or your network blocks it",
    "404": "{host} has no {path} of {repo} (404): check --endpoint",
    "416": "{host} does not send {path} from any byte on (416): try another --endpoint",
}


class DownloadError(RuntimeError):
    """Says in one line what went wrong and what to do."""


class Changed(DownloadError):
    """The hub now has another file under the same name."""


@dataclass(frozen=True)
class Place:
    """Where a file is on the hub."""

    repo: str                       # owner/name
    revision: str                   # a commit, or a branch
    path: str                       # inside the repository


@dataclass(frozen=True)
class Remote:
    """What the hub says of a file before it sends it."""

    place: Place                    # with the commit for its revision
    size: int | None                # bytes; None where the hub does not say
    etag: str                       # SHA-256 or git's SHA-1 in hex; "" where the hub does not say


class Patience:
    """Waits between attempts, longer and longer, until it is at an end."""

    def __init__(self, furthest: int = 0) -> None:
        self.furthest, self.attempts, self.barren, self.waited = furthest, 0, 0, 0.0

    def progress(self, have: int) -> None:
        """`have` bytes were reached."""
        if have > self.furthest:
            self.furthest, self.barren, self.waited = have, 0, 0.0

    def wait(self, fault: str, asked: float = 0.0) -> None:
        """Sleep before the next attempt, `asked` seconds or more.

        Raises DownloadError with `fault` where there should be no next attempt.
        """
        if asked > LONGEST_WAIT:
            raise DownloadError(f"{fault} and asks to wait {asked:.0f} s: try again then")
        pause = max(asked, 2.0 ** (self.barren - 1) if self.barren else 0.0)
        self.attempts, self.barren = self.attempts + 1, self.barren + 1
        self.waited += pause
        if self.barren > MOST_BARREN or self.attempts > MOST_ATTEMPTS \
                or self.waited > LONGEST_WAIT:
            raise DownloadError(f"{fault}; gave up after {self.attempts} attempts: the same "
                                f"command goes on from there later")
        time.sleep(pause)


class _NoRedirect(HTTPRedirectHandler):
    """Hands redirects out as answers, so that the token can be dropped on the way."""

    def http_error_302(self, *args: Any) -> Any:
        return None

    http_error_301: Any = http_error_302
    http_error_303: Any = http_error_302
    http_error_307: Any = http_error_302
    http_error_308: Any = http_error_302


class Hub:
    """One hub, and the token that it alone ever sees."""

    def __init__(self, endpoint: str = "", token: str = "") -> None:
        """endpoint and token default to $HF_ENDPOINT and $HF_TOKEN. Raises ValueError."""
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self.token = (token or os.environ.get("HF_TOKEN", "")).strip()
        self.reached = False
        self.opener = build_opener(_NoRedirect)
        try:
            self.origin = _origin(self.endpoint)
        except ValueError as error:
            raise ValueError(f"argument --endpoint: expected an address such as {ENDPOINT}, got "
                             f"{self.endpoint!r}") from error
        if not re.fullmatch("[!-~]*", self.token):
            raise ValueError("argument --token: expected ASCII letters and digits, got others: "
                             "copy the token again")

    def head(self, place: Place) -> Remote:
        """What the hub says of a file. Raises DownloadError."""
        answer, told = self._answer("HEAD", place, 0, patience=Patience())
        answer.close()
        size = int(told["size"]) if told.get("size", "").isdecimal() else None
        at = Place(place.repo, told.get("commit", place.revision), place.path)
        return Remote(at, size, told.get("etag", ""))

    def stream(self, remote: Remote, size: int, have: int = 0) -> Iterator[tuple[int, bytes]]:
        """A file's bytes from `have` to `size`, through cuts: pairs of position and chunk.

        The position goes back to 0 where the server has to begin again. Raises Changed where the
        hub has another file by now, DownloadError where there is no way on.
        """
        place, patience = remote.place, Patience(have)
        while have < size:
            answer, told = self._answer("GET", place, have, patience=patience)
            with answer:
                if answer.status == CANNOT_SATISFY:
                    have = 0
                    patience.wait(f"{_host(answer)} cannot continue {place.path}")
                    continue
                if remote.etag and told.get("etag", remote.etag) != remote.etag:
                    raise Changed(f"{place.path} on {self.endpoint} changed meanwhile: try again")
                have, cut = _first_byte(answer, place, have, size=size), ""
                try:
                    while have < size and (chunk := answer.read1(min(CHUNK, size - have))):
                        yield have, chunk
                        have += len(chunk)
                        patience.progress(have)
                except NETWORK as error:
                    cut = f" ({_reason(error)})"
            if have < size:
                patience.wait(f"{_host(answer)} ended the connection{cut} at byte {have} of {size} "
                              f"of {place.path}")

    def _answer(self, method: str, place: Place, have: int, *, patience: Patience
                ) -> tuple[HTTPResponse, dict[str, str]]:
        """The first answer that is no plea to wait, and what the hub told on the way to it."""
        good = (200, 206, *REDIRECTS) + ((CANNOT_SATISFY,) if have else ())
        while True:
            try:
                answer, told = self._ask(method, place, have)
            except NETWORK as error:
                patience.wait(f"{self.endpoint} does not answer ({_reason(error)})")
                continue
            if answer.status in BUSY:
                answer.close()
                patience.wait(f"{_host(answer)} answered {answer.status} for {place.path}",
                              _retry_after(answer.headers.get("Retry-After", "")))
            elif answer.status in (200, 206) and answer.headers.get_content_type() == "text/html":
                raise DownloadError(f"{_host(answer)} sent a web page instead of {place.path}: "
                                    f"log in to the network, or check --endpoint")
            elif answer.status in good:
                return answer, told
            else:
                raise self._refusal(answer, place)

    def _ask(self, method: str, place: Place, have: int) -> tuple[HTTPResponse, dict[str, str]]:
        """One request and its redirects; a HEAD stops where the hub sends it elsewhere.

        The token is in no request to another scheme, host or port, nor in any after that.
        """
        url = (f"{self.endpoint}/{place.repo}/resolve/{quote(place.revision, safe='')}/"
               f"{quote(place.path)}")
        headers = {"User-Agent": "minisd", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        told: dict[str, str] = {}
        for _ in range(MOST_REDIRECTS):
            answer = self._open(Request(url, headers=headers, method=method))
            if _origin(url) == self.origin:
                told |= _told(answer)
            if answer.status not in REDIRECTS:
                return answer, told
            try:
                url = quote(urljoin(url, answer.headers.get("Location", "")), safe=punctuation)
                elsewhere = _origin(url) != self.origin
            except ValueError as error:
                raise DownloadError(f"{self.endpoint} redirects {place.path} to what is no web "
                                    f"address: check --endpoint") from error
            if elsewhere and method == "HEAD":
                return answer, told
            answer.close()
            if elsewhere:
                headers.pop("Authorization", None)
        raise DownloadError(f"{self.endpoint} redirects {place.path} in circles: check --endpoint")

    def _open(self, request: Request) -> Any:
        """An answer of any status. Raises one of NETWORK, or DownloadError where that is final."""
        try:
            answer = self.opener.open(request, timeout=TIMEOUT)
        except HTTPError as error:
            answer = error
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadError(f"{request.host} has a certificate that is not trusted here "
                                    f"({error.reason.verify_message}): check the clock, a proxy, "
                                    f"or --endpoint") from error
            if not self.reached:
                raise DownloadError(f"cannot reach {self.endpoint} ({_reason(error)}): go online, "
                                    f"or check --endpoint and the proxy") from error
            raise
        self.reached = True
        return answer

    def _refusal(self, answer: HTTPResponse, place: Place) -> DownloadError:
        answer.close()
        line = (REFUSALS.get(answer.headers.get("X-Error-Code", ""))
                or REFUSALS.get(str(answer.status))
                or f"{{host}} answered {answer.status} for {{path}}: check --endpoint")
        return DownloadError(line.format(endpoint=self.endpoint, host=_host(answer),
                                         repo=place.repo, revision=place.revision, path=place.path))


# What the answers say

def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError for what is no web address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search("[^!-~]", url):
        raise ValueError(f"expected an http address, got {url!r}")
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]


def _host(answer: HTTPResponse) -> str:
    """Host and port alone: the rest of a signed address is a secret."""
    return urlsplit(answer.url).netloc.rpartition("@")[2]


def _told(answer: HTTPResponse) -> dict[str, str]:
    """What one of the hub's answers says of a file: commit, size, etag, as far as it does."""
    given = answer.headers
    etag = given["X-Linked-Etag"] or given["ETag"] or ""
    length = given["Content-Length"] if answer.status == 200 else None      # else of another body
    told = {"commit": given["X-Repo-Commit"], "size": given["X-Linked-Size"] or length,
            "etag": etag.removeprefix("W/").strip('"').lower()}
    return {name: value for name, value in told.items() if value}


def _first_byte(answer: HTTPResponse, place: Place, have: int, *, size: int) -> int:
    """Where the body of an answer begins. Raises DownloadError where it is of another file."""
    if answer.status == 206:
        said = answer.headers.get("Content-Range", "")
        fits = re.fullmatch(rf"bytes ({have}|0)-\d+/{size}", said)
    else:
        said = answer.headers.get("Content-Length", str(size))
        fits = re.fullmatch(f"(){size}", said)
    if not fits:
        raise DownloadError(f"expected the {size} bytes of {place.path} from byte {have} on, "
                            f"{_host(answer)} announced {said!r}: try another --endpoint")
    return int(fits[1] or 0)


def _retry_after(text: str) -> float:
    """Seconds; the header holds them, or a date."""
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):         # no date, or one without a time zone
        return 0.0


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "timed out"
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
