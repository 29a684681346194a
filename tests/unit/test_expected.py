"""Expected records: tolerances come from repeated runs, and a run that is off is reported."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalavai_helpers import expected


def run(seed: int, gain: float, newcomer: str = "fiction") -> dict:
    records = {
        "gain": {"value": gain, "unit": "%"},
        "residual": {"value": 0.0, "unit": "pp"},
        "newcomer": {"value": newcomer, "unit": ""},
    }
    return {"chapter": "01_x", "seed": seed, "records": records}


RUNS = [run(seed, gain) for seed, gain in enumerate([7.6, 7.7, 7.9, 7.8, 7.7])]


def test_a_run_among_the_repeated_ones_is_as_expected():
    assert expected.differences(RUNS[0], expected.summarise(RUNS)) == []


@given(st.lists(st.floats(-100, 100), min_size=5, max_size=9, unique=True))
def test_every_repeated_run_lies_within_the_tolerance(gains):
    runs = [run(seed, gain) for seed, gain in enumerate(gains)]
    wanted = expected.summarise(runs)
    assert [problem for each in runs for problem in expected.differences(each, wanted)] == []


def test_tolerance_is_the_prediction_interval_of_one_more_run():
    wanted = expected.summarise(RUNS)["gain"]
    # t(0.995, 4) = 4.604, times the standard deviation 0.114 and the root of 1 + 1/5
    assert wanted["tolerance"] == pytest.approx(4.604 * 0.11402 * 1.0954, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "value"), [("gain", 9.0), ("residual", 0.1), ("newcomer", "code")]
)
def test_a_record_that_moved_is_named(name, value):
    changed = copy.deepcopy(RUNS[0])
    changed["records"][name]["value"] = value
    (problem,) = expected.differences(changed, expected.summarise(RUNS))
    assert problem.startswith(f"01_x/{name} is ")


def test_a_record_that_vanished_is_named():
    changed = copy.deepcopy(RUNS[0])
    del changed["records"]["gain"]
    assert expected.differences(changed, expected.summarise(RUNS)) == ["01_x/gain was not recorded"]


@pytest.mark.parametrize("unit", ["s", "tokens/s", "core-minutes", "x"])
def test_times_and_their_ratios_are_not_expected_of_another_machine(unit):
    runs = copy.deepcopy(RUNS)
    for each in runs:
        each["records"]["gain"]["unit"] = unit
    assert "gain" not in expected.summarise(runs)


def test_every_word_that_was_seen_is_allowed():
    runs = [*RUNS[1:], run(9, 7.75, "code")]
    assert expected.summarise(runs)["newcomer"] == {"words": ["code", "fiction"]}


@pytest.mark.parametrize("runs", [RUNS[:2], [*RUNS[:2], RUNS[0]]])
def test_a_spread_needs_three_different_seeds(runs):
    with pytest.raises(ValueError, match="3 runs with different seeds"):
        expected.summarise(runs)


def test_a_number_that_seeds_do_not_move_has_room_of_a_hundredth():
    wanted = expected.summarise([run(seed, 200.0) for seed in range(5)])["gain"]
    assert wanted["tolerance"] == pytest.approx(2.0, rel=1e-3)


def test_chapters_that_were_not_run_again_keep_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.setattr(expected, "path", lambda tier: tmp_path / f"{tier}.json")
    full = {"corpora": "builtin", "date": "2026-01-01", "environment": {}}
    first = [each | full for each in RUNS]
    expected.write("ci", [first])
    expected.write("ci", [[each | {"chapter": "02_y"} for each in first]])
    chapters = expected.load("ci")["chapters"]
    assert list(chapters) == ["01_x", "02_y"]
    assert chapters["01_x"] == chapters["02_y"]
