"""One table of what can be wrong with a model, one of what can be wrong with a prompt.

Each row: what the user has, and what minisd must say. A refused model leaves a loaded one as it
was, to the last bit; on the command line it is one line on stderr and exit status 2.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import v1_files
from safetensors.torch import save_file
from torch import Tensor
from v1_files import TEXT, UNET, VAE

import minisd
from minisd import __main__ as cli
from minisd import config
from minisd.checkpoints import registry as catalogue
from minisd.checkpoints import weights as checkpoint
from minisd.pipeline import StableDiffusion

Tensors = dict[str, Tensor]
TOYWORLD = catalogue.WEIGHTS / "toyworld"
NAME = "first_stage_model.decoder.conv_out.bias"        # of one tensor, and ours of the same
OURS = "vae.decoder.conv_out.bias"


@pytest.fixture(scope="module")
def sd() -> StableDiffusion:
    return v1_files.small()


@pytest.fixture(scope="module")
def other() -> StableDiffusion:
    """A model in use, into which faulty files are loaded: no value of theirs may reach it."""
    return v1_files.small(1)


@pytest.fixture(scope="module")
def tensors(sd) -> Tensors:
    """A whole model under CompVis's names. Not to be changed."""
    return v1_files.compvis(sd)


# Ways to damage a model. Each takes whole tensors and an empty folder, and returns the path.

def raw(name: str, change: Callable[[bytes], bytes]) -> Callable[[Tensors, Path], Path]:
    """A whole file of a few tensors, its bytes changed."""
    def build(tensors: Tensors, folder: Path) -> Path:
        some = {key: tensors[key] for key in list(tensors)[:9]}
        path = folder / name
        if path.suffix == ".ckpt":
            torch.save({"state_dict": some}, path)
        else:
            save_file(some, path)
        path.write_bytes(change(path.read_bytes()))
        return path
    return build


def header(text: str, data: bytes = b"") -> Callable[[Tensors, Path], Path]:
    """A safetensors file with this header."""
    def build(tensors: Tensors, folder: Path) -> Path:
        (folder / "model.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text.encode() + data)
        return folder / "model.safetensors"
    return build


def tensor_file(change: Callable[[Tensors], Tensors]) -> Callable[[Tensors, Path], Path]:
    """A sound safetensors file that holds something else."""
    def build(tensors: Tensors, folder: Path) -> Path:
        save_file(change(tensors), folder / "model.safetensors")
        return folder / "model.safetensors"
    return build


def pickled(change: Callable[[Tensors], object]) -> Callable[[Tensors, Path], Path]:
    """A sound .ckpt that holds something else."""
    def build(tensors: Tensors, folder: Path) -> Path:
        torch.save(change(tensors), folder / "model.ckpt")
        return folder / "model.ckpt"
    return build


def only(*prefixes: str, cut: bool = False) -> Callable[[Tensors, Path], Path]:
    """The tensors whose names begin so; cut: without that beginning."""
    return tensor_file(lambda tensors: {
        name.removeprefix(prefixes[0]) if cut else name: value
        for name, value in tensors.items() if name.startswith(prefixes)})


def named(*shapes: tuple[str, tuple[int, ...]]) -> Callable[[Tensors, Path], Path]:
    """A file with no more than these zeros."""
    return tensor_file(lambda _: {name: torch.zeros(shape) for name, shape in shapes})


def with_value(value: float, name: str = NAME) -> Callable[[Tensors], Tensors]:
    """One number among 9.3 million is this one."""
    def change(tensors: Tensors) -> Tensors:
        spoilt = tensors[name].clone()
        spoilt.view(-1)[-1] = value
        return tensors | {name: spoilt}
    return change


def folder_of(*files: str) -> Callable[[Tensors, Path], Path]:
    """A folder with such files, and nothing that is a model in them."""
    def build(tensors: Tensors, folder: Path) -> Path:
        for name in files:
            path = folder / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        (folder / "model").mkdir(exist_ok=True)
        return folder / "model"
    return build


def toyworld(change: Callable[[Path], object]) -> Callable[[Tensors, Path], Path]:
    """A folder of our own layout, one thing in it changed."""
    def build(tensors: Tensors, folder: Path) -> Path:
        copy = folder / "toyworld"
        copy.mkdir()
        for path in [*TOYWORLD.glob("*.safetensors"), TOYWORLD / "tokenizer"]:
            (copy / path.name).symlink_to(path)
        shutil.copy(TOYWORLD / "config.json", copy)
        change(copy)
        return copy
    return build


def replaced(name: str, data: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes(data)
    return change


def half_fetched(tensors: Tensors, folder: Path) -> Path:
    """What an interrupted download leaves: the UNet has not come yet."""
    for part, prefix, stem in (("text_encoder", TEXT, "model"),
                               ("vae", VAE, "diffusion_pytorch_model")):
        (folder / "v1-5" / part).mkdir(parents=True)
        save_file({name.removeprefix(prefix): value for name, value in tensors.items()
                   if name.startswith(prefix)}, folder / "v1-5" / part / f"{stem}.safetensors")
    (folder / "v1-5" / "unet").mkdir()
    (folder / "v1-5" / "unet" / "diffusion_pytorch_model.safetensors.0123456789ab.part").touch()
    return folder / "v1-5"


def v2_folder(tensors: Tensors, folder: Path) -> Path:
    """Of a v2 UNet, what tells it from v1's: linear projections."""
    (folder / "v2" / "unet").mkdir(parents=True)
    save_file({"time_embedding.linear_1.weight": torch.zeros(8, 8),
               "conv_in.weight": torch.zeros(8, 4, 3, 3),
               "mid_block.attentions.0.proj_in.weight": torch.zeros(8, 8)},
              folder / "v2" / "unet" / "diffusion_pytorch_model.safetensors")
    return folder / "v2"


def foreign_folder(tensors: Tensors, folder: Path) -> Path:
    """Another pipeline in diffusers' layout: its text encoder is no CLIP."""
    (folder / "model" / "text_encoder").mkdir(parents=True)
    save_file({"shared.weight": torch.zeros(2, 2)},
              folder / "model" / "text_encoder" / "model.safetensors")
    return folder / "model"


def archive(tensors: Tensors, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "model.ckpt", "w") as file:
        file.writestr("photos/1.jpg", b"x" * 999)
    return folder / "model.ckpt"


class Evil:
    """A pickle that would create a file in the working directory when it is opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, ("owned", "w")


class EvilCall:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch owned",)


def drop(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


def pointwise(tensors: Tensors) -> Tensors:
    """Stable Diffusion v1's names around a UNet that reads 1024-wide context."""
    name = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return tensors | {name: torch.zeros(96, 1024)}


PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:6ce01\nsize 4265146304\n"
CUT = r"is damaged, cut off, or no safetensors file \("
BARE = "is a bare pickle, as torch wrote them before version 1.6: .* use a .safetensors or"
CUT_ZIP = r"is damaged, cut off, or no torch checkpoint \("
ENTRY = '{"x": {"dtype": "%s", "shape": [2], "data_offsets": [%d, %d]}}'

MODELS: dict[str, tuple[Callable[[Tensors, Path], Path], str]] = {
    # Damaged on the way
    "safetensors, empty": (raw("x.safetensors", lambda b: b""), "is empty: fetch it again"),
    "safetensors, cut in its length": (raw("x.safetensors", lambda b: b[:7]), CUT),
    "safetensors, cut in its header": (raw("x.safetensors", lambda b: b[:300]), CUT),
    "safetensors, half of it": (raw("x.safetensors", lambda b: b[:len(b) // 2]), CUT),
    "safetensors, the last byte missing": (raw("x.safetensors", lambda b: b[:-1]), CUT),
    "safetensors, bytes behind its end": (raw("x.safetensors", lambda b: b + b"\0"), CUT),
    "safetensors, a header of no JSON": (header("{x"), CUT),
    "safetensors, a header that is too long": (
        raw("x.safetensors", lambda b: b"\xff" * 8 + b[8:]), CUT),
    "safetensors, a gap before a tensor": (header(ENTRY % ("F32", 4, 12), bytes(12)), CUT),
    "safetensors, a size that does not fit": (header(ENTRY % ("F32", 0, 4), bytes(4)), CUT),
    "safetensors, an unknown dtype": (header(ENTRY % ("F31", 0, 8), bytes(8)), CUT),
    "safetensors, a web page": (raw("x.safetensors", lambda b: PAGE), "is a web page, not wei"),
    "safetensors, a storage host's refusal": (
        raw("x.safetensors", lambda b: b'\xef\xbb\xbf<?xml version="1.0"?><Error/>'), "a web page"),
    "safetensors, a Git LFS pointer": (raw("x.safetensors", lambda b: POINTER), "`git lfs pull`"),
    "safetensors, a line of text": (raw("x.safetensors", lambda b: b"Invalid username."), CUT),
    "ckpt, empty": (raw("x.ckpt", lambda b: b""), "is empty: fetch it again"),
    "ckpt, half of it": (raw("x.ckpt", lambda b: b[:len(b) // 2]), CUT_ZIP),
    "ckpt, its last bytes missing": (raw("x.ckpt", lambda b: b[:-30]), CUT_ZIP),
    "ckpt, a web page": (raw("x.ckpt", lambda b: PAGE), "is a web page, not weights"),
    "ckpt, a Git LFS pointer": (raw("x.ckpt", lambda b: POINTER), "is a Git LFS pointer"),
    "ckpt, another zip archive": (archive, CUT_ZIP),
    "ckpt, under a wrong name": (
        lambda t, folder: pickled(dict)(t, folder).rename(folder / "model.safetensors"),
        "is a torch checkpoint, whatever its name says: rename it to model.ckpt"),
    # Pickles
    "a pickle that opens a file": (
        pickled(lambda t: {"state_dict": t, "x": Evil()}),
        r"is refused: it asks to run _?io\.open, .* nothing of it was executed"),
    "a pickle that runs a command": (
        pickled(lambda t: {"state_dict": t, "x": EvilCall()}),
        r"it asks to run (posix|nt)\.system"),
    "a plain pickle": (raw("x.ckpt", lambda b: pickle.dumps({"a": 1})), BARE),
    "a plain pickle that runs a command": (
        raw("x.ckpt", lambda b: pickle.dumps(EvilCall())), BARE),
    "a ckpt of a list": (pickled(lambda t: list(t.values())[:3]), "holds no tensors by name"),
    "a ckpt of numbers by name": (pickled(lambda t: {"a": 1.0, 2: torch.ones(2)}), "holds no tens"),
    # Other models
    "SDXL": (named(("conditioner.embedders.0.transformer.x", (2,))), "this is an SDXL model"),
    "v2": (named(("cond_stage_model.model.ln_final.weight", (2,))), "a Stable Diffusion v2 model"),
    "v2, by its context": (tensor_file(pointwise), "v2 model .its context is 1024 wide"),
    "v2, a folder": (v2_folder, "v2 or SDXL model .its projections are linear"),
    "inpainting": (tensor_file(lambda t: t | {
        f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}), "an inpainting model"),
    "InstructPix2Pix": (tensor_file(lambda t: t | {
        f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 8, 3, 3)}), "an InstructPix2Pix model"),
    "a LoRA": (named(("lora_unet_mid_block.lora_up.weight", (2, 2))), "this is a LoRA"),
    "a ControlNet": (named(("control_model.input_hint_block.0.weight", (2,))), "a ControlNet"),
    "a textual inversion": (named(("emb_params", (2, 768))), "a textual-inversion embedding"),
    "only a VAE": (only(VAE, cut=True), "holds only the VAE, and no text encoder or UNet: expec"),
    "only a VAE, by its full names": (only(VAE), "holds only the VAE"),
    "only a UNet": (only(UNET), "holds only the UNet, and no text encoder or VAE"),
    "without a VAE": (only(TEXT, UNET), "holds only the text encoder and the UNet, and no VAE"),
    "no tensors": (named(), "not the weights of a Stable Diffusion v1 network .no tensors"),
    "another network": (named(("layer.weight", (2, 2))), "network .layer.weight, ....; expected"),
    # Almost right
    "a tensor missing": (tensor_file(drop(NAME)), f"nothing was loaded: 1 missing: {OURS}$"),
    "a ckpt with a tensor missing": (pickled(drop(NAME)), f"nothing was loaded: 1 missing: {OURS}"),
    "a tensor missing that shows a size": (
        tensor_file(drop(f"{UNET}input_blocks.0.0.weight")),
        "is incomplete: it lacks unet.conv_in.weight; fetch it again"),
    "a tensor too many": (tensor_file(lambda t: t | {f"{VAE}decoder.surplus": torch.zeros(1)}),
                          "nothing was loaded: 1 unexpected: vae.decoder.surplus"),
    "a tensor of nobody's": (tensor_file(lambda t: t | {"surplus": torch.zeros(1)}),
                             "nothing was loaded: 1 unexpected: surplus"),
    "a tensor of another shape": (
        tensor_file(lambda t: t | {NAME: torch.zeros(5)}),
        rf"1 of another shape: {OURS} \(5,\) instead of \(3,\)"),
    "a tensor that shows a size, of another shape": (
        tensor_file(lambda t: t | {f"{UNET}input_blocks.0.0.weight": torch.zeros(32)}),
        r"unet.conv_in.weight has the shape \(32,\), too few sides for its place"),
    "a width that no groups divide": (
        tensor_file(lambda t: t | {
            f"{VAE}encoder.down.0.block.0.conv1.weight": torch.zeros(33, 32, 3, 3)}),
        "has sizes that make no network"),
    "a tensor twice": (
        tensor_file(lambda t: t | {f"{TEXT}final_layer_norm.weight".replace(
            "text_model.", ""): torch.ones(64)}), "are the same tensor under two names"),
    "averages of some tensors": (
        tensor_file(lambda t: drop(v1_files.averaged_name(f"{UNET}out.2.bias"))(
            v1_files.full_ema(t))), "averaged UNet weights are incomplete, .*out2bias is missing"),
    "NaN": (tensor_file(with_value(float("nan"))), f"{OURS} contains NaN or infinity, nothing was"),
    "infinity": (tensor_file(with_value(float("-inf"))), f"{OURS} contains NaN or infinity"),
    "NaN in a ckpt": (pickled(with_value(float("nan"))), f"{OURS} contains NaN or infinity"),
    "NaN in float16": (
        tensor_file(lambda t: {k: v.half() if v.is_floating_point() else v for k, v in
                               with_value(float("nan"))(t).items()}), f"{OURS} contains NaN"),
    "quantised": (tensor_file(lambda t: t | {NAME: torch.zeros(3, dtype=torch.int8)}),
                  f"{OURS} holds torch.int8, expected floating-point numbers"),
    # Folders
    "no such file": (lambda t, folder: folder / "nothing.ckpt", "nothing.ckpt"),
    "an empty folder": (folder_of(), "is no model: expected a folder of this project .config"),
    "a folder of other files": (folder_of("config.json", "photos/1.jpg"), "is no model: expected"),
    "a part of a diffusers folder": (
        folder_of("config.json", "diffusion_pytorch_model.safetensors"), "is no model: expected"),
    "a diffusers folder of other networks": (
        foreign_folder, r"model.safetensors: these are not the weights .* network .shared.weight"),
    "a half-fetched model": (half_fetched, "holds only the text encoder and the VAE, and no UNet: "
                             "expected unet/diffusion_pytorch_model.safetensors there; fetch"),
    "our folder without its UNet": (
        toyworld(lambda folder: (folder / "unet.safetensors").unlink()),
        "and no UNet: expected unet.safetensors there"),
    "our folder without its sizes": (
        toyworld(lambda folder: (folder / "config.json").unlink()), "is no model: .*config.json"),
    "our folder, its sizes damaged": (
        toyworld(replaced("config.json", b'{"name": "x"')), "config.json does not describe a mod"),
    "our folder, its UNet cut": (
        toyworld(replaced("unet.safetensors", (TOYWORLD / "unet.safetensors").read_bytes()[:-9])),
        f"unet.safetensors {CUT}"),
    "our folder, its networks exchanged": (
        toyworld(replaced("unet.safetensors", (TOYWORLD / "vae.safetensors").read_bytes())),
        "does not fit StableDiffusion, nothing was loaded: .* missing: unet.*; .* unexpected"),
    "our folder of other sizes": (
        toyworld(lambda folder: checkpoint.write_config(folder, replace(
            config.TOYWORLD, unet=replace(config.TOYWORLD.unet, context_dim=64)))),
        r"of another shape: unet.*to_k.weight \(\d+, 128\) instead of \(\d+, 64\)"),
}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder for the model, in a working directory where nothing may appear."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield tmp_path / "there"
    assert os.listdir(here) == []


@pytest.mark.parametrize("fault", MODELS)
def test_a_faulty_model_is_refused_and_nothing_is_lost(other, tensors, place, capsys,
                                                       fault) -> None:
    build, message = MODELS[fault]
    place.mkdir()
    path = build(tensors, place)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        minisd.load(path, device="cpu", dtype="float32")
    assert path.name in str(error.value)

    assert cli.main(["a car", "-m", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minisd: error: ") and len(err.splitlines()) == 1
    assert re.search(message, err.removesuffix("\n")) or not path.exists()

    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises((ValueError, FileNotFoundError)):
        checkpoint.load_into(other, path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_one_network_is_not_lost_either(other, tensors, tmp_path, part) -> None:
    """Its last tensor is NaN: all those before it would have been filled."""
    network, prefix = other.get_submodule(part), {"text_encoder": TEXT, "unet": UNET,
                                                  "vae": VAE}[part]
    last = [name for name in tensors if name.startswith(prefix) and not name.endswith("_ids")][-1]
    save_file(with_value(float("nan"), last)(tensors), tmp_path / "x.safetensors")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="contains NaN or infinity"):
        checkpoint.load_into(network, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="and no (text encoder|UNet|VAE): exp"):
        foreign = {"text_encoder": UNET, "unet": TEXT, "vae": TEXT}[part]
        checkpoint.load_into(network, only(foreign)(tensors, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_values_that_only_the_dtype_cannot_hold(tensors, tmp_path) -> None:
    path = tensor_file(with_value(7e4))(tensors, tmp_path)
    for dtype in ("float32", "bfloat16"):
        assert minisd.load(path, device="cpu", dtype=dtype).vae.decoder.conv_out.bias[-1] > 6e4
    with pytest.raises(ValueError, match=r"reaches 7e\+04, too much for torch.float16: load in fl"):
        minisd.load(path, device="cpu", dtype="float16")


def test_corrupt_position_ids_and_bytes_behind_a_zip_are_no_faults(sd, tensors, tmp_path) -> None:
    """Merging leaves the first; some servers the second, which no zip reader looks at."""
    path = tmp_path / "model.ckpt"
    torch.save(tensors | {v1_files.POSITION_IDS: torch.full((3, 5), float("nan"))}, path)
    path.write_bytes(path.read_bytes() + bytes(9))
    v1_files.assert_same(minisd.load(path, device="cpu", dtype="float32"), sd)


# As a user runs it

@pytest.mark.parametrize("fault", ["safetensors, half of it", "a pickle that runs a command"])
def test_the_command_in_a_process_of_its_own(tensors, place, fault) -> None:
    build, message = MODELS[fault]
    place.mkdir()
    done = subprocess.run([sys.executable, "-m", "minisd", "a car", "-m", build(tensors, place)],
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert re.search(message, done.stderr)


# Prompts

@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a small random model that knows toyworld's words."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tokenizer").symlink_to(TOYWORLD / "tokenizer")
    sizes = replace(config.TOYWORLD, name="tiny", image_size=32,
                    vae=replace(config.TOYWORLD.vae, channels=(8, 8, 8, 8)),
                    unet=replace(config.TOYWORLD.unet, channels=(16, 32, 32)))
    checkpoint.write_config(folder, sizes)
    torch.manual_seed(0)
    model = StableDiffusion(sizes)
    for part in checkpoint.PARTS:
        checkpoint.save(model.get_submodule(part), folder / f"{part}.safetensors")
    return folder


SURROGATE = "half of a surrogate pair"
REFUSED: dict[str, tuple[object, type[Exception], str]] = {
    "nothing": (None, TypeError, "prompt must be text, got NoneType: None"),
    "a number": (7, TypeError, "prompt must be text, got int: 7"),
    "bytes": (b"a car", TypeError, "prompt must be text, got bytes: b'a car'"),
    "a list": (["a car"], TypeError, r"prompt must be text, got list: \['a car'\]"),
    "a lone surrogate": ("a \ud83d car", TypeError, SURROGATE),
    "the other half": ("\ude00", TypeError, SURROGATE),
}
TAKEN: dict[str, tuple[str, str]] = {       # and what is warned of
    "empty": ("", ""), "blank": (" \t\n", ""), "known words": ("a red car", ""),
    "75 tokens": ("car " * 75, ""),
    "76 tokens": ("car " * 75 + "Yellow", "longer than 75 tokens; dropped: 'Yellow'"),
    "a book": ("car " * 20_000, "longer than 75 tokens; dropped: 'car car"),
    "emoji": ("a 😀 car 👩\u200d👧", ""), "Chinese": ("一只猫", "tiny never saw '一只猫'"),
    "control characters": ("a\x00red\x1b[0m car", ""),
    "private and last code points": ("\ue000 \U0010ffff", ""),
    "a control token": ("a car <|endoftext|> sea", "are control tokens, not words"),
}


@pytest.fixture(scope="module")
def painter(tiny) -> StableDiffusion:
    return minisd.load(tiny, device="cpu", dtype="float32")


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("argument", ["prompt", "negative_prompt"])
def test_a_prompt_that_is_no_text_is_refused(painter, argument, case) -> None:
    prompt, kind, message = REFUSED[case]
    for method in (painter.text_to_image, painter.steps):
        with pytest.raises(kind, match=message):
            list(method(**{"prompt": "a car", "steps": 5, "seed": 0} | {argument: prompt}))


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("case", TAKEN)
def test_any_text_is_a_prompt(painter, tiny, tmp_path, monkeypatch, capsys, case) -> None:
    prompt, warning = TAKEN[case]
    monkeypatch.chdir(tmp_path)
    picture, = painter.text_to_image(prompt, steps=5, seed=42)
    arguments = ["--steps", "5", "-m", str(tiny), "--dtype", "float32", "-o", "x.png"]
    assert cli.main(["--prompt", prompt, *arguments]) == 0
    warned = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "warning" in line]
    assert warning in "".join(warned) and bool(warned) == bool(warning)
    assert minisd.images.to_rgb("x.png").tobytes() == picture.tobytes()


def test_half_a_surrogate_on_the_command_line(tiny, place, capsys) -> None:
    assert cli.main(["a \ud83d car", "-m", str(tiny)]) == 2
    assert cli.main(["a car", "--negative-prompt", "\udcff", "-m", str(tiny)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert r"expected text in UTF-8, got \ud83d as character 3" in lines[0]
    assert r"--negative-prompt: expected text in UTF-8, got \udcff as character 1" in lines[1]
    assert json.loads((tiny / "config.json").read_text())["name"] == "tiny"
