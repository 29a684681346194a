"""The experiments of high divergence on a recorded ledger, by hand from its losses."""

from dataclasses import replace

import numpy as np
import pytest

from kalavai_helpers import evaluation, high_divergence, published, subsets
from kalavai_helpers.corpora import MAIN_DOMAINS


@pytest.fixture(scope="module")
def held(kept_all):
    return kept_all[0].parts["heldout"]


@pytest.fixture(scope="module")
def table(held):
    return high_divergence.losses(held)


def by_hand(held, domains):
    """Mean relative loss reduction at home, from token losses."""
    each = []
    for domain in domains:
        own = held.token_group == held.groups.index(domain)
        base, mine = (-held.column(m)[own].double().mean() for m in ("base", domain))
        each.append(float(100 * (base - mine) / base))
    return np.mean(each)


def test_mean_divergences_lowest_and_lead(held, table):
    each = {n: by_hand(held, d) for n, d in high_divergence.EXPERIMENTS.items()}
    for name, domains in high_divergence.EXPERIMENTS.items():
        found = high_divergence.divergence(table, domains)
        assert found.value == pytest.approx(each[name], rel=1e-5)
        assert found.low <= found.value <= found.high
    assert high_divergence.lowest(table).value == pytest.approx(min(each.values()), rel=1e-5)
    cross = each.pop(high_divergence.CROSS)
    others = [*each.values(), by_hand(held, MAIN_DOMAINS)]
    assert high_divergence.lead(table).value == pytest.approx(cross - max(others), rel=1e-5)


def test_the_margin_of_the_go_rule_is_its_tighter_half(held):
    for domains in list(high_divergence.EXPERIMENTS.values())[:2]:
        found = subsets.cooperative(held, domains)
        wanted = min(found["divergence"].value - 15, found["gain"].value - 7)
        assert high_divergence.go_margin(held, domains).value == pytest.approx(wanted)


def test_a_specialist_that_learns_nothing_costs_its_cooperative_the_rule(held):
    domains = high_divergence.EXPERIMENTS[high_divergence.PRIVATE]
    still = held.log_probs.clone()
    for domain in domains:
        still[:, held.models.index(domain)] = held.column("base")
    margin = high_divergence.go_margin(replace(held, log_probs=still), domains)
    assert margin.value == pytest.approx(-15, abs=1e-6)
    assert margin.high < 0


def test_released_values_are_means_of_the_seeds_that_are_stated():
    frame = high_divergence.released()
    for name, stated in (
        (high_divergence.CROSS, "headline/cross-lingual/2_seeds/gain_vs_spec/s_na/as_stated"),
        (high_divergence.PRIVATE, "headline/private//gain_vs_spec/s_na/as_stated"),
    ):
        assert frame.gain[name] == pytest.approx(published.value(stated), abs=0.005)
    assert (frame.divergence > 15).all()


def test_the_experiments_are_those_of_the_release(held):
    sizes = {name: len(d) for name, d in high_divergence.EXPERIMENTS.items()}
    assert sizes == {"cross-lingual": 4, "private": 3, "20 contributors": 20}
    assert set(high_divergence.losses(held).groups) == set(held.groups)
    assert evaluation.losses(held.restrict(MAIN_DOMAINS)).groups == MAIN_DOMAINS
