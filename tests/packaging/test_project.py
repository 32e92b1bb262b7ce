"""What the files at the top of the repository say of one another, and of the package, is true."""

import re
import tomllib
from pathlib import Path

import pytest

import minisd

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.1                 # of the line counts in its table
WHEREVER = re.compile(r"https?://|mailto:|#")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights/README.md",
             "weights/toyworld/README.md", "notebooks/README.md")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def wanted(name: str) -> set[str]:
    """What a requirements file asks for."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line[0] != "#"}


def test_requirements_are_those_of_the_package() -> None:
    """They name no folder, so they can be installed from anywhere."""
    needed = {*PROJECT["project"]["dependencies"], *EXTRAS["notebooks"]}
    assert wanted("requirements.txt") == needed
    assert EXTRAS["dev"][0] == "minisd[notebooks]"
    assert wanted("requirements-dev.txt") == {"-r requirements.txt", *EXTRAS["dev"][1:]}


def test_every_folder_of_the_package_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "minisd").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert {*PROJECT["tool"]["setuptools"]["packages"]} == names | {"minisd.shipped"}


def test_there_is_one_version() -> None:
    for name, line in (("CITATION.cff", "version: {}\n"), ("CHANGELOG.md", "## {},")):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"\n{line.format(minisd.__version__)}" in text, name


def test_the_readme_says_what_each_file_of_the_book_costs_to_read() -> None:
    said = {name: int(lines.replace(",", "")) for name, lines in
            re.findall(r"^\| \d+ \| \[`(\w+\.py)`\].*\| ([\d,]+) \|$", README, re.MULTILINE)}
    book = {path.name: len(path.read_text(encoding="utf-8").splitlines())
            for path in (ROOT / "minisd").glob("[a-z]*.py")}
    assert said.keys() == book.keys()
    wrong = {name: count for name, count in book.items()
             if abs(said[name] - count) > TOLERANCE * count}
    assert not wrong, f"write these line counts into the README: {wrong}"


def test_the_readme_lists_the_notebooks_in_their_order() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(notebooks/\1\.ipynb\)", README, re.MULTILINE)
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not WHEREVER.match(link):
            assert (ROOT / name).parent.joinpath(link.split("#")[0]).exists(), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for module in re.findall(r"-m (minisd[\w.]*)", text):
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    for script in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_the_readme_replays_only_what_it_painted() -> None:
    replayed = re.findall(r"minisd replay (\S+)", README)
    assert replayed and set(replayed) <= set(re.findall(r"-o (\S+\.png)", README))
