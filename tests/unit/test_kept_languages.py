"""Cross-lingual cooperatives of a recorded ledger, asked what chapter 7 asks of its own."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kalavai_helpers import (
    collapse,
    evaluation,
    high_divergence,
    kept_languages,
    kept_runs,
    router_fit,
    routing,
)
from kalavai_helpers.evaluation import Fused
from kalavai_helpers.teams import LANGUAGES


@pytest.fixture(scope="module")
def run(kept_all):
    return kept_runs.of(kept_all[0], kept_runs.team("languages"))


def test_every_recorded_router_seed_is_a_fit_in_natural_proportions(run):
    fits = kept_languages.fits(run)
    assert [fit.seed for fit in fits] == list(range(10))
    assert {fit.condition for fit in fits} == {collapse.CONDITIONS[0].name}
    table = collapse.summary(fits, run.ledger)
    row = table.loc["plain", 3]
    losses = run.losses()
    alone = min(losses.equal_weight(d) for d in LANGUAGES)
    assert row.gain == pytest.approx(100 * (1 - losses.equal_weight("pooled 3") / alone))
    for fit in fits:
        own = run.fused[f"pooled {fit.seed}"].gates
        tamil = run.ledger.token_group == 0
        assert fit.looks[-1][0] == pytest.approx(own[tamil].double().mean(0).numpy())
    assert collapse.frequency(table).seeds["plain"] == 10


def test_a_wider_cooperative_is_the_one_of_these_domains(kept_all):
    kept, domains = kept_all[0], kept_languages.TEN[:3]
    found = kept_languages.of(kept, domains, "three")
    assert found.domains == found.ledger.groups == found.ledger.experts == domains
    assert found.fitting.role == "router"
    held = kept.parts["heldout"].restrict(domains)
    wanted = evaluation.route(held, {"linear": routing.fit_linear(found.fitting)})["linear"]
    assert torch.equal(found.fused["linear"].log_probs, wanted.log_probs)


def test_the_ten_languages_are_no_code_and_no_profession():
    assert len(set(kept_languages.TEN)) == 10
    assert set(LANGUAGES) - set(kept_languages.TEN) == {"code"}
    assert not {"medical", "legal", "dialogue"} & set(kept_languages.TEN)


def test_gains_and_divergences_have_the_names_of_the_chapter(run):
    found = kept_languages.gains(run, ("evidence", "prefix-mean"))
    assert list(found) == [
        *("gain_evidence", "gain_over_base_evidence"),
        *("gain_prefix_mean", "gain_over_base_prefix_mean"),
    ]
    table = run.losses()
    assert found["gain_evidence"][0] == evaluation.gain_pct(table, "evidence", LANGUAGES)
    moved = kept_languages.divergences(table, LANGUAGES)
    mean = np.mean([moved[f"divergence_{d}"][0].value for d in LANGUAGES])
    assert moved["mean_divergence"][0].value == pytest.approx(mean)
    assert moved["mean_divergence"][0].units == sum(table.units().values())
    assert moved["divergence_welsh"][0].units == table.units()["welsh"]
    found = kept_languages.factors(run)["perplexity_welsh_factor"][0]
    assert (found.over, found.units) == ("sources", table.units()["welsh"])


def test_costs_are_two_units_of_the_same_losses(run):
    rows, table = kept_languages.costs(run), run.losses()
    for k, domain in enumerate(LANGUAGES):
        base, fused = (float(table.by_group(m)[k]) for m in ("base", "evidence"))
        row = rows.loc[domain]
        assert row.perplexity_base == pytest.approx(math.exp(base))
        assert row.factor == pytest.approx(math.exp(base - fused))
        tokens = (run.ledger.token_group == k).sum()
        n_bytes = run.ledger.n_bytes[run.ledger.group == k].sum()
        assert row.bits_fused == pytest.approx(float(fused * tokens / n_bytes / math.log(2)))


def test_released_divergences_stand_beside_their_mean(run):
    moved = kept_languages.divergences(run.losses(), LANGUAGES)
    frame = kept_languages.beside_released(moved)
    assert list(frame.index) == [*LANGUAGES, "mean"]
    released = high_divergence.released().divergence[high_divergence.CROSS]
    assert frame.released["mean"] == pytest.approx(released, abs=0.01)
    assert frame.value["welsh"] == moved["divergence_welsh"][0].value


def test_stress_reweighs_or_leaves_out_the_text_that_em_is_fitted_to(run):
    fit, fused = kept_languages.stressed(run)
    assert set(fused) == {"em", *kept_languages.STRESSED}
    weights, scarce = collapse.skewed(run.fitting)
    wanted = router_fit.fit_em(run.fitting, weights=weights).router
    gates = evaluation.route(run.ledger, {"em": wanted})["em"].gates
    assert torch.equal(fused["em, skewed"].gates, gates)
    assert len(scarce) < len(run.fitting)
    assert (np.diff(fit.objective) > -1e-9).all()


def lost(ledger, **fused):
    return kept_languages.kept_domains(ledger, fused)


def test_a_domain_is_lost_by_its_gates_or_by_its_loss(run):
    ledger = run.ledger
    table = lost(ledger, **{"evidence": run.fused["evidence"]})
    best = int(
        torch.stack([ledger.column(d)[ledger.token_group == 2].mean() for d in LANGUAGES]).argmax()
    )
    gates = run.fused["evidence"].gates.clone()
    welsh = ledger.token_group == 2
    gates[welsh] = 0
    gates[welsh, (best + 1) % 4] = 1
    wrong = lost(ledger, moved=Fused(run.fused["evidence"].log_probs, gates)).loc["moved"]
    assert wrong.lost
    assert wrong.misrouted.startswith("welsh → ")
    as_base = torch.where(welsh, ledger.column("base").double(), run.fused["evidence"].log_probs)
    row = lost(ledger, base=Fused(as_base, run.fused["evidence"].gates)).loc["base"]
    assert row.lost
    assert row.domain == "welsh"
    assert row.captured == pytest.approx(0, abs=1e-6)
    captured = collapse.captured(ledger, run.fused["evidence"].log_probs)
    assert table.captured["evidence"] == pytest.approx(captured.min())


def test_a_domain_on_which_no_specialist_helps_has_nothing_to_lose(run):
    ledger = run.ledger
    column, welsh = ledger.models.index("base"), ledger.token_group == 2
    better = ledger.log_probs.clone()
    better[welsh, column] = -1e-3
    found = lost(replace(ledger, log_probs=better), evidence=run.fused["evidence"])
    others = collapse.captured(ledger, run.fused["evidence"].log_probs)[[0, 1, 3]]
    assert found.captured["evidence"] == pytest.approx(others.min())


def test_the_largest_excess_is_that_of_the_worst_document(run):
    held = run.ledger
    strict = evaluation.route(held, {"s": routing.EvidenceRouter(0.0)})["s"].log_probs
    excess = kept_languages.largest_excess(held, strict)
    assert excess <= math.log(4) + 1e-6
    assert kept_languages.largest_excess(held, strict - 1) > 20
