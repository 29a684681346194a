"""What a chapter's key covers: its own code, the helpers it reaches, their data, its text."""

from pathlib import Path

import pytest

from kalavai_helpers import artifacts, chapters

VALUES = {"tier": "ci", "seed": 42, "corpora": "builtin"}
PARAMETERS = 'tier = "ci"\nseed = 42\ncorpora = "builtin"'
MODULES = {
    "__init__": "",
    "direct": "from kalavai_helpers import shared",
    "shared": "X = 1",
    "lazy": "def f():\n    from . import inner\n    return inner.Y",
    "inner": "Y = 2",
    "worker": "ARGUMENTS = ['-m', 'kalavai_helpers.spawned']",
    "spawned": "Z = 3",
    "published": "from kalavai_helpers.shared import X",
    "recorded_reader": "def f(root):\n    return root / 'data' / 'recorded' / 'a.json'",
    "unused": "import kalavai_helpers.shared",
}
CODE = {
    "01_direct": "import numpy\nfrom kalavai_helpers import direct",
    "02_lazy": "from kalavai_helpers.lazy import f\nfrom kalavai_helpers import worker",
    "03_data": "%matplotlib inline\nfrom kalavai_helpers import published, recorded_reader",
}
REACHES = {
    "01_direct": {"__init__", "direct", "shared"},
    "02_lazy": {"__init__", "lazy", "inner", "worker", "spawned"},
    "03_data": {"__init__", "published", "shared", "recorded_reader"},
}


def write_chapter(root: Path, name: str, code: str, parameters: str | None = PARAMETERS) -> None:
    tagged = f"```{{code-cell}} ipython3\n:tags: [parameters]\n\n{parameters}\n```\n"
    text = f"# {name}\n\n{tagged if parameters else ''}\n```{{code-cell}} ipython3\n{code}\n```\n"
    (root / "notebooks" / f"{name}.md").write_text(
        "---\nkernelspec:\n  name: python3\n  display_name: Python 3\n---\n\n" + text
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "kalavai_helpers").mkdir()
    for name, source in MODULES.items():
        (tmp_path / "kalavai_helpers" / f"{name}.py").write_text(source + "\n")
    for name, code in CODE.items():
        write_chapter(tmp_path, name, code)
    for folder in ("published", "recorded", "expected"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "a.json").write_text("{}")
    return tmp_path


def keys(root: Path, values: dict = VALUES) -> dict[str, str]:
    return {
        name: chapters.key(root, name, chapters.read(root, name), values)
        for name in chapters.names(root)
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_keys_are_reproducible(project):
    assert keys(project) == keys(project)
    assert len(set(keys(project).values())) == len(CODE)


@pytest.mark.parametrize("module", MODULES)
def test_changed_helper_reaches_exactly_its_chapters(project, module):
    before = keys(project)
    path = project / "kalavai_helpers" / f"{module}.py"
    path.write_text(path.read_text() + "NEW = 1\n")
    expected = {name for name, modules in REACHES.items() if module in modules}
    assert changed(before, keys(project)) == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("published", {"03_data"}), ("recorded", {"03_data"}), ("expected", set())],
)
def test_changed_data_reaches_the_chapters_that_read_it(project, folder, expected):
    before = keys(project)
    (project / "data" / folder / "a.json").write_text('{"a": 1}')
    assert changed(before, keys(project)) == expected


@pytest.mark.parametrize(
    ("entry", "module"),
    [("licences.json", "corpora"), ("published/values.csv", "published"), ("claims.csv", "claims")],
)
def test_the_real_helpers_data_counts(tmp_path, entry, module):
    (tmp_path / "notebooks").mkdir()
    write_chapter(tmp_path, "01_reads", f"from kalavai_helpers import {module}")
    write_chapter(tmp_path, "02_does_not", "from kalavai_helpers import tiers")
    path = tmp_path / "data" / entry
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    before = keys(tmp_path)
    path.write_text('{"open": []}')
    assert changed(before, keys(tmp_path)) == {"01_reads"}


def test_bare_import_of_the_package_counts_as_every_module(project):
    write_chapter(project, "04_all", "import kalavai_helpers as kh\nkh.unused")
    found = chapters.dependencies(project, ["import kalavai_helpers as kh"])
    assert set(found) == set(MODULES)


def test_another_recorded_ledger_is_another_input(project, tmp_path, monkeypatch):
    before = keys(project)
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    named = keys(project)
    assert changed(before, named) == set(CODE)
    (tmp_path / "kept" / "ledger.json").write_text("{}")
    assert changed(named, keys(project)) == set(CODE)


def test_parameters_and_sources_count(project):
    before = keys(project)
    assert changed(before, keys(project, VALUES | {"seed": 137})) == set(CODE)
    write_chapter(project, "02_lazy", CODE["02_lazy"] + "\n1 + 1")
    assert changed(before, keys(project)) == {"02_lazy"}


def test_chapter_that_reads_an_earlier_one_changes_with_it(project):
    write_chapter(project, "03_data", 'load("01_direct")')
    before = keys(project)
    helper = project / "kalavai_helpers" / "direct.py"
    helper.write_text(helper.read_text() + "NEW = 1\n")
    assert changed(before, keys(project)) == {"01_direct", "03_data"}


def test_changed_text_of_a_folder_source_counts(project):
    folder = project / "texts"
    folder.mkdir()
    (folder / "code.jsonl").write_text('{"text": "a"}\n')
    values = VALUES | {"corpora": f"folder:{folder}"}
    before = keys(project, values)
    (folder / "code.jsonl").write_text('{"text": "a longer text"}\n')
    assert changed(before, keys(project, values)) == set(CODE)


def test_library_version_counts(project, monkeypatch):
    before = keys(project)
    real = artifacts.versions
    monkeypatch.setattr(artifacts, "versions", lambda *names: real(*names) | {"torch": "0.0"})
    assert changed(before, keys(project)) == set(CODE)


def test_chapter_without_parameters_cell_is_named(project):
    write_chapter(project, "05_bare", "1 + 1", parameters=None)
    with pytest.raises(chapters.ChapterError, match="05_bare has no code cell tagged 'parameters'"):
        chapters.defaults(chapters.read(project, "05_bare"), "05_bare")


def test_parameter_values_must_be_literals(project):
    write_chapter(project, "05_computed", "1", parameters="seed = int('42')")
    with pytest.raises(chapters.ChapterError, match=r"05_computed.*'seed'.*literal"):
        chapters.defaults(chapters.read(project, "05_computed"), "05_computed")


def test_choose_keeps_book_order_and_lists_valid_names(project):
    assert chapters.choose(project, ["03_data", "01_direct"]) == ["01_direct", "03_data"]
    assert chapters.choose(project) == list(CODE)
    with pytest.raises(ValueError, match=r"'9'.*01_direct, 02_lazy, 03_data"):
        chapters.choose(project, ["9"])


def test_cell_ids_are_stable_and_unique(project):
    first, second = (chapters.read(project, "01_direct") for _ in range(2))
    ids = [cell["id"] for cell in first.cells]
    assert ids == [cell["id"] for cell in second.cells]
    assert len(set(ids)) == len(ids)


REAL = artifacts.PACKAGE.parent


@pytest.mark.parametrize("tool", ["execute", "book", "check", "notebooks", "__main__"])
def test_tools_around_the_book_never_cause_a_run(tool):
    for name in chapters.names(REAL):
        cells = [cell.source for cell in chapters.code_cells(chapters.read(REAL, name))]
        assert tool not in chapters.dependencies(REAL, cells), name


def test_every_real_module_is_read_with_its_imports():
    found = chapters.dependencies(REAL, ["from kalavai_helpers import specialists"])
    assert {"__init__", "specialists", "artifacts", "models", "training", "progress"} <= set(found)
    assert not {"execute", "book", "figures"} & set(found)
