"""What the learner built in the notebooks, put together as modules of their own.

    mine = assemble()
    unet = mine.unet.UNet(sd.config.unet)           # the learner's classes all the way down

A cell that begins with a comment such as `# minisd/attention.py` is the learner's version of a part
of that file. All of them, in the order of the notebooks as they are saved on disk, are run with the
imports of the package's file; names of files that were built by hand come from there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat

import minisd

HOME = "# minisd/"              # how a cell begins that belongs to a file of the book
BOOK = Path(minisd.__file__).parent
ORDER = ("attention", "resblock", "clip", "vae", "unet", "diffusion", "samplers", "pipeline")


def building_cells(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(file, source, notebook) of every cell that builds a part of the book, in order."""
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            first = cell.source.partition("\n")[0]
            if cell.cell_type == "code" and first.startswith(HOME):
                yield first.removeprefix(HOME).strip().removesuffix(".py"), cell.source, path.stem


def assemble(folder: str | Path = ".") -> SimpleNamespace:
    """One module for each file of the book that notebooks in the folder build.

    Raises ValueError naming the notebook and the cell's file where a cell fails.
    """
    cells = list(building_cells(Path(folder)))
    if not cells:
        raise ValueError(f"no notebook in {Path(folder).resolve()} has a cell that begins with "
                         f"{HOME}...: run this beside the notebooks")
    built: dict[str, ModuleType] = {}
    for file in ORDER:
        module = built[file] = ModuleType(f"mine.{file}")
        run_imports(file, module, built)
        for home, source, notebook in cells:
            if home == file:
                try:
                    exec(compile(source, f"{notebook}: {HOME}{file}.py", "exec"), vars(module))
                except Exception as error:
                    raise ValueError(f"a cell of {notebook} that builds {file}.py fails "
                                     f"({type(error).__name__}: {error}): run that notebook, and "
                                     f"save it") from error
    return SimpleNamespace(**built)


def run_imports(file: str, module: ModuleType, built: dict[str, ModuleType]) -> None:
    """The imports of the package's file, with what was built by hand in place of the package's."""
    for node in ast.parse((BOOK / f"{file}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), file, "exec"), vars(module))
        home = built.get((getattr(node, "module", None) or "").removeprefix("minisd."))
        for alias in node.names if home and isinstance(node, ast.ImportFrom) else ():
            vars(module)[alias.name] = getattr(home, alias.name, vars(module)[alias.name])
