"""Routers compared: exact terms, and a choice that no held-out document can touch."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kalavai_helpers import (
    evaluation,
    ledger,
    mixing_oracle,
    router_comparison,
    router_fit,
    routing,
)

FITS = {
    name: router_comparison.FITS[name]
    for name in ("uniform", "evidence", "linear, expert states", "log-linear, slow and fast")
}


@pytest.fixture(scope="module")
def comparison(tiny):
    return router_comparison.compare([tiny], FITS, folds=2)


def test_the_comparison_accounts_for_every_gain_exactly(tiny, comparison):
    table = comparison.table
    found = ledger.build(tiny)
    losses = evaluation.losses(found)
    best = min(losses.equal_weight(name) for name in found.experts)
    oracle = 100 * (best - losses.equal_weight("domain_oracle")) / best
    left_over = table.gain - (oracle - table.regret + table.bonus)
    assert left_over.abs().max() < 1e-6
    assert (table.bonus >= -1e-9).all()
    assert (table.above_oracle_low <= table.above_oracle_high).all()
    evidence = evaluation.route(found, {"e": routing.EvidenceRouter()})["e"].log_probs
    expected = evaluation.losses(found, {"e": evidence}).equal_weight("e")
    assert table.loss["evidence"] == pytest.approx(expected, abs=1e-9)


def test_the_best_router_is_chosen_on_router_documents(comparison):
    routers = comparison.table[comparison.table.kind == "router"]
    assert comparison.best == routers.chosen_by.idxmin()
    assert comparison.taken.startswith("95 % interval over ")
    rivals = {router_comparison.MIXING, router_comparison.RIVAL}
    fitted = {*FITS, "log-linear, slow and fast, with the base"}
    assert set(comparison.table.index) == fitted | rivals
    assert set(comparison.table.index[comparison.table.kind == "oracle"]) == rivals


def test_an_oracle_is_never_chosen_as_the_best_router(tiny, monkeypatch):
    monkeypatch.setattr(router_comparison, "MAY_USE_BASE", ())
    found = router_comparison.compare([tiny], {"uniform": FITS["uniform"]})
    assert found.table.chosen_by.idxmin() in (router_comparison.MIXING, router_comparison.RIVAL)
    assert found.best == "uniform"


def test_a_source_is_judged_as_a_whole_and_every_part_has_every_domain(tiny):
    found = router_comparison.read(tiny, "router").ledger
    group = torch.tensor([0] * 6 + [1] * 3)
    source = np.array([*"aabbcd", *"eee"])
    found = replace(found, groups=("many", "one"), group=group, source=source)
    found = replace(found, document=torch.arange(9))
    fold = router_comparison._folds(found, 2)
    assert fold.tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 0]


def test_the_rival_mixes_has_the_base_and_is_fitted_on_router_documents(tiny, comparison):
    parts = [ledger.build(tiny, role) for role in ("router", "heldout")]
    parts = [replace(part, experts=(*part.experts, "base")) for part in parts]
    rival = evaluation.losses(parts[1], {"rival": mixing_oracle.route(*parts).log_probs})
    table = comparison.table
    expected = rival.equal_weight("rival")
    assert table.loss[router_comparison.RIVAL] == pytest.approx(expected, abs=1e-9)
    assert table.above_mixing_oracle[router_comparison.RIVAL] == 0
    assert table.above_mixing_oracle["evidence"] == pytest.approx(
        table.loss["evidence"] - expected, abs=1e-9
    )
    assert table.above_oracle["evidence"] == pytest.approx(
        table.loss["evidence"] - rival.equal_weight("domain_oracle"), abs=1e-9
    )
    base = rival.equal_weight("base")
    gain = 100 * (base - table.loss["evidence"]) / base
    assert table.gain_over_base["evidence"] == pytest.approx(gain)


def test_every_causal_router_can_be_fitted_and_read(tiny, monkeypatch):
    for name in ("fit_sgd", "fit_mlp"):  # how well they fit is tested apart
        monkeypatch.setattr(router_fit, name, partial(getattr(router_fit, name), steps=5))
    texts = router_comparison.read(tiny, "router")
    few = texts.of(torch.arange(texts.ledger.n_documents) % 6 == 0)
    for name, fit in router_comparison.FITS.items():
        gates = few.gates(fit(few))
        assert gates.shape == (len(few.ledger), 3), name
        assert torch.allclose(gates.sum(1), torch.ones_like(gates[:, 0]), atol=1e-5), name


def test_what_cannot_be_compared_is_refused(tiny):
    with pytest.raises(ValueError, match="at least 2 folds, not 1"):
        router_comparison.compare([tiny], folds=1)
    with pytest.raises(ValueError, match="same domains"):
        router_comparison.compare([tiny, replace(tiny, domains=("red", "blue"))])


def test_heldout_documents_decide_nothing(tiny, monkeypatch):
    """With other held-out scores everything that was fitted and chosen stays as it was."""
    # In this process, where the scores can be changed.
    here = lambda tasks: [task() for task in tasks]  # noqa: E731
    monkeypatch.setattr(router_comparison.parallel, "side_by_side", here)
    comparison = router_comparison.compare([tiny], FITS, folds=2)
    read = router_comparison.read

    def spoiled(cooperative, role):
        texts = read(cooperative, role)
        if role == "router":
            return texts
        turned = replace(texts.ledger, log_probs=texts.ledger.log_probs.flip(0))
        return replace(texts, ledger=turned)

    monkeypatch.setattr(router_comparison, "read", spoiled)
    other = router_comparison.compare([tiny], FITS, folds=2)
    assert other.best == comparison.best
    assert other.table.chosen_by.equals(comparison.table.chosen_by)
    assert not other.table.loss.equals(comparison.table.loss)


def test_cross_fitting_judges_every_document_by_routers_that_did_not_see_it(tiny, monkeypatch):
    texts = router_comparison.read(tiny, "router")
    # The size of a document, which no router reads, tells here which one it is.
    named = replace(texts.ledger, n_bytes=torch.arange(texts.ledger.n_documents))
    texts = replace(texts, ledger=named)
    seen = []

    def fit(part):
        seen.append(set(part.ledger.n_bytes.tolist()))
        return routing.UniformRouter()

    judged = router_comparison.Texts.gates

    def gates(self, router):
        seen.append(set(self.ledger.n_bytes.tolist()))
        return judged(self, router)

    monkeypatch.setattr(router_comparison.Texts, "gates", gates)
    parts = [router_comparison.cross_fitted(texts, {"one": fit}, k, folds=3) for k in range(3)]
    for fitted, scored in zip(seen[::2], seen[1::2], strict=True):
        assert not fitted & scored
    assert sorted(d for scored in seen[1::2] for d in scored) == named.n_bytes.tolist()
    log_probs = texts.ledger.expert_log_probs
    uniform = routing.fuse_log_probs(torch.full_like(log_probs, 1 / 3), log_probs)
    expected = evaluation.losses(texts.ledger, {"u": uniform}, "router").equal_weight("u")
    loss = router_comparison._joined(parts).equal_weight("one")
    assert loss == pytest.approx(float(expected), abs=1e-9)
