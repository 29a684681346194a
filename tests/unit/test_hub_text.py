"""The published data sets load from the Hub's cache without a network, and say so when they can't."""

import pandas as pd
import pytest

from kalavai_helpers import corpora, hub_text

ROWS = {
    "code": {"whole_func_string": "def f():\n    return 1\n" * 20},
    "science": {"support": "Water boils. " * 20, "question": "When?", "correct_answer": "At 100"},
    "fiction": {"text": "It was a dark night. " * 400},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hub cache as `huggingface_hub` lays it out, with 30 rows of each data set."""
    for domain, dataset in hub_text.DATASETS.items():
        folder = tmp_path / f"datasets--{dataset.repo_id.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        reference = folder / "refs" / dataset.revision
        reference.parent.mkdir(parents=True)
        reference.write_text(revision)
        shard = folder / "snapshots" / revision / dataset.shard
        shard.parent.mkdir(parents=True)
        rows = [{k: f"{v}{i}" for k, v in ROWS[domain].items()} for i in range(30)]
        rows.append(dict.fromkeys(ROWS[domain], "short"))
        pd.DataFrame(rows).to_parquet(shard)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


@pytest.mark.parametrize("domain", hub_text.DATASETS)
def test_texts_are_assembled_filtered_and_cut_as_published(cache, domain):
    found = hub_text.documents(domain)
    assert len(found) == 30
    dataset = hub_text.DATASETS[domain]
    assert all(dataset.min_chars <= len(text) <= dataset.max_chars for text, _ in found)
    assert all(source.startswith(dataset.repo_id) for _, source in found)


def test_the_science_text_has_support_question_and_answer(cache):
    text = hub_text.documents("science")[0][0]
    assert text.split("\n")[1:] == ["When?0", "At 1000"]


def test_hub_documents_are_split_like_any_other(cache):
    corpora.load.cache_clear()
    assert corpora.domains("hub") == ["code", "fiction", "science"]
    parts = corpora.split("hub", "science")
    assert sum(map(len, parts.values())) == 30


def test_without_network_or_cache_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"allenai/sciq.*--corpora builtin"):
        hub_text.documents("science")
