"""A recorded fused model is a whole folder: Hugging Face finds its tokenizer, and gaps are named."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from kalavai_helpers import artifacts, chapters, hf_tokenizer, recorded, records, tiers

TEXT = "def half(x):\n    return x / 2  # Ünïcode, und\ttabs"


def test_the_recorded_folder_brings_the_tokenizer_it_was_made_with():
    from tokenizers import Tokenizer

    folder = recorded.folder("laptop") / "fused"
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = AutoTokenizer.from_pretrained(folder)
    assert found.encode(TEXT) == ours.encode(TEXT, add_special_tokens=False).ids
    assert found.decode(found.encode(TEXT)) == TEXT
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (0, 0, 0)


def test_a_saved_tokenizer_and_a_wrapped_one_make_the_same_tokens(tiny, tmp_path):
    hf_tokenizer.save(tiny.tokenizer, tmp_path)
    wrapped = hf_tokenizer.wrap(tiny.tokenizer)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    expected = tiny.tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert wrapped.encode(TEXT) == loaded.encode(TEXT) == expected
    assert len(wrapped) == len(loaded) == tiny.tokenizer.get_vocab_size()


def test_a_tokenizer_that_cannot_end_a_text_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="endoftext"):
        hf_tokenizer.wrap(Tokenizer(models.BPE({"a": 0}, [])))


@pytest.mark.parametrize("name", ["config.json", "routers.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(name, tmp_path, monkeypatch):
    source = recorded.folder("laptop") / "fused"
    ignored = shutil.ignore_patterns(name)
    shutil.copytree(source, tmp_path / "fused", ignore=ignored)
    monkeypatch.setattr(recorded, "folder", lambda tier: tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        recorded.fused()


def test_every_recorded_run_is_in_the_history_with_a_reason():
    kept = {
        (line.tier, line.chapter): line for line in recorded.history() if line.outcome == "kept"
    }
    for path in sorted((artifacts.data() / "recorded").glob("*/[0-9]*.json")):
        run = json.loads(path.read_text("utf-8"))
        assert kept[run["tier"], run["chapter"]].date == run["date"]


def test_the_history_says_what_was_never_run():
    told = {(line.tier, line.chapter) for line in recorded.history()}
    for tier in tiers.NAMES:
        if tier != "ci" and not recorded.folder(tier).is_dir():
            assert (tier, "all chapters") in told
        elif tier != "ci":
            assert {(tier, name) for name in chapters.names(artifacts.project_root())} <= told


def test_a_line_of_the_history_without_a_reason_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "data", lambda: tmp_path)
    (tmp_path / "recorded").mkdir()
    head = "date,tier,chapter,seeds,outcome,reason\n"
    (tmp_path / "recorded" / "runs.csv").write_text(head + ",laptop,01_x,none,forgotten,because\n")
    with pytest.raises(ValueError, match="line 2"):
        recorded.history()


def entry(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "unit": "%"}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A built chapter with a side run, in folders of its own."""
    side = {"tier": tiers.PRETRAINED, "corpora": "folder", "records": {"gain": entry(21, 20, 22)}}
    run = {"tier": "ci", "corpora": "folder:/a", "records": {"gain": entry(9)}}
    run |= {"sides": {tiers.PRETRAINED: side}}
    monkeypatch.setenv(records.FOLDER_VARIABLE, str(tmp_path / "records"))
    monkeypatch.setattr(artifacts, "data", lambda: tmp_path / "data")
    artifacts.write_json(records.path("01_x", "ci"), run)
    return side


def test_what_was_computed_from_a_recorded_ledger_is_kept_beside_it(built):
    path = recorded.keep_side("01_x")
    assert path.parent == recorded.folder(tiers.PRETRAINED)
    assert recorded.load("01_x", tiers.PRETRAINED) == built
    with pytest.raises(KeyError, match="computed nothing of tier laptop"):
        recorded.keep_side("01_x", "laptop")


def test_a_recorded_run_does_not_bring_what_it_computed_from_another_recording(built):
    recorded.keep("01_x", tiers.get("ci"), 3.2)
    kept = recorded.load("01_x", "ci")
    assert "sides" not in kept
    assert kept["corpora"] == "folder"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gain": entry(21.0000001, 20, 22)}, None),
        ({"gain": entry(21.001, 20, 22)}, None),
        ({"gain": entry(21.01, 20, 22)}, "01_x/gain: value is 21.01, it was 21"),
        ({"gain": entry(21, 20, 22.02)}, "01_x/gain: high is 22.02, it was 22"),
        ({"gain": entry(21, None, 22)}, "01_x/gain: low is None, it was 20"),
        ({"gain": entry("a", 20, 22)}, "01_x/gain: value is 'a', it was 21"),
        ({"gain": entry(21, 20, 22), "new": entry(1)}, "01_x/new was recorded only now"),
        ({}, "01_x/gain was recorded only before"),
    ],
)
def test_runs_agree_where_they_are_printed_alike(built, change, problem):
    now = {"chapter": "01_x", "records": change}
    assert recorded.differences(now, built) == ([problem] if problem else [])
