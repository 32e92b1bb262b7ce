"""info, models, download, verify and lab."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from jupyterlab.labapp import LabApp

import minisd
from minisd.checkpoints import download, known, places, registry
from minisd.checkpoints.config_file import write_config
from minisd.checkpoints.places import SHIPPED, WEIGHTS
from minisd.cli import arguments, lab
from minisd.cli.main import main
from minisd.config import TOYWORLD, V1
from minisd.observe import summary

ROOT = places.PACKAGE.parent


# info and models

@pytest.mark.parametrize(("model", "sizes", "origin"), [
    ("v1", V1, "Stable Diffusion v1, by its sizes; no file was looked at"),
    ("v1-2", V1, "v1-2, by its sizes; v1-2 is not at hand: put sd-v1-2.ckpt into "),
    ("toyworld", TOYWORLD, f"minisd model with text_encoder, unet, vae: {SHIPPED}"),
    (str(SHIPPED / "vae.safetensors"), TOYWORLD, "minisd model with vae: ")])
def test_info_knows_the_sizes(capsys, monkeypatch, tmp_path, model, sizes, origin):
    if model == "v1-2":                         # whatever lies in weights/ here
        monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    monkeypatch.setattr(summary, "info", lambda config, *, arrays: f"{config == sizes} {arrays}")
    assert main(["info", model]) == 0
    first, empty, rest = capsys.readouterr().out.splitlines()
    assert first.startswith(origin) and (empty, rest) == ("", "True False")


def test_info_says_all_of_it(capsys):
    assert main(["info", "toyworld", "--arrays"]) == 0
    assert capsys.readouterr().out.endswith(f"\n\n{summary.info(TOYWORLD, arrays=True)}\n")


def test_info_checks_that_the_names_fit(refused, tmp_path):
    write_config(tmp_path, TOYWORLD)
    for part in ("text_encoder.safetensors", "unet.safetensors", "vae.safetensors", "tokenizer"):
        (tmp_path / part).symlink_to(SHIPPED / part)
    wider = json.loads((tmp_path / "config.json").read_text())
    wider["unet"]["channels"][0] += 16
    (tmp_path / "config.json").write_text(json.dumps(wider))
    assert re.search(r"of another shape: .*unet.conv_in.weight \(64, 4, 3, 3\) instead of \(80,",
                     refused("info", str(tmp_path)))


def test_models_also_say_where_the_user_s_weights_go(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(str(minisd.models())) and f"\nweights/ is {WEIGHTS}\n" in text
    assert text.endswith(f"taken where none is named: {registry.find('auto')}\n")
    assert all(name in text for name in arguments.MODELS)


# download and verify

def test_every_option_of_download_arrives(monkeypatch, tmp_path, capsys):
    asked: dict[str, object] = {}

    def fetch(name: str, root: Path, **options: object) -> Path:
        asked.update(options, name=name, root=root)
        return root / name

    monkeypatch.setattr(download, "fetch", fetch)
    assert main(["download", "v1-4", "--half", "--endpoint", "http://hub", "--token", "t",
                 "--accept-licence", "--folder", str(tmp_path)]) == 0
    del asked["say"]
    assert asked == {"name": "v1-4", "root": tmp_path, "half": True, "endpoint": "http://hub",
                     "token": "t", "accept_licence": True}
    assert capsys.readouterr().out.endswith(f"-m {tmp_path / 'v1-4'}\n")
    assert main(["download", "v1-4"]) == 0
    assert asked["root"] == WEIGHTS and not asked["accept_licence"]
    assert capsys.readouterr().out.endswith("-m v1-4\n")
    assert main(["download", "tokenizer"]) == 0
    assert capsys.readouterr().out == f"the vocabulary is in {WEIGHTS / 'tokenizer'}\n"


def test_verify(monkeypatch, tmp_path, capsys):
    path = SHIPPED / "vae.safetensors"
    assert main(["verify", str(path)]) == 0
    assert f"{path} is vae.safetensors of toyworld (" in capsys.readouterr().out
    monkeypatch.setattr(known, "NAMES", {})
    named = tmp_path / "v1-5-pruned-emaonly.safetensors"
    named.symlink_to(path)
    assert main(["verify", str(named)]) == 0
    assert capsys.readouterr().out == (
        f"{named} is readable, but none of the files known here ({path.stat().st_size:,} bytes, "
        f"SHA-256 {known.sha256(path)}): the published {named.name} has 4,265,146,304 bytes\n")


@pytest.mark.parametrize(("name", "data", "fault"), [
    ("a.ckpt", b"PK\x03\x04" + bytes(99), "it is damaged"), ("a.safetensors", b"", "it is empty"),
    ("vocab.json", b'{"a": ', "it is damaged"), ("merges.txt", b"\xff\xfe", "no text in UTF-8")])
def test_verify_says_why_a_file_cannot_be_read(tmp_path, refused, name, data, fault):
    path = tmp_path / name
    path.write_bytes(data)
    line = refused("verify", str(path))
    assert fault in line and f"({len(data):,} bytes, SHA-256 {known.sha256(path)})" in line


# lab

@pytest.fixture
def jupyter(monkeypatch, tmp_path) -> list[Any]:
    """What JupyterLab would have been started with: its arguments, and where it finds kernels."""
    seen: list[Any] = []
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(LabApp, "launch_instance", lambda argv: seen.append(
        (argv, os.environ["JUPYTER_PATH"].split(os.pathsep))))
    return seen


def test_lab(jupyter, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "is_root", lambda: True)
    assert main(["lab", "--port", "9001", "--no-browser", "--", "--x", "--y=--"]) == 0
    monkeypatch.setattr(lab, "is_root", lambda: False)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert main(["lab"]) == 0
    started = [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/notebooks"]
    assert [argv for argv, _ in jupyter] == [
        [*started, "--port=9001", "--no-browser", "--allow-root", "--x", "--y=--"], started]
    for _, (folder, *others) in jupyter:
        assert others == [str(tmp_path)] and not Path(folder).exists()


def test_lab_says_what_is_missing(jupyter, monkeypatch, tmp_path, refused):
    with monkeypatch.context() as patch:
        patch.setattr(lab.importlib.util, "find_spec", lambda name: None)
        line = refused("lab", status=1)
    assert f"the Python at {sys.executable}, got no jupyterlab, no ipykernel" in line
    monkeypatch.setattr(lab, "NOTEBOOKS", tmp_path)
    assert "an installed minisd brings none, so run `python -m minisd lab` in a copy" in refused(
        "lab", status=1)
    assert jupyter == []


@pytest.mark.slow
def test_lab_in_earnest(tmp_path):
    """Seen from another folder, with another kernel of that name installed for this user."""
    kernel = tmp_path / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(
        {"argv": ["/elsewhere/python"], "display_name": "x", "language": "python"}))
    private = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
               for name in ("CONFIG", "DATA", "RUNTIME")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "minisd", "lab", "--port", str(port), "--no-browser", "--",
         "--ServerApp.token=secret", "--ServerApp.port_retries=0"],
        cwd=tmp_path, env={**os.environ, **private, "JUPYTER_PREFER_ENV_PATH": "0",
                           "TMPDIR": str(tmp_path)})

    def get(path: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{port}{path}?token=secret"
        return json.loads(urllib.request.urlopen(address, timeout=60).read())

    try:
        for _ in range(600):
            assert process.poll() is None
            with contextlib.suppress(OSError):
                get("/api/status")
                break
            time.sleep(0.2)
        spec = get("/api/kernelspecs")["kernelspecs"]["python3"]["spec"]
        assert spec["argv"][0] == sys.executable
        names = [entry["name"] for entry in get("/api/contents/notebooks")["content"]]
        assert "00_quickstart.ipynb" in names
        assert get("/api/contents/minisd/unet.py")["type"] == "file"    # a notebook links to it
    finally:
        process.terminate()
        assert process.wait(60) == 0 and not list(tmp_path.glob("minisd-lab-*"))
