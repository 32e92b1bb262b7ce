"""The doctor: each fault that it is for, prepared, and what it says of it."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minisd.checkpoints import load, places
from minisd.checkpoints.places import PACKAGE, SHIPPED
from minisd.cli import doctor, memory
from minisd.cli.doctor import Finding
from minisd.cli.main import main

ROOT = PACKAGE.parent


# All of it

def test_the_doctor_finds_nothing_here(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    assert main(["doctor"]) == 0, capsys.readouterr().out
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "no problems found" and len(lines) > 12
    assert all(line.startswith(("ok ", "note ")) for line in lines)
    assert any(f"your own go into {places.WEIGHTS}" in line for line in lines)
    assert os.listdir() == []


def one(findings: Iterator[Finding], phrase: str) -> Finding:
    """The only one that asks for something."""
    found, = [finding for finding in findings if finding.remedy]
    assert re.search(phrase, str(finding := found)), str(finding)
    assert "\n" not in str(found)
    return found


def broken(findings: Iterator[Finding], phrase: str) -> None:
    finding = one(findings, phrase)
    assert finding.broken and str(finding).startswith("PROBLEM ")


def noted(findings: Iterator[Finding], phrase: str) -> None:
    finding = one(findings, phrase)
    assert not finding.broken and str(finding).startswith("note ")


def fine(findings: Iterator[Finding]) -> None:
    assert not [finding for finding in findings if finding.remedy or finding.broken]


def test_the_doctor_s_exit_status(capsys, monkeypatch):
    checks = (lambda: iter([Finding("a", "b")]),)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert main(["doctor"]) == 0 and capsys.readouterr().out.endswith("no problems found\n")
    monkeypatch.setattr(doctor, "CHECKS", (*checks, lambda: iter([Finding("a", "b", "c")])))
    assert main(["doctor"]) == 0
    checks = (*checks, *2 * [lambda: iter([Finding("a", "b", "c", broken=True)])])
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert main(["doctor"]) == 1 and capsys.readouterr().out.endswith("2 problems found\n")


def test_a_check_that_fails_is_a_finding():
    def weights() -> Iterator[Finding]:
        yield Finding("weights", "some")
        raise {}["bug"]

    def device() -> Iterator[Finding]:
        raise ModuleNotFoundError("No module named 'torch'")
        yield

    def processor() -> Iterator[Finding]:
        raise OSError("libtorch.so: cannot open shared object file")    # as a broken torch does
        yield

    broken(doctor.findings(weights), "weights +could not be looked at .KeyError: 'bug'")
    broken(doctor.findings(processor), "processor +could not be looked at .OSError: libtorch.so")
    noted(doctor.findings(device), "device +not looked at .No module named 'torch'")


# Python, its packages, the notebooks, the folders

def test_python(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 9, 7))
        old = list(doctor.python())
    broken(iter(old[:1]), "Python +3.9.7 at .*: make a virtual environment with 3.11 or newer")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    noted(doctor.python(), f"{tmp_path} is active, and this Python belongs to")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    fine(doctor.python())


@pytest.mark.parametrize(("name", "version", "phrase", "kind"), [
    ("tqdm", None, "tqdm +not installed: run `.* -m pip install \"tqdm>=4.66\"`", broken),
    ("torch", "2.9.1", "torch +2.9.1: run `.* install \"torch<2.15,>=2.10\"`", broken),
    ("ipywidgets", "7.8.1", "ipywidgets +7.8.1: .*\"ipywidgets>=8.1\"`, for the noteb", noted)])
def test_packages(monkeypatch, name, version, phrase, kind):
    true = doctor.metadata.version

    def told(asked: str) -> str:
        if asked != name:
            return true(asked)
        if version is None:
            raise doctor.metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(doctor.metadata, "version", told)
    kind(doctor.packages(), phrase)


@pytest.mark.skipif(os.name != "posix", reason="writes a shell script")
def test_the_kernel_of_another_python(monkeypatch, tmp_path):
    python, spec = tmp_path / "python3.11", tmp_path / "kernels" / "python3"
    python.write_text("#!/bin/sh\necho /elsewhere\n")
    python.chmod(0o755)
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(
        {"argv": [str(python)], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    broken(doctor.kernel(), "python3 is .*/python3.11, not this Python: start notebooks with "
                            "`python -m minisd lab`")
    python.unlink()
    broken(doctor.kernel(), "python3.11, which does not run")


def test_where_minisd_is_found(monkeypatch, tmp_path):
    (tmp_path / "minisd").mkdir()
    (tmp_path / "minisd" / "__init__.py").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        broken(doctor.importable(), f"other folders import {tmp_path / 'minisd'}: run")
        (tmp_path / "minisd" / "__init__.py").write_text("import nothing_of_that_name")
        broken(doctor.importable(), "other folders import nothing: run `.* install -e")
    fine(doctor.importable())


# The weights

@pytest.mark.parametrize(("name", "content", "phrase"), [
    ("unet.safetensors", b"", "unet.safetensors: it is empty"),
    ("unet.safetensors", None, "and no UNet"), ("config.json", b"{", "config.json: it is damaged"),
    ("tokenizer/vocab.json", None, "vocab.json is missing")])
def test_a_missing_or_damaged_file(weights, name, content, phrase):
    file = weights / "toyworld" / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    broken(doctor.models(), f"model +.*toyworld does not load: .*{phrase}.*: `git checkout -- weig")


def test_real_weights_load_or_do_not_as_loading_finds_them(weights, tmp_path):
    """Stand-ins of toyworld's sizes under v1's name: without words, whole, and with NaN."""
    folder = weights / "v1-5"
    folder.mkdir()
    for name in ("config.json", "text_encoder.safetensors", "unet.safetensors", "vae.safetensors"):
        (folder / name).symlink_to(SHIPPED / name)
    broken(doctor.models(), "v1-5 does not load: .*vocabulary.*: or move it out of ")
    (folder / "tokenizer").symlink_to(SHIPPED / "tokenizer")
    whole = list(doctor.models())
    fine(whole)
    assert "v1-5 loads" in whole[1].found and whole[-1].found == f"takes {folder}"
    tensors = load_file(SHIPPED / "vae.safetensors")
    next(iter(tensors.values())).fill_(float("nan"))
    (folder / "vae.safetensors").unlink()
    save_file(tensors, folder / "vae.safetensors")
    broken(doctor.models(), "v1-5 does not load: .* contains NaN")
    assert [*doctor.models()][-1].found.startswith(f"takes {weights / 'toyworld'}")


@pytest.mark.parametrize(("available", "limit", "expected"), [
    (20_000_000, "max", 20_480_000_000), (20_000_000, 2 * 10 ** 9, 15 * 10 ** 8),
    (None, None, None)])
def test_free_memory(monkeypatch, tmp_path, available, limit, expected):
    if available:
        (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {available} kB\n")
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{5 * 10 ** 8}\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory() == expected


def test_device(monkeypatch):
    best = [torch.device("cpu")]
    monkeypatch.setattr(load, "choose_device", lambda name: best[0])
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    noted(doctor.device(), "auto is cpu .*: NVIDIA's driver is here, and torch .* sees no GPU")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    best[0] = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "A GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (10 ** 10, 10 ** 10))
    monkeypatch.setattr(torch, "ones", fail)
    broken(doctor.device(), "torch cannot compute there .no kernel image is available.: install")


DOCTOR = """
import sys
from minisd.cli.main import main
main(["doctor"])
[print(file.__file__) for name, file in sys.modules.items() if name.startswith("minisd")]
"""


def test_the_doctor_speaks_where_nothing_is_installed():
    """By a Python without packages; one of 3.9, which is told that it is too old, can read it."""
    done = subprocess.run([sys.executable, "-S", "-c", DOCTOR], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": ""})
    assert "PROBLEM  packages       this Python has no minisd" in done.stdout, done.stderr
    files = [Path(line) for line in done.stdout.splitlines() if line.endswith(".py")]
    assert PACKAGE / "cli" / "doctor.py" in files
    for file in files:
        text = file.read_text()
        ast.parse(text, feature_version=(3, 9))
        assert " | " not in text or "from __future__ import annotations" in text, file
