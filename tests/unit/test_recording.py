"""A recording: steps in their order, side by side within a kind, taken up where they were left."""

import json
import time
from functools import partial

import pytest
import torch

from kalavai_helpers import parallel, progress, recording
from kalavai_helpers.recording import Step


def _leave(path, seconds=0.0):
    time.sleep(seconds)
    path.write_text(str(torch.get_num_threads()))


def _leave_a_part(path, pieces):
    for number in range(pieces):
        piece = path.with_suffix(f".{number}")
        if not piece.exists():
            piece.touch()
            progress.pause_point()
    path.touch()


@pytest.fixture
def store(tmp_path):
    def steps(names, kind, seconds=0.0):
        paths = [tmp_path / name for name in names]
        return [Step(p.name, 1.0, p.exists, partial(_leave, p, seconds), kind) for p in paths]

    return tmp_path, steps


def run(steps, folder, minutes=None):
    said = []
    left = recording.run(lambda durations_s: steps, folder / "state.json", minutes, said.append)
    return left, said, json.loads((folder / "state.json").read_text("utf-8"))


def test_steps_of_a_kind_go_side_by_side_one_thread_each_and_kinds_in_turn(store):
    folder, steps = store
    whole = [*steps("abc", "one"), *steps("de", "two"), *steps("f", "")]
    left, said, state = run(whole, folder)
    assert left == []
    assert (state["done"], state["left"], state["left_s"]) == (6, [], 0)
    assert set(state["durations_s"]) == set("abcdef")
    assert all((folder / name).read_text() == "1" for name in "abcde")
    assert (folder / "f").read_text() == str(torch.get_num_threads())
    assert [line.split(" (")[0] for line in said if line[1] == ","] == ["a, b, c", "d, e"]
    assert max((folder / n).stat().st_mtime for n in "abc") <= min(
        (folder / n).stat().st_mtime for n in "de"
    )


def test_what_is_done_is_not_done_again_and_durations_are_kept(store):
    folder, steps = store
    (folder / "a").write_text("before")
    (folder / "state.json").write_text(json.dumps({"durations_s": {"a": 7.0}}))
    _, _, state = run(steps("ab", "one"), folder)
    assert (folder / "a").read_text() == "before"
    assert state["durations_s"]["a"] == 7.0


def test_a_step_that_is_paused_goes_on_from_its_pieces(tmp_path, monkeypatch):
    """Time that is up from the beginning lets each step leave one piece a session."""
    monkeypatch.setattr(parallel, "as_done", lambda tasks: ((i, t()) for i, t in enumerate(tasks)))
    path = tmp_path / "a"
    steps = [Step("a", 1.0, path.exists, partial(_leave_a_part, path, 3), "one")]
    counts = []
    for _ in range(3):
        left, said, _ = run(steps, tmp_path, minutes=1e-9)
        assert len(left) == 1
        assert said[-1].startswith("time is up")
        counts.append(len(list(tmp_path.glob("a.*"))))
    assert counts == [1, 2, 3]
    assert run(steps, tmp_path)[0] == []
    assert not progress.time_is_up()


def test_a_step_that_leaves_nothing_is_a_fault(tmp_path):
    with pytest.raises(RuntimeError, match="'a' has run and is not done"):
        run([Step("a", 1.0, lambda: False, lambda: None)], tmp_path)


def test_what_is_left_is_told_at_the_speed_so_far(store):
    folder, steps = store
    (folder / "a").touch()
    (folder / "state.json").write_text(json.dumps({"durations_s": {"a": 30.0}}))
    _, said, _ = run([*steps("a", "one"), *steps("b", "")], folder)
    assert said[0] == "b (1 of 2 steps done, about 30 s left)"
