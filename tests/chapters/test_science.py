"""What the chapters rest on holds for every seed, and on text the recipe was not tuned on."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from kalavai_helpers import corpora, evaluation, experiment, routing, specialists, tiers

CI = tiers.get("ci")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("KALAVAI_CORPORA", ROOT.parent / "shared" / "corpora"))
OTHERS = ("legal", "math", "spanish")


def builtin(seed):
    return specialists.Cooperative(CI, "builtin", corpora.MAIN_DOMAINS, seed)


def folder(domains):
    if not FOLDER.is_dir():
        pytest.skip(f"no real text in {FOLDER}: set KALAVAI_CORPORA to a corpus folder")
    return specialists.Cooperative(CI, f"folder:{FOLDER}", domains, 42)


CASES = {f"builtin-{seed}": lambda seed=seed: builtin(seed) for seed in tiers.PUBLISHED_SEEDS}
CASES["folder-main"] = lambda: folder(corpora.MAIN_DOMAINS)
CASES["folder-others"] = lambda: folder(OTHERS)


@pytest.fixture(scope="module", params=CASES)
def run(request):
    cooperative = CASES[request.param]()
    specialists.train_all([cooperative])
    return experiment.run(cooperative)


def test_the_bound_of_the_evidence_router_holds_on_every_document(run):
    strict = evaluation.route(run.ledger, {"strict": routing.EvidenceRouter(0.0)})["strict"]
    excess = evaluation.document_regret(run.ledger, strict.log_probs)
    assert excess.max() <= math.log(len(run.ledger.experts)) + 1e-6


def test_the_fixed_share_bound_holds_on_every_document(run):
    """What the default router may lose to the best single specialist is known beforehand."""
    excess = evaluation.document_regret(run.ledger, run.fused["evidence"].log_probs)
    tokens = np.bincount(run.ledger.document)
    alpha, n_experts = run.routers["evidence"].alpha, len(run.ledger.experts)
    bounds = [routing.fixed_share_bound(1, int(n), n_experts, alpha) for n in tokens]
    assert (excess <= np.array(bounds) + 1e-6).all()


def test_documents_that_switch_keep_the_bound_of_two_segments(run):
    mixed = run.switching().ledger
    assert mixed.role == "heldout"
    log_probs, gates = mixed.expert_log_probs, routing.ledger_gates(run.routers["evidence"], mixed)
    found = routing.fuse_log_probs(gates, log_probs)
    alpha, n_experts = run.routers["evidence"].alpha, len(mixed.experts)
    for document in range(mixed.n_documents):
        rows = (mixed.document == document).nonzero()[:, 0]
        half = len(rows) // 2
        best = sum(log_probs[part].sum(0).max() for part in (rows[:half], rows[half:]))
        bound = routing.fixed_share_bound(2, len(rows), n_experts, alpha)
        assert best - found[rows].sum() <= bound + 1e-6


def test_gains_are_accounted_for_and_no_oracle_is_below_what_it_may_pick(run):
    table = evaluation.losses(run.ledger)
    lowest = min(table.equal_weight(name) for name in run.ledger.experts)
    order = [table.equal_weight(f"{what}_oracle") for what in ("token", "document", "domain")]
    assert [*order, lowest] == sorted([*order, lowest])
    for name, fused in run.fused.items():
        found = evaluation.account(run.ledger, name, fused.log_probs, fused.gates)
        rest = found.oracle_gain_pct.value - found.routing_regret_pct.value
        assert found.gain_pct.value == pytest.approx(rest + found.mixing_bonus_pct.value, abs=1e-9)
        assert found.mixing_bonus_pct.value >= -1e-9


def test_the_recorded_run_has_recipe_environment_and_duration():
    recorded = json.loads((ROOT / "data/recorded/laptop/01_protocol.json").read_text("utf-8"))
    assert recorded["duration_s"] > 60
    assert {"python", "torch", "cores"} <= set(recorded["environment"])
    assert recorded["recipe"]["name"] == recorded["tier"] == "laptop"
    assert ":" not in recorded["corpora"]


def test_chapter_1_compares_bits_per_byte_with_the_recorded_run():
    recorded = json.loads((ROOT / "data/recorded/laptop/01_protocol.json").read_text("utf-8"))
    this_run = json.loads((ROOT / "_build/records/ci/01_protocol.json").read_text("utf-8"))
    for name in ("bits_per_byte_base", "bits_per_byte_evidence"):
        assert this_run["records"][name]["unit"] == recorded["records"][name]["unit"]
        assert 0 < recorded["records"][name]["value"] < 8


def test_all_data_stay_small():
    assert sum(p.stat().st_size for p in (ROOT / "data").rglob("*") if p.is_file()) <= 60_000_000


def test_the_recorded_model_loads_and_routes():
    from kalavai_helpers import recorded, scoring

    model, routers, tokenizer = recorded.fused()
    text = "import numpy as np\n\ndef mean(values):\n    return np.sum(values) / len(values)\n"
    tokens, gates = scoring.prompt_gates(model, routers, tokenizer, text)
    assert "".join(tokens) == text
    assert gates["evidence"][-1].argmax() == model.config.experts.index("code")
