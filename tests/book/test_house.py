"""The house: files of the package import from lower floors only, and read like one another."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import minisd

PACKAGE = Path(minisd.__file__).parent
HERE = Path(__file__).parent

# A file may import what stands on a line above its own. Files of one folder stand on the folder's
# floor and may import those before them in the folder's own list. A new file must be added here.
FLOORS = [
    "config",
    "attention resblock diffusion tokenizer images sniff pca",
    "clip vae unet rules layouts files hub preview taps diffusers_config",
    "sigma_rules sources",
    "samplers",
    "checkpoint trace known request",
    "download pipeline",
    "catalogue anatomy",
    "loading",
    "figures/",
    "toyworld/ widgets/ exercises/",
    "commands/",
    "__main__",
]
FOLDERS = {
    "toyworld": "scenes captions recipe curves data judge loop latents views train_tokenizer "
                "train_vae twins train_clip train_unet train_judge train "
                "rates records bench results adherence evaluate",
    "widgets": "pictures examples engine explorer playground tokens search maps vae noise "
               "cells recorded guidance pixel microscope attention carbon scrubber "
               "trajectory editor comparison",
    "commands": "terminal arguments options recording paint replay info models download verify lab "
                "installation assets machine doctor",
    "figures": "style path training pictures networks text latents schedule unet guidance sampling "
               "attention backward recipe features evaluation",
    "exercises": "checking quickstart text attention unet vae diffusion guidance samplers training "
                 "backward evaluation",
}
FACE = len(FLOORS) - 4      # `import minisd` itself: hands on up to here, used by floors above it

FILES = sorted(p.relative_to(PACKAGE).with_suffix("").as_posix() for p in PACKAGE.rglob("*.py"))
ALONE = {"matplotlib": r"figures/.*", "ipywidgets": r"widgets/.*"}
MAY_PRINT = r"commands/terminal|toyworld/(train.*|evaluate)"
WIDTH = 100


def place(name: str) -> tuple[int, str, int]:
    """Where a file of the package stands: its floor, its folder and its position in that."""
    folder, _, file = name.rpartition("/")
    for floor, names in enumerate(FLOORS):
        if (f"{folder}/" if folder else file) in names.split():
            if not folder:
                return floor, "", 0
            order = FOLDERS[folder].split()
            if file in order:
                return floor, folder, order.index(file)
            if file == "__init__":
                return floor, folder, len(order)
    raise AssertionError(f"minisd/{name}.py stands on no floor: add it to a floor in {HERE.name}/"
                         f"test_house.py, and to the table in the design")


def modules(tree: ast.AST) -> list[str]:
    """Everything that a file imports, wherever in it, as dotted names."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write `from minisd.x import y` in full"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def ours(module: str) -> str | None:
    """The file of the package behind a dotted name: "" is its face, None another package's."""
    first, *rest = module.split(".")
    if first != "minisd":
        return None
    while rest:
        path = PACKAGE.joinpath(*rest)
        if path.with_suffix(".py").exists():
            return "/".join(rest)
        if path.is_dir():
            return "/".join([*rest, "__init__"])
        rest.pop()                                  # the last part was a name inside the file
    return ""


def wrong_imports(name: str, source: str) -> list[str]:
    """What a file imports from its own floor or a higher one, or from a package not for it."""
    wrong = []
    for module in modules(ast.parse(source)):
        target = ours(module)
        if target is None:
            package = module.split(".")[0]
            if package in ALONE and not re.fullmatch(ALONE[package], name):
                wrong.append(module)
            continue
        (floor, folder, position), below = place(name), (FACE, "", 0)
        if target:
            below = place(target)
        same_folder = folder and (floor, folder) == below[:2] and below[2] < position
        if not (below[0] < floor or same_folder):
            wrong.append(module)
    return wrong


@pytest.mark.parametrize("name", FILES)
def test_files_import_from_lower_floors_only(name: str) -> None:
    if name == "__init__":
        allowed = [place(ours(m) or "config")[0] <= FACE for m in modules(parse(name))]
        assert all(allowed)
        return
    place(name)
    assert not wrong_imports(name, (PACKAGE / f"{name}.py").read_text())


def test_these_rules_catch_what_they_are_for() -> None:
    for name, source in [("vae", "from minisd.clip import MLP"),               # the same floor
                         ("config", "import minisd.unet"),                     # a higher one
                         ("unet", "from minisd import vae"),
                         ("vae", "def f():\n    import minisd.pipeline"),      # however late
                         ("pipeline", "import minisd"),                        # the face
                         ("pipeline", "from minisd import load"),
                         ("toyworld/scenes", "from minisd.toyworld import captions"),
                         ("toyworld/captions", "from minisd import toyworld"),
                         ("widgets/__init__", "from minisd.toyworld import scenes"),
                         ("pipeline", "import matplotlib.pyplot as plt"),
                         ("figures", "from ipywidgets import Button")]:
        assert wrong_imports(name, source), (name, source)
    for name, source in [("vae", "from minisd.attention import Attention"),
                         ("toyworld/captions", "from minisd.toyworld import scenes"),
                         ("toyworld/scenes", "from minisd import images, pipeline"),
                         ("__main__", "import minisd"),
                         ("figures/style", "import matplotlib.pyplot as plt"),
                         ("vae", "import torch, math")]:
        assert not wrong_imports(name, source), (name, source)
    for name in ("novelty", "toyworld/novelty", "novelty/config"):
        with pytest.raises(AssertionError, match=f"minisd/{name}.py .*: add it to a floor"):
            place(name)


# The style's cheap rules

def parse(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def only_hands_on(node: ast.stmt) -> bool:
    """A docstring, an import, a literal, or the hook that imports a name when it is first used."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING" and all(map(only_hands_on, node.body))
    if isinstance(node, ast.Try):       # says in a sentence which package is missing
        return all(map(only_hands_on, node.body))
    if isinstance(node, ast.Assign | ast.Expr):
        try:
            ast.literal_eval(node.value)
        except ValueError:
            return False
        return True
    hook = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
    return hook or isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("name", [f for f in FILES if f.endswith("__init__")])
def test_faces_only_hand_names_on(name: str) -> None:
    for node in parse(name).body:
        assert only_hands_on(node), (
            f"line {node.lineno}: move this to a file on a floor and import it here")


def test_the_face_keeps_its_promises() -> None:
    for name in minisd.__all__:
        value = getattr(minisd, name)
        home = value.__name__ if inspect.ismodule(value) else value.__module__
        assert place(home.removeprefix("minisd.").replace(".", "/"))[0] <= FACE


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *HERE.glob("*.py")],
                         ids=lambda p: f"{p.parent.name}/{p.name}")
def test_lines_fit_the_page(path: Path) -> None:
    long = [i for i, line in enumerate(path.read_text().splitlines(), 1) if len(line) > WIDTH]
    assert not long, f"lines wider than {WIDTH}: {long}"


@pytest.mark.parametrize("name", FILES)
def test_files_open_with_what_they_are(name: str) -> None:
    tree = parse(name)
    assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize("name", FILES)
def test_nothing_prints_forwards_or_imports_everything(name: str) -> None:
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print" or re.fullmatch(MAY_PRINT, name), (
                f"line {node.lineno} prints: yield, return or warn instead")
        elif isinstance(node, ast.arguments):
            assert node.kwarg is None, f"**{node.kwarg.arg}: name the arguments"
        elif isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}: import *"
