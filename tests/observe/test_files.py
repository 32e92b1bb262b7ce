"""Files written whole or not at all, whatever goes wrong meanwhile."""

import os
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from minisd.observe.files import LEFT_BEHIND, written_whole


def write(path: Path, data: bytes, **how: bool) -> None:
    with written_whole(path, **how) as part:
        part.write_bytes(data)


def test_a_file_appears_whole_in_a_new_folder_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (b"first", b"second"):
        write(path, data)
        assert path.read_bytes() == data and os.listdir(path.parent) == ["file"]
    reference = tmp_path / "reference"
    reference.touch()
    assert path.stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize("fault", [(OSError, "disk full"), (OSError, 28, "No space left"),
                                   (KeyboardInterrupt,)])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, fault,
                                                        call: str) -> None:
    def fail(*_: object) -> None:
        raise fault[0](*fault[1:])

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(fault[0]) as error:
        write(path, b"new")
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"old"
    if 28 in fault:
        assert str(error.value) == f"[Errno 28] No space left: {str(path)!r}"


def test_what_safetensors_says_of_a_full_disk_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"model cannot be written \(Error .* No space left"), \
            written_whole(tmp_path / "model") as part:
        part.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device")
    with pytest.raises(FileNotFoundError, match="nowhere"), written_whole(tmp_path / "a") as part:
        part.write_bytes(Path("nowhere").read_bytes())      # an error about another file
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("new", "last"), [(False, "replace"), (True, "link")])
def test_the_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch, new, last) -> None:
    """Whenever the program is killed, no empty file is left under the name."""
    calls = []
    for name in ("fsync", "link", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real:
                            (calls.append((name, (tmp_path / "a").exists())), real(*args)))
    write(tmp_path / "a", b"new", new=new)
    assert calls == [("fsync", False), (last, False)]


# Never over another file

@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_never_written_over_another(tmp_path: Path, monkeypatch, links) -> None:
    """Not even over one that came while it was written; also where there are no hard links."""
    def refuse(*_: object) -> None:
        raise OSError(1, "no links")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "a", b"first", new=True)
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"second", new=True)
    with pytest.raises(FileExistsError), written_whole(tmp_path / "b", new=True) as part:
        part.write_bytes(b"mine")
        (tmp_path / "b").write_bytes(b"theirs")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"first", "b": b"theirs"}
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write(tmp_path / "dangling", b"", new=True)


# What killed runs leave behind

def test_old_temporary_files_of_ours_are_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = tmp_path / f".minisd-{'0a' * 8}.part"
    young = tmp_path / f".minisd-{'0b' * 8}.part"
    others = [tmp_path / name for name in (".minisd-notes.part", "model.part", ".part",
                                           f".minisd-{'0a' * 8}.part.bak")]
    for path in (ours, young, *others):
        path.write_bytes(b"")
        if path != young:
            os.utime(path, times=(0, time.time() - LEFT_BEHIND - 9))
    write(tmp_path / "a", b"new")
    assert set(tmp_path.iterdir()) == {tmp_path / "a", young, *others}
