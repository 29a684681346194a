"""The account of a subset is the one of the cooperative that it is, by itself."""

import numpy as np
import pytest
import study
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import evaluation, parallel, subset_accounts, subsets
from kalavai_helpers.routing import EvidenceRouter

DOMAINS = ("tamil", "code", "yoruba", "legal", "welsh", "medical", "patent")
N = len(DOMAINS)


@pytest.fixture(autouse=True)
def _no_worker_processes(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def ledger():
    return study.noisy_ledger(DOMAINS)


def test_terms_are_those_of_the_cooperative_by_itself(ledger):
    halves = subsets.halvings(N, 4)
    whole = subsets.measure(ledger, subsets.draw(halves))
    rows = np.arange(0, len(whole.table), 9)
    found = subset_accounts.account(ledger, whole, rows)
    assert list(found.table["domains"]) == list(whole.table["domains"].iloc[rows])
    for _, row in found.table.iterrows():
        part = ledger.restrict(tuple(row["domains"].split("+")))
        fused = evaluation.route(part, {"e": EvidenceRouter()})["e"]
        expected = evaluation.account(part, "e", fused.log_probs, fused.gates)
        assert row["regret"] == pytest.approx(expected.routing_regret_pct.value, abs=1e-9)
        assert row["bonus"] == pytest.approx(expected.mixing_bonus_pct.value, abs=1e-9)
        assert row["oracle"] - row["regret"] + row["bonus"] == pytest.approx(row["gain"])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1e-4, 0.9))
def test_mixing_never_loses_to_one_expert_drawn_from_the_gates(seed, alpha):
    random = torch.Generator().manual_seed(seed)
    log_probs = -8 * torch.rand(30, 4, generator=random)
    members = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 0, 1]], dtype=torch.bool)
    (drawn,) = subset_accounts.drawn_log_probs(log_probs, members, alpha)
    mixed, _ = subsets.subset_log_probs(log_probs, members, alpha)
    assert (drawn <= mixed + 1e-9).all()
    own = torch.tensor([[0], [1], [0], [0]], dtype=torch.bool)
    (alone,) = subset_accounts.drawn_log_probs(log_probs, own, alpha)
    assert alone.item() == pytest.approx(log_probs[:, 1].double().sum().item())


@pytest.mark.parametrize(("n", "count"), [(7, 6), (20, 30)])
def test_every_half_has_one_of_every_size_that_it_can_hold(n, count):
    halves = subsets.halvings(n, count)
    members = subsets.draw(halves)
    found = subsets.Subsets(tuple(map(str, range(n))), members, None)
    rows = subset_accounts.chosen(found, halves, larger=5)
    assert list(rows) == sorted(set(rows))
    assert len(rows) < len(members) or n == 7
    size = members[rows].sum(1)
    for half in halves.reshape(-1, n):
        inside = ~(members[rows] & ~half).any(1)
        assert set(size[inside]) == set(range(2, n // 2 + 1))
    larger, count = np.unique(size[size > n // 2], return_counts=True)
    assert list(larger) == list(range(n // 2 + 1, n + 1))
    assert count.max() <= 5
