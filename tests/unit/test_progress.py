"""Progress reaches the executor through files, people through plain lines, and never stops work."""

import json

import pytest

from kalavai_helpers import progress


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv(progress.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(progress, "_last_printed", {})


def test_state_is_rewritten_in_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(progress.FOLDER_VARIABLE, str(tmp_path / "new"))
    progress.report("specialist code", 50, 200, 14_200.0, eta_s=12)
    progress.report("specialist code", 75, 200, 14_200.0, eta_s=9)
    progress.report("specialist/code", 1, 2)
    files = sorted((tmp_path / "new").iterdir())
    assert len(files) == 2
    states = {state["task"]: state for state in progress.read(tmp_path / "new")}
    assert states["specialist code"]["step"] == 75
    assert set(states["specialist code"]) == {
        "task",
        "step",
        "total",
        "rate",
        "unit",
        "eta_s",
        "time",
    }
    assert capsys.readouterr().err == ""


def test_readers_skip_what_they_cannot_read(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "good.json").write_text(json.dumps({"task": "a", "time": 1.0}))
    assert [state["task"] for state in progress.read(tmp_path)] == ["a"]
    assert progress.read(tmp_path / "absent") == []


def test_unwritable_folder_does_not_stop_the_task(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(progress.FOLDER_VARIABLE, str(tmp_path / "file"))
    progress.report("task", 1, 2)


def test_lines_are_throttled_and_the_last_one_is_shown(monkeypatch, capsys):
    clock = iter([0.0, 1.0, 5.5, 6.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    for step in (1, 2, 3, 4):
        progress.report("base", step, 4, 900.0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["base 1/4", "base 3/4", "base 4/4"]


def test_line_reads_as_in_the_manual():
    state = {
        "task": "specialist code",
        "step": 150,
        "total": 200,
        "rate": 14_200.0,
        "unit": "tok/s",
        "eta_s": 12.0,
    }
    assert progress.line(state) == "specialist code 150/200 · 14.2k tok/s · ETA 12 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
