"""Every chapter has a cleared `.ipynb` beside it that says the same."""

import json
import tomllib
from pathlib import Path

import pytest

from kalavai_helpers import artifacts, chapters, notebooks

ROOT = artifacts.PACKAGE.parent
CHAPTER = """\
---
kernelspec:
  display_name: Some kernel of mine
  language: python
  name: mine
---

# A chapter, ελληνικά

```{code-cell} ipython3
:tags: [parameters]

seed = 42
```
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_a.md").write_text(CHAPTER, encoding="utf-8")
    return tmp_path


def test_no_drift_in_the_repository():
    stale = [str(path.relative_to(ROOT)) for path in notebooks.drift(ROOT)]
    assert not stale, "run make notebooks"


def test_pairing_is_cleared_deterministic_and_complete(project):
    (path,) = notebooks.pair(project)
    first = path.read_bytes()
    assert notebooks.pair(project) == []
    assert notebooks.render(project, "01_a") == first
    data = json.loads(first)
    assert data["metadata"]["kernelspec"]["name"] == "python3"
    assert "jupytext" not in data["metadata"]
    code = [cell for cell in data["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert "ελληνικά" in first.decode()


def test_drift_sees_edits_and_orphans(project):
    notebooks.pair(project)
    source = project / "notebooks" / "01_a.md"
    source.write_text(source.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    assert [path.name for path in notebooks.drift(project)] == ["01_a.ipynb"]
    orphan = project / "notebooks" / "09_gone.ipynb"
    orphan.write_text("{}")
    assert orphan in notebooks.drift(project)
    notebooks.pair(project)
    assert not orphan.exists()
    assert notebooks.drift(project) == []


def test_the_address_of_the_repository_has_one_setting(project):
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    named = [ROOT / "_config.yml", ROOT / "CITATION.cff", *ROOT.glob("notebooks/*.md")]
    for path in named:
        assert ours["project"]["urls"]["Repository"] in path.read_text("utf-8"), path.name

    elsewhere = "https://example.org/a/book"
    (project / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{elsewhere}"\n')
    for path in named[:3]:
        (project / path.relative_to(ROOT)).write_text(path.read_text("utf-8"), "utf-8")
    assert len(notebooks.drift(project)) >= 3
    notebooks.pair(project)
    for path in named[:3]:
        assert elsewhere in (project / path.relative_to(ROOT)).read_text("utf-8"), path.name
    assert notebooks.drift(project) == []


def test_reading_a_chapter_leaves_its_code_alone():
    for name in chapters.names(ROOT):
        for cell in chapters.code_cells(chapters.read(ROOT, name)):
            assert cell.source in chapters.source_path(ROOT, name).read_text(encoding="utf-8")
