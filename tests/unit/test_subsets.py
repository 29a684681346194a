"""A subset is measured as the cooperative that it is, by itself."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import study
import torch

from kalavai_helpers import evaluation, gain_rules, losses, parallel, subsets
from kalavai_helpers.corpora import RoleError
from kalavai_helpers.routing import EvidenceRouter, UniformRouter

DOMAINS = ("tamil", "code", "yoruba", "legal", "welsh", "medical", "patent")


@pytest.fixture(autouse=True)
def _no_worker_processes(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def ledger():
    n = len(DOMAINS)
    random = np.random.default_rng(0)
    base = random.uniform(1.5, 5, n)
    changes = random.uniform(-0.03, 0.1, (n, n))
    changes[np.diag_indices(n)] = -random.uniform(0.05, 0.3, n)
    found = study.ledger_of(np.vstack([base, base * (1 + changes)]), DOMAINS)
    noise = torch.randn(found.log_probs.shape, generator=torch.Generator().manual_seed(0))
    source = np.array([f"{name}-{k // 2}" for name in DOMAINS for k in range(study.N_DOCUMENTS)])
    return replace(found, log_probs=found.log_probs - noise.abs(), source=source)


def every(n: int) -> np.ndarray:
    chosen = [c for size in range(2, n + 1) for c in combinations(range(n), size)]
    return np.array([[k in c for k in range(n)] for c in chosen])


def test_subsets_are_what_routing_each_by_itself_gives(ledger):
    found = subsets.measure(ledger, every(len(DOMAINS)))
    for _, row in found.table.iloc[::17].iterrows():
        domains = tuple(row["domains"].split("+"))
        part = ledger.restrict(domains)
        fused = evaluation.route(part, {"e": EvidenceRouter(), "u": UniformRouter()})
        table = evaluation.losses(part, {name: f.log_probs for name, f in fused.items()})
        expected = {
            "gain": evaluation.gain_pct(table, "e", domains).value,
            "uniform_gain": evaluation.gain_pct(table, "u", domains).value,
            "oracle": evaluation.gain_pct(table, "domain_oracle", domains).value,
            "gain_over_base": evaluation.gain_over_base_pct(table, "e").value,
            "evidence_loss": table.equal_weight("e"),
            "uniform_loss": table.equal_weight("u"),
            "base": table.equal_weight("base"),
            "divergence": np.mean([evaluation.divergence_pct(table, d).value for d in domains]),
            "oracle_loss": table.equal_weight("domain_oracle"),
        }
        assert row[[*expected]].to_dict() == pytest.approx(expected, abs=1e-9)
        assert row["best"] == evaluation.best_specialist(table, domains)
        assert row["gain"] == pytest.approx(row["oracle"] + row["net"])


def test_all_specialists_are_the_whole_cooperative(ledger):
    whole = subsets.measure(ledger, np.ones((1, len(DOMAINS)), bool)).table.iloc[0]
    fused = evaluation.route(ledger, {"e": EvidenceRouter()})["e"]
    parts = evaluation.account(ledger, "e", fused.log_probs, fused.gates)
    assert whole["gain"] == pytest.approx(parts.gain_pct.value, abs=1e-9)
    assert whole["oracle"] == pytest.approx(parts.oracle_gain_pct.value, abs=1e-9)
    assert whole["n"] == len(DOMAINS)


def test_the_order_of_specialists_does_not_matter(ledger):
    members = every(len(DOMAINS))
    order = np.random.default_rng(1).permutation(len(DOMAINS))
    turned = ledger.restrict(tuple(DOMAINS[k] for k in order))
    # The documents stay where they are, so that only names and columns change places.
    first = subsets.measure(ledger, members).table
    other = subsets.measure(turned, members[:, order]).table
    for table in (first, other):
        table["domains"] = ["+".join(sorted(name.split("+"))) for name in table["domains"]]
    assert list(first["best"]) == list(other["best"])
    assert list(first["domains"]) == list(other["domains"])
    numbers = first.select_dtypes("number").columns
    assert np.allclose(first[numbers], other[numbers], rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [4, 9, 20])
def test_halves_share_no_specialist(n):
    halves = subsets.halvings(n, 30)
    assert not (halves[:, 0] & halves[:, 1]).any()
    assert (halves.sum(2) == n // 2).all()
    assert not np.array_equal(halves, subsets.halvings(n, 30, seed=1))
    with pytest.raises(ValueError, match="at least four"):
        subsets.halvings(3)


def test_every_half_has_every_size_and_no_specialist_is_likelier():
    halves = subsets.halvings(20)
    members = subsets.draw(halves)
    size = members.sum(1)
    assert len(np.unique(members, axis=0)) == len(members) > 5000
    assert list(size) == sorted(size)
    assert (np.bincount(size)[[2, 18, 19, 20]] == [190, 190, 20, 1]).all()
    for half in halves.reshape(-1, 20):
        inside = ~(members & ~half).any(1)
        assert set(size[inside]) == set(range(2, 11))
    for chosen in range(2, 18):
        share = members[size == chosen].mean(0) * 20 / chosen
        assert share.min() > 0.6, chosen
        assert share.max() < 1.4, chosen
    assert np.array_equal(members, subsets.draw(halves))


def test_a_ledger_of_other_domains_or_another_role_is_refused(ledger):
    with pytest.raises(ValueError, match="restrict the ledger"):
        subsets.measure(replace(ledger, experts=DOMAINS[:3]), np.ones((1, 3), bool))
    with pytest.raises(RoleError):
        subsets.measure(replace(ledger, role="router"), every(len(DOMAINS)))


def test_growth_is_the_mean_of_each_size_with_an_interval_only_where_halves_have_it(ledger):
    halves = subsets.halvings(len(DOMAINS), 20)
    found = subsets.measure(ledger, subsets.draw(halves))
    grown = subsets.growth(found, halves, ("gain",))
    for size, part in found.table.groupby("n"):
        row = grown.loc[size]
        assert row["gain"] == pytest.approx(part["gain"].mean())
        assert row["subsets"] == len(part)
        assert np.isnan(row["gain_low"]) == (size > len(DOMAINS) // 2)
    assert grown.loc[2, "gain_low"] < grown.loc[2, "gain"] < grown.loc[2, "gain_high"]
    inside = [~(found.members & ~half).any(1) for half in halves.reshape(-1, len(DOMAINS))]
    pairs = (found.table["n"] == 2).to_numpy()
    means = [found.table["gain"][pairs & i].mean() for i in inside]
    assert grown.loc[2, "gain_low"] == pytest.approx(np.quantile(means, 0.025))


def test_named_cooperatives_have_intervals_over_their_sources(ledger):
    found = subsets.named(ledger)
    assert list(found.index) == ["private", "cross-lingual", "all"]
    private = ("medical", "legal", "patent")
    assert found.loc["private", "domains"] == "+".join(private)
    assert list(found["sources"]) == [6, 8, 14]
    members = np.array([[d in private for d in DOMAINS]])
    row = subsets.measure(ledger, members).table.iloc[0]
    for name in ("gain", "uniform_gain", "oracle", "gain_over_base", "divergence"):
        assert found.loc["private", name] == pytest.approx(row[name], abs=1e-9)
        assert found.loc["private", f"{name}_low"] < found.loc["private", f"{name}_high"]
    assert subsets.cooperative(ledger, private)["gain"].over == "sources"


def test_a_figure_shows_some_of_every_size(ledger):
    found = subsets.measure(ledger, every(len(DOMAINS)))
    shown = subsets.thinned(found, 3)
    assert dict(shown.groupby("n").size()) == {2: 3, 3: 3, 4: 3, 5: 3, 6: 3, 7: 1}
    assert shown.index.isin(found.table.index).all()


def test_an_interval_over_halves_is_one_over_specialists():
    """For a mean, halves vary around the whole as samples of the whole do: the textbook interval."""
    values = np.random.default_rng(0).normal(size=20)
    halves = subsets.halvings(20, 4000)
    means = [values[half].mean() for half in halves.reshape(-1, 20)]
    found = gain_rules.over_halves(means, 20)
    reach = 1.96 * values.std(ddof=1) / np.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.05)
    assert isinstance(found, losses.Estimate)
    assert found.units == 20
