"""The models at hand: what a name stands for, what "auto" takes, parts alone, dtypes."""

import importlib
import pkgutil
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import v1_files
from parity import relative_error
from PIL import Image
from safetensors.torch import save_file

import minisd
from minisd.checkpoints import known
from minisd.checkpoints import load as loading
from minisd.checkpoints import registry as catalogue
from minisd.checkpoints import weights as checkpoint
from minisd.config import V1
from minisd.pipeline import StableDiffusion

PARTS = ("text_encoder", "unet", "encoder", "decoder")
V1_PARTS = {"text_encoder": 123_060_480, "unet": 859_520_964, "encoder": 34_163_664,
            "decoder": 49_490_199}
SHIPPED = catalogue.WEIGHTS / "toyworld"


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A weights/ of our own, with toyworld in it and nothing else."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "toyworld").symlink_to(SHIPPED, target_is_directory=True)
    for module in (catalogue, loading):
        monkeypatch.setattr(module, "WEIGHTS", folder)
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    return folder


def touch(folder: Path, *names: str) -> Path:
    """Files of these names, with nothing in them: choosing looks at names alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


WHOLE = ("text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
         "vae/diffusion_pytorch_model.safetensors")


def auto() -> str:
    """What "auto" stands for, by its name; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return catalogue.find("auto").name


# The face

def test_the_public_functions_stay_callable_whatever_is_imported() -> None:
    """Importing a file of a package makes it an attribute, in place of a function of its name."""
    files = {module.name for module in pkgutil.iter_modules(minisd.__path__)}
    functions = set(minisd.__all__) - {"anatomy", "checkpoint", "config"}
    assert not functions & files
    for name in ("loading", "catalogue"):
        importlib.import_module(f"minisd.{name}")
    assert minisd.models is catalogue.models and minisd.load is loading.load
    assert minisd.observe.summary.summary and minisd.checkpoints.weights.load_into


# What "auto" takes

def test_toyworld_where_there_is_nothing_else(weights) -> None:
    touch(weights, "README.md", "tokenizer/vocab.json", "licences-accepted.txt", ".v1-5.lock",
          "photo.png", "toys/config.json", "toys/unet.safetensors")
    assert auto() == "toyworld"


def test_the_newest_version_first(weights) -> None:
    order = []
    for name in ("sd-v1-1.ckpt", "sd-v1-2.ckpt", "sd-v1-3.ckpt", "sd-v1-4.ckpt", "v1-4",
                 "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "v1-5"):
        touch(weights, name if "." in name else f"{name}/{WHOLE[0]}",
              *(f"{name}/{file}" for file in WHOLE[1:] if "." not in name))
        order.append(auto())
    assert order == ["sd-v1-1.ckpt", "sd-v1-2.ckpt", "sd-v1-3.ckpt", "sd-v1-4.ckpt", "v1-4",
                     "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "v1-5"]
    assert catalogue.find("v1-4") == weights / "v1-4"


def test_what_is_half_fetched_is_no_model_and_is_named(weights) -> None:
    touch(weights / "v1-5", WHOLE[0], f"{WHOLE[1]}.0123456789ab.part", WHOLE[2])
    touch(weights, "v1-5-pruned.ckpt.0123456789ab.part")
    message = ("weights/v1-5 is no whole model, it lacks the UNet: `python -m minisd download "
               "v1-5` goes on where it stopped")
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        assert catalogue.find("auto").name == "toyworld"
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=re.escape(message)):
        minisd.load("v1-5")
    touch(weights / "v1-5", WHOLE[1].replace(".safetensors", ".fp16.safetensors"))
    assert auto() == "v1-5"


def test_a_v1_file_of_any_name(weights) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2)}, weights / "a.safetensors")
    (weights / "b.ckpt").write_bytes(b"<html>")
    save_file(v1_files.compvis(v1_files.small()), weights / "my own.safetensors")
    with pytest.warns(UserWarning) as caught:
        assert catalogue.find("auto") == weights / "my own.safetensors"
    assert [str(w.message)[:54] for w in caught] == [
        f"weights/{file} is left aside: {weights}"[:54] for file in ("a.safetensors", "b.ckpt")]
    assert "a LoRA" in str(caught[0].message) and "a web page" in str(caught[1].message)
    assert catalogue.find("my own.safetensors") == weights / "my own.safetensors"
    rows = {model.name: model for model in minisd.models()}
    assert "a.safetensors" not in rows
    mine = rows["my own.safetensors"]
    assert mine.at_hand and mine.parameters == sum(
        p.numel() for p in v1_files.small().parameters())
    touch(weights, "sd-v1-1.ckpt")
    assert auto() == "sd-v1-1.ckpt"                 # what is known by name needs no look


@pytest.mark.parametrize(("named", "expected"), [
    ("v1-4", "sd-v1-4.ckpt"), ("toyworld", "toyworld"), ("auto", "v1-5-pruned.ckpt"),
    ("", "v1-5-pruned.ckpt"), ("sd-v1-4.ckpt", "sd-v1-4.ckpt")])
def test_the_environment_comes_first(weights, monkeypatch, named, expected) -> None:
    touch(weights, "sd-v1-4.ckpt", "v1-5-pruned.ckpt")
    monkeypatch.setenv("MINISD_MODEL", named)
    assert auto() == expected
    assert catalogue.find("v1-5").name == "v1-5-pruned.ckpt"


# Names

@pytest.mark.parametrize(("name", "message"), [
    ("v1-5", "v1-5 is not at hand: run `python -m minisd download v1-5`, or put "
             "v1-5-pruned-emaonly.safetensors into weights/ (see weights/README.md)"),
    ("v1-3", "v1-3 is not at hand: put sd-v1-3.ckpt into weights/ (see weights/README.md)"),
    ("v1-6", "unknown model 'v1-6': expected 'auto', 'toyworld', 'v1-5', 'v1-4', 'v1-3', 'v1-2', "
             "'v1-1', or the path of a folder, a .safetensors or a .ckpt file"),
    ("", "unknown model ''"), ("no/such.ckpt", "unknown model 'no/such.ckpt'")])
def test_a_model_that_is_not_there_says_how_to_get_it(weights, name, message) -> None:
    with pytest.raises(ValueError) as error:
        minisd.load(name)
    assert message in str(error.value)


def test_paths_of_all_kinds(weights, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(weights))
    touch(weights, "x.ckpt")
    assert catalogue.find("~/x.ckpt") == catalogue.find(weights / "x.ckpt") == weights / "x.ckpt"


def test_versions_and_downloads_agree() -> None:
    assert known.VERSIONS == ("v1-5", "v1-4", "v1-3", "v1-2", "v1-1")
    assert set(known.KNOWN) - {"tokenizer"} <= set(known.VERSIONS)
    for version, files in known.SINGLE_FILES.items():
        assert all(version in name for name, *_ in files)


def test_the_page_in_weights_lists_the_files_that_are_known() -> None:
    page = (SHIPPED.parent / "README.md").read_text()
    rows = {row[2]: row[:2] for row in re.findall(
        r"^\| `(\S+)` \| ([\d,]*) ?\| `([0-9a-f]{64})` \|$", page, re.MULTILINE)}
    assert rows.keys() == known.NAMES.keys()
    for digest, (name, size) in rows.items():
        assert known.NAMES[digest].split(" of ")[0] in name
        assert size in ("", f"{known.SINGLE_SIZES.get(name) or 0:,}") or "/" in name
    for model in known.KNOWN.values():
        for file in (*model.files, *model.half):
            assert not file.size or f"| {file.size:,} | `{file.sha256}` |" in page


# The table

def test_the_table_of_models(weights) -> None:
    touch(weights, "sd-v1-4.ckpt")
    (weights / "v1-5").mkdir()
    table = minisd.models()
    assert [model.name for model in table] == ["toyworld", *known.VERSIONS]
    assert [model.at_hand for model in table] == [True, False, True, False, False, False]
    for model in table[1:]:
        assert {part.name: part.parameters for part in model.parts} == V1_PARTS
        assert (model.parameters, model.size) == (1_066_235_307, 4 * 1_066_235_307)
        assert model.licence == "CreativeML Open RAIL-M"
    toyworld, v1_5, v1_4 = table[:3]
    assert toyworld.licence == "MIT" and toyworld.advice == ""
    assert toyworld.parameters == sum(p.numel() for p in minisd.load("toyworld").parameters())
    networks = [SHIPPED / f"{part}.safetensors" for part in checkpoint.PARTS]
    assert toyworld.on_disk == sum(path.stat().st_size for path in networks)
    assert (v1_4.path, v1_4.on_disk) == (weights / "sd-v1-4.ckpt", 0)
    assert v1_5.path is None and "download v1-5" in v1_5.advice


def test_the_table_is_readable(weights) -> None:
    text = str(minisd.models())
    parts, places = text.split("\n\n")
    assert parts.splitlines()[0].split() == ["model", *PARTS, "parameters"]
    assert re.search(r"^v1-5 +123,060,480 +859,520,964 .* 1,066,235,307$", parts, re.MULTILINE)
    assert re.search("^toyworld .* MIT +weights/toyworld$", places, re.MULTILINE)
    assert re.search("^v1-5 +4.26 GB +- .* no: run `python -m minisd download v1-5`$", places,
                     re.MULTILINE)
    assert repr(minisd.models()) == text and max(map(len, text.splitlines())) < 100
    html = minisd.models()._repr_html_()
    assert html.count("<table>") == 2 and "<td>859,520,964</td>" in html
    assert "run <code>python -m minisd download v1-5</code></td>" in html and "`" not in html
    assert str(weights) not in text + html          # notebooks show it


# Parts alone

@pytest.fixture(scope="module")
def small() -> StableDiffusion:
    return v1_files.small()


@pytest.fixture(scope="module")
def path(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "v1.safetensors"
    save_file(v1_files.compvis(small), path)
    return path


def part_of(name: str) -> str:
    """Which part a tensor belongs to, said once more."""
    if name.startswith("vae."):
        return "encoder" if name.startswith(("vae.encoder.", "vae.quant_conv.")) else "decoder"
    return name.split(".")[0]


@pytest.mark.parametrize("parts", [
    ["unet"], ("decoder", "encoder"), {"text_encoder"}, (part for part in ["encoder"]), PARTS])
def test_only_the_parts_asked_for_take_memory(small, path, parts) -> None:
    wanted = set(parts) if not hasattr(parts, "send") else {"encoder"}
    sd = minisd.load(path, parts=parts, device="cpu", dtype="float32")
    for name, tensor in sd.state_dict().items():
        assert tensor.is_meta == (part_of(name) not in wanted), name
        assert tensor.is_meta or torch.equal(tensor, small.state_dict()[name])
    assert (sd.device, sd.dtype) == (torch.device("cpu"), torch.float32)
    assert re.fullmatch("[0-9a-f]{12}", sd.fingerprint)
    assert (sd.fingerprint == small.fingerprint) == (wanted == set(PARTS))


def test_a_part_works_alone_and_the_others_say_how_to_load_them(small, path) -> None:
    pixels = torch.rand(1, 3, 40, 24) * 2 - 1
    coder = minisd.load(path, parts=["encoder"], device="cpu", dtype="float32")
    assert torch.equal(coder.vae.encode(pixels).mean, small.vae.encode(pixels).mean)
    expected = ("the {} was not loaded, only encoder: load the model with parts=['encoder', '{}'], "
                "or without parts for all of it")
    for part, use in {
            "decoder": lambda: coder.decode(torch.zeros(1, 4, 5, 3)),
            "unet": lambda: coder.unet(torch.zeros(1, 4, 5, 3), torch.tensor([5]),
                                       torch.zeros(1, 77, 64)),
            "text_encoder": lambda: coder.text_encoder.token_embedding(torch.tensor([1]))}.items():
        with pytest.raises(ValueError, match=re.escape(expected.format(part, part))):
            use()
    rest = minisd.load(path, parts=["decoder"], device="cpu", dtype="float32")
    z = torch.randn(1, 4, 5, 3)
    assert torch.equal(rest.vae.decode(z), small.vae.decode(z))
    with pytest.raises(ValueError, match="the encoder was not loaded"):
        rest.encode_image(pixels)
    shipped = minisd.load("toyworld", parts=["unet"], device="cpu", dtype="float32")
    with pytest.raises(ValueError, match="the text_encoder was not loaded"):
        shipped.encode_prompt("a red car")


@pytest.mark.parametrize(("parts", "missing", "runs"), [
    (["text_encoder", "unet"], "decoder", ["text_to_image", "trace"]),
    (["text_encoder", "unet", "decoder"], "encoder", ["image_to_image", "inpaint", "steps"]),
    (["text_encoder", "decoder"], "unet", ["text_to_image", "steps"])])
def test_a_run_that_lacks_a_part_fails_before_its_first_step(parts, missing, runs) -> None:
    sd = minisd.load("toyworld", parts=parts, device="cpu", dtype="float32")
    seen, picture = [], Image.new("RGB", (64, 64))
    inputs = {"image_to_image": {"image": picture, "on_step": seen.append},
              "inpaint": {"image": picture, "mask": picture, "on_step": seen.append},
              "steps": {"image": picture}}
    for run in runs:
        with pytest.raises(ValueError, match=f"the {missing} was not loaded, only "):
            getattr(sd, run)("a red car", **inputs.get(run, {"on_step": seen.append}))
    assert not seen


def test_what_a_run_does_without_need_not_be_loaded() -> None:
    sd = minisd.load("toyworld", parts=["text_encoder", "unet"], device="cpu", dtype="float32")
    asked: dict[str, Any] = {"steps": 5, "height": 64, "width": 64, "seed": 0}
    assert len(list(sd.steps("a red car", **asked))) == 5
    assert len(sd.trace("a red car", pictures="none", **asked)) == 5


def test_a_model_with_a_part_left_out_moves_to_another_device_and_dtype(small, path) -> None:
    sd = minisd.load(path, parts=["encoder"], device="cpu", dtype="float32")
    assert sd.to("cpu", torch.bfloat16) is sd and sd.dtype == torch.bfloat16
    expected = small.vae.encoder.conv_in.weight.bfloat16()
    assert torch.equal(sd.vae.encoder.conv_in.weight, expected)
    assert sd.unet.conv_in.weight.is_meta
    with torch.device("meta"):
        blank = StableDiffusion(v1_files.SMALL)
    assert not blank.to_empty(device="cpu").unet.conv_in.weight.is_meta


def test_a_model_knows_the_name_of_its_weights(path, monkeypatch) -> None:
    assert minisd.load(path, parts=["encoder"]).weights == "v1.safetensors"
    assert minisd.load("toyworld", parts=["encoder"]).weights == "toyworld"
    monkeypatch.chdir(catalogue.WEIGHTS / "toyworld")
    assert minisd.load(".", parts=["encoder"]).weights == "toyworld"


@pytest.mark.parametrize("layout", ["diffusers", "minisd", "one file"])
def test_a_part_needs_no_file_but_its_own(small, tmp_path, layout) -> None:
    if layout == "diffusers":
        folder = v1_files.diffusers_folder(small, tmp_path / "model")
        for part in ("unet", "text_encoder"):
            next((folder / part).iterdir()).unlink()
    else:
        folder = tmp_path
        checkpoint.write_config(folder, v1_files.SMALL)
        checkpoint.save(small.vae, folder / "vae.safetensors", dtype=torch.float32)
    model = folder / "vae.safetensors" if layout == "one file" else folder
    sd = minisd.load(model, parts=["decoder"], device="cpu", dtype="float32")
    assert torch.equal(sd.vae.decoder.conv_in.weight, small.vae.decoder.conv_in.weight)
    with pytest.raises(ValueError, match="holds only the VAE, and no UNet"):
        minisd.load(model, parts=["unet"])
    with pytest.raises(ValueError, match="holds only the VAE, and no text encoder or UNet"):
        minisd.load(model)


@pytest.mark.parametrize("parts", [
    "unet", [], ["vae"], ["unet", "clip"], 5, [None], [["unet"]], {"unet": 1, 2: 3}])
def test_parts_that_are_none_are_refused(path, parts) -> None:
    expected = "parts must be a list of some of 'text_encoder', 'unet', 'encoder', 'decoder', got "
    with pytest.raises(ValueError, match=re.escape(expected + repr(parts))) as error:
        minisd.load(path, parts=parts)
    assert ("'vae' is 'encoder' and 'decoder'" in str(error.value)) == (parts == ["vae"])


def test_a_model_without_memory_cannot_be_filled(path) -> None:
    with torch.device("meta"):
        sd = StableDiffusion(v1_files.SMALL)
    with pytest.raises(ValueError, match="lies on the meta device and cannot hold values"):
        checkpoint.load_into(sd, path)


def test_the_model_file_is_opened_once(path, monkeypatch) -> None:
    from minisd.checkpoints import sources

    opened = []
    open_weights = sources.open_weights
    monkeypatch.setattr(sources, "open_weights",
                        lambda file: opened.append(file) or open_weights(file))
    minisd.load(path, device="cpu", dtype="float32")
    assert opened == [path]


# The tokenizer

def test_a_vocabulary_that_is_not_the_models_is_refused(small, tmp_path) -> None:
    folder = v1_files.diffusers_folder(small, tmp_path / "model")
    (folder / "tokenizer").symlink_to(SHIPPED / "tokenizer", target_is_directory=True)
    with pytest.raises(ValueError, match=r"has 703 tokens, and the text encoder .* knows 99:"):
        minisd.load(folder)


def test_real_models_find_clips_vocabulary(weights, tmp_path) -> None:
    """In weights/, where `download tokenizer` puts it; else in an installed package."""
    packaged = loading.find_tokenizer(tmp_path / "model.ckpt", V1)
    assert packaged is None or len(packaged.vocab) == V1.text.vocab_size
    (weights / "v1-4").mkdir()
    (weights / "v1-4" / "tokenizer").symlink_to(SHIPPED / "tokenizer", target_is_directory=True)
    assert len(loading.find_tokenizer(tmp_path / "model.ckpt", V1).vocab) == 703
    assert loading.find_tokenizer(tmp_path / "model.ckpt", v1_files.SMALL) is None


# dtype="auto"

@pytest.mark.parametrize(("device", "features", "expected"), [
    ("cpu", {"avx512_bf16": True}, torch.bfloat16), ("cpu", {"amx_bf16": True}, torch.bfloat16),
    ("cpu", {"avx2": True, "avx512_bf16": False}, torch.float32), ("cpu", {}, torch.float32),
    ("cuda", {}, torch.float16), ("mps", {"avx512_bf16": True}, torch.float16)])
def test_auto_is_the_fastest_dtype_in_hardware(monkeypatch, device, features, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert loading.choose_dtype("auto", torch.device(device)) == expected


def test_bfloat16_stays_close_to_float32() -> None:
    """What the docstring of minisd.load says of dtype="auto", on the shipped model."""
    if loading.choose_dtype("auto", torch.device("cpu")) != torch.bfloat16:
        pytest.skip("this processor does not compute in bfloat16, so auto is float32 here")
    exact, rough = (minisd.load("toyworld", device="cpu", dtype=name)
                    for name in ("float32", "auto"))
    prompt, pictures, eps = "a red car below a yellow balloon", [], []
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for sd in (exact, rough):
        with torch.no_grad():
            eps.append(sd.unet(latents.to(sd.dtype), torch.tensor([500.0]),
                               sd.encode_prompt(prompt)).float())
        picture, = sd.text_to_image(prompt, steps=25, seed=42)
        pictures.append(np.asarray(picture, int))
    assert relative_error(eps[1], eps[0]) < 6e-3            # measured: 3.3e-3
    difference = np.abs(pictures[1] - pictures[0])
    assert difference.mean() < 2 and difference.max() < 120     # measured: 0.6 and 35
