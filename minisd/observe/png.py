"""Pictures as PNG files that carry what they were made of: prompt, seed and settings."""

from __future__ import annotations

import io
import itertools
import json
import os
import unicodedata
from pathlib import Path

from PIL import Image, PngImagePlugin

from minisd.observe.files import written_whole

METADATA_KEY = "minisd"         # the PNG text chunk that holds the metadata as JSON
MAX_WORDS = 40                  # characters of a prompt in a file name
OUTPUTS = Path("outputs")       # where pictures go that were given no name


def save_png(image: Image.Image, path: str | Path, metadata: dict[str, object] | None = None, *,
             new: bool = False) -> Path:
    """Write a PNG file whole or not at all, with its metadata inside; returns its path.

    metadata: becomes a JSON text chunk, see `read_metadata`, and a `parameters` line for people.
    new: never over what is there, also with other programs beside; then a number is added.
    Raises ValueError where the name does not end in .png, TypeError for metadata JSON cannot hold,
    OSError where the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"expected a file name that ends in .png, got {str(path)!r}")
    text = PngImagePlugin.PngInfo()
    if metadata is not None:
        text.add_text(METADATA_KEY, json.dumps(metadata))
        text.add_text("parameters", _readable(metadata))
    encoded = io.BytesIO()
    image.save(encoded, "PNG", pnginfo=text)
    while True:
        target = unused(path) if new else path
        try:
            with written_whole(target, new=new) as part:
                part.write_bytes(encoded.getbuffer())
            return target
        except FileExistsError:         # another program was faster, or a file stands for a folder
            if not (new and os.path.lexists(target)):
                raise


def _readable(metadata: dict[str, object]) -> str:
    line = ", ".join(f"{key}: {value}" for key, value in metadata.items())
    return " ".join(line.split()).encode(errors="replace").decode()


def read_metadata(path: str | Path) -> dict[str, object]:
    """What `save_png` wrote into a file.

    Raises FileNotFoundError where there is no such file, ValueError where it is no picture or
    carries no metadata of minisd.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no picture at {str(path)!r}: check the path")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            text = image.info.get(METADATA_KEY)
    except Exception as error:          # a damaged file can raise anything
        raise ValueError(f"{str(path)!r} cannot be read ({error}): expected a PNG file") from error
    try:
        metadata = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(f"{str(path)!r} carries no metadata of minisd: expected a PNG file that "
                         f"minisd wrote and no other program has rewritten")
    return metadata


def default_path(prompt: str, seed: int, folder: Path = OUTPUTS) -> Path:
    """`outputs/a-red-car-42.png`, then `outputs/a-red-car-42-2.png`: never one that exists."""
    return unused(folder / f"{_slug(prompt)}-{seed}.png")


def unused(path: Path) -> Path:
    """The path, or with a number the first one like it that does not exist."""
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not os.path.lexists(place))


def _slug(prompt: str) -> str:
    """The first words of a text, in letters, marks and digits of any script, joined by hyphens."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    words: list[str] = [""]
    for character in text:
        if character.isalnum() or (words[-1] and unicodedata.category(character)[0] == "M"):
            words[-1] += character
        elif words[-1]:
            words.append("")
    slug = "-".join(word for word in words if word)
    if len(slug) > MAX_WORDS:
        whole_words = slug[:MAX_WORDS + 1].rpartition("-")[0]
        slug = whole_words or slug[:MAX_WORDS]
    return slug or "picture"
