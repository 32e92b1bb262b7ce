"""The files of Stable Diffusion v1 that circulate: where each comes from, and which one you have.

A file is known by its SHA-256; its name says nothing. Of the files that can be fetched, those in
diffusers' layout are taken, as safetensors: nothing in them can run, and a part can be loaded
without the others. Sizes and checksums: the model pages of the repositories named here, read in
2026. Where one is missing the hub itself is asked for it.
"""

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from minisd.checkpoints.hub import DownloadError, Place
from minisd.checkpoints.sniff import HEAD, impostor

BLOCK = 2 ** 22                 # bytes hashed at once
AGAIN = "fetch it again"
CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin")

V1_5 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
V1_4 = ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b")
V1_1 = ("CompVis/stable-diffusion-v1-1", "main")

TEXT_ENCODER, TEXT_ENCODER_HALF, UNET, UNET_HALF, VAE, VAE_HALF = (
    f"{part}{half}.safetensors"
    for part in ("text_encoder/model", "unet/diffusion_pytorch_model",
                 "vae/diffusion_pytorch_model")
    for half in ("", ".fp16"))


@dataclass(frozen=True)
class File:
    """A file that can be fetched, and how to tell that it is the right one."""

    place: Place
    size: int | None = None         # bytes; None: what the hub says
    sha256: str = ""                # "": what the hub says


@dataclass(frozen=True)
class Model:
    """What `minisd download NAME` fetches, into weights/FOLDER/ and the path in the repository."""

    folder: str
    files: tuple[File, ...]         # in float32
    half: tuple[File, ...] = ()     # in float16, where there is such a version
    restricted: bool = True         # under a licence to accept first


# One vocabulary serves all of v1: OpenAI's CLIP's, under the MIT licence.
TOKENIZER = (
    File(Place(*V1_5, "tokenizer/vocab.json"), 1059962,
         "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"),
    File(Place(*V1_5, "tokenizer/merges.txt"), 524619,
         "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
)
KNOWN = {
    "v1-5": Model("v1-5", (
        *TOKENIZER,
        File(Place(*V1_5, TEXT_ENCODER), 492265874,
             "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334"),
        File(Place(*V1_5, VAE), 334643276,
             "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"),
        File(Place(*V1_5, UNET), 3438167540,
             "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"),
    ), (
        *TOKENIZER,
        File(Place(*V1_5, TEXT_ENCODER_HALF), 246144864,
             "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e"),
        File(Place(*V1_5, VAE_HALF), 167335342,
             "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c"),
        File(Place(*V1_5, UNET_HALF), 1719125304,
             "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21"),
    )),
    "v1-4": Model("v1-4", (
        *TOKENIZER, *(File(Place(*V1_4, path)) for path in (TEXT_ENCODER, VAE, UNET)),
    ), (
        *TOKENIZER,
        File(Place(*V1_4, TEXT_ENCODER_HALF), 246144864,
             "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e"),
        File(Place(*V1_4, VAE_HALF), 167335342,
             "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c"),
        File(Place(*V1_4, UNET_HALF), None,
             "a35404d03ec8f977715a4d2a080ddf72e2144f2ee49bb1ee213258bc64f9cc87"),
    )),
    "v1-1": Model("v1-1", (
        *TOKENIZER, *(File(Place(*V1_1, path)) for path in (TEXT_ENCODER, VAE, UNET)),
    )),
    "tokenizer": Model("", TOKENIZER, restricted=False),
}

# Files in one piece that users bring along: name, bytes where known, SHA-256. Of each model those
# come first that are taken first: safetensors before pickles, float32 before float16, the smaller
# before the larger.
SINGLE_FILES = {
    "v1-5": (
        ("v1-5-pruned-emaonly.safetensors", 4265146304,
         "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa"),
        ("v1-5-pruned.safetensors", 7703324286,
         "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6"),
        ("v1-5-pruned-emaonly-fp16.safetensors", 2132696762,
         "e9476a13728cd75d8279f6ec8bad753a66a1957ca375a1464dc63b37db6e3916"),
        ("v1-5-pruned-emaonly.ckpt", 4265380512,
         "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516"),
        ("v1-5-pruned.ckpt", 7703807346,
         "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053")),
    "v1-4": (
        ("sd-v1-4.ckpt", 4265380512,
         "fe4efff1e174c627256e44ec2991ba279b3816e364b49f9be2abc0b3ff3f8556"),
        ("sd-v1-4-full-ema.ckpt", 7703807346,
         "14749efc0ae8ef0329391ad4436feb781b402f4fece4883c7ad8d10556d8a36a")),
    "v1-3": (("sd-v1-3.ckpt", None,
              "2cff93af4dcc07c3e03110205988ff98481e86539c51a8098d4f2236e41f7f2f"),),
    "v1-2": (("sd-v1-2.ckpt", None,
              "3b87d30facd5bafca1cbed71cfb86648aad75d1c264663c0cc78c7aea8daec0d"),),
    "v1-1": (("sd-v1-1.ckpt", None,
              "86cd1d3ccb044d7ba8db743d717c9bac603c4043508ad2571383f954390f3cea"),),
}
VERSIONS = tuple(SINGLE_FILES)  # of Stable Diffusion v1, the one that was trained longest first
SINGLE_SIZES = {name: size for files in SINGLE_FILES.values() for name, size, _ in files}
NAMES = {sha256: name for files in SINGLE_FILES.values() for name, _, sha256 in files}
NAMES |= {file.sha256: f"{file.place.path} of {name}" for name, model in reversed(KNOWN.items())
          for file in (*model.files, *model.half) if file.sha256}


@dataclass(frozen=True)
class Verdict:
    """What a file on disk turned out to be."""

    path: Path
    size: int                       # bytes
    sha256: str
    name: str                       # of the known file that it is, "" where it is none
    fault: str                      # why it cannot be read, "" where it can
    hint: str                       # what else to know or do

    @property
    def readable(self) -> bool:
        return not self.fault

    def __str__(self) -> str:
        found = self.fault or f"is {self.name or 'readable, but none of the files known here'}"
        return (f"{self.path} {found} ({self.size:,} bytes, SHA-256 {self.sha256})"
                + (f": {self.hint}" if self.hint else ""))


def verify(path: str | Path) -> Verdict:
    """Which known file this is, if any, and whether it can be read at all.

    All of it is read, once, with a progress bar. Raises ValueError where it is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a file to verify, got {str(path)!r}, which is "
                         f"{'a folder: name one file in it' if path.is_dir() else 'not there'}")
    size = path.stat().st_size
    sha256 = hashed(path, hashlib.sha256()).hexdigest()
    name, (fault, hint) = NAMES.get(sha256, ""), _fault(path)
    whole = SINGLE_SIZES.get(path.name)
    if not fault and not name and whole and whole != size:
        hint = f"the published {path.name} has {whole:,} bytes"
    return Verdict(path, size, sha256, name, fault, hint)


def hasher(digest: str, size: int) -> Any:
    """The hash that a hub's checksum is of: SHA-256 (64 hex digits), or git's SHA-1 of a blob (40).

    Raises DownloadError for what is no checksum.
    """
    if re.fullmatch("[0-9a-f]{64}", digest):
        return hashlib.sha256()
    if re.fullmatch("[0-9a-f]{40}", digest):
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    raise DownloadError(f"expected a checksum from the hub, got {digest!r}, and what cannot be "
                        f"checked is not fetched: try another --endpoint")


def hashed(path: Path, digest: Any) -> Any:
    """`digest`, a hash of hashlib, after all bytes of a file; with a progress bar."""
    with path.open("rb") as file, progress(f"checking {path.name}", path.stat().st_size) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest


def progress(name: str, size: int, have: int = 0) -> Any:
    """A bar of bytes on stderr; none where that is no terminal."""
    return tqdm(desc=name, total=size, initial=have, unit="B", unit_scale=True, disable=None)


def _fault(path: Path) -> tuple[str, str]:
    """Why a file cannot be read, by its first bytes and its table of contents; and what to do."""
    with path.open("rb") as file:
        found = impostor(file.read(HEAD))
    if found:
        return found
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as tensors:
                tensors.keys()
        elif path.suffix in CHECKPOINTS:
            with zipfile.ZipFile(path) as archive:
                if not any(name.endswith("data.pkl") for name in archive.namelist()):
                    return "is an archive without a model in it", AGAIN
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
    except (SafetensorError, zipfile.BadZipFile, ValueError, OSError) as error:
        return f"is damaged or cut short ({error})", AGAIN
    return "", ""
