"""Pictures in and out: files and PIL pictures of any mode to tensors and back, grids, metadata.

Inside the package a picture is a tensor (b, 3, h, w) in [-1, 1]; outside it is a PIL picture or a
PNG file that carries what it was made of. torch is imported only where a tensor is made, so that
the command line can refuse a bad picture without waiting for it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import secrets
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

if TYPE_CHECKING:
    from torch import Tensor

Picture = Image.Image | str | os.PathLike[str] | np.ndarray

# How to turn a picture upright, by its EXIF orientation (Exif 2.3, tag 0x0112); 1 is upright.
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
           4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
           6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
WHITE_16 = 65535                # white in 16 bits
METADATA_KEY = "minisd"         # the PNG text chunk that holds the metadata as JSON
MAX_WORDS = 40                  # characters of a prompt in a file name
DRAWN = 4096                    # colours at most in a drawing; pictures have more
OUTPUTS = Path("outputs")       # where pictures go that were given no name


# Tensors to pictures

def to_pil(images: Tensor) -> list[Image.Image]:
    """(b, 3, h, w), about [-1, 1] -> b RGB pictures; clamped and rounded only here.

    Raises ValueError for another shape, and for NaN, which would turn black without a word.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"expected pictures of shape (b, 3, h, w), got {tuple(images.shape)}")
    pixels = images.detach().float().cpu()
    if pixels.isnan().any():
        raise ValueError("the pictures contain NaN: look for the first step whose latents do, and "
                         "try dtype='float32'")
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return [Image.fromarray(x) for x in levels.permute(0, 2, 3, 1).contiguous().numpy()]


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, (b,), for pictures in [-1, 1]."""
    mse = (a.clamp(-1, 1) - b).square().flatten(1).mean(1) / 4
    return -10 * mse.clamp_min(1e-10).log10()


def grid(images: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures of one size, row by row on white, `gap` pixels apart."""
    sizes = {image.size for image in images}
    if len(sizes) != 1 or columns < 1:
        raise ValueError(f"a grid takes pictures of one size and at least one column, got "
                         f"{columns} column(s) and the sizes {sorted(sizes)}")
    width, height = sizes.pop()
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def save_grid(path: str | Path, images: Tensor, columns: int) -> None:
    """(b, 3, h, w), about [-1, 1] -> one PNG file."""
    save_png(grid(to_pil(images), columns), path)


def few_colours(image: Image.Image) -> Image.Image:
    """In 256 colours, for half of a PNG file's bytes or less, and hardly to be seen.

    Pictures are dithered; drawings, most of whose colours are the soft edges of lines, are not.
    """
    picture = image.convert("RGB")
    if picture.getcolors(DRAWN) is not None:
        return picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette = picture.quantize(256, Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


# Pictures to tensors

def from_pil(image: Picture, *, size: tuple[int, int] | None = None) -> Tensor:
    """A picture of any kind -> (1, 3, h, w) float32 in [-1, 1].

    image: PIL picture of any mode, path of a file, or (h, w, 3) uint8 array; see `to_rgb`.
    size: (height, width); the picture is cropped around its centre to that shape, then resized.
    Raises what `to_rgb` raises.
    """
    import torch

    picture = to_rgb(image)
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size is (height, width) in pixels, both positive, got {size}")
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]         # 1 3 h w
    return pixels.float().contiguous() / 127.5 - 1


def to_rgb(image: Picture) -> Image.Image:
    """A picture of any kind as a new RGB picture: upright, on white where it is transparent.

    Of an animated file the first frame is taken; of an open picture, the frame it stands at.
    Raises FileNotFoundError where there is no such file, ValueError for what is no whole picture
    (zero-size, truncated, too large to unpack safely), TypeError for other kinds of objects.
    """
    if isinstance(image, Image.Image):
        return _convert(image, "the picture")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"expected a picture as a uint8 array of shape (h, w, 3), got "
                             f"{image.dtype} {image.shape}: convert it first")
        return Image.fromarray(image)
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"expected a PIL picture, a path or a uint8 array, got "
                        f"{type(image).__name__}")
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"no picture at {str(path)!r}: check the path")
    if not path.is_file() or path.stat().st_size == 0:
        what = "is an empty file" if path.is_file() else "is not a file"
        raise ValueError(f"{str(path)!r} {what}: expected a picture, such as a PNG or JPEG file")
    with _decoding(repr(str(path))):
        opened = Image.open(path)
    with opened:
        return _convert(opened, repr(str(path)))


def pixel_sha256(image: Image.Image) -> str:
    """SHA-256 of the RGB bytes, row by row: names a picture whatever file it came from."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises over bytes it cannot read into one ValueError."""
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # "Truncated File Read": the error says more
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except bombs as error:
        raise ValueError(f"{name} is too large to unpack safely ({error}): "
                         f"make it smaller first") from error
    except Exception as error:      # a damaged file can make a decoder raise anything
        reason = ("no known picture format" if isinstance(error, Image.UnidentifiedImageError)
                  else str(error) or type(error).__name__)
        raise ValueError(f"{name} cannot be read ({reason}): expected a whole picture, such as "
                         f"a PNG or JPEG file") from error


def _convert(image: Image.Image, name: str) -> Image.Image:
    """Any mode and orientation -> RGB."""
    if 0 in image.size:
        raise ValueError(f"{name} is {image.width} x {image.height} pixels: expected at least "
                         f"one pixel")
    with _decoding(name):
        image.load()
        orientation = _orientation(image)
    if image.mode.startswith(("I", "F")):
        picture = Image.fromarray(_grey_levels(image)).convert("RGB")
    else:
        with _decoding(name):
            picture = _on_white(image) if image.has_transparency_data else image.convert("RGB")
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    return Image.fromarray(np.asarray(picture))     # drops the tags: nobody turns it twice


def _on_white(image: Image.Image) -> Image.Image:
    """Whatever can be transparent (RGBA, LA, PA, P, premultiplied, a transparent colour)."""
    straight = image.convert("LA") if image.mode == "La" else image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, straight.convert("RGBA")).convert("RGB")


def _grey_levels(image: Image.Image) -> np.ndarray:
    """Modes with more than 8 bits (I;16, I, F) -> (h, w) uint8; Pillow itself would clip at 255.

    I and F do not say which number is white; the smallest usual one that is large enough does:
    1 (F only), 255 or 65535.
    """
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all() or values.max() > WHITE_16:
        raise ValueError(f"a picture of mode {image.mode} with values up to {values.max():g}: "
                         f"expected finite grey levels of at most {WHITE_16}, scale it first")
    if image.mode.startswith("I;16"):
        white = WHITE_16
        if isinstance(transparent := image.info.get("transparency"), int):
            values = np.where(values == transparent, WHITE_16, values)
    else:
        candidates = (1, 255, WHITE_16) if image.mode == "F" else (255, WHITE_16)
        white = next(level for level in candidates if values.max() <= level)
    return (values.clip(min=0) * (255 / white)).round().astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:               # damaged EXIF data is no reason to refuse whole pixels
        return 1


# Files

def save_png(image: Image.Image, path: str | Path, metadata: dict[str, object] | None = None
             ) -> None:
    """Write a PNG file whole or not at all, with its metadata inside.

    metadata: becomes a JSON text chunk, see `read_metadata`, and a `parameters` line for people.
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
    with written_whole(path) as part:
        part.write_bytes(encoded.getbuffer())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name once its bytes are on the disk.

    Raises IsADirectoryError where `path` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".minisd-{secrets.token_hex(8)}.part"
    try:
        yield part
        with part.open("r+b") as file:      # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:           # Ctrl-C too leaves nothing behind
        part.unlink(missing_ok=True)
        raise


def _readable(metadata: dict[str, object]) -> str:
    line = ", ".join(f"{key}: {value}" for key, value in metadata.items())
    return " ".join(line.split()).encode(errors="replace").decode()


def read_metadata(path: str | Path) -> dict[str, object]:
    """What `save_png` wrote into a file.

    Raises FileNotFoundError where there is no such file, ValueError where it is no picture or
    carries no metadata of minisd.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no picture at {str(path)!r}: check the path")
    with _decoding(repr(str(path))), Image.open(path) as image:
        text = image.info.get(METADATA_KEY)
    try:
        metadata = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(f"{str(path)!r} carries no metadata of minisd: expected a PNG file that "
                         f"minisd wrote and no other program has rewritten")
    return metadata


def default_path(prompt: str, seed: int, folder: Path = OUTPUTS) -> Path:
    """`outputs/a-red-car-42.png`, then `outputs/a-red-car-42-2.png`: never one that exists."""
    stem = f"{_slug(prompt)}-{seed}"
    numbered = (folder / f"{stem}-{n}.png" for n in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{stem}.png"], numbered)
                if not os.path.lexists(path))


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
