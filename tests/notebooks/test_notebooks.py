"""The notebooks: what is stored is the output of a clean run, and it runs on the shipped model.

To run notebooks and store them with their outputs:

    python tests/notebooks/test_notebooks.py                      # all of them
    python tests/notebooks/test_notebooks.py 00_quickstart solutions/03_tokenization

The ordinary tests look at what is stored (`test_budget.py` runs the cells of some); the slow ones
run all, and those that load the model at hand on a model of v1's shape too.
"""

import base64
import html
import math
import os
import re
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter, SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from traitlets.config.loader import PyFileConfigLoader

from minisd.checkpoints.places import SHIPPED as TOYWORLD

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted(f"solutions/{path.stem}" for path in (FOLDER / "solutions").glob("*.ipynb"))
CONFIG = "slides_config.py"
MODEL = os.environ.get("MINISD_MODEL", "toyworld")
SHIPPED = (TOYWORLD / "unet.safetensors").is_file()

SLIDE_LINES, SLIDE_LETTERS, SLIDE_LINE = 26, 100, 25     # on a slide of 1300 x 732; pixels of one
LONGEST_CODE = 24               # lines that can be read from afar
LONGEST_WITH_PICTURE = 10       # above a picture; longer code is left out, see the config there
TEST_CELL = {"schema_version": 3, "cell_type": "code", "points": 1, "grade": True, "locked": True,
             "solution": False, "task": False}

MEGABYTE = 1_000_000
CELL_SECONDS = 1500            # for one cell on a busy machine
SECONDS, LONG_SECONDS = 60, {"15_training": 180}    # for one notebook on two idle cores
BUSY = float(os.environ.get("MINISD_BUSY", 6))      # how much longer a shared machine may take
VIEW = "application/vnd.jupyter.widget-view+json"
ANNOUNCED = re.compile(r"This cell computes for about .*\n")     # by observe/budget.py
HOME_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|usr|opt|mnt)/|\b[A-Z]:\\")
# What belongs to the page; kernels and editors add more, which differs from run to run.
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(notebook: NotebookNode, model: str = MODEL) -> float:
    """Run all cells in a new kernel, as Restart and Run All does; the seconds it took.

    Raises where a cell does.
    """
    began = time.monotonic()
    before = os.environ.get("MINISD_MODEL")
    os.environ["MINISD_MODEL"] = model
    try:
        NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3",
                       record_timing=False, store_widget_state=False, coalesce_streams=True,
                       resources={"metadata": {"path": str(FOLDER)}}).execute()
    finally:
        if before is None:
            del os.environ["MINISD_MODEL"]
        else:
            os.environ["MINISD_MODEL"] = before
    return time.monotonic() - began


def store(name: str) -> None:
    """Run a notebook and write it back with its outputs, whole or not at all."""
    notebook = read(name)
    execute(notebook)
    notebook.metadata = METADATA            # above all, without `widgets`
    for cell, metadata in zip(notebook.cells, metadata_of(notebook), strict=True):
        cell.metadata = metadata
    path = FOLDER / f"{name}.ipynb"
    part = path.with_name(f".{path.stem}.part")
    nbformat.write(notebook, part)
    part.replace(path)


def metadata_of(notebook: NotebookNode) -> list[dict]:
    """What a cell's metadata say, of the cell's own text: its place on slides, and its points.

    `# ` and `## ` begin a slide; where more would not fit on it the next cell begins another below.
    Code that is too long to be read from afar is skipped, unless it makes a picture. The check of
    an exercise is an nbgrader test. What somebody chose by hand (slideshow) stays.
    """
    found, lines = [], 0
    for cell in notebook.cells:
        height, code = lines_on_a_slide(cell), cell.cell_type == "code"
        pictures = code and any("image/png" in output.get("data", {}) for output in cell.outputs)
        if not code and re.match("##? ", cell.source):
            kind, lines = "slide", height
        elif code and cell.source.count("\n") >= LONGEST_CODE and not pictures:
            kind = "skip"
        elif lines + height > SLIDE_LINES:
            kind, lines = "subslide", height
        else:
            kind, lines = "-", lines + height
        metadata = {"slideshow": cell.metadata.get("slideshow", {"slide_type": kind})}
        if check := re.fullmatch(r"(?:exercises\.)?(check_\w+)\(\w+\)", cell.source):
            metadata["nbgrader"] = {**TEST_CELL, "grade_id": check[1]}
        found.append(metadata)
    return found


def lines_on_a_slide(cell: NotebookNode) -> float:
    """About how many lines of code are as high as a cell and its outputs."""
    if cell.cell_type == "markdown":
        return sum(math.ceil(len(line) / SLIDE_LETTERS) + (2 if line[0] == "#" else 0.8)
                   for line in cell.source.splitlines() if line.strip())
    pictures = any("image/png" in output.get("data", {}) for output in cell.outputs)
    lines = cell.source.count("\n") + 1
    high = 1.0 if pictures and lines > LONGEST_WITH_PICTURE else 1.0 + lines
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            head = base64.b64decode(output.data["image/png"][:64])      # width and height: PNG's
            wide, tall = struct.unpack(">II", head[16:24])              # bytes 16 to 24
            shown = output.metadata.get("image/png", {}).get("width", wide)
            high += tall * shown / wide / SLIDE_LINE
        else:
            high += sum(1 + len(line) // SLIDE_LETTERS for line in words(output).splitlines())
    return high


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[tuple[str, ...]]:
    """What its outputs are, without what they say: times and seeds of the moment may differ.

    A slow or busy machine says beforehand how long a cell will take, which does not count.
    """
    return [(output.output_type, *sorted(output.get("data", {}))) for output in cell.outputs
            if not ANNOUNCED.fullmatch(output.get("text", ""))]


def words(output: NotebookNode) -> str:
    """An output's text, without pictures."""
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), data.get("text/plain", ""),
                      data.get("text/html", "")])


def emptied(name: str) -> NotebookNode:
    """The notebook without its outputs."""
    notebook = read(name)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


@pytest.mark.skipif(MODEL == "toyworld" and not SHIPPED, reason="weights/toyworld has no "
                    "unet.safetensors: train it, or name a model in MINISD_MODEL")
@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS + SOLUTIONS)
def test_it_runs_from_top_to_bottom_and_gives_the_stored_outputs(name: str) -> None:
    stored, fresh = read(name), emptied(name)
    seconds = execute(fresh)
    for old, new in zip(code_cells(stored), code_cells(fresh), strict=True):
        assert kinds(old) == kinds(new), new.source
    inspect_outputs(fresh)
    assert seconds < BUSY * LONG_SECONDS.get(name, SECONDS), f"{seconds:.0f} s are too many"


@pytest.fixture(scope="session")
def v1_shaped(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "v1"
    subprocess.run([sys.executable, FOLDER.parent / "tests" / "v1_shaped.py", folder], check=True)
    return folder


def loads_any_model(name: str) -> bool:
    """Whether a notebook opens the model at hand, and not toyworld or none."""
    return any(re.search(r'minisd\.load\((?!"toyworld")', cell.source)
               for cell in code_cells(read(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", filter(loads_any_model, NOTEBOOKS + SOLUTIONS))
def test_it_runs_on_a_model_of_other_sizes_and_words(name: str, v1_shaped: Path) -> None:
    fresh = emptied(name)
    execute(fresh, str(v1_shaped))
    inspect_outputs(fresh)


@pytest.mark.parametrize("name", NOTEBOOKS + SOLUTIONS)
def test_it_is_stored_as_a_clean_run_left_it(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run and store it: see this file's head"
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MEGABYTE
    assert notebook.metadata == METADATA
    assert [cell.metadata for cell in notebook.cells] == metadata_of(notebook)
    inspect_outputs(notebook)


def inspect_outputs(notebook: NotebookNode) -> None:
    """No errors, warnings, progress bars or paths of this machine; each widget has a picture."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", output
            assert output.get("name") != "stderr", output.text
            assert "\r" not in words(output)
            assert not HOME_PATH.search(words(output)), words(output)
            assert " object at 0x" not in words(output)
            if VIEW in output.get("data", {}):
                assert "image/png" in output.data, f"no still picture beside {cell.source}"
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), f"no alt: {cell.source}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_as_a_web_page_it_shows_every_picture(name: str) -> None:
    notebook = read(name)
    pictures = sum("image/png" in output.get("data", {})
                   for cell in code_cells(notebook) for output in cell.outputs)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count("<img") == pictures and VIEW not in page


@pytest.mark.parametrize("name", NOTEBOOKS[:1])
def test_as_slides_it_has_sections_whole_lines_and_described_pictures(name: str) -> None:
    """With the folder's configuration."""
    config, notebook = PyFileConfigLoader(CONFIG, str(FOLDER)).load_config(), read(name)
    page, _ = SlidesExporter(config=config).from_notebook_node(read(name))
    kinds = Counter(cell.metadata.slideshow.slide_type for cell in notebook.cells)
    assert page.count("<section") == 2 * kinds["slide"] + kinds["subslide"] >= 20
    described = re.findall('<img alt="([^"]+)"', page)
    assert len(described) == page.count("<img") >= 5 and "No description" not in described
    for cell in code_cells(notebook):
        shown = cell.source.splitlines()[0] in html.unescape(re.sub("<[^>]+>", "", page))
        long = cell.source.count("\n") >= LONGEST_WITH_PICTURE and any(
            "image/png" in output.get("data", {}) for output in cell.outputs)
        assert shown != (long or cell.metadata.slideshow.slide_type == "skip"), cell.source


def test_slides_begin_at_headings_and_have_no_more_than_fits() -> None:
    def cell(source: str, **about: object) -> NotebookNode:
        kind = new_code_cell if about.pop("code", False) else new_markdown_cell
        return kind(source, **about)

    cells = [cell("# A"), cell("text"), cell("x = 1\n" * 12 + "x", code=True),
             cell("x = 1\n" * 12 + "x", code=True), cell("# minisd/x.py\n" * 24 + "x", code=True),
             cell("## B"), cell("check_a(my_a)", code=True),
             cell("c", metadata={"slideshow": {"slide_type": "notes"}})]
    found = metadata_of(nbformat.v4.new_notebook(cells=cells))
    assert [each["slideshow"]["slide_type"] for each in found] == [
        "slide", "-", "-", "subslide", "skip", "slide", "-", "notes"]
    assert [each["nbgrader"]["grade_id"] for each in found if "nbgrader" in each] == ["check_a"]


@pytest.mark.parametrize("name", NOTEBOOKS + SOLUTIONS)
def test_its_pages_have_one_title_and_no_dead_links(name: str) -> None:
    notebook = read(name)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(re.findall("^# ", prose, re.MULTILINE)) == 1
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
        assert (FOLDER / name).parent.joinpath(target).exists(), f"dead link to {target}"
    assert not any(HOME_PATH.search(cell.source) for cell in code_cells(notebook))


def test_each_question_of_the_readme_leads_to_a_heading() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    questions = re.findall(r"^(\d+)\. .+\? \[.+\]\((\w+)\.ipynb#(\S+)\)$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in questions] == list(range(1, 31))
    for _, name, anchor in questions:
        headings = [line.lstrip("# ").replace(" ", "-") for cell in read(name).cells
                    if cell.cell_type == "markdown" for line in cell.source.splitlines()
                    if re.match("##+ ", line)]
        assert anchor in headings, f"{name} has no heading for #{anchor}"


def test_paths_of_a_machine_are_recognised() -> None:
    for text in ("/home/you/x", "File /root/a.py", r"C:\Users\you", "'/tmp/x'"):
        assert HOME_PATH.search(text), text
    for text in ("and/or", "../minisd/pipeline.py", "https://example.org/home/", "1/2"):
        assert not HOME_PATH.search(text), text


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NOTEBOOKS + SOLUTIONS:
        store(chosen.removesuffix(".ipynb").removeprefix("notebooks/"))
