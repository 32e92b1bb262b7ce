"""Downloads against a hub on this machine: a real HTTP server, and the storage host as well."""

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from minisd.checkpoints import download, known
from minisd.checkpoints.download import DownloadError
from minisd.checkpoints.known import File, Model

COMMIT = "c" * 40
TOKEN = "hf_secret"
REPO = "owner/model"
BIG, SMALL = "unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"
CHUNK = 1000                    # bytes that the library reads at once, here


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    """What the server holds and how it misbehaves.

    It answers under two names: 127.0.0.1 is the hub, which sends the small file itself, and
    localhost the storage that it sends clients to.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)    # by server
    cuts: Iterator[int] = field(default_factory=lambda: iter(()))           # bytes until each cut
    checksums: bool = True                              # of files that the storage sends
    body: Callable[[bytes], bytes] = staticmethod(lambda data: data)        # what storage sends
    hold_at: int = 0                                    # bytes after which the storage waits for
    go_on: threading.Event = field(default_factory=threading.Event)         # this
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self) -> list[Seen]:
        """What the storage was asked to send."""
        return [s for s in self.seen if s.server == "storage" and s.method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """One request to the hub or to the storage of server.fake."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        fake = self.server.fake
        name = "storage" if self.headers["Host"].startswith("localhost") else "hub"
        self.close_connection = True
        fake.seen.append(Seen(name, self.command, self.path,
                              {k.lower(): v for k, v in self.headers.items()}))
        if name in fake.refuse:
            return self.reply(*fake.refuse[name])
        path = re.sub("^.*/(resolve/[^/]+|blob)/", "", self.path)
        data, headers = fake.files[path], {"X-Repo-Commit": COMMIT, "ETag": '"of-the-answer"'}
        if name == "storage":
            data, headers = fake.body(data), {"ETag": '"of-the-storage"'}
        elif path != SMALL:
            where = f"http://localhost:{fake.port}/blob/{path}"
            headers |= {"Location": where, "X-Linked-Size": str(len(data))}
            headers |= {"X-Linked-Etag": f'"{sha256(data)}"'} if fake.checksums else {}
            return self.reply(302, headers)
        first = fake.seen[-1].first_byte
        headers |= {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
        return self.reply(206 if first else 200, headers, data[first:])

    do_HEAD = do_GET

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        fake = self.server.fake
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Connection": "close",
                           **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET" and body:
            body = body[:next(fake.cuts, None)]
            self.wfile.write(body[:fake.hold_at])
            if fake.hold_at:
                fake.go_on.wait(60)
            self.wfile.write(body[fake.hold_at:])


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass                                            # clients that left, cuts of our own


@pytest.fixture(autouse=True)
def this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches another machine, none sees this machine's cache or token, none waits."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] in ("127.0.0.1", "::1"), f"a test wanted to reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    at_once = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", at_once)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one small and one big file; v1-5 pins them, v1-1 has the big one of a branch."""
    fake = FakeHub({BIG: noise(300_000), SMALL: b'{"a": 0}' * 100})
    server = Server(("127.0.0.1", 0), Handler)
    server.fake, fake.port = fake, server.server_port
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    pinned = tuple(File(REPO, COMMIT, path, sha256(data)) for path, data in fake.files.items())
    monkeypatch.setitem(known.KNOWN, "v1-5", Model("v1-5", pinned))
    monkeypatch.setitem(known.KNOWN, "v1-1", Model("v1-1", (File(REPO, "main", BIG), pinned[1])))
    monkeypatch.setitem(known.KNOWN, "tokenizer", Model("", pinned[1:], restricted=False))
    yield fake
    server.shutdown()
    server.server_close()


def fetch(fake: FakeHub, root: Path, name: str = "v1-5", **options: object) -> Path:
    return download.fetch(name, root, **{"endpoint": fake.endpoint, "accept_licence": True}
                          | options)


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
    assert line.isprintable() and TOKEN not in line and len(line) < 400
    return line


def only(fake: FakeHub, path: str) -> None:
    """Leave one file of the hub and of the model."""
    fake.files = {path: fake.files[path]}
    model = known.KNOWN["v1-5"]
    known.KNOWN["v1-5"] = Model("v1-5", tuple(f for f in model.files if f.path == path))


def part_of(root: Path, data: bytes) -> Path:
    path = download.part_path(File(REPO, COMMIT, BIG, sha256(data)), root / "v1-5")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# What arrives

@pytest.mark.parametrize("name", ["v1-5", "v1-1"])
def test_a_model_arrives_whole_and_only_once(fake, tmp_path, name) -> None:
    """v1-5 is pinned: once it is there, nobody is asked. v1-1's branch is asked for its commit."""
    said: list[str] = []
    folder = fetch(fake, tmp_path, name, say=said.append)
    assert folder == tmp_path / name
    assert_right(fake, folder)
    assert len(said) == 2 and all("downloaded, checksum right" in line for line in said)
    asked = [seen.path for seen in fake.seen if seen.server == "hub"]
    assert ("/resolve/main/" in asked[0]) == (name == "v1-1") and len(asked) == 4
    assert all(f"/resolve/{COMMIT}/" in path for path in asked[1:])
    seen, gets = len(fake.seen), len(fake.gets())
    fetch(fake, tmp_path, name, say=said.append)
    assert all("there already" in line for line in said[2:]) and len(said) == 4
    assert len(fake.gets()) == gets and (len(fake.seen) == seen) == (name == "v1-5")


# The token

def test_the_token_stays_with_the_hub(fake, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint + "/")
    monkeypatch.setenv("HF_TOKEN", TOKEN + "\n")
    fake.cuts = iter([CHUNK, 2 * CHUNK])
    assert_right(fake, fetch(fake, tmp_path, endpoint=""))
    hub_saw = {seen.headers.get("authorization") for seen in fake.seen if seen.server == "hub"}
    assert hub_saw == {f"Bearer {TOKEN}"} and "//owner" not in fake.seen[0].path
    assert len(fake.gets()) == 3
    for seen in fake.gets():
        assert TOKEN not in str(seen.headers) + seen.path


def test_without_a_token_of_ours_none_is_sent(fake, tmp_path, monkeypatch) -> None:
    """The library would send one that another program has stored."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    fetch(fake, tmp_path / "weights")
    assert not any("authorization" in seen.headers for seen in fake.seen)


# Going on

@pytest.mark.parametrize(("come", "asked"), [
    (lambda data: data[:123_456], [123_456]), (lambda data: data, []),
    (lambda data: data + b"?", [0])], ids=["some", "all of it", "too much"])
def test_only_what_is_missing_is_asked_for(fake, tmp_path, come, asked) -> None:
    part_of(tmp_path, fake.files[BIG]).write_bytes(come(fake.files[BIG]))
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == asked


def test_a_pinned_file_that_changed_is_refused_before_it_is_fetched(fake, tmp_path) -> None:
    fake.files[BIG] = noise(300_000, seed=1)
    assert f"gives another checksum of {BIG}" in refused(fake, tmp_path)
    assert not fake.gets()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_kill_in_the_middle_loses_nothing(fake, tmp_path) -> None:
    only(fake, BIG)
    part = part_of(tmp_path, fake.files[BIG])
    fake.hold_at = 100 * CHUNK
    program = f"""
from pathlib import Path
from huggingface_hub import constants
from minisd.checkpoints import download, known
constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_OFFLINE = {CHUNK}, False
known.KNOWN["v1-5"] = known.Model("v1-5", (known.File({REPO!r}, "main", {BIG!r}),))
download.fetch("v1-5", Path({str(tmp_path)!r}), endpoint={fake.endpoint!r}, accept_licence=True)
"""
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    have = 0
    try:
        end = time.monotonic() + 100
        while time.monotonic() < end and running.poll() is None and have < 90 * CHUNK:
            time.sleep(0.01)
            have = part.stat().st_size if part.exists() else 0
        if running.poll() is None:
            assert "another download of v1-5" in refused(fake, tmp_path)
    finally:
        running.kill()
        _, complaint = running.communicate(timeout=10)
        fake.go_on.set()
    assert running.returncode == -signal.SIGKILL, complaint.decode()
    have = part.stat().st_size
    assert have >= 90 * CHUNK
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == [0, have]


# What is refused, and how

@pytest.mark.parametrize("body", [
    lambda data: data[:1000] + b"?" + data[1001:], lambda data: data[:-1],
    lambda data: data + b"?"], ids=["another byte", "one less", "one more"])
def test_wrong_bytes_are_refused_and_the_next_try_is_right(fake, tmp_path, body) -> None:
    fake.body = body
    refused(fake, tmp_path)
    assert not (tmp_path / "v1-5" / BIG).exists()
    fake.body = lambda data: data
    assert_right(fake, fetch(fake, tmp_path))


@pytest.mark.parametrize(("status", "code", "expected"), [
    (401, "", "answered 401 for tokenizer/vocab.json: check --endpoint, the token and the network"),
    (503, "", "answered 503 for tokenizer/vocab.json"),
    (403, "GatedRepo", "is gated: accept its terms at"),
    (401, "RepoNotFound", "shows no repository owner/model"),
    (404, "EntryNotFound", "has no file tokenizer/vocab.json at revision cccc"),
    (404, "RevisionNotFound", "has no revision cccc")])
def test_each_refusal_has_its_own_line(fake, tmp_path, status, code, expected) -> None:
    known.KNOWN["v1-5"] = Model("v1-5", known.KNOWN["v1-5"].files[::-1])
    fake.refuse["hub"] = status, {"X-Error-Code": code} if code else {}
    assert expected in refused(fake, tmp_path, token=TOKEN)
    assert len(fake.seen) == 1


def test_the_storage_can_refuse_too(fake, tmp_path) -> None:
    fake.refuse["storage"] = 403, {}
    assert "/blob/" not in refused(fake, tmp_path)      # a signed address would be a secret


def test_what_cannot_be_checked_is_not_fetched(fake, tmp_path) -> None:
    fake.checksums = False
    assert f"gives no checksum of {BIG}" in refused(fake, tmp_path, "v1-1")


# Bad connections

def test_a_connection_that_brings_nothing_is_given_up(fake, tmp_path) -> None:
    fake.cuts = iter([5 * CHUNK + 1] + [1] * 100)
    refused(fake, tmp_path)
    have = part_of(tmp_path, fake.files[BIG]).stat().st_size
    assert have == 5 * CHUNK and len(fake.gets()) < 40
    fake.cuts = iter(())
    assert_right(fake, fetch(fake, tmp_path))
    assert fake.gets()[-1].first_byte == have


def test_offline_is_one_line_at_once(fake, tmp_path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    line = refused(fake, tmp_path, endpoint=nobody)
    assert line.startswith(f"cannot reach {nobody} (") and "go online" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, which forbids downloads: unset it" in refused(fake, tmp_path)


# The disk

def test_a_disk_that_is_too_small_is_said_before(fake, tmp_path, monkeypatch) -> None:
    free = download.SPARE + 300_000                     # the small file no longer fits
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert "of free disk" in refused(fake, tmp_path)
    assert not fake.gets() and not (tmp_path / "v1-5").exists()
    part_of(tmp_path, fake.files[BIG]).write_bytes(fake.files[BIG][:1000])
    assert_right(fake, fetch(fake, tmp_path))           # with a part of it there, it does


def test_a_failure_in_the_middle_keeps_what_came(fake, tmp_path, monkeypatch) -> None:
    """A full disk ends the download; after a broken connection it goes on by itself."""
    true = download.http_get

    def fail_once(error: Exception) -> None:
        def http_get(url: str, sink: object, **options: object) -> None:
            monkeypatch.setattr(download, "http_get", true)
            sink.write(fake.files[BIG][sink.tell():][:100_000])
            raise error

        monkeypatch.setattr(download, "http_get", http_get)

    only(fake, BIG)
    fail_once(OSError(28, "No space left on device"))
    assert "No space left on device" in refused(fake, tmp_path)
    assert part_of(tmp_path, fake.files[BIG]).stat().st_size == 100_000
    fail_once(RuntimeError("connection reset"))
    assert_right(fake, fetch(fake, tmp_path))
    assert [seen.first_byte for seen in fake.gets()] == [200_000]


def test_a_file_of_the_user_is_never_overwritten(fake, tmp_path) -> None:
    mine = tmp_path / "v1-5" / BIG
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert "move it away" in refused(fake, tmp_path)
    assert mine.read_bytes() == b"mine"


# A hub cache on this machine

@pytest.fixture
def cache(fake, tmp_path, monkeypatch) -> Path:
    """The big file as another program left it; of another repository, for names say nothing."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    only(fake, BIG)
    blob = tmp_path / "cache" / "models--some--repo" / "blobs" / sha256(fake.files[BIG])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(fake.files[BIG])
    return blob


@pytest.mark.parametrize("linked", [True, False])
def test_a_cache_is_used_before_the_network(fake, tmp_path, cache, monkeypatch, linked) -> None:
    """By a link, without a second copy; copied where it lies on another disk."""
    def no_link(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not linked:
        monkeypatch.setattr(download.os, "link", no_link)
    assert_right(fake, fetch(fake, tmp_path))
    assert not fake.seen and os.path.samefile(cache, tmp_path / "v1-5" / BIG) == linked


def test_a_damaged_cache_is_left_alone(fake, tmp_path, cache) -> None:
    cache.write_bytes(b"?" * 300_000)
    assert_right(fake, fetch(fake, tmp_path))
    assert fake.gets() and cache.read_bytes() == b"?" * 300_000


# The licence, and the arguments

def test_the_licence_is_asked_for_once(fake, tmp_path, capsys, monkeypatch) -> None:
    def terminal(answer: str) -> SimpleNamespace:
        return SimpleNamespace(isatty=lambda: True, readline=lambda: answer)

    with pytest.raises(ValueError, match="--accept-licence"):       # no terminal
        fetch(fake, tmp_path, accept_licence=False)
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", terminal(answer))
        assert "not accepted" in refused(fake, tmp_path, accept_licence=False)
    assert not fake.seen and not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "stdin", terminal("Yes\n"))
    fetch(fake, tmp_path, accept_licence=False)
    assert download.LICENCE_URL in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    fetch(fake, tmp_path, accept_licence=False)         # remembered
    record = (tmp_path / download.ACCEPTED).read_text()
    assert record.count(download.LICENCE) == 1


@pytest.mark.parametrize(("said", "options"), [
    ("choose one of them", {"name": "v2"}), ("--half", {"name": "v1-1", "half": True}),
    ("--token", {"token": "secretï"}), ("--token", {"token": "secret\nb"}),
    *(("--endpoint", {"endpoint": endpoint}) for endpoint in (
        "huggingface.co", "file:///x", "http://a b", "https://user:secret@huggingface.co",
        "https//user:secret@huggingface.co", "https://x.co?token=secret", "https://hf_secret"))])
def test_arguments_are_checked_and_no_secret_is_repeated(fake, tmp_path, said, options) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        fetch(fake, tmp_path, **options)
    assert "secret" not in str(caught.value)
    assert not fake.seen and not list(tmp_path.iterdir())
