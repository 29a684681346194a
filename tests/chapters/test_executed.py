"""Every chapter of the book was executed to its end, from its present source."""

import json
import math
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from kalavai_helpers import chapters, execute

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = chapters.names(ROOT)
EXECUTED = execute.executed_folder(ROOT, "ci")


def executed(chapter: str) -> nbformat.NotebookNode:
    path = EXECUTED / f"{chapter}.ipynb"
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing: run make book first")
    return nbformat.read(path, as_version=4)


def saved_records(chapter: str) -> dict:
    return json.loads((execute.records_folder(ROOT, "ci") / f"{chapter}.json").read_text())


def shown(cell: nbformat.NotebookNode) -> str:
    """Everything a code cell printed or displayed, as text."""
    return json.dumps(cell.get("outputs", []), ensure_ascii=False)


def test_the_book_has_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_last_cell_ran(chapter):
    cells = chapters.code_cells(executed(chapter))
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_output_is_of_the_present_source(chapter):
    sidecar = json.loads((EXECUTED / f"{chapter}.json").read_text())
    parameters = {name: sidecar[name] for name in ("tier", "seed", "corpora")}
    notebook = chapters.read(ROOT, chapter)
    assert sidecar["key"] == chapters.key(ROOT, chapter, notebook, parameters)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_records_are_saved_and_finite(chapter):
    data = saved_records(chapter)
    assert data["chapter"] == chapter
    assert data["key_record"] in data["records"]
    for name, entry in data["records"].items():
        for field in ("value", "low", "high"):
            value = entry[field]
            assert not isinstance(value, float) or math.isfinite(value), (name, field)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_cell_shows_an_error(chapter):
    for cell in chapters.code_cells(executed(chapter)):
        kinds = [output.output_type for output in cell.outputs]
        assert "error" not in kinds, cell.source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_output_names_a_folder_of_this_machine(chapter):
    private = {f"{ROOT}/", f"{Path.home()}/", f"{tempfile.gettempdir()}/", f"{sys.prefix}/"}
    for cell in chapters.code_cells(executed(chapter)):
        found = [folder for folder in private if folder in shown(cell)]
        assert not found, (cell.source, found)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_cell_came_near_its_timeout(chapter):
    # A widget that stalls waits for exactly the timeout and then goes on as if nothing were.
    for cell in chapters.code_cells(executed(chapter)):
        assert cell.metadata["papermill"]["duration"] < 0.9 * execute.CI_CELL_TIMEOUT_S, cell.source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_controls_are_not_bare_widgets(chapter):
    # interact, interactive and Output stall at random when no person is there.
    for cell in chapters.code_cells(chapters.read(ROOT, chapter)):
        assert not re.search(r"\b(interact|interactive|interact_manual|Output)\(", cell.source)


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("missing", [True, False])
def test_first_code_cell_installs_only_what_is_missing_and_is_hidden(chapter, missing):
    first = chapters.code_cells(chapters.read(ROOT, chapter))[0]
    assert "remove-cell" in first.metadata["tags"]
    # Run the cell as a kernel would, with the installation replaced by a note of what it asks for.
    installed: list[str] = []
    source = re.sub(r"%pip install -q (\".*\")", r"install(\1)", first.source)
    module = ModuleType("kalavai_helpers")

    def install(what: str) -> None:
        installed.append(what)
        sys.modules["kalavai_helpers"] = module

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kalavai_helpers", None if missing else module)
        exec(source, {"install": install})
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
        "Repository"
    ]
    assert installed == ([f"kalavai-helpers @ git+{repository}"] if missing else [])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_first_code_cell_says_what_to_do_where_the_installation_fails(chapter):
    first = chapters.code_cells(chapters.read(ROOT, chapter))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kalavai_helpers", None)
        with pytest.raises(ModuleNotFoundError, match="run %pip install PATH"):
            exec(re.sub(r"^ *%pip .*", "    pass", first.source, flags=re.MULTILINE), {})
