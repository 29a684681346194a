"""What the chapters rest on holds for every seed, and on text the recipe was not tuned on."""

import json
import math
import os
from pathlib import Path

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


def test_evidence_is_as_good_as_the_domain_oracle_up_to_its_bound(run):
    table = evaluation.losses(run.ledger, {"evidence": run.fused["evidence"].log_probs})
    excess = table.equal_weight("evidence") - table.equal_weight("domain_oracle")
    n_experts, seq_len = len(run.ledger.experts), run.cooperative.tier.seq_len
    assert excess <= math.log(n_experts) / seq_len + 0.005


def test_evidence_beats_the_trained_linear_router_and_both_beat_uniform(run):
    table = evaluation.losses(run.ledger, {n: f.log_probs for n, f in run.fused.items()})
    order = [table.equal_weight(name) for name in ("evidence", "linear", "uniform")]
    assert order == sorted(order)
    assert order[0] < order[1]


def test_the_bound_of_the_evidence_router_holds_on_every_document(run):
    strict = evaluation.route(run.ledger, {"strict": routing.EvidenceRouter(0.0)})["strict"]
    excess = evaluation.document_regret(run.ledger, strict.log_probs)
    assert excess.max() <= math.log(len(run.ledger.experts)) + 1e-6


def test_on_switching_documents_evidence_beats_dispatch_of_the_whole_document(run):
    mixed = run.switching()
    table = evaluation.losses(mixed.ledger, {"evidence": mixed.fused["evidence"].log_probs})
    advantage = table.equal_weight("document_oracle") - table.equal_weight("evidence")
    assert advantage >= 0.1


def test_the_fused_model_beats_every_specialist(run):
    gain = evaluation.gain_pct(
        evaluation.losses(run.ledger, {"evidence": run.fused["evidence"].log_probs}),
        "evidence",
        run.ledger.experts,
    )
    assert gain.low > 0


def test_every_specialist_is_the_best_model_on_its_own_domain(run):
    matrix = evaluation.losses(run.ledger).matrix((*run.ledger.models,))
    assert all(matrix[domain].idxmin() == domain for domain in run.ledger.experts)


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


def test_the_recorded_model_is_small_loads_and_routes():
    from kalavai_helpers import recorded, scoring

    folder = ROOT / "data/recorded/laptop/fused"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 16_000_000
    model, routers, tokenizer = recorded.fused()
    text = "import numpy as np\n\ndef mean(values):\n    return np.sum(values) / len(values)\n"
    tokens, gates = scoring.prompt_gates(model, routers, tokenizer, text)
    assert "".join(tokens) == text
    assert gates["evidence"][-1].argmax() == model.config.experts.index("code")
