"""Who joins a community is measured on everybody's text, the text of who has not joined included."""

import numpy as np
import pytest
import study
from hypothesis import given
from hypothesis import strategies as st

from kalavai_helpers import (
    evaluation,
    gain_rules,
    parallel,
    published,
    specialist_count,
    subsets,
)
from kalavai_helpers.routing import EvidenceRouter

N = 12
DOMAINS = tuple(f"domain{k}" for k in range(N))


@pytest.fixture(autouse=True)
def _no_worker_processes(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def ledger():
    random = np.random.default_rng(1)
    base = random.uniform(1.5, 5, N)
    changes = random.uniform(-0.02, 0.1, (N, N))
    changes[np.diag_indices(N)] = -random.uniform(0.05, 0.3, N)
    return study.ledger_of(np.vstack([base, base * (1 + changes)]), DOMAINS)


@pytest.fixture(scope="module")
def communities():
    return specialist_count.draw(subsets.halvings(N, 3), per_half=2)


@pytest.fixture(scope="module")
def measured(ledger, communities):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel.os, "cpu_count", lambda: 1)
        return specialist_count.measure(ledger, communities)


def test_a_gain_is_that_of_the_members_on_the_text_of_all(ledger, communities, measured):
    """Each by itself: restrict the text to the community, the experts to those who joined."""
    flat = communities.reshape(-1, specialist_count.SIZE)
    for row in measured.iloc[::5].itertuples():
        order = flat[row.community]
        joined = tuple(DOMAINS[k] for k in order[: row.contributors])
        part = ledger.restrict(joined, tuple(DOMAINS[k] for k in order))
        fused = evaluation.route(part, {"e": EvidenceRouter()})["e"]
        table = evaluation.losses(part, {"e": fused.log_probs})
        assert row.gain == pytest.approx(evaluation.gain_pct(table, "e", joined).value)
        assert row.gain_over_base == pytest.approx(evaluation.gain_over_base_pct(table, "e").value)


def test_when_all_have_joined_it_is_the_cooperative_itself(ledger, communities, measured):
    last = measured[measured.contributors == specialist_count.SIZE]
    members = np.eye(N, dtype=bool)[communities.reshape(-1, specialist_count.SIZE)].any(1)
    own = subsets.measure(ledger, members).table
    assert last.gain.to_numpy() == pytest.approx(own.gain.to_numpy())


@given(st.integers(5, 9), st.integers(1, 4), st.integers(0, 99))
def test_communities_stay_within_their_half(half, per_half, seed):
    halves = subsets.halvings(2 * half, 3, seed)
    drawn = specialist_count.draw(halves, per_half, seed=seed)
    assert drawn.shape == (6, per_half, specialist_count.SIZE)
    for members, inside in zip(drawn, halves.reshape(-1, 2 * half), strict=True):
        assert inside[members].all()
        assert all(len(set(one)) == specialist_count.SIZE for one in members)


def test_a_half_that_holds_no_community_is_refused():
    with pytest.raises(ValueError, match="Halves of 4 specialists"):
        specialist_count.draw(subsets.halvings(8, 1))


def test_domains_without_an_expert_are_refused(ledger, communities):
    with pytest.raises(ValueError, match="one expert a domain"):
        specialist_count.measure(ledger.restrict(DOMAINS[:5], DOMAINS), communities)


def test_statistics_are_of_the_mean_gains_and_their_intervals_over_halves(measured):
    counts = specialist_count.by_count(measured, N)
    means = measured.groupby("contributors").gain.mean()
    assert counts.gain.to_numpy() == pytest.approx(means.to_numpy())
    found = {n: e for n, (e, _) in specialist_count.statements(measured, N).items()}
    assert found["count_gain"].value == pytest.approx(means.loc[3:5].mean())
    assert specialist_count.spread(measured) == pytest.approx(np.ptp(means.loc[3:5]))
    assert found["five_minus_three"].value == pytest.approx(means[5] - means[3])
    assert found["two_minus_three"].value == pytest.approx(means[2] - means[3])
    each = measured.pivot_table("gain", "half", "contributors")
    expected = gain_rules.over_halves((each[2] - each[3]).to_numpy(), N)
    assert found["two_minus_three"].low == pytest.approx(expected.low)
    assert found["two_minus_three"].over == "specialists"
    assert found["two_minus_three"].units == N


def test_released_values_are_those_of_the_record():
    frame = specialist_count.released()
    assert list(frame.index) == [2, 3, 4, 5]
    stated = published.value("specialist-count/410M/3-5_specialists/improvement/s_na/as_stated")
    assert frame.as_printed[[3, 4, 5]].mean() == pytest.approx(stated, abs=0.05)
    assert (frame.gain_low <= frame.gain).all()
    assert (frame.gain <= frame.gain_high).all()
    assert frame.gain[2] == pytest.approx((1.7507 + 1.7637 + 1.7571) / 3)
