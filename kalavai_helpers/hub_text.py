"""The published English data sets, read from the Hugging Face Hub.

Each data set is pinned to a revision and to the parquet shards that hold the first texts of its
train split: the published pipeline streams and keeps the first 3,000. Files go through the
``huggingface_hub`` cache, so a second run needs no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

N_TEXTS = 3000


@dataclass(frozen=True)
class HubDataset:
    """One pinned data set: where its first train shard is and how a row becomes text."""

    repo_id: str
    revision: str
    shard: str
    text: Callable[[dict], str]
    min_chars: int
    max_chars: int = 5000


def _code(row: dict) -> str:
    return row.get("whole_func_string") or row["func_code_string"]


def _science(row: dict) -> str:
    return f"{row['support']}\n{row['question']}\n{row['correct_answer']}"


# The Hub converts every data set to parquet under the ref named here; the shard names are fixed
# by that conversion.
DATASETS = {
    "code": HubDataset(
        "code-search-net/code_search_net",
        "refs/convert/parquet",
        "python/train/0000.parquet",
        _code,
        min_chars=201,
    ),
    "science": HubDataset(
        "allenai/sciq",
        "refs/convert/parquet",
        "default/train/0000.parquet",
        _science,
        min_chars=101,
    ),
    "fiction": HubDataset(
        "emozilla/pg19",
        "refs/convert/parquet",
        "default/train/0000.parquet",
        lambda row: row["text"],
        min_chars=500,
    ),
}


def documents(domain: str) -> list[tuple[str, str]]:
    """(text, source) of the first 3,000 texts of a domain, cut as published.

    Raises
    ------
    ConnectionError
        If the shard is neither in the local cache nor to be had from the Hub.
    """
    from datasets import load_dataset
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    dataset = DATASETS[domain]
    try:
        path = hf_hub_download(
            dataset.repo_id, dataset.shard, repo_type="dataset", revision=dataset.revision
        )
    except (LocalEntryNotFoundError, OSError) as error:
        raise ConnectionError(
            f"Cannot reach the Hugging Face Hub for {dataset.repo_id} ({dataset.shard}) and the "
            "file is not in the local cache: connect once, or use --corpora builtin or folder:PATH"
        ) from error
    rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    texts = (dataset.text(row)[: dataset.max_chars] for row in rows)
    kept = (text for text in texts if len(text) >= dataset.min_chars)
    return [
        (text, f"{dataset.repo_id}@{dataset.revision}:{index}")
        for index, text in enumerate(islice(kept, N_TEXTS))
    ]
