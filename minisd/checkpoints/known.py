"""The files of Stable Diffusion v1 that circulate, known by their SHA-256; names say nothing.

Of the files that can be fetched, those in diffusers' layout are taken, as safetensors: nothing in
them can run, and a part can be loaded without the others. Checksums: the model pages of the
repositories named here, read in 2026. Where one is missing the hub itself is asked for it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

BLOCK = 2 ** 22                 # bytes hashed at once
V1_BYTES = 4 * 1_066_235_307    # of its weights in float32

LICENCE = "CreativeML Open RAIL-M"
V1_5 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
V1_4 = ("CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b")
V1_1 = ("CompVis/stable-diffusion-v1-1", "main")

TEXT, TEXT_HALF, UNET, UNET_HALF, VAE, VAE_HALF = (
    f"{part}{half}.safetensors"
    for part in ("text_encoder/model", "unet/diffusion_pytorch_model",
                 "vae/diffusion_pytorch_model")
    for half in ("", ".fp16"))


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


# One vocabulary serves all of v1: OpenAI's CLIP's, under the MIT licence.
TOKENIZER = (
    File(*V1_5, "tokenizer/vocab.json",
         "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"),
    File(*V1_5, "tokenizer/merges.txt",
         "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
)
KNOWN = {
    "v1-5": Model("v1-5", (
        *TOKENIZER,
        File(*V1_5, TEXT, "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334"),
        File(*V1_5, VAE, "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"),
        File(*V1_5, UNET, "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"),
    ), (
        *TOKENIZER,
        File(*V1_5, TEXT_HALF, "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e"),
        File(*V1_5, VAE_HALF, "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c"),
        File(*V1_5, UNET_HALF, "c83908253f9a64d08c25fc90874c9c8aef9a329ce1ca5fb909d73b0c83d1ea21"),
    )),
    "v1-4": Model("v1-4", (
        *TOKENIZER, *(File(*V1_4, path) for path in (TEXT, VAE, UNET)),
    ), (
        *TOKENIZER,
        File(*V1_4, TEXT_HALF, "77795e2023adcf39bc29a884661950380bd093cf0750a966d473d1718dc9ef4e"),
        File(*V1_4, VAE_HALF, "4fbcf0ebe55a0984f5a5e00d8c4521d52359af7229bb4d81890039d2aa16dd7c"),
        File(*V1_4, UNET_HALF, "a35404d03ec8f977715a4d2a080ddf72e2144f2ee49bb1ee213258bc64f9cc87"),
    )),
    "v1-1": Model("v1-1", (*TOKENIZER, *(File(*V1_1, path) for path in (TEXT, VAE, UNET)))),
    "tokenizer": Model("", TOKENIZER, restricted=False),
}

# Files in one piece that users bring along: name, SHA-256 and bytes where known. Of each model
# those come first that are taken first: safetensors before pickles, float32 before float16, the
# smaller before the larger.
SINGLE_FILES: dict[str, dict[str, tuple[str, int]]] = {
    "v1-5": {
        "v1-5-pruned-emaonly.safetensors": (
            "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa", 4265146304),
        "v1-5-pruned.safetensors": (
            "1a189f0be69d6106a48548e7626207dddd7042a418dbf372cefd05e0cdba61b6", 7703324286),
        "v1-5-pruned-emaonly-fp16.safetensors": (
            "e9476a13728cd75d8279f6ec8bad753a66a1957ca375a1464dc63b37db6e3916", 2132696762),
        "v1-5-pruned-emaonly.ckpt": (
            "cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516", 4265380512),
        "v1-5-pruned.ckpt": (
            "e1441589a6f3c5a53f5f54d0975a18a7feb7cdf0b0dee276dfc3331ae376a053", 7703807346)},
    "v1-4": {
        "sd-v1-4.ckpt": (
            "fe4efff1e174c627256e44ec2991ba279b3816e364b49f9be2abc0b3ff3f8556", 4265380512),
        "sd-v1-4-full-ema.ckpt": (
            "14749efc0ae8ef0329391ad4436feb781b402f4fece4883c7ad8d10556d8a36a", 7703807346)},
    "v1-3": {"sd-v1-3.ckpt": (
        "2cff93af4dcc07c3e03110205988ff98481e86539c51a8098d4f2236e41f7f2f", 0)},
    "v1-2": {"sd-v1-2.ckpt": (
        "3b87d30facd5bafca1cbed71cfb86648aad75d1c264663c0cc78c7aea8daec0d", 0)},
    "v1-1": {"sd-v1-1.ckpt": (
        "86cd1d3ccb044d7ba8db743d717c9bac603c4043508ad2571383f954390f3cea", 0)},
}
VERSIONS = tuple(SINGLE_FILES)  # of Stable Diffusion v1, the one that was trained longest first
SINGLE_SIZES = {name: size for files in SINGLE_FILES.values() for name, (_, size) in files.items()}
NAMES = {sha256: name for files in SINGLE_FILES.values() for name, (sha256, _) in files.items()}
NAMES |= {file.sha256: f"{file.path} of {name}" for name, model in reversed(KNOWN.items())
          for file in (*model.files, *model.half) if file.sha256}


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
