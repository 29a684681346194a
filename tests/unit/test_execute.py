"""Execution is content-addressed: what is unchanged is not run, what is changed never stale."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from kalavai_helpers import execute

HEADER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
CHAPTER = (
    HEADER
    + """
# A chapter

```{code-cell} ipython3
:tags: [parameters]

tier = "ci"
seed = 42
corpora = "builtin"
```

```{code-cell} ipython3
import os, sys
from kalavai_helpers import progress, records

records.start("01_small", tier=tier, seed=seed, corpora=corpora)
progress.report("counting", 1, 2)
[name in os.environ for name in ("KALAVAI_BOOK", "KALAVAI_PROGRESS", "HF_HUB_OFFLINE")]
```

```{code-cell} ipython3
records.record("doubled", 2 * seed, "units")
records.record("prefix_matches", str(sys.prefix == os.environ["EXPECTED_PREFIX"]))
records.save()
```
"""
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("EXPECTED_PREFIX", sys.prefix)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_small.md").write_text(CHAPTER)
    return tmp_path


def run(project: Path, **options) -> execute.Result:
    (result,) = execute.execute(root=project, **options)
    return result


def test_life_of_a_chapter(project, capsys):
    first = run(project)
    assert first.status == "executed"
    assert first.key_record["name"] == "doubled"
    assert first.key_record["value"] == 84
    assert first.peak_memory_mb > 10

    folder = project / "_build" / "executed" / "ci"
    executed = nbformat.read(folder / "01_small.ipynb", as_version=4)
    assert [cell.execution_count for cell in executed.cells[1:]] == [1, 2, 3]
    assert "papermill" not in executed.metadata
    assert str(project) not in (folder / "01_small.ipynb").read_text()
    assert executed.cells[2].outputs[0].data["text/plain"] == "[True, True, True]"
    sidecar = json.loads((folder / "01_small.json").read_text())
    named = {"chapter", "key", "tier", "seed", "corpora", "seconds", "peak_memory_mb", "key_record"}
    assert named <= set(sidecar)

    # Nothing changed: the stored numbers are shown, and marked as such.
    second = run(project)
    assert second.status == "fresh"
    assert (second.seconds, second.key_record) == (first.seconds, first.key_record)
    assert "[1/1] 01_small · fresh" in capsys.readouterr().out

    # Another seed is another run, and the injected value is visible.
    third = run(project, seed=7)
    assert third.status == "executed"
    assert third.key_record["value"] == 14
    assert any(
        "seed = 7" in cell.source
        for cell in nbformat.read(folder / "01_small.ipynb", as_version=4).cells
    )


def test_kernel_is_this_interpreter_whatever_is_registered(project, monkeypatch):
    kernel = project / "elsewhere" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "wrong", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(project / "elsewhere"))
    assert run(project).status == "executed"
    records = project / "_build" / "records" / "ci" / "01_small.json"
    assert json.loads(records.read_text())["records"]["prefix_matches"]["value"] == "True"


def test_unknown_chapter_and_tier_list_the_valid_ones(project):
    with pytest.raises(ValueError, match=r"'02_none'.*01_small"):
        execute.execute(["02_none"], root=project)
    with pytest.raises(ValueError, match=r"'tiny'.*ci"):
        execute.execute(tier="tiny", root=project)


def test_table_has_a_row_per_chapter_and_the_key_record():
    results = [
        execute.Result(
            "01_a", "fresh", 12.34, 512.0, {"name": "gain", "value": 1.23456, "unit": "%"}
        ),
        execute.Result("02_b", "failed", error="Chapter 02_b failed"),
    ]
    lines = execute.table(results).splitlines()
    assert len(lines) == 4
    assert "gain = 1.235 %" in lines[2]
    assert "512 MB" in lines[2]
    assert "fresh" in lines[2]
    assert "FAILED" in lines[3]
