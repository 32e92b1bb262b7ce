"""Downloads against a hub on this machine: two real HTTP servers, one of them the storage host."""

import hashlib
import importlib.util
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import Request
from zipfile import ZipFile

import numpy as np
import pytest
from safetensors.numpy import save

from minisd.checkpoints import download, hub, known
from minisd.checkpoints.download import DownloadError
from minisd.checkpoints.hub import Place
from minisd.checkpoints.known import File, Model

COMMIT = "c" * 40
TOKEN = "hf_secret"
REPO = "owner/model"
BIG, SMALL = "unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"
NOT_SENT = -1                   # a cut before the first header


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Seen:
    """A request that arrived."""

    server: str                     # "hub" or "storage"
    method: str
    path: str
    headers: dict[str, str]

    @property
    def first_byte(self) -> int:
        return int(self.headers.get("range", "bytes=0-")[6:-1])


@dataclass
class FakeHub:
    """What the two servers hold and how they misbehave."""

    files: dict[str, bytes] = field(default_factory=dict)
    small: tuple[str, ...] = (SMALL,)                   # sent by the hub itself
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)    # by server
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)    # said once each, first
    cuts: Iterator[int] = field(default_factory=lambda: iter(()))           # bytes until each cut
    ranges: bool = True
    page_from: str = ""                                 # the server that sends HTML
    etags: list[str] = field(default_factory=list)      # one for each answer of the hub, at first
    hide: tuple[str, ...] = ()                          # headers left out
    body: Callable[[bytes], bytes] = staticmethod(lambda data: data)        # what storage sends
    storage_host: str = "127.0.0.1"
    redirect: str = ""                                  # instead of to the storage
    hold_at: int = 0                                    # bytes after which the storage waits for
    go_on: threading.Event = field(default_factory=threading.Event)         # this
    refuse_once: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    chunked: bool = False
    seen: list[Seen] = field(default_factory=list)
    endpoint: str = ""
    storage_port: int = 0

    def gets(self, server: str = "storage") -> list[Seen]:
        return [s for s in self.seen if s.server == server and s.method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """The hub and the storage are the same class; server.name says which one answers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        fake, name = self.server.fake, self.server.name
        self.close_connection = True
        fake.seen.append(Seen(name, self.command, self.path,
                              {k.lower(): v for k, v in self.headers.items()}))
        if name == "hub" and fake.busy:
            return self.reply(*fake.busy.pop(0), b"")
        refusal = fake.refuse_once.pop(name, None) or fake.refuse.get(name)
        if refusal:
            return self.reply(*refusal, b"sorry")
        if name == fake.page_from:
            return self.reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in")
        path = self.path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
        path = path.removeprefix("/blob/")
        if path not in fake.files:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"}, b"")
        data = fake.files[path]
        if name == "hub" and path not in fake.small:
            return self.redirect(path, data)
        headers = self.described(path, data) if name == "hub" else {"ETag": '"of-the-storage"'}
        return self.send_bytes(data if name == "hub" else fake.body(data), headers)

    def described(self, path: str, data: bytes) -> dict[str, str]:
        fake, small = self.server.fake, path in self.server.fake.small
        etag = fake.etags.pop(0) if fake.etags else git_sha1(data) if small else sha256(data)
        headers = {"X-Repo-Commit": COMMIT, **({"ETag": f'W/"{etag}"'} if small else {
            "ETag": '"of-the-answer"', "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(len(data))})}
        return {k: v for k, v in headers.items() if k not in fake.hide}

    def redirect(self, path: str, data: bytes) -> None:
        fake = self.server.fake
        where = fake.redirect or f"http://{fake.storage_host}:{fake.storage_port}/blob/{path}"
        self.reply(302, {**self.described(path, data), "Location": where}, b"Found. Redirecting")

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_bytes(self, data: bytes, headers: dict[str, str]) -> None:
        fake, asked = self.server.fake, self.headers.get("Range")
        cut = next(fake.cuts, None) if self.command == "GET" else None
        if cut == NOT_SENT:
            return self.hang_up(reset=False)
        first = int(asked[6:-1]) if asked and fake.ranges else 0
        length = {"Transfer-Encoding": "chunked"} if fake.chunked else {
            "Content-Length": str(len(data) - first)}
        self.send_response(206 if first else 200)
        if first:
            headers = {**headers, "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
        for key, value in {**headers, **length}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = data[first:] if cut is None else data[first:first + cut]
        if fake.hold_at:
            self.wfile.write(body[:fake.hold_at])
            fake.go_on.wait(60)
            body = body[fake.hold_at:]
        self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if fake.chunked and body else body)
        if cut is not None:
            return self.hang_up(reset=cut % 2 == 0)
        if fake.chunked:
            self.wfile.write(b"0\r\n\r\n")
        return None

    def hang_up(self, *, reset: bool) -> None:
        """End the connection; a reset also loses what is still on its way."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fake: FakeHub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fake, self.name = fake, name
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass                                            # clients that left, cuts of our own


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, in seconds; none of them is slept."""
    slept: list[float] = []
    monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=slept.append))
    return slept


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches another machine, and none sees this machine's cache or token."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] in ("127.0.0.1", "::1"), f"a test wanted to reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> Iterator[FakeHub]:
    """A hub with one small and one big file; v1-5 pins them, v1-1 does not."""
    fake = FakeHub({BIG: noise(300_000), SMALL: b'{"a": 0}' * 100})
    servers = [Server(fake, "hub"), Server(fake, "storage")]
    fake.endpoint = f"http://127.0.0.1:{servers[0].server_port}"
    fake.storage_port = servers[1].server_port
    pinned = tuple(File(Place(REPO, COMMIT, path), len(data), sha256(data))
                   for path, data in fake.files.items())
    floating = tuple(File(Place(REPO, "main", path)) for path in fake.files)
    monkeypatch.setitem(known.KNOWN, "v1-5", Model("v1-5", pinned))
    monkeypatch.setitem(known.KNOWN, "v1-1", Model("v1-1", floating))
    monkeypatch.setitem(known.KNOWN, "tokenizer", Model("", pinned[1:], restricted=False))
    yield fake
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(fake: FakeHub, root: Path, name: str = "v1-5", **options: object) -> Path:
    options = {"endpoint": fake.endpoint, "accept_licence": True} | options
    return download.fetch(name, root, **options)


def assert_right(fake: FakeHub, folder: Path) -> None:
    """All files of the model are there, right, and nothing else is."""
    found = {str(path.relative_to(folder)): path.read_bytes()
             for path in folder.rglob("*") if path.is_file()}
    assert found.keys() == fake.files.keys()
    assert found == fake.files                          # apart: no dump of bytes on failure


def refused(fake: FakeHub, root: Path, name: str = "v1-5", **options: object) -> str:
    """The error of a download that must fail: one line, without the token."""
    with pytest.raises(DownloadError) as caught:
        fetch(fake, root, name, **options)
    line = str(caught.value)
    assert "\n" not in line and TOKEN not in line and len(line) < 300
    return line


def only(fake: FakeHub, path: str) -> None:
    """Leave one file of the hub and of the model."""
    fake.files = {path: fake.files[path]}
    model = known.KNOWN["v1-5"]
    known.KNOWN["v1-5"] = Model("v1-5", tuple(f for f in model.files if f.place.path == path))


def part_of(root: Path, data: bytes, name: str = "v1-5") -> Path:
    path = download.part_path(root / name / BIG, sha256(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# What arrives

@pytest.mark.parametrize("name", ["v1-5", "v1-1"])
def test_a_model_arrives_whole_and_only_once(fake: FakeHub, tmp_path: Path, name: str) -> None:
    said: list[str] = []
    folder = fetch(fake, tmp_path, name, say=said.append)
    assert folder == tmp_path / name
    assert_right(fake, folder)
    assert len(said) == 2 and all("downloaded" in line for line in said)
    before = len(fake.gets())
    fetch(fake, tmp_path, name, say=said.append)
    assert all("there already" in line for line in said[2:]) and len(said) == 4
    assert len(fake.gets()) == before


def test_a_complete_pinned_model_needs_no_network(fake: FakeHub, tmp_path: Path) -> None:
    fetch(fake, tmp_path)
    before = len(fake.seen)
    fetch(fake, tmp_path)
    assert len(fake.seen) == before


def test_the_tokenizer_goes_where_it_is_looked_for(fake: FakeHub, tmp_path: Path) -> None:
    folder = fetch(fake, tmp_path, "tokenizer", accept_licence=False)   # it needs no licence
    assert (folder / "vocab.json").read_bytes() == fake.files[SMALL]
    assert folder == tmp_path / "tokenizer"


def test_a_branch_is_asked_for_once_and_then_its_commit(fake: FakeHub, tmp_path: Path) -> None:
    fetch(fake, tmp_path, "v1-1")
    asked = [seen.path for seen in fake.seen if seen.server == "hub"]
    assert "/resolve/main/" in asked[0]
    assert all(f"/resolve/{COMMIT}/" in path for path in asked[1:]) and len(asked) == 4


def test_endpoint_and_token_come_from_the_environment(
        fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint + "/")
    monkeypatch.setenv("HF_TOKEN", TOKEN + "\n")
    fetch(fake, tmp_path, endpoint="")
    assert fake.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "//owner" not in fake.seen[0].path


def test_chunked_answers_are_understood(fake: FakeHub, tmp_path: Path) -> None:
    fake.chunked, fake.cuts = True, iter([7, 70_000])
    assert_right(fake, fetch(fake, tmp_path))


# The token

@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_stays_with_the_hub(fake: FakeHub, tmp_path: Path, host: str) -> None:
    fake.storage_host, fake.cuts = host, iter([1000, 2000])
    assert_right(fake, fetch(fake, tmp_path, token=TOKEN))
    hub_saw = [seen.headers.get("authorization") for seen in fake.seen if seen.server == "hub"]
    assert hub_saw and set(hub_saw) == {f"Bearer {TOKEN}"}
    assert len(fake.gets()) == 3
    for seen in fake.gets():
        assert TOKEN not in str(seen.headers) + seen.path


def test_the_token_does_not_come_back_after_a_detour(fake: FakeHub, tmp_path: Path) -> None:
    back = f"{fake.endpoint}/blob/{SMALL}"              # hub -> storage -> hub
    fake.files, fake.small = {BIG: fake.files[SMALL]}, ()
    place = File(Place(REPO, COMMIT, BIG), len(fake.files[BIG]), sha256(fake.files[BIG]))
    known.KNOWN["v1-5"] = Model("v1-5", (place,))
    fake.refuse["storage"] = (307, {"Location": back})
    refused(fake, tmp_path, token=TOKEN)                # the hub then has no such file
    assert [("authorization" in s.headers) for s in fake.seen] == [True, True, False, False]


def test_a_redirect_on_the_hub_keeps_the_token(fake: FakeHub) -> None:
    fake.redirect = f"/resolve/{COMMIT}/{SMALL}"
    remote = hub.Hub(fake.endpoint, TOKEN).head(Place(REPO, COMMIT, BIG))
    assert [s.headers.get("authorization") for s in fake.seen] == [f"Bearer {TOKEN}"] * 2
    assert remote.size is not None


# Going on

def test_only_what_is_missing_is_asked_for(fake: FakeHub, tmp_path: Path) -> None:
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG][:123_456])
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == [123_456]


def test_a_whole_part_is_only_checked(fake: FakeHub, tmp_path: Path) -> None:
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG])
    assert_right(fake, fetch(fake, tmp_path))
    assert not fake.gets()


def test_a_part_that_is_too_long_is_thrown_away(fake: FakeHub, tmp_path: Path) -> None:
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG] + b"?")
    assert_right(fake, fetch(fake, tmp_path))


def test_a_server_that_ignores_ranges_begins_again(fake: FakeHub, tmp_path: Path) -> None:
    fake.ranges, fake.cuts = False, iter([1000, 200_000, 100_000])
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG][:123_456])
    assert_right(fake, fetch(fake, tmp_path))
    assert len(fake.gets()) == 4


def test_a_file_that_changed_meanwhile_begins_again(fake: FakeHub, tmp_path: Path) -> None:
    old = noise(300_000, seed=1)
    fake.etags = [sha256(old), git_sha1(fake.files[SMALL])]     # of the first two answers
    stale = part_of(tmp_path, old, "v1-1")
    stale.write_bytes(old[:1000])
    assert_right(fake, fetch(fake, tmp_path, "v1-1"))
    assert [seen.first_byte for seen in fake.gets()] == [1000, 0]


def test_a_file_that_keeps_changing_is_given_up(fake: FakeHub, tmp_path: Path) -> None:
    fake.etags = [sha256(b"%d" % i) for i in range(100)]
    fake.etags[1] = git_sha1(fake.files[SMALL])
    assert "keeps changing" in refused(fake, tmp_path, "v1-1")


def test_a_pinned_file_that_changed_is_refused_before_it_is_fetched(
        fake: FakeHub, tmp_path: Path) -> None:
    fake.files[BIG] = noise(300_000, seed=1)
    assert "another checksum" in refused(fake, tmp_path)
    fake.files[BIG] = noise(299_999)
    assert "299999 bytes instead of 300000" in refused(fake, tmp_path)
    assert not fake.gets()


def cuts(seed: int, count: int, size: int) -> Iterator[int]:
    """Bytes until each cut, some before the first header, some at once.

    An even number may lose them on the way (see `hang_up`), so some odd ones are strewn in.
    """
    draw, barren = random.Random(seed), 0
    for _ in range(count):
        cut = draw.choice([NOT_SENT, 0, draw.randrange(1, 2 * size // count)])
        cut = 1 if barren == hub.MOST_BARREN - 1 else cut
        barren = 0 if cut > 0 and cut % 2 else barren + 1
        yield cut


@pytest.mark.parametrize(("seed", "ranges"), [(0, True), (1, True), (2, True), (3, False)])
def test_200_cuts_and_the_right_bytes(fake: FakeHub, tmp_path: Path, naps: list[float],
                                      seed: int, ranges: bool) -> None:
    only(fake, BIG)
    size = len(fake.files[BIG])
    fake.ranges, fake.cuts = ranges, cuts(seed, 200, size)
    if not ranges:                                      # each attempt gets a little further
        fake.cuts = iter(range(1001, 1001 + 200 * 1000, 1000))
    assert_right(fake, fetch(fake, tmp_path))
    assert len(fake.gets()) == 201
    assert max(naps) < 2.0 ** hub.MOST_BARREN


def test_a_kill_in_the_middle_loses_nothing(fake: FakeHub, tmp_path: Path) -> None:
    only(fake, BIG)
    part = part_of(tmp_path, fake.files[BIG])
    fake.hold_at = 100_000
    program = f"""
import sys, types
package = types.ModuleType("minisd")        # without minisd/__init__.py, which imports torch
package.__path__ = [{str(Path(download.__file__).parent)!r}]
sys.modules["minisd"] = package
from pathlib import Path
from minisd.checkpoints import download
from minisd.checkpoints import known
known.KNOWN["v1-5"] = known.Model("v1-5", (known.File(known.Place({REPO!r}, "main", {BIG!r})),))
download.fetch("v1-5", Path({str(tmp_path)!r}), endpoint={fake.endpoint!r}, accept_licence=True)
"""
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 50
        while time.monotonic() < end and running.poll() is None and (
                not part.exists() or part.stat().st_size < fake.hold_at):
            time.sleep(0.005)
        if running.poll() is None:
            assert "another download" in refused(fake, tmp_path)
    finally:
        running.kill()
        _, complaint = running.communicate(timeout=10)
        fake.go_on.set()
    assert running.returncode == -signal.SIGKILL, complaint.decode()
    assert part.stat().st_size == fake.hold_at
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == [0, fake.hold_at]


# What is refused, and how

def test_wrong_bytes_are_removed(fake: FakeHub, tmp_path: Path) -> None:
    fake.body = lambda data: data[:1000] + b"?" + data[1001:]
    assert "wrong bytes" in refused(fake, tmp_path)
    assert not list((tmp_path / "v1-5" / "unet").iterdir())
    fake.body = lambda data: data
    assert_right(fake, fetch(fake, tmp_path))


@pytest.mark.parametrize("body", [lambda data: data[:-1], lambda data: data + b"?"])
def test_a_file_of_another_length_is_refused(fake: FakeHub, tmp_path: Path,
                                             body: Callable[[bytes], bytes]) -> None:
    fake.body = body
    assert "expected the 300000 bytes" in refused(fake, tmp_path)


REFUSALS = [
    (401, "", "pass a valid token with --token or HF_TOKEN"),
    (401, "GatedRepo", "is gated: accept its terms at"),
    (403, "GatedRepo", "is gated: accept its terms at"),
    (401, "RepoNotFound", "shows no repository owner/model"),
    (403, "", "forbids"),
    (404, "", "(404): check --endpoint"),
    (404, "EntryNotFound", "has no file tokenizer/vocab.json at revision cccc"),
    (404, "RevisionNotFound", "has no revision cccc"),
    (416, "", "from any byte on (416)"),
    (418, "", "answered 418"),
]


@pytest.mark.parametrize(("status", "code", "expected"), REFUSALS)
def test_each_refusal_has_its_own_line(fake: FakeHub, tmp_path: Path, naps: list[float],
                                       status: int, code: str, expected: str) -> None:
    known.KNOWN["v1-5"] = Model("v1-5", known.KNOWN["v1-5"].files[::-1])
    fake.refuse["hub"] = status, {"X-Error-Code": code} if code else {}
    assert expected in refused(fake, tmp_path, token=TOKEN)
    assert not naps and len(fake.seen) == 1             # asking again would not help


@pytest.mark.parametrize("status", [401, 403, 404, 416])
def test_the_storage_can_refuse_too(fake: FakeHub, tmp_path: Path, status: int) -> None:
    fake.refuse["storage"] = status, {}
    line = refused(fake, tmp_path)
    assert f"({status})" in line and f"127.0.0.1:{fake.storage_port}" in line
    assert "/blob/" not in line                         # a signed address would be a secret


def test_a_part_that_cannot_be_continued_begins_again(fake: FakeHub, tmp_path: Path) -> None:
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG][:1000])
    fake.refuse_once["storage"] = 416, {}
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == [1000, 0]


@pytest.mark.parametrize("server", ["hub", "storage"])
def test_a_web_page_is_no_file(fake: FakeHub, tmp_path: Path, server: str) -> None:
    fake.page_from = server
    assert "sent a web page instead of" in refused(fake, tmp_path)


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x", "http://["])
def test_a_redirect_to_anything_but_the_web_is_refused(fake: FakeHub, tmp_path: Path,
                                                       where: str) -> None:
    fake.redirect = where
    assert "no web address" in refused(fake, tmp_path)


def test_redirects_in_circles_end(fake: FakeHub, tmp_path: Path) -> None:
    fake.redirect = f"/{REPO}/resolve/{COMMIT}/{BIG}"
    assert "in circles" in refused(fake, tmp_path)
    assert len(fake.seen) == hub.MOST_REDIRECTS


def test_what_cannot_be_checked_is_not_fetched(fake: FakeHub, tmp_path: Path) -> None:
    fake.hide = ("X-Linked-Etag",)
    assert "expected a checksum from the hub" in refused(fake, tmp_path, "v1-1")
    fake.hide = ("X-Linked-Size",)
    assert "does not say how long" in refused(fake, tmp_path, "v1-1")
    fake.hide = ("X-Linked-Size", "X-Linked-Etag", "ETag", "X-Repo-Commit")
    assert_right(fake, fetch(fake, tmp_path))           # pinned: nothing of that is needed


# Waiting

def test_busy_servers_are_asked_again(fake: FakeHub, tmp_path: Path, naps: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40))
    fake.busy = [(429, {"Retry-After": "17"}), (500, {}), (503, {"Retry-After": soon}),
                 (502, {"Retry-After": "nonsense"})]
    assert_right(fake, fetch(fake, tmp_path))
    assert naps[0] == 17 and naps[1] == 1 and 30 < naps[2] <= 40 and naps[3] == 4


def test_patience_is_bounded(fake: FakeHub, tmp_path: Path, naps: list[float]) -> None:
    fake.refuse["hub"] = 500, {}
    assert "answered 500" in refused(fake, tmp_path)
    assert len(fake.seen) == hub.MOST_BARREN + 1 and sum(naps) <= hub.LONGEST_WAIT
    naps.clear()
    fake.refuse["hub"] = 429, {"Retry-After": "3600"}
    assert "asks to wait 3600 s" in refused(fake, tmp_path)
    fake.refuse["hub"] = 429, {"Retry-After": "120"}
    assert "gave up after 3 attempts" in refused(fake, tmp_path)
    assert naps == [120, 120]


def test_a_connection_that_brings_nothing_is_given_up(fake: FakeHub, tmp_path: Path,
                                                      naps: list[float]) -> None:
    fake.cuts = iter([5001] + [0, NOT_SENT] * 100)
    line = refused(fake, tmp_path)
    assert "the same command goes on from there" in line
    assert naps == [0, 1, 2, 4, 8, 16, 32, 64]
    have = part_of(tmp_path, fake.files[BIG]).stat().st_size
    assert have == 5001
    fake.cuts = iter(())
    assert_right(fake, fetch(fake, tmp_path))
    assert fake.gets()[-1].first_byte == have


def test_drops_of_bytes_cannot_go_on_forever(naps: list[float]) -> None:
    patience = hub.Patience()
    with pytest.raises(DownloadError, match="gave up after 1001 attempts"):
        for have in range(1, 10_000):
            patience.progress(have)
            patience.wait("cut")


def test_offline_is_one_line_at_once(fake: FakeHub, tmp_path: Path, naps: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    line = refused(fake, tmp_path, endpoint=nobody)
    assert line.startswith(f"cannot reach {nobody}") and "go online" in line
    assert not naps and not fake.seen


def test_a_network_that_goes_away_meanwhile_is_waited_for(
        fake: FakeHub, tmp_path: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[URLError] = [URLError(socket.gaierror(-3, "no name resolution"))] * 3
    build = hub.build_opener

    def flaky_opener(*handlers: object) -> SimpleNamespace:
        opener = build(*handlers)

        def flaky_open(request: Request, timeout: float) -> object:
            if request.get_method() == "GET" and lost:
                raise lost.pop()
            return opener.open(request, timeout=timeout)

        return SimpleNamespace(open=flaky_open)

    monkeypatch.setattr(hub, "build_opener", flaky_opener)
    assert_right(fake, fetch(fake, tmp_path))
    assert naps == [0, 1, 2]
    distrust = ssl.SSLCertVerificationError()
    distrust.verify_message = "self-signed certificate"
    lost.append(URLError(distrust))
    (tmp_path / "v1-5" / BIG).unlink()
    assert "not trusted here (self-signed certificate)" in refused(fake, tmp_path)
    assert naps == [0, 1, 2]


# The disk

def test_a_disk_that_is_too_small_is_said_before(fake: FakeHub, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    free = download.SPARE + 300_000                     # the small file no longer fits
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert "of free disk" in refused(fake, tmp_path)
    assert not fake.gets() and not (tmp_path / "v1-5").exists()
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG][:1000])
    assert_right(fake, fetch(fake, tmp_path))           # with a part of it there, it does


def test_a_disk_that_fills_up_keeps_what_came(fake: FakeHub, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    append = download.Part.append

    def full(self: download.Part, chunk: bytes) -> None:
        if self.size > 100_000:
            raise OSError(28, "No space left on device")
        append(self, chunk)

    monkeypatch.setattr(download.Part, "append", full)
    monkeypatch.setattr(hub, "CHUNK", 10_000)
    assert "No space left on device" in refused(fake, tmp_path)
    assert part_of(tmp_path, fake.files[BIG]).stat().st_size > 100_000
    monkeypatch.setattr(download.Part, "append", append)
    assert_right(fake, fetch(fake, tmp_path))


def test_a_file_of_the_user_is_never_overwritten(fake: FakeHub, tmp_path: Path) -> None:
    mine = tmp_path / "v1-5" / BIG
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert "move it away" in refused(fake, tmp_path)
    assert mine.read_bytes() == b"mine"


# A hub cache on this machine

def blob_in(cache: Path, data: bytes, digest: str) -> Path:
    blob = cache / "models--some--repo" / "blobs" / digest
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    return blob


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_is_used_before_the_network(fake: FakeHub, tmp_path: Path, variable: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    below = {"HF_HOME": "hub", "HF_HUB_CACHE": "", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    for data in fake.files.values():
        blob = blob_in(tmp_path / "cache" / below, data, sha256(data))
    assert_right(fake, fetch(fake, tmp_path))
    assert not fake.seen
    assert os.path.samefile(blob, tmp_path / "v1-5" / SMALL)        # a link, no second copy


def test_a_cache_on_another_disk_is_copied(fake: FakeHub, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(download.os, "link", no_link)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    blob = blob_in(tmp_path / "cache", fake.files[BIG], sha256(fake.files[BIG]))
    assert_right(fake, fetch(fake, tmp_path))
    assert not fake.gets() and not os.path.samefile(blob, tmp_path / "v1-5" / BIG)


def test_a_damaged_cache_is_left_alone(fake: FakeHub, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    blob = blob_in(tmp_path / "cache", b"?" * 300_000, sha256(fake.files[BIG]))
    said: list[str] = []
    assert_right(fake, fetch(fake, tmp_path, say=said.append))
    assert "damaged" in said[0] and blob.read_bytes() == b"?" * 300_000


def test_a_pinned_commit_is_found_in_the_cache(fake: FakeHub, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    known.KNOWN["v1-1"] = Model("v1-1", tuple(File(Place("some/repo", COMMIT, path))
                                              for path in fake.files))
    for path, data in fake.files.items():
        digest = git_sha1(data) if path == SMALL else sha256(data)
        blob = blob_in(tmp_path / "cache", data, digest)
        link = blob.parents[1] / "snapshots" / COMMIT / path
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
    assert_right(fake, fetch(fake, tmp_path, "v1-1"))
    assert not fake.seen


# The licence

class Terminal:
    """Stands in for sys.stdin."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


def test_the_licence_is_asked_for_once(fake: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--accept-licence"):       # no terminal
        fetch(fake, tmp_path, accept_licence=False)
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert "not accepted" in refused(fake, tmp_path, accept_licence=False)
    assert not fake.seen and not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "stdin", Terminal("Yes\n"))
    fetch(fake, tmp_path, accept_licence=False)
    assert download.LICENCE_URL in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    fetch(fake, tmp_path, accept_licence=False)         # remembered
    record = (tmp_path / download.ACCEPTED).read_text()
    assert record.count(download.LICENCE) == 1


def test_arguments_are_checked(fake: FakeHub, tmp_path: Path) -> None:
    for match, options in (("choose one to download", {"name": "v2"}),
                           ("--half", {"name": "v1-1", "half": True}),
                           ("--token", {"token": "naïve"}), ("--token", {"token": "a\nb"}),
                           *(("--endpoint", {"endpoint": e})
                             for e in ("huggingface.co", "file:///x", "http://", "http://h:port",
                                       "http://a b"))):
        with pytest.raises(ValueError, match=match) as caught:
            fetch(fake, tmp_path, **options)
        assert "naïve" not in str(caught.value)
    assert not fake.seen and not list(tmp_path.iterdir())


# What a file is

def test_verify_knows_a_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save({"x": np.zeros((2, 3), np.float32)})
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(data)
    assert download.verify(path).name == "" and download.verify(path).readable
    monkeypatch.setitem(known.NAMES, sha256(data), "sd-v1-9.ckpt")
    verdict = download.verify(path)
    assert (verdict.size, verdict.sha256, verdict.name) == (len(data), sha256(data), "sd-v1-9.ckpt")
    assert str(verdict).startswith(f"{path} is sd-v1-9.ckpt (")


def zipped(path: Path, *names: str) -> bytes:
    with ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return path.read_bytes()


def test_verify_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    tensors = save({"x": np.zeros((20, 30), np.float32)})
    checkpoint = zipped(tmp_path / "zip", "archive/data.pkl", "archive/data/0")
    cases = [
        ("a.safetensors", tensors, ""),
        ("a.safetensors", tensors[:-1], "damaged or cut short"),
        ("a.safetensors", tensors + b"\0", "damaged or cut short"),
        ("a.safetensors", noise(100), "damaged or cut short"),
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"\n<!DOCTYPE html><html>", "is a web page"),
        ("a.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        ("a.ckpt", checkpoint, ""),
        ("a.ckpt", checkpoint[:-30], "damaged or cut short"),
        ("a.ckpt", zipped(tmp_path / "zip", "readme"), "without a model"),
        ("vocab.json", b'{"a": 1}', ""),
        ("vocab.json", b'{"a": ', "damaged or cut short"),
        ("merges.txt", b"#version", ""),
    ]
    for name, data, fault in cases:
        (tmp_path / name).write_bytes(data)
        verdict = download.verify(tmp_path / name)
        assert fault in verdict.fault and verdict.readable == (not fault), (name, verdict)
        assert "\n" not in str(verdict) and verdict.size == len(data)


def test_verify_compares_the_size_with_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "v1-5-pruned-emaonly.safetensors"
    path.write_bytes(save({"x": np.zeros(3, np.float32)}))
    assert "4,265,146,304 bytes" in str(download.verify(path))


def test_verify_wants_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder: name one file in it"):
        download.verify(tmp_path)
    with pytest.raises(ValueError, match="not there"):
        download.verify(tmp_path / "nothing.ckpt")


# The table of published files

def test_the_table_is_sound() -> None:
    assert set(known.KNOWN) == {"v1-5", "v1-4", "v1-1", "tokenizer"}
    for model in known.KNOWN.values():
        for files in (model.files, model.half):
            paths = [file.place.path for file in files]
            assert len(set(paths)) == len(paths)
            assert len(paths) in (0, 2, 5) and all(".ckpt" not in path for path in paths)
        assert all(len(file.sha256) in (0, 64) for file in (*model.files, *model.half))
    assert all(len(digest) == 64 for digest in known.NAMES)
    assert all(file.sha256 and file.size for name in ("v1-5", "tokenizer")
               for file in (*known.KNOWN[name].files, *known.KNOWN[name].half))
    values = 859_520_964 + 83_653_863 + 123_060_480     # of the three networks
    for files, width in ((known.KNOWN["v1-5"].files, 4), (known.KNOWN["v1-5"].half, 2)):
        surplus = sum(file.size or 0 for file in files[2:]) - values * width
        assert 0 < surplus < 200_000                    # the headers


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip")
def test_the_vocabulary_is_clips() -> None:
    """Both tokenizer files follow from the one that OpenAI published, to the last byte."""
    import gzip

    spec = importlib.util.find_spec("open_clip")
    assert spec and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(source.read_bytes()).decode().split("\n")[1:48895]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    words = [*letters, *(letter + "</w>" for letter in letters),
             *("".join(merge.split()) for merge in merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False, indent=2,
                       sort_keys=True) + "\n"
    for file, text in zip(known.TOKENIZER, (vocab, "\n".join(["#version: 0.2", *merges, ""])),
                          strict=True):
        data = text.encode()
        assert (len(data), sha256(data)) == (file.size, file.sha256)
