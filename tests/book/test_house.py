"""The house: a book that imports no annex, its size and the whole package's, no import circles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import minisd

PACKAGE = Path(minisd.__file__).parent
TESTS = Path(__file__).parents[1]
BOOK = sorted(PACKAGE.glob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
ANNEXES = sorted(path.name for path in PACKAGE.iterdir() if list(path.glob("*.py")))
HOMES = {"matplotlib": ("figures", "widgets"), "ipywidgets": ("widgets",)}


def imports(node: ast.AST) -> Iterator[str]:
    """What a file imports, wherever in it, as dotted names; not what only type checkers read."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: write `from minisd.x import y` in full"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def executed(name: str) -> Iterator[Path]:
    """The files of the package that importing a dotted name executes."""
    first, *rest = name.split(".")
    for end in range(len(rest) + 1 if first == "minisd" else 0):
        folder = PACKAGE.joinpath(*rest[:end])
        yield from (file for file in (folder / "__init__.py", folder.with_suffix(".py"))
                    if file.exists())


def lines(files: list[Path]) -> int:
    return sum(len(file.read_text().splitlines()) for file in files)


def test_the_book_imports_no_annex() -> None:
    found = {(file.name, name) for file in BOOK for name in imports(TREES[file])
             if name.startswith("minisd.") and name.split(".")[1] in ANNEXES}
    assert not found


WITHOUT_ANNEXES = f"""
import sys
import torch

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("minisd.") and name.split(".")[1] in {ANNEXES!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(TESTS)!r})
from dataclasses import replace
from conftest import TINY
from tokenizers import pre_tokenizers
from minisd import StableDiffusion, Tokenizer
from minisd.tokenizer import END, START

letters = pre_tokenizers.ByteLevel.alphabet()
tokens = [*letters, *(letter + "</w>" for letter in letters), START, END]
config = replace(TINY, text=replace(TINY.text, vocab_size=len(tokens)))
words = Tokenizer(dict(zip(tokens, range(514))), [], max_length=13)
sd = StableDiffusion(config, words)
picture, mask = torch.rand(1, 3, 16, 24) * 2 - 1, torch.ones(1, 1, 16, 24) > 0
painted = [*sd.text_to_image("a red car", steps=5), *sd.text_to_image(["red", "blue"], steps=5),
           *sd.image_to_image("a red car", picture, steps=5),
           *sd.inpaint("a red car", picture, mask, steps=5)]
assert [p.size for p in painted] == [(48, 48)] * 3 + [(24, 16)] * 2
"""


def test_without_annexes_the_book_still_paints() -> None:
    assert len(ANNEXES) > 5
    found = subprocess.run([sys.executable, "-c", WITHOUT_ANNEXES], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_book_and_the_package_stay_small() -> None:
    assert lines(BOOK) <= 1500
    # The aim is 12,500. Recordings, stills and the widgets of the course have taken it farther off.
    assert lines([file for file in TREES if PACKAGE / "beyond" not in file.parents]) <= 14_100


def test_there_is_no_import_circle() -> None:
    """A file of a folder may import others of it: the folder's own __init__ does not count."""
    graph = {file: {other for name in imports(TREES[file]) for other in executed(name)
                    if other not in (file, PACKAGE / "__init__.py", file.parent / "__init__.py")}
             for file in TREES if file != PACKAGE / "__init__.py"}
    TopologicalSorter(graph).prepare()                  # raises CycleError, which names the files


@pytest.mark.parametrize("package", HOMES)
def test_what_only_notebooks_need_stays_at_home(package: str) -> None:
    found = {file.relative_to(PACKAGE).parts[0] for file in TREES for name in imports(TREES[file])
             if name.split(".")[0] == package}
    assert found <= set(HOMES[package])


def test_painting_loading_and_the_command_line_do_without_them() -> None:
    names = [".".join(("minisd", *file.relative_to(PACKAGE).with_suffix("").parts))
             for file in TREES if file.relative_to(PACKAGE).parts[0] not in (
                 "figures", "widgets", "exercises", "toyworld", "beyond", "__main__.py")]
    code = (f"import sys; [__import__(name) for name in {names!r}]; "
            f"print(*{set(HOMES)!r} & {{name.split('.')[0] for name in sys.modules}})")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("\n", 0), found.stderr
