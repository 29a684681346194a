"""A recorded fused model is a whole folder: Hugging Face finds its tokenizer, and gaps are named."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from kalavai_helpers import artifacts, chapters, hf_tokenizer, recorded, tiers

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
