"""The files that are known by their SHA-256 (known.toml): of v1, and of the model that ships.

Of the files that can be fetched, those in diffusers' layout are taken, as safetensors: nothing in
them can run, and a part can be loaded without the others.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

BLOCK = 2 ** 22                 # bytes hashed at once
LICENCE = "CreativeML Open RAIL-M"


@dataclass(frozen=True)
class File:
    """A file that can be fetched, and how to tell that it is the right one."""

    repo: str                       # owner/name
    revision: str                   # a commit, or a branch
    path: str                       # inside the repository
    sha256: str = ""                # "": what the hub says
    size: int = 0                   # bytes; 0: what the hub says


@dataclass(frozen=True)
class Model:
    """What `minisd download NAME` fetches, into weights/FOLDER/ and the path in the repository."""

    folder: str
    files: tuple[File, ...]         # in float32
    half: tuple[File, ...] = ()     # in float16, where there is such a version
    restricted: bool = True         # under a licence to accept first


TABLE = tomllib.loads(Path(__file__).with_name("known.toml").read_text(encoding="utf-8"))


def _files(name: str, kind: str = "files") -> tuple[File, ...]:
    download = TABLE["downloads"][name]
    repo, revision = download["source"]
    return tuple(File(repo, revision, path, digest)
                 for path, digest in download.get(kind, {}).items())


TOKENIZER = _files("tokenizer")     # OpenAI's CLIP's, under the MIT licence
KNOWN = {name: Model(name, TOKENIZER + _files(name),
                     TOKENIZER + _files(name, "half") if "half" in table else ())
         for name, table in TABLE["downloads"].items() if name != "tokenizer"}
KNOWN["tokenizer"] = Model("", TOKENIZER, restricted=False)

SINGLE_FILES: dict[str, dict[str, tuple[str, int]]] = TABLE["single"]
VERSIONS = tuple(SINGLE_FILES)  # of Stable Diffusion v1, the one that was trained longest first
SINGLE_SIZES = {name: size for files in SINGLE_FILES.values() for name, (_, size) in files.items()}
NAMES = {sha256: name for files in SINGLE_FILES.values() for name, (sha256, _) in files.items()}
NAMES |= {file.sha256: f"{file.path} of {name}" for name, model in reversed(KNOWN.items())
          for file in (*model.files, *model.half) if file.sha256}
NAMES |= {sha256: f"{path} of toyworld" for path, sha256 in TABLE["toyworld"].items()}


def sha256(path: Path) -> str:
    """Of all bytes of a file; with a progress bar on stderr, where that is a terminal."""
    digest = hashlib.sha256()
    bar: Any = tqdm(desc=f"checking {path.name}", total=path.stat().st_size, unit="B",
                    unit_scale=True, disable=None)
    with path.open("rb") as file, bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
