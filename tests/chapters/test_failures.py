"""A chapter that goes wrong fails the run, and the message names chapter, cell and cause."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kalavai_helpers import execute

ROOT = Path(__file__).resolve().parents[2]

FAILURES = {
    "02_raises": ["cell 3/4", "1 / 0", "ZeroDivisionError"],
    "03_hangs": ["cell 3/4", "import time", "no end within 4 s"],
    "04_kills_its_kernel": ["cell 3/4", "import os, signal", "kernel died"],
    "05_no_parameters": ["parameters"],
    "06_exits": ["cell 3/4", "import sys", "ended early", "SystemExit"],
    "07_saves_nothing": ["records.save()"],
}


def run(project: Path, chapter: str) -> execute.Result:
    (result,) = execute.execute([chapter], cell_timeout_s=4, root=project)
    return result


@pytest.mark.parametrize(("chapter", "expected"), FAILURES.items(), ids=list(FAILURES))
def test_failure_names_chapter_cell_and_cause(fixture_project, chapter, expected):
    result = run(fixture_project, chapter)
    assert result.status == "failed"
    assert chapter in result.error
    for words in expected:
        assert words in result.error


def test_failure_keeps_the_partial_notebook_and_the_last_good_one(fixture_project):
    source = fixture_project / "notebooks" / "01_works.md"
    assert run(fixture_project, "01_works").status == "executed"
    folder = fixture_project / "_build" / "executed" / "ci"
    good = (folder / "01_works.ipynb").read_bytes()

    source.write_text(source.read_text().replace("seed * 2", "print('so far')\n1 / 0"))
    assert run(fixture_project, "01_works").status == "failed"
    assert (folder / "01_works.ipynb").read_bytes() == good
    assert "so far" in (folder / "01_works.failed.ipynb").read_text()

    source.write_text(source.read_text().replace("1 / 0", "1"))
    assert run(fixture_project, "01_works").status == "executed"
    assert not (folder / "01_works.failed.ipynb").exists()


def test_failed_chapter_does_not_stop_the_others(fixture_project, capsys):
    results = execute.execute(
        ["02_raises", "05_no_parameters", "01_works"], cell_timeout_s=4, root=fixture_project
    )
    assert [result.status for result in results] == ["executed", "failed", "failed"]
    assert "02_raises · FAILED" in capsys.readouterr().err
    assert "FAILED" in execute.table(results)


def test_workers_of_a_killed_kernel_do_not_survive(fixture_project):
    source = fixture_project / "notebooks" / "04_kills_its_kernel.md"
    worker = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('worker.pid', 'w').write(str(child.pid))\n"
        "time.sleep(1.5)\n"
    )
    source.write_text(source.read_text().replace("import os, signal", worker + "import os, signal"))
    before = Path.cwd()
    os.chdir(fixture_project)
    try:
        assert run(fixture_project, "04_kills_its_kernel").status == "failed"
    finally:
        os.chdir(before)
    pid = int((fixture_project / "worker.pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_command_line_exits_non_zero_and_prints_no_traceback(fixture_project):
    code = (
        "import sys; from pathlib import Path; from kalavai_helpers import artifacts, __main__; "
        "artifacts.project_root = lambda: Path(sys.argv[1]); "
        "sys.exit(__main__.main(['execute', '--chapter', '02_raises']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fixture_project)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: Chapter 02_raises failed in cell 3/4" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_parameter_is_refused_with_the_valid_ones(fixture_project):
    (result,) = execute.execute(["01_works"], parameters={"steps": 3}, root=fixture_project)
    assert result.status == "failed"
    assert "'steps'" in result.error
    assert "tier, seed, corpora" in result.error


def test_damaged_sidecar_or_overwritten_records_mean_not_fresh(fixture_project):
    assert run(fixture_project, "01_works").status == "executed"
    assert run(fixture_project, "01_works").status == "fresh"
    records = fixture_project / "_build" / "records" / "ci" / "01_works.json"
    data = json.loads(records.read_text())
    data["records"]["gain"]["value"] = 99.0
    records.write_text(json.dumps(data))
    assert run(fixture_project, "01_works").status == "executed"
    assert json.loads(records.read_text())["records"]["gain"]["value"] == 4.25

    sidecar = fixture_project / "_build" / "executed" / "ci" / "01_works.json"
    sidecar.write_text(sidecar.read_text()[:40])
    assert run(fixture_project, "01_works").status == "executed"
