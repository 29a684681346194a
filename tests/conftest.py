"""Shared by all tests: one thread, no network, and tiny models that need no training."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dataclasses import replace

import pytest

WORDS = {
    "red": ["apple", "cherry", "brick", "rose", "ruby"],
    "green": ["leaf", "grass", "moss", "pine", "fern"],
    "blue": ["sky", "sea", "ice", "slate", "ink"],
}


def sentences(domain: str, index: int, n_words: int = 120) -> str:
    """A text of one domain's words, different for every index, the same at every call."""
    import random

    rng = random.Random(f"{domain}{index}")
    return " ".join(rng.choice(WORDS[domain]) for _ in range(n_words)) + "."


@pytest.fixture(scope="session")
def tiny_tier():
    """A tier whose models train in a second."""
    from kalavai_helpers import tiers

    return replace(
        tiers.get("ci"),
        name="tiny",
        vocab_size=300,
        hidden_size=16,
        n_layers=3,
        n_heads=2,
        seq_len=32,
        batch_size=4,
        base_steps=20,
        specialist_steps=30,
        router_steps=10,
        frozen_layers=1,
    )


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory):
    """A corpus folder of three easily told domains, 60 documents each."""
    import json
    import lzma

    folder = tmp_path_factory.mktemp("corpus")
    for domain in WORDS:
        lines = [
            json.dumps({"text": sentences(domain, i), "source": f"book-{i // 2}"})
            for i in range(60)
        ]
        (folder / f"{domain}.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_tier, colour_folder, tmp_path_factory):
    """A trained tiny cooperative of three domains in a store of its own."""
    from kalavai_helpers import specialists

    previous = os.environ.get("KALAVAI_STORE")
    os.environ["KALAVAI_STORE"] = str(tmp_path_factory.mktemp("store"))
    cooperative = specialists.Cooperative(
        tiny_tier, f"folder:{colour_folder}", ("blue", "green", "red"), 42
    )
    for domain in cooperative.domains:
        cooperative.train(domain)
    yield cooperative
    if previous is None:
        os.environ.pop("KALAVAI_STORE")
    else:
        os.environ["KALAVAI_STORE"] = previous
