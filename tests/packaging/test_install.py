"""minisd installs like any package: from a wheel, an sdist, a git repository and a checkout.

Each way gets a virtual environment of its own, which sees the packages of this one, so that torch
is not installed anew. Folders have spaces and umlauts in their names.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "minisd", "weights/README.md",
           "weights/toyworld")
MINUTES = 10 * 60
PROMPT = "a red car below a yellow balloon"
PLACES = "import minisd; print(minisd.__file__); print(minisd.models()[0].path)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="this is no checkout"),
    pytest.mark.skipif(find_spec("pip") is None, reason="this Python has no pip")]


def run(*command: str | Path, status: int = 0, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, encoding="utf-8",
                          timeout=MINUTES, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", *arguments)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a name that not every program expects."""
    folder = Path(tempfile.mkdtemp(prefix="minisd für alle "))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def source(place: Path) -> Path:
    """A copy of the repository: building writes into it."""
    copy = place / "der Quelltext"
    for name in SOURCES:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    return copy


def wheel(source: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", source.parent, source)
    return next(source.parent.glob("*.whl"))


def sdist(source: Path) -> Path:
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')",
        cwd=source)
    return next(source.parent.glob("*.tar.gz"))


def git(source: Path) -> str:
    author = ("-c", "user.name=x", "-c", "user.email=x@x.x")
    for command in (("init",), ("add", "--all"), (*author, "commit", "--message=x")):
        run("git", *command, cwd=source)
    return f"git+{source.as_uri()}"


def environment(place: Path, python: str = sys.executable) -> Path:
    """The Python of a new virtual environment that sees this one's packages behind its own."""
    folder = place / "die Umgebung"
    if python == sys.executable:
        venv.create(folder, with_pip=False)
    else:
        run(python, "-m", "venv", "--without-pip", folder)
    places = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", places))
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", "venv", places)) / Path(sys.executable).name


def install(python: Path, *what: str | Path) -> None:
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", "--ignore-installed",
        *what)


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a user who has nothing yet, and no minisd but the installed one."""
    ours = {name: value for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "MINISD_MODEL", "XDG_DATA_HOME")}
    return ours | {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home),
                   "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


WAYS: dict[str, Callable[[Path], Path | str]] = {"wheel": wheel, "sdist": sdist, "git": git}


@pytest.mark.parametrize("way", [*WAYS, "editable"])
def test_it_paints_from_another_folder(way: str, place: Path, source: Path) -> None:
    if way == "git" and not shutil.which("git"):
        pytest.skip("there is no git")
    python, elsewhere = environment(place), place / "anderswo"
    elsewhere.mkdir()
    if way == "editable":
        install(python, "-e", source)
    else:
        install(python, WAYS[way](source))
        shutil.rmtree(source)                           # whatever is needed was installed
    here = {"cwd": elsewhere, "env": surroundings(place)}
    home = source if way == "editable" else python.parents[1]
    for found in run(python, "-c", PLACES, **here).stdout.splitlines():     # minisd, and toyworld
        assert Path(found).resolve().is_relative_to(home.resolve())
    run(python, "-m", "minisd", PROMPT, "--steps", "2", "-o", "car.png", **here)
    with Image.open(elsewhere / "car.png") as picture:
        assert picture.size == (128, 128)
    command = python.with_name("minisd" + python.suffix)
    assert "usage: " in run(command, "--help", **here).stdout
    if way == "wheel":
        said = run(command, "lab", status=1, **here).stderr
        assert "run `python -m minisd lab` in a copy of the repository" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0,
                    reason="only root can become another user")
def test_it_paints_as_a_user_who_may_write_nowhere_but_in_one_folder(
        place: Path, source: Path) -> None:
    """Installed by root, used by another, whose home is not there."""
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    for base in (sys.executable, "/usr/bin/python3"):
        try:
            version = run(base, "-c", "import sys; print(*sys.version_info[:2])", **nobody).stdout
        except (OSError, AssertionError):
            continue
        if version.split() == [*map(str, sys.version_info[:2])]:
            break
    else:
        pytest.skip("no Python of this version that another user may run")
    python = environment(place, base)
    torch = subprocess.run([python, "-c", "import torch"], cwd="/", capture_output=True, **nobody)
    if torch.returncode:
        pytest.skip(f"user nobody may not read torch in {sysconfig.get_path('purelib')}")
    install(python, wheel(source))
    mine = place / "meins"
    mine.mkdir()
    mine.chmod(0o777)
    here = {"env": surroundings(Path("/nonexistent"))} | nobody
    run(python, "-c", "import minisd; assert minisd.models()[0].path", cwd="/", **here)
    run(python, "-m", "minisd", PROMPT, "--steps", "2", "-o", mine / "car.png", cwd="/", **here)
    said = run(python, "-m", "minisd", PROMPT, "--steps", "2", cwd="/", status=2, **here).stderr
    assert "-o" in said and "Traceback" not in said


@pytest.mark.parametrize(("folder", "package"), [("figures", "matplotlib"),
                                                 ("widgets", "ipywidgets")])
def test_what_the_notebooks_need_is_named_where_it_is_missing(folder: str, package: str) -> None:
    script = (f"import sys; sys.modules[{package!r}] = None\n"
              f"import minisd.pipeline, minisd.{folder}")
    said = run(sys.executable, "-c", script, status=1, cwd=ROOT).stderr.splitlines()[-1]
    assert f"{package}, which is not installed: run `python -m pip install matplotlib" in said
