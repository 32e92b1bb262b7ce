"""The models at hand: what a name stands for, what "auto" takes, and what is left aside, aloud."""

import os
import re
import warnings
from pathlib import Path

import pytest
import torch
import v1_files
from safetensors.torch import save_file

import minisd
from minisd.checkpoints import known, registry
from minisd.checkpoints.places import SHIPPED
from minisd.checkpoints.sources import PARTS
from minisd.checkpoints.untrusted import Refused
from minisd.checkpoints.vocabulary import no_vocabulary
from minisd.config import V1

LOADABLE = ("text_encoder", "unet", "encoder", "decoder")
V1_PARTS = {"text_encoder": 123_060_480, "unet": 859_520_964, "encoder": 34_163_664,
            "decoder": 49_490_199}
# Of those that ship: no weights.
UNKNOWN = ("README.md", "comparison.json", "evaluation.json", "few_steps.json", "losses.json")
WHOLE = ("text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
         "vae/diffusion_pytorch_model.safetensors")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def taken(monkeypatch) -> None:
    """Empty files count as whole models: these tests are of names and their order."""
    monkeypatch.setattr(registry, "fault", lambda place: "")


def auto() -> str:
    """What "auto" stands for, by its name; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return registry.find("auto").name


# What "auto" takes

def test_toyworld_where_there_is_nothing_else(weights) -> None:
    touch(weights, "README.md", "tokenizer/x", ".v1-5.lock", "photo.png", "toys/config.json",
          "toys/unet.safetensors", "._model.safetensors")
    assert auto() == "toyworld"
    assert registry.find("toyworld") == weights / "toyworld"


def test_the_newest_version_first(weights, taken) -> None:
    order = ["sd-v1-1.ckpt", "sd-v1-2.ckpt", "sd-v1-3.ckpt", "sd-v1-4.ckpt", "v1-4",
             "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "v1-5"]
    found = []
    for name in order:
        touch(weights, *([name] if "." in name else [f"{name}/{file}" for file in WHOLE]))
        found.append(auto())
    assert found == order
    assert registry.find("v1-4") == weights / "v1-4"


@pytest.mark.parametrize(("named", "expected"), [
    ("v1-4", "sd-v1-4.ckpt"), ("toyworld", "toyworld"), ("auto", "v1-5-pruned.ckpt"),
    ("", "v1-5-pruned.ckpt"), ("sd-v1-4.ckpt", "sd-v1-4.ckpt")])
def test_the_environment_comes_first(weights, taken, monkeypatch, named, expected) -> None:
    touch(weights, "sd-v1-4.ckpt", "v1-5-pruned.ckpt")
    monkeypatch.setenv("MINISD_MODEL", named)
    assert auto() == expected
    assert registry.find("v1-5").name == "v1-5-pruned.ckpt"


# What is left aside

@pytest.fixture(scope="module")
def folder(v1sd, words, tmp_path_factory) -> Path:
    """A whole model of v1's topology in diffusers' layout."""
    folder = v1_files.diffusers_folder(v1sd, tmp_path_factory.mktemp("whole") / "v1")
    (folder / "tokenizer").symlink_to(words)
    return folder


def test_what_is_half_fetched_is_no_model_and_is_named(weights, folder) -> None:
    for part in ("text_encoder", "vae", "tokenizer"):
        (weights / "v1-5" / part).mkdir(parents=True)
        for path in (folder / part).iterdir():
            (weights / "v1-5" / part / path.name).symlink_to(path)
    touch(weights, f"v1-5/{WHOLE[1]}.0123456789ab.part", "v1-5-pruned.ckpt.0123456789ab.part")
    with pytest.warns(UserWarning) as caught:
        assert registry.find("auto") == weights / "toyworld"
    text = str(caught[0].message)
    assert text.startswith("weights/v1-5 is left aside: ") and "and no UNet: expected" in text
    assert f"what lies there is not read: {WHOLE[1]}.0123456789ab.part" in text
    assert text.endswith("; `python -m minisd download v1-5` goes on where it stopped")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not {model.name: model for model in minisd.models()}["v1-5"].at_hand
    with pytest.raises(Refused, match="holds only the text encoder and the VAE, and no UNet"):
        minisd.load("v1-5")
    for path in (folder / "unet").iterdir():
        (weights / "v1-5" / "unet" / path.name).symlink_to(path)
    assert auto() == "v1-5"


def test_a_v1_file_of_any_name(weights, words, tensors) -> None:
    (weights / "tokenizer").symlink_to(words)
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2)}, weights / "a.safetensors")
    (weights / "b.ckpt").write_bytes(b"<html>")
    layer = f"{v1_files.TEXT}encoder.layers.11."
    save_file({name: value for name, value in tensors.items() if not name.startswith(layer)},
              weights / "c.safetensors")
    save_file(tensors | {"cond_stage_model.logit_scale": torch.ones(()), "v_pred": torch.ones(1)},
              weights / "my own.safetensors")
    with pytest.warns(UserWarning) as caught:
        assert registry.find("auto") == weights / "my own.safetensors"
    texts = [str(warning.message) for warning in caught]
    assert [text.split(":")[0] for text in texts] == [
        f"weights/{name} is left aside" for name in ("a.safetensors", "b.ckpt", "c.safetensors")]
    assert "a LoRA" in texts[0] and "a web page" in texts[1]
    assert "16 missing: text_encoder.layers.11." in texts[2]
    assert texts[0].endswith("; name it to load it and no other: -m weights/a.safetensors")
    rows = {model.name: model for model in minisd.models()}
    assert rows.keys() == {"toyworld", *known.VERSIONS, "my own.safetensors"}
    mine = rows["my own.safetensors"]
    assert mine.at_hand and mine.parameters == sum(
        p.numel() for p in v1_files.small().parameters())
    assert mine.on_disk == (weights / "my own.safetensors").stat().st_size


def test_at_hand_is_what_loads(weights, words, tensors, v1sd) -> None:
    """Names, shapes and words are looked at before, values only while loading."""
    (weights / "tokenizer").symlink_to(words)
    spoilt = {name: value.clone() for name, value in tensors.items()}
    spoilt[f"{v1_files.VAE}decoder.conv_out.bias"][-1] = float("nan")
    save_file(spoilt, weights / "sd-v1-4.ckpt")
    torch.save(tensors, weights / "sd-v1-1.ckpt")
    assert registry.fault(weights / "sd-v1-4.ckpt") == ""
    assert "decoder.conv_out.bias contains NaN" in registry.fault(weights / "sd-v1-4.ckpt",
                                                                 values=True)
    assert registry.fault(weights / "sd-v1-1.ckpt", values=True) == ""
    with pytest.warns(UserWarning) as caught:
        sd = minisd.load(device="cpu", dtype="float32")
    assert sd.weights == "sd-v1-1.ckpt" and torch.equal(sd.unet.conv_in.weight,
                                                        v1sd.unet.conv_in.weight)
    left, = (str(warning.message) for warning in caught if "left aside" in str(warning.message))
    assert "contains NaN or infinity" in left and "-m weights/sd-v1-4.ckpt" in left
    with pytest.raises(Refused, match="contains NaN"):
        minisd.load("v1-4")


def test_without_a_vocabulary_a_model_paints_nothing(weights, tensors) -> None:
    """So "auto" passes it over; who names it is told, and may load it all the same."""
    save_file(tensors, weights / "v1-5-pruned.safetensors")
    said = "no vocabulary of 99 tokens is at hand for it: put vocab.json and merges.txt into"
    with pytest.warns(UserWarning, match=f"v1-5-pruned.safetensors is left aside: .*{said}"):
        assert minisd.load(device="cpu").weights == "toyworld"
    assert not {model.name: model for model in minisd.models()}["v1-5"].at_hand
    with pytest.warns(UserWarning, match=f"^v1-5-pruned.safetensors will read no prompt, {said}"):
        sd = minisd.load("v1-5", device="cpu")
    with pytest.raises(ValueError, match="this model has no tokenizer: put vocab.json"):
        sd.encode_prompt("a red car")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert minisd.load(parts=["decoder"], device="cpu").weights == "v1-5-pruned.safetensors"


def test_a_vocabulary_that_is_missing_is_what_the_table_advises(weights, monkeypatch) -> None:
    monkeypatch.setattr(registry, "fault", lambda place: f"{place}: {no_vocabulary(V1)}")
    touch(weights, "v1-5-pruned.ckpt")
    advice = {model.name: model.advice for model in minisd.models()}
    assert advice["v1-5"] == "run `python -m minisd download tokenizer`"
    assert advice["v1-4"] == "run `python -m minisd download v1-4`"
    assert "download" not in no_vocabulary(v1_files.SMALL)      # whose words are not CLIP's


@pytest.mark.skipif(os.name != "posix", reason="makes pipes and sockets of names")
def test_the_scan_survives_whatever_lies_there(weights) -> None:
    for i, data in enumerate([b"", b"\x80\x02}.", b"PK\x03\x04" * 9, bytes(9), b"{}", b"\xff" * 99,
                              os.urandom(99), b"\x05\0\0\0\0\0\0\0{\"a\":"]):
        (weights / f"{i}.ckpt").write_bytes(data)
        (weights / f"{i}.safetensors").write_bytes(data)
    os.mkfifo(weights / "pipe.ckpt")
    (weights / "device.safetensors").symlink_to("/dev/zero")
    (weights / "loop.ckpt").symlink_to("loop.ckpt")
    (weights / "dead.ckpt").symlink_to("gone")
    (weights / "folder.ckpt").mkdir()
    (weights / "dark").mkdir(mode=0)
    (weights / os.fsdecode(b"bad \xff\x1b[2J.ckpt")).write_bytes(b"x")
    (weights / "sparse.ckpt").touch()
    os.truncate(weights / "sparse.ckpt", 10 ** 11)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert registry.find("auto") == weights / "toyworld"
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 18 and all("is left aside: " in text for text in texts)
    assert all(text.isprintable() for text in texts) and any(r"\x1b[2J.ckpt" in t for t in texts)
    assert [model.name for model in minisd.models()] == ["toyworld", *known.VERSIONS]


# Names

@pytest.mark.parametrize(("name", "message"), [
    ("v1-5", "v1-5 is not at hand: run `python -m minisd download v1-5`, or put "
             "v1-5-pruned-emaonly.safetensors into "),
    ("v1-3", "v1-3 is not at hand: put sd-v1-3.ckpt into weights"),
    ("v1-6", "unknown model 'v1-6': expected 'auto', 'toyworld', 'v1-5', 'v1-4', 'v1-3', 'v1-2', "
             "'v1-1', or the path of a folder, a .safetensors or a .ckpt file, as seen from here "
             "or from /"),
    ("", "unknown model ''"), ("\x1b[2J", r"unknown model '\x1b[2J'")])
def test_a_model_that_is_not_there_says_how_to_get_it(weights, name, message) -> None:
    with pytest.raises(ValueError) as error:
        minisd.load(name)
    assert message in str(error.value)


def test_paths_of_all_kinds(weights, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(weights))
    touch(weights, "x.ckpt")
    for name in ("~/x.ckpt", weights / "x.ckpt", "x.ckpt"):
        assert registry.find(name) == weights / "x.ckpt"


def test_the_page_in_weights_lists_the_files_that_are_known() -> None:
    page = (Path(known.__file__).parents[2] / "weights" / "README.md").read_text()
    rows = {row[2]: row[:2] for row in re.findall(
        r"^\| `(\S+)` \| ([\d,]*) ?\| `([0-9a-f]{64})` \|$", page, re.MULTILINE)}
    assert rows.keys() == known.NAMES.keys() - set(known.TABLE["toyworld"].values())
    for digest, (name, size) in rows.items():
        assert known.NAMES[digest].split(" of ")[0] in name
        assert size in ("", f"{known.SINGLE_SIZES.get(name) or 0:,}") or "/" in name


@pytest.mark.skipif(os.name == "nt", reason="git may have changed the ends of lines")
def test_the_files_that_ship_are_known() -> None:
    """Where a new model was exported, these lines go into known.toml."""
    found = {path.relative_to(SHIPPED).as_posix(): known.sha256(path)
             for path in SHIPPED.rglob("*.*") if path.name not in UNKNOWN}
    lines = "\n".join(f'"{name}" = "{digest}"' for name, digest in found.items())
    assert found == known.TABLE["toyworld"], f"write into known.toml:\n\n[toyworld]\n{lines}"


# The table

def test_the_table_of_models(weights, taken) -> None:
    touch(weights, "sd-v1-4.ckpt")
    table = minisd.models()
    assert [model.name for model in table] == ["toyworld", *known.VERSIONS]
    assert [model.at_hand for model in table] == [True, False, True, False, False, False]
    for model in table[1:]:
        assert model.parts == V1_PARTS and model.parameters == 1_066_235_307
        assert model.licence == "CreativeML Open RAIL-M"
    toyworld, v1_5, v1_4 = table[:3]
    assert toyworld.licence == "MIT" and toyworld.advice == ""
    assert toyworld.parameters == sum(p.numel() for p in minisd.load("toyworld").parameters())
    networks = [SHIPPED / f"{part}.safetensors" for part in PARTS]
    assert toyworld.on_disk == sum(path.stat().st_size for path in networks)
    assert (v1_4.path, v1_4.on_disk) == (weights / "sd-v1-4.ckpt", 0)
    assert v1_5.path is None and "download v1-5" in v1_5.advice


def test_the_table_is_readable(weights) -> None:
    text = str(minisd.models())
    parts, places, own = text.split("\n\n")
    assert parts.splitlines()[0].split() == ["model", *LOADABLE, "parameters"]
    assert re.search(r"^v1-5 +123,060,480 +859,520,964 .* 1,066,235,307$", parts, re.MULTILINE)
    assert re.search("^toyworld .* MIT +weights/toyworld$", places, re.MULTILINE)
    assert re.search("^v1-5 +4.26 GB +- .* no: run `python -m minisd download v1-5`$", places,
                     re.MULTILINE)
    assert own == "Files of your own go into weights."
    assert repr(minisd.models()) == text and max(map(len, text.splitlines())) < 100
    assert str(weights) not in text                 # notebooks show it
