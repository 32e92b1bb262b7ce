"""Pictures as PNG files that carry what they were made of: prompt, seed and settings."""

from __future__ import annotations

import io
import itertools
import json
import unicodedata
from pathlib import Path

from PIL import Image, PngImagePlugin

from minisd.observe import reading
from minisd.observe.files import written_whole

METADATA_KEY = "minisd"         # the PNG text chunk that holds the metadata as JSON
MAX_WORDS = 40                  # characters of a prompt in a file name
OUTPUTS = Path("outputs")       # where pictures go that were given no name


def save_png(image: Image.Image, path: str | Path, metadata: dict[str, object] | None = None, *,
             new: bool = False) -> Path:
    """Write a PNG file whole or not at all, with its metadata inside; returns its path.

    metadata: becomes a JSON text chunk, see `read_metadata`, and a `parameters` line for people.
    new: never over what is there, also with several programs at once: car.png, then car-2.png, ...
    Raises ValueError where the name does not end in .png, TypeError for metadata JSON cannot hold,
    OSError where the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"expected a file name that ends in .png, got {str(path)!r}")
    text = PngImagePlugin.PngInfo()
    if metadata is not None:
        line = ", ".join(f"{key}: {value}" for key, value in metadata.items())
        text.add_text(METADATA_KEY, json.dumps(metadata))
        text.add_text("parameters", " ".join(line.split()).encode(errors="replace").decode())
    encoded = io.BytesIO()
    image.save(encoded, "PNG", pnginfo=text)
    for n in itertools.count(1):
        place = path if n == 1 else path.with_stem(f"{path.stem}-{n}")
        try:
            with written_whole(place, new=new) as part:
                part.write_bytes(encoded.getbuffer())
            break
        except FileExistsError:             # only where it has to be new
            continue
    return place


def read_metadata(path: str | Path) -> dict[str, object]:
    """What `save_png` wrote into a file.

    Raises FileNotFoundError where there is no such file, ValueError where it is no picture or
    carries no metadata of minisd.
    """
    with reading.opened(path) as image:
        text = image.info.get(METADATA_KEY)
    try:
        metadata = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(f"{str(path)!r} carries no metadata of minisd: expected a PNG file that "
                         f"minisd wrote and no other program has rewritten")
    return metadata


def default_path(prompt: str, seed: int, folder: Path = OUTPUTS) -> Path:
    """`outputs/a-red-car-42.png`: the first words, in letters, marks and digits of any script."""
    words = [""]
    for character in unicodedata.normalize("NFKC", prompt).lower():
        if character.isalnum() or (words[-1] and unicodedata.category(character)[0] == "M"):
            words[-1] += character
        elif words[-1]:
            words.append("")
    slug = "-".join(filter(None, words))
    if len(slug) > MAX_WORDS:
        slug = slug[:MAX_WORDS + 1].rpartition("-")[0] or slug[:MAX_WORDS]
    return folder / f"{slug or 'picture'}-{seed}.png"
