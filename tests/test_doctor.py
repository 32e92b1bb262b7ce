"""The doctor: each fault that it is for, prepared, and what it says of it."""

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minisd
from minisd import __main__ as cli
from minisd.checkpoints import load as loading
from minisd.checkpoints import registry as catalogue
from minisd.cli import arguments, assets, doctor, installation, machine
from minisd.cli.installation import Finding

ROOT = Path(__file__).parents[1]
TOYWORLD = ROOT / "weights" / "toyworld"
PACKAGE = Path(minisd.__file__).parent


# All of it

def test_the_doctor_finds_nothing_here(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    assert cli.main(["doctor"]) == 0, capsys.readouterr().out
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "no problems found" and len(lines) > 15
    assert all(line.startswith(("ok ", "note ")) for line in lines)
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


def test_the_doctor_s_exit_status(capsys, monkeypatch):
    checks = (lambda: iter([Finding("a", "b")]),)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert cli.main(["doctor"]) == 0 and capsys.readouterr().out.endswith("no problems found\n")
    monkeypatch.setattr(doctor, "CHECKS", (*checks, lambda: iter([Finding("a", "b", "c")])))
    assert cli.main(["doctor"]) == 0
    checks = (*checks, *2 * [lambda: iter([Finding("a", "b", "c", broken=True)])])
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert cli.main(["doctor"]) == 1 and capsys.readouterr().out.endswith("2 problems found\n")


def test_a_check_that_fails_is_a_finding():
    def real_weights() -> Iterator[Finding]:
        yield Finding("real weights", "some")
        raise {}["bug"]

    def gpu() -> Iterator[Finding]:
        raise ModuleNotFoundError("No module named 'torch'")
        yield

    broken(doctor.findings(real_weights), "real weights +could not be looked at .KeyError: 'bug'")
    noted(doctor.findings(gpu), "gpu +not looked at .No module named 'torch'")


# Python, its packages, the notebooks, the folders

def test_python(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 9, 7))
        old = list(installation.python())
    broken(iter(old[:1]), "Python +3.9.7 at .*, and 3.11 is the oldest that works: install a newer")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    noted(installation.python(), f"{tmp_path} is active, and this Python belongs to")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert not any(finding.remedy for finding in installation.python())


@pytest.mark.parametrize(("name", "version", "phrase", "kind"), [
    ("tqdm", None, "tqdm +not installed: run `.* -m pip install \"tqdm>=4.66\"`", broken),
    ("torch", "2.9.1+cpu", "torch +2.9.1.cpu, expected 2.10 or newer, older than 2.15: run "
                           "`.* -m pip install \"torch>=2.10,<2.15\"`", broken),
    ("torch", "2.15.0", "torch +2.15.0, expected 2.10 or newer, older than 2.15", broken),
    ("numpy", "1.26.4", "numpy +1.26.4, expected 2.0 or newer: run", broken),
    ("ipywidgets", None, "ipywidgets +not installed, which the notebooks need", noted),
    ("ipywidgets", "7.8.1", "ipywidgets +7.8.1, expected 8.1 or newer, which the", noted)])
def test_packages(monkeypatch, name, version, phrase, kind):
    true = installation.importlib.metadata.version

    def told(asked: str) -> str:
        if asked != name:
            return true(asked)
        if version is None:
            raise installation.importlib.metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(installation.importlib.metadata, "version", told)
    kind(installation.packages(), phrase)


def test_a_file_that_hides_a_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("PIL.py").touch()
    broken(installation.packages(), f"pillow +{tmp_path / 'PIL.py'} hides the package")


def test_the_packages_are_those_of_the_requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    limits = installation.PACKAGES | installation.NOTEBOOK_PACKAGES
    assert {f'"{line}"' for line in lines if line[0] != "#"} == {
        installation._install(name).rstrip("`").split()[-1] for name in limits}


def test_torch_and_numpy_that_do_not_fit(monkeypatch):
    def fail(array: np.ndarray) -> None:
        raise RuntimeError("Numpy is not available")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", fail)
        broken(installation.arrays(), "arrays +torch .* and numpy .* do not fit .*not available")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numpy", None)
        noted(installation.arrays(), "arrays +not looked at")
    assert not any(finding.remedy for finding in installation.arrays())


def kernel_of(folder: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(
        {"argv": [python, "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    monkeypatch.setenv("PATH", str(folder))             # no other `jupyter`


@pytest.mark.skipif(os.name != "posix", reason="writes a shell script")
def test_the_kernel_of_another_python(monkeypatch, tmp_path):
    python = tmp_path / "python3.11"
    python.write_text("#!/bin/sh\necho /elsewhere\n")
    python.chmod(0o755)
    kernel_of(tmp_path, str(python), monkeypatch)
    broken(installation.kernel(), "the kernel python3 is .*/python3.11, not this Python: start "
                                  "notebooks with `python -m minisd lab`")
    python.unlink()
    broken(installation.kernel(), "python3.11, which does not run")


@pytest.mark.parametrize("python", ["python", "python3", sys.executable])
def test_the_right_kernel(monkeypatch, tmp_path, python):
    kernel_of(tmp_path, python, monkeypatch)
    assert [finding.remedy for finding in installation.kernel()] == [""]


@pytest.mark.skipif(os.name != "posix", reason="writes a shell script")
def test_the_command_jupyter_of_another_python(monkeypatch, tmp_path):
    kernel_of(tmp_path, sys.executable, monkeypatch)
    (tmp_path / "jupyter").touch(mode=0o755)
    noted(installation.kernel(), "the command is .*/jupyter, which belongs to another Python")


def test_no_jupyter(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyter_client.kernelspec", None)
    noted(installation.kernel(), "no Jupyter in this Python")


def test_where_minisd_is_found(monkeypatch, tmp_path):
    (tmp_path / "minisd").mkdir()
    (tmp_path / "minisd" / "__init__.py").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        broken(installation.importable(), f"other folders import {tmp_path / 'minisd'}: run")
        (tmp_path / "minisd" / "__init__.py").write_text("import nothing_of_that_name")
        broken(installation.importable(), f"minisd +found from {ROOT} only: run `.* install -e")
    assert not any(finding.remedy for finding in installation.importable())


def test_the_folder_it_runs_in(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINISD_MODEL", "toyworld")
    assert not any(finding.remedy for finding in installation.folders())
    monkeypatch.setenv("MINISD_MODEL", "mine")
    broken(installation.folders(), "MINISD_MODEL +'mine' is not there, seen from")
    Path("mine").touch()
    noted(installation.folders(), "MINISD_MODEL +'mine' is found from this folder only: write")
    monkeypatch.setenv("MINISD_MODEL", str(tmp_path / "mine"))
    assert not any(finding.remedy for finding in installation.folders())
    Path("outputs").touch()
    broken(installation.folders(), "outputs +expected a folder that can be written, got 'outputs'")


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
    for module in (assets, arguments, catalogue, loading):
        monkeypatch.setattr(module, "WEIGHTS", weights)
    monkeypatch.delenv("MINISD_MODEL", raising=False)
    return weights


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_whole_weights(weights):
    for check in (assets.files, assets.toyworld, assets.real_weights):
        assert not any(finding.remedy for finding in check())


@pytest.mark.parametrize(("content", "phrase"), [
    (b"", "is empty"), (b"<html>log in", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ((TOYWORLD / "unet.safetensors").read_bytes()[:-9], "is damaged or cut short")])
def test_broken_weights(weights, content, phrase):
    replace(weights / "toyworld" / "unet.safetensors", content)
    broken(assets.files(), f"weights +toyworld/unet.safetensors {phrase}")
    broken(assets.toyworld(), "toyworld +it does not load .*unet.safetensors .*: take it from the")


def test_a_dead_link(weights):
    link = weights / "toyworld" / "vae.safetensors"
    link.unlink()
    link.symlink_to("gone")
    broken(assets.files(), "toyworld/vae.safetensors is a link to gone, which is not there")
    broken(assets.toyworld(), "vae.safetensors missing in")


def test_dead_links_below_a_linked_folder(weights, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "unet.safetensors").symlink_to("../blobs/0")
    (weights / "v1-5").symlink_to(tmp_path / "cache")
    broken(assets.files(), "v1-5/unet.safetensors is a link to ../blobs/0, which is not there")


def test_an_unfinished_download(weights):
    (weights / "unet.safetensors.0123456789ab.part").write_bytes(b"x")
    noted(assets.files(), "is an unfinished download: the same `python -m minisd download` goes on")


@pytest.mark.parametrize("name", ["tokenizer/vocab.json", "config.json"])
def test_a_missing_or_damaged_file(weights, name):
    path = weights / "toyworld" / name
    replace(path, b"{")
    broken(assets.toyworld(), "toyworld +it does not load")
    path.unlink()
    broken(assets.toyworld(), f"toyworld +{name} missing in")


def test_no_weights_at_all(weights, monkeypatch, tmp_path):
    for module in (assets, arguments, catalogue, loading):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path / "nowhere")
    assert not any(finding.broken for finding in assets.files())
    broken(assets.toyworld(), "config.json, text_encoder.safetensors, .* missing in")
    assert not any(finding.broken for finding in assets.real_weights())


def test_real_weights_without_a_vocabulary(weights):
    """A model of another size under v1's name: what matters here is that its words are missing."""
    folder = weights / "v1-5"
    folder.mkdir()
    for name in ("config.json", "text_encoder.safetensors", "unet.safetensors", "vae.safetensors"):
        (folder / name).symlink_to(TOYWORLD / name)
    broken(assets.real_weights(), "v1-5 is at hand, and there is no vocabulary for it: run `python "
                                  "-m minisd download tokenizer`")
    (folder / "tokenizer").symlink_to(TOYWORLD / "tokenizer")
    whole = list(assets.real_weights())
    assert not any(finding.remedy for finding in whole), whole
    assert "v1-5 is at hand, with its vocabulary" in str(whole[0]) and "v1-5" in str(whole[-1])


def test_weights_that_are_left_aside(weights):
    (weights / "v1-4").mkdir()
    (weights / "v1-4" / "config.json").symlink_to(TOYWORLD / "config.json")
    (weights / "v1-4" / "vae.safetensors").symlink_to(TOYWORLD / "vae.safetensors")
    noted(assets.real_weights(), "real weights +weights/v1-4 .*lacks the")


# The machine

def test_disk(monkeypatch):
    free = SimpleNamespace(free=5 * 10 ** 6)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: free)
    broken(machine.disk(), "disk +0.0 GB free at .*: free some before you paint")
    free.free = 10 ** 9
    noted(machine.disk(), "disk +1.0 GB free at .*: v1 in float32 takes 4.3 GB; free some, or")
    free.free = 10 ** 10
    assert not any(finding.remedy for finding in machine.disk())


@pytest.mark.parametrize(("available", "limit", "phrase"), [
    (20_000_000, "max", ""), (3_000_000, "max", "3.1 GB free: v1's weights alone take 4.3 GB"),
    (20_000_000, str(2 * 10 ** 9), "1.5 GB free: v1's weights alone")])
def test_memory(monkeypatch, tmp_path, available, limit, phrase):
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {available} kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{5 * 10 ** 8}\n")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    if phrase:
        noted(machine.memory(), phrase)
    else:
        assert not any(finding.remedy for finding in machine.memory())


def test_memory_that_nobody_tells(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: {}["Windows has none"], raising=False)
    with pytest.raises(KeyError):
        machine.free_memory()
    monkeypatch.delattr(machine.os, "sysconf", raising=False)
    assert "does not say" in str(*machine.memory())


@pytest.mark.parametrize(("dtype", "phrase"), [
    (torch.bfloat16, "computes in bfloat16"), (torch.float32, "takes float32")])
def test_formats(monkeypatch, dtype, phrase):
    monkeypatch.setattr(loading, "choose_dtype", lambda name, device: dtype)
    assert phrase in str(*machine.formats())


def test_gpu(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    cuda, mps = torch.cuda, torch.backends.mps
    monkeypatch.setattr(mps, "is_available", lambda: False)
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert "none, and none is needed" in str(*machine.gpu())
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    noted(machine.gpu(), "NVIDIA's driver is here, and torch .* sees no GPU: install the CUDA")
    monkeypatch.setattr(mps, "is_available", lambda: True)
    assert "of this Mac" in str(*machine.gpu())
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_device_name", lambda i: "A GPU")
    monkeypatch.setattr(cuda, "mem_get_info", lambda i: (10 ** 10, 10 ** 10))
    true = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device: true(*shape))
    assert str(*machine.gpu()).endswith("A GPU, 10.0 GB free")
    monkeypatch.setattr(torch, "ones", fail)
    broken(machine.gpu(), "torch cannot compute on it .no kernel image is available.: install")


FIRST_AID = ["__init__", "__main__",
             *(f"commands/{name}" for name in ("__init__", "terminal", "arguments", "installation",
                                               "assets", "machine", "doctor"))]


@pytest.mark.parametrize("name", FIRST_AID)
def test_the_doctor_speaks_where_nothing_is_installed(name):
    """Python 3.9 must be able to read these files, and they import nothing but what comes with it.

    What they import inside functions is what they are there to look for.
    """
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(), feature_version=(3, 9))
    imported = [alias.name if isinstance(node, ast.Import) else node.module
                for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names]
    ours = {f"minisd.{name.replace('/', '.').removesuffix('.__init__')}" for name in FIRST_AID}
    for module in imported:
        assert module in ours or module.split(".")[0] in sys.stdlib_module_names, module
    annotated = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)
                 and isinstance(node.op, ast.BitOr)]
    assert not annotated or "__future__" in imported
