"""The doctor: each fault that it is for, prepared, and what it says of it."""

import ast
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from minisd.checkpoints import load, places, registry, vocabulary
from minisd.checkpoints.places import PACKAGE
from minisd.cli import doctor, memory
from minisd.cli.doctor import Finding
from minisd.cli.main import main

ROOT = PACKAGE.parent
TOYWORLD = ROOT / "weights" / "toyworld"


# All of it

def test_the_doctor_finds_nothing_here(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    assert main(["doctor"]) == 0, capsys.readouterr().out
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "no problems found" and len(lines) > 15
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
    ("torch", "2.9.1+cpu", "torch +2.9.1.cpu: run `.* install \"torch>=2.10,<2.15\"`", broken),
    ("torch", "2.15.0", "torch +2.15.0: run `.* install \"torch>=2.10,<2.15\"`", broken),
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


def test_a_file_that_hides_a_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("PIL.py").touch()
    broken(doctor.packages(), f"pillow +{tmp_path / 'PIL.py'} hides the package")


def test_the_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(doctor.PACKAGES) == sorted(project["dependencies"])
    assert sorted(doctor.NOTEBOOK_PACKAGES) == sorted(
        project["optional-dependencies"]["notebooks"])


def kernel_of(folder: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(
        {"argv": [python, "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


@pytest.mark.skipif(os.name != "posix", reason="writes a shell script")
def test_the_kernel_of_another_python(monkeypatch, tmp_path):
    python = tmp_path / "python3.11"
    python.write_text("#!/bin/sh\necho /elsewhere\n")
    python.chmod(0o755)
    kernel_of(tmp_path, str(python), monkeypatch)
    broken(doctor.kernel(), "python3 is .*/python3.11, not this Python: start notebooks with "
                                  "`python -m minisd lab`")
    python.unlink()
    broken(doctor.kernel(), "python3.11, which does not run")


@pytest.mark.parametrize("python", ["python", "python3", sys.executable])
def test_the_right_kernel(monkeypatch, tmp_path, python):
    kernel_of(tmp_path, python, monkeypatch)
    assert [finding.remedy for finding in doctor.kernel()] == [""]


def test_where_minisd_is_found(monkeypatch, tmp_path):
    (tmp_path / "minisd").mkdir()
    (tmp_path / "minisd" / "__init__.py").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        broken(doctor.importable(), f"other folders import {tmp_path / 'minisd'}: run")
        (tmp_path / "minisd" / "__init__.py").write_text("import nothing_of_that_name")
        broken(doctor.importable(), "other folders import nothing: run `.* install -e")
    fine(doctor.importable())


def test_the_folder_it_runs_in(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fine(doctor.outputs())
    Path("outputs").touch()
    broken(doctor.outputs(), "outputs +expected a folder that can be written, got '.*outputs")


# The weights

@pytest.fixture
def weights(monkeypatch, tmp_path) -> Path:
    """A folder weights/ with toyworld's files, each a link."""
    weights = tmp_path / "weights"
    for path in TOYWORLD.rglob("*"):
        if path.is_file():
            link = weights / "toyworld" / path.relative_to(TOYWORLD)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    for module in (doctor, places, registry, vocabulary):
        monkeypatch.setattr(module, "WEIGHTS", weights)
    for module in (doctor, places, registry, load):
        monkeypatch.setattr(module, "SHIPPED", weights / "toyworld")
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    return weights


def test_whole_weights(weights):
    fine(doctor.weights())
    found = list(doctor.models())
    fine(found)
    assert [finding.what for finding in found] == ["model", "auto"]
    assert "`python -m minisd download v1-5` fetches" in found[-1].found


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


def test_links_and_downloads_that_lead_nowhere(weights, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "unet.safetensors").symlink_to("../blobs/0")
    (weights / "v1-5").symlink_to(tmp_path / "cache")
    broken(doctor.weights(), "v1-5/unet.safetensors is a link to ../blobs/0, which is not there")
    (weights / "v1-5").unlink()
    (weights / "unet.safetensors.0123456789ab.part").write_bytes(b"x")
    noted(doctor.weights(), "is an unfinished download: the same `python -m minisd download` goes")


def test_real_weights_load_or_do_not_as_loading_finds_them(weights, tmp_path):
    """Stand-ins of toyworld's sizes under v1's name: without words, whole, and with NaN."""
    folder = weights / "v1-5"
    folder.mkdir()
    for name in ("config.json", "text_encoder.safetensors", "unet.safetensors", "vae.safetensors"):
        (folder / name).symlink_to(TOYWORLD / name)
    broken(doctor.models(), "v1-5 does not load: .*vocabulary.*: or move it out of ")
    (folder / "tokenizer").symlink_to(TOYWORLD / "tokenizer")
    whole = list(doctor.models())
    fine(whole)
    assert "v1-5 loads" in whole[0].found and whole[-1].found == f"takes {folder}"
    tensors = load_file(TOYWORLD / "vae.safetensors")
    next(iter(tensors.values())).fill_(float("nan"))
    (folder / "vae.safetensors").unlink()
    save_file(tensors, folder / "vae.safetensors")
    broken(doctor.models(), "v1-5 does not load: .* contains NaN")
    assert [*doctor.models()][-1].found.startswith(f"takes {weights / 'toyworld'}")


def test_what_the_environment_names(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISD_MODEL", "toyworld")
    fine(doctor.models())
    monkeypatch.setenv("MINISD_MODEL", "mine")
    broken(doctor.models(), "MINISD_MODEL +MINISD_MODEL in the environment: unknown model 'mine'")
    Path("mine").symlink_to(TOYWORLD)
    fine(doctor.models())


# The machine

def test_disk_and_memory(monkeypatch):
    disk, free = SimpleNamespace(free=5 * 10 ** 6), [10 ** 11]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: disk)
    monkeypatch.setattr(memory, "free_memory", lambda: free[0])
    broken(doctor.room(), "disk +0.0 GB free at .*: free some before you paint")
    disk.free = 10 ** 9
    noted(doctor.room(), "disk +1.0 GB free at .*; v1 in float32 takes 4.3 GB: free some, or")
    disk.free = 10 ** 10
    fine(doctor.room())
    free[0] = 3 * 10 ** 9
    noted(doctor.room(), "memory +3.0 GB free; v1 in float32 takes 4.3 GB: for v1 close other")
    free[0] = None
    assert "does not say" in str([*doctor.room()][-1])


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
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    best = [torch.device("cpu")]
    monkeypatch.setattr(load, "choose_device", lambda name: best[0])
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    fine(doctor.device())
    assert re.search("auto is cpu in (bfloat16|float32)$", str(*doctor.device()))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    noted(doctor.device(), "auto is cpu .*: NVIDIA's driver is here, and torch .* sees no GPU")
    best[0], true = torch.device("cuda"), torch.ones
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "A GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (10 ** 10, 10 ** 10))
    monkeypatch.setattr(torch, "ones", lambda *shape, device: true(*shape))
    assert str(*doctor.device()).endswith("auto is cuda in float16, A GPU with 10.0 GB free")
    monkeypatch.setattr(torch, "ones", fail)
    broken(doctor.device(), "torch cannot compute there .no kernel image is available.: install")


FIRST_AID = ["__init__", "__main__", "checkpoints/__init__", "checkpoints/places",
             "checkpoints/untrusted",
             *(f"cli/{name}" for name in ("__init__", "main", "terminal", "arguments", "memory",
                                          "doctor"))]


@pytest.mark.parametrize("name", FIRST_AID)
def test_the_doctor_speaks_where_nothing_is_installed(name):
    """Python 3.9 must be able to read these files, and they import nothing but what comes with it.

    What they import inside functions is what they are there to look for.
    """
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(), feature_version=(3, 9))
    imported = [alias.name if isinstance(node, ast.Import) else
                f"{node.module}.{alias.name}" if node.module == "minisd.cli" else node.module
                for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names]
    ours = {f"minisd.{name.replace('/', '.').removesuffix('.__init__')}" for name in FIRST_AID}
    for module in imported:
        assert module in ours or module.split(".")[0] in sys.stdlib_module_names, module
    annotated = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)
                 and isinstance(node.op, ast.BitOr)]
    assert not annotated or "__future__" in imported
