"""The contract on words that came: no promise is broken, and what is dropped is counted."""

from dataclasses import replace

import numpy as np
import pytest
import study
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import corpora, evaluation, routing, word_contract

EPSILONS = (0.003, 0.03, 0.3)


def ledger_of_words(seed, n_experts=4):
    """Documents of random scores."""
    names = study.DOMAINS[:n_experts]
    found = study.ledger_of(np.ones((n_experts + 1, n_experts)), names)
    generator = torch.Generator().manual_seed(seed)
    return replace(found, log_probs=-6 * torch.rand(found.log_probs.shape, generator=generator))


def gates_of(ledger, seed, sharpness):
    generator = torch.Generator().manual_seed(seed)
    shape = len(ledger), len(ledger.experts)
    return (sharpness * torch.randn(shape, generator=generator)).softmax(-1)


@given(st.integers(0, 99), st.sampled_from([0.3, 2.0, 8.0]))
@settings(max_examples=20, deadline=None)
def test_no_word_changes_by_more_than_was_promised_of_it(seed, sharpness):
    found = ledger_of_words(seed)
    table = word_contract.measure(found, gates_of(found, seed, sharpness), EPSILONS)
    assert list(table.index) == [0.0, *EPSILONS]
    assert (table.excess <= 1e-12).all()
    assert (table.change <= table.bound + 1e-12).all()
    assert (table.bound <= table.index.to_numpy() + 1e-9).all()
    assert (table.mean_change <= table.change).all()
    assert (table.asked.diff().dropna() <= 1e-12).all()
    assert (table.experts.diff().dropna() <= 1e-12).all()
    assert (table.asked <= table.experts).all()
    nobody = table.loc[0.0]
    assert (nobody.change, nobody.loss_change) == (0, 0)
    assert nobody.experts == nobody.asked == 4


def test_the_least_wanted_is_dropped_and_the_others_share_its_weight():
    found = ledger_of_words(3, 2)
    n = len(found)
    gates = torch.tensor([[0.96, 0.04]]).repeat(n, 1)
    gates[0] = torch.tensor([0.5, 0.5])
    table = word_contract.measure(found, gates, (0.05,))
    first, second = found.expert_log_probs.exp().unbind(1)
    dense, kept = 0.96 * first + 0.04 * second, first.clone()
    dense[0] = kept[0] = 0.5 * first[0] + 0.5 * second[0]
    change = (dense - kept).abs()
    row = table.loc[0.05]
    assert row.change == pytest.approx(float(change.max()), abs=1e-7)
    assert row.mean_change == pytest.approx(float(change.mean()), abs=1e-7)
    assert row.bound == pytest.approx(0.04, abs=1e-6)
    losses = -kept.log().mean(), -dense.log().mean()
    assert row.loss == pytest.approx(float(losses[0]), abs=1e-6)
    assert row.loss_change == pytest.approx(100 * float(losses[0] / losses[1] - 1), abs=1e-4)
    assert row.loss_change_low <= row.loss_change <= row.loss_change_high
    assert row.asked == pytest.approx((n + 1) / n)


def test_who_is_asked_has_to_have_read_what_came_before():
    found = ledger_of_words(0, 2)
    tokens = int((found.document == 0).sum())
    keep = torch.zeros(len(found), 2, dtype=torch.bool)
    keep[:, 0] = True
    keep[(found.document == 1).nonzero()[-1, 0], 1] = True  # needed for the last word of one text
    keep[(found.document == 2).nonzero()[2, 0], 1] = True  # and for the third of another
    expected = (len(found) + tokens + 3) / len(found)
    assert word_contract.read(found, keep) == pytest.approx(expected)


def test_gates_of_the_uniform_router_let_nobody_be_dropped_cheaply():
    found = ledger_of_words(1)
    gates = evaluation.route(found, {"u": routing.UniformRouter()})["u"].gates
    table = word_contract.measure(found, gates, (0.1, 0.3))
    assert table.asked.tolist() == [4, 4, 3]


def test_the_contract_is_judged_on_held_out_documents():
    found = replace(ledger_of_words(0), role="router")
    with pytest.raises(corpora.RoleError):
        word_contract.measure(found, gates_of(found, 0, 1.0), (0.1,))
