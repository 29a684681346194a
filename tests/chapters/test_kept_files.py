"""What ships of a recording is small, and holds neither text nor token ids."""

import json
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kalavai_helpers import artifacts, kept_ledger, prompts, recorded, tiers

ROOT = Path(__file__).resolve().parents[2]
CORPORA = Path(os.environ.get("KALAVAI_CORPORA", ROOT.parent / "shared" / "corpora"))
FOLDER = recorded.folder(tiers.PRETRAINED)
PART = "|".join(kept_ledger.PARTS)
DIGEST = re.compile("[0-9a-f]{64}")
MOST_SIGNS = 300
"""Of a string: a source is named by its path, a protocol or an axis by a sentence."""
PIECE = 40
"""Signs in a row that text which is quoted shares with its document."""

pytestmark = pytest.mark.skipif(
    not (FOLDER / "ledger.json").is_file(), reason="no ledger was recorded"
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return artifacts.load_tensors(FOLDER / "ledger.safetensors")[0]


@pytest.fixture(scope="module")
def kept():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(artifacts.KEPT_VARIABLE, raising=False)
        return kept_ledger.read()


def strings(value: object) -> Iterator[str]:
    """All strings of what a JSON file holds, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)


def words() -> dict[str, set[str]]:
    """Strings by file, without the tokens of prompts: those are the book's own."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        held = json.loads(path.read_text("utf-8"))
        held.pop("tokens", None)
        held.get("about", {}).pop("notice", None)
        found[path.name] = {text for text in strings(held) if not DIGEST.fullmatch(text)}
    return found


def test_a_recording_is_its_ledger_and_what_chapters_computed_from_it():
    names = {path.name for path in FOLDER.iterdir()}
    assert {name for name in names if not re.fullmatch(r"\d\d_\w+\.json", name)} == {
        "ledger.json",
        "ledger.safetensors",
    }
    sizes = [path.stat().st_size for path in FOLDER.glob("ledger.*")]
    assert sum(sizes) <= kept_ledger.MAX_BYTES


def test_every_number_of_a_token_is_a_score_a_state_or_a_column_that_has_a_name(tensors):
    scalars = "window_tokens|document_windows|group|n_bytes"
    allowed = re.compile(
        rf"states/\w+|({PART})/((log_probs|columns/\d+)(/low|/unit)?|features|windows/\d+|{scalars})"
    )
    assert [name for name in tensors if not allowed.fullmatch(name)] == []
    for name, tensor in tensors.items():
        if re.fullmatch(rf"({PART})/({scalars})", name):
            part = name.partition("/")[0]
            n_tokens = len(tensors[f"{part}/log_probs"])
            assert len(tensor) < n_tokens, "of windows or documents, not of tokens"


def test_scores_are_log_probabilities_and_gates_are_weights(kept):
    """Ids that were hidden as numbers would be neither."""
    for part, ledger in kept.parts.items():
        assert float(ledger.log_probs.nan_to_num(-1).max()) <= 0
        for title, column in kept.columns[part].items():
            there = column[~column.isnan()]
            if column.dim() == 2:
                sums = column[~column.isnan().any(1)].sum(1)
                assert torch.allclose(sums, torch.ones(len(sums)), atol=1e-3), title
            elif title.endswith(": kl"):
                assert float(there.min()) >= -kept_ledger.ROUNDING, title
            else:
                assert float(there.max()) <= kept_ledger.ROUNDING, title


def test_tokens_are_those_of_the_books_own_prompts(kept):
    said, written = "".join(kept.tokens), "".join(prompts.texts().values())
    # A token that only goes on with a character is shown as a point.
    assert "".join(said.replace("·", "").split()) == "".join(written.replace("·", "").split())


def test_words_of_the_files_are_short():
    for name, found in words().items():
        assert [text for text in found if len(text) > MOST_SIGNS] == [], name


def test_no_words_of_the_files_are_those_of_a_recorded_document():
    if not CORPORA.is_dir():
        pytest.skip(f"no text in {CORPORA}: set KALAVAI_CORPORA to the folder that was recorded")
    documents = "\n".join(
        lzma.decompress(path.read_bytes()).decode() for path in sorted(CORPORA.glob("*.jsonl.xz"))
    )
    texts = "\n".join(json.loads(line)["text"] for line in documents.split("\n") if line)
    for name, found in words().items():
        long = [text for text in found if len(text) >= PIECE]
        assert [text for text in long if text in texts] == [], name
