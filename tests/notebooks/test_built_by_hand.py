"""Most of the book is built in notebook cells, and those cells hold the book's own code.

    python tests/notebooks/test_built_by_hand.py        prints what is built, and what is not

A definition counts as built where a cell that begins with `# minisd/<file>.py` holds the same
syntax tree, docstrings apart. A method may stand in its class or, for long classes, by itself.
"""

import ast
from pathlib import Path

import pytest

from minisd.exercises.assemble import BOOK, building_cells

FOLDER = Path(__file__).parents[2] / "notebooks"
FILES = ("attention", "resblock", "clip", "vae", "unet", "diffusion", "samplers", "pipeline")
RUN = ("__init__", "encode_prompt", "decode", "text_to_image", "steps", "_start", "_predictor")
LEAST = 0.9

Parts = dict[str, ast.stmt]


def parts(source: str) -> Parts:
    """The definitions of a file by name: functions, methods as Class.method, constants."""
    found: Parts = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            inside = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            found |= {f"{node.name}.{n.name}": n for n in inside}
            node.body = [n for n in node.body if n not in inside] or [ast.Pass()]
            found[node.name] = node
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):        # not `UNet.forward = forward`
                found[target.id] = node
    return found


def bare(node: ast.stmt) -> str:
    """A definition as text, without docstrings and comments."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(
                body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            inner.body = body[1:] or [ast.Pass()]
    return ast.unparse(node)


def built(file: str) -> dict[str, set[str]]:
    """All versions of each definition that notebooks have."""
    versions: dict[str, set[str]] = {}
    for home, source, _ in building_cells(FOLDER):
        if home == file:
            for name, node in parts(source).items():
                versions.setdefault(name, set()).add(bare(node))
    return versions


def coverage(file: str) -> tuple[int, int, list[str]]:
    """Lines of code that are built, all lines, and the names of what is not built or differs."""
    mine, own = built(file), parts((BOOK / f"{file}.py").read_text(encoding="utf-8"))
    done, total, missing = 0, 0, []
    for name, node in own.items():
        text, method = bare(node), name.rpartition(".")[2]
        if file == "pipeline" and method not in RUN:
            continue
        lines = text.count("\n") + 1
        total += lines
        if text in mine.get(name, set()) | mine.get(method, set()):
            done += lines
        else:
            missing.append(f"{name} ({'differs' if name in mine else 'not built'})")
    return done, total, missing


@pytest.mark.parametrize("file", FILES)
def test_nine_tenths_of_the_book_are_built_by_hand(file: str) -> None:
    done, total, missing = coverage(file)
    print(f"{file}.py: {done} of {total} lines of code are built in notebooks")
    assert done >= LEAST * total, f"{file}.py: {done} of {total}; not built: {', '.join(missing)}"


@pytest.mark.parametrize("file", FILES)
def test_what_is_built_is_the_books_own_code(file: str) -> None:
    """Also the second version of a part, which a later cell may hold."""
    own = {name.rpartition(".")[2]: set() for name in built(file)}
    for name, node in parts((BOOK / f"{file}.py").read_text(encoding="utf-8")).items():
        own.setdefault(name.rpartition(".")[2], set()).add(bare(node))
    differing = [name for name, versions in built(file).items()
                 if not versions <= own[name.rpartition(".")[2]]]
    assert not differing, f"{file}.py: cells differ from the book in {', '.join(differing)}"


if __name__ == "__main__":
    for chosen in FILES:
        lines, whole, left = coverage(chosen)
        print(f"{chosen}.py: {lines} of {whole} ({lines / whole:.0%}) {'; '.join(left)}")
