"""What a cooperative does for each domain, from token losses by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kalavai_helpers import domain_gains, evaluation, kept_languages, kept_runs, routing
from kalavai_helpers.evaluation import Fused
from kalavai_helpers.teams import TWENTY


@pytest.fixture(scope="module")
def ledger(kept_all):
    return kept_all[0].parts["heldout"].restrict(TWENTY)


@pytest.fixture(scope="module")
def fused(ledger):
    return evaluation.route(ledger, {"evidence": routing.EvidenceRouter()})["evidence"]


def loss(ledger, log_probs, domain):
    own = ledger.token_group == ledger.groups.index(domain)
    return float(-log_probs[own].double().mean())


def test_a_row_is_what_the_tokens_of_its_domain_say(ledger, fused):
    rows = domain_gains.by_domain(ledger, fused)
    assert list(rows.index) == list(TWENTY)
    for domain in ("tamil", "legal"):
        base, own, ours = (
            loss(ledger, column, domain)
            for column in (ledger.column("base"), ledger.column(domain), fused.log_probs)
        )
        row = rows.loc[domain]
        assert row.base == pytest.approx(base)
        assert row.divergence == pytest.approx(100 * (base - own) / base)
        assert row.saved == pytest.approx(100 * (base - ours) / base)
        assert row.over_own == pytest.approx(100 * (own - ours) / own)
        assert row.saved_low <= row.saved <= row.saved_high
        own_tokens = ledger.token_group == ledger.groups.index(domain)
        gates = fused.gates[own_tokens].mean(0)
        assert row.own_gate == pytest.approx(float(gates[ledger.experts.index(domain)]))
        assert row.largest == ledger.experts[int(gates.argmax())]
        assert row.sources == len(set(ledger.source[ledger.group == ledger.groups.index(domain)]))


def test_a_domain_that_is_worse_than_the_base_is_counted(ledger, fused):
    own = ledger.token_group == ledger.groups.index("dialogue")
    worse = torch.where(own, ledger.column("base").double() - 0.5, fused.log_probs)
    rows = domain_gains.by_domain(ledger, Fused(worse, fused.gates))
    assert "dialogue" in domain_gains.degraded(rows)
    assert rows.saved["dialogue"] < 0
    found = domain_gains.n_degraded(ledger, Fused(worse, fused.gates))
    assert found.value == len(domain_gains.degraded(rows))
    assert found.low >= 1


def test_the_recorded_pooled_router_is_read_as_a_run_reads_it(kept_all):
    kept = kept_all[0]
    team = kept_runs.team("english")
    wanted = kept_runs.of(kept, team).fused["pooled"]
    found = kept_languages.pooled(kept, team)
    assert torch.equal(found.log_probs, wanted.log_probs)
    assert torch.equal(found.gates, wanted.gates)


def test_released_values_of_the_twenty():
    rows = domain_gains.released()
    assert list(rows.index) == list(TWENTY)
    assert list(rows.index[rows.own_gate < 0.5]) == ["chemistry"]
    assert rows.saved["dialogue"] < 0
    assert np.isfinite(rows.to_numpy()).all()


def test_a_gate_elsewhere_is_named(ledger, fused):
    gates = torch.zeros_like(fused.gates)
    gates[:, ledger.experts.index("welsh")] = 1
    rows = domain_gains.by_domain(replace(ledger), Fused(fused.log_probs, gates))
    assert set(rows.largest) == {"welsh"}
    assert rows.own_gate["tamil"] == 0
    assert rows.own_gate["welsh"] == 1
