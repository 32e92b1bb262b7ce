"""What comes from outside: shown without its tricks, read from regular files within bounds."""

import os
from pathlib import Path

import pytest

from minisd.checkpoints.untrusted import LARGEST_TEXT, Refused, read_json, read_text, reading, shown


@pytest.mark.parametrize(("text", "expected"), [
    ("plain, größer, 猫", "plain, größer, 猫"), ("two\nlines\tand\r", r"two\nlines\tand\r"),
    ("\x1b[31mred\x07", r"\x1b[31mred\x07"), ("a\u202eb\u200f", r"a\u202eb\u200f"),
    ("half \ud83d", r"half \ud83d"), (7, "7"), ("x" * 201, "x" * 200 + " ... (201 characters)")])
def test_a_foreign_text_is_shown_without_its_tricks(text, expected) -> None:
    assert shown(text) == expected
    assert shown(text).encode() and shown(text).isprintable()


def test_whatever_goes_wrong_is_one_sentence_that_names_the_file(tmp_path) -> None:
    for error in (KeyError("x"), RecursionError("deep\n" * 99), AssertionError(), MemoryError(),
                  ValueError("\x1b[2J" * 999), TypeError("t")):
        with pytest.raises(Refused) as caught, reading(tmp_path, "model"):
            raise error
        text = str(caught.value)
        assert text.startswith(f"{tmp_path}: it is damaged, cut off, or no model (")
        assert text.endswith("): fetch it again") and text.isprintable() and len(text) < 500
    with pytest.raises(Refused, match=f"^{tmp_path}: it cannot be read .Permission denied.$"), \
            reading(tmp_path, "model"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(Refused, match="^inner: its own words$"), reading(tmp_path, "model"), \
            reading(Path("inner"), "file"):
        raise Refused("its own words")
    with pytest.raises(FileNotFoundError), reading(tmp_path, "model"):
        raise FileNotFoundError("gone")


def file(folder: Path, kind: str) -> Path:
    path = folder / "words.txt"
    if kind == "sparse":
        with path.open("wb") as sparse:
            sparse.truncate(570 * 10 ** 6)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes("größer\n".encode(kind))
    return path


@pytest.mark.skipif(os.name != "posix", reason="makes pipes")
@pytest.mark.parametrize(("kind", "said"), [
    ("latin-1", "is no text in UTF-8: save it"), ("utf-16", "no text in UTF-8"),
    ("folder", "is a folder, a pipe or a device"), ("pipe", "a pipe or a device"),
    ("device", "a device, expected a file of text"),
    ("sparse", f"more than {LARGEST_TEXT:,} bytes")])
def test_what_is_no_text(tmp_path, kind, said) -> None:
    path = file(tmp_path, kind)
    for read in (read_text, read_json):
        with pytest.raises(Refused, match=said) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: it ")


def test_text_with_and_without_a_byte_order_mark(tmp_path) -> None:
    for kind in ("utf-8", "utf-8-sig"):
        assert read_text(file(tmp_path, kind)) == "größer\n"
    with pytest.raises(FileNotFoundError, match="nothing.txt is missing"):
        read_text(tmp_path / "nothing.txt")


@pytest.mark.parametrize("text", ["", "{", "[" * 10 ** 5, "9" * 10 ** 5, "{'a': 1}"])
def test_what_is_no_json(tmp_path, text) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(Refused, match=r"x\.json: it is damaged, cut off, or no JSON \("):
        read_json(tmp_path / "x.json")
