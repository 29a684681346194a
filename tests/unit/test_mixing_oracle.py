"""The oracle that may mix: the best constant weights of each domain, and no better ones exist."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from study import ledger_of

from kalavai_helpers import evaluation, mixing_oracle


def scores(seed: int, n: int = 200, n_experts: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(n, n_experts, generator=draw, dtype=torch.float64)


def mean_log_likelihood(weights, log_probs) -> float:
    return float((torch.as_tensor(weights).log() + log_probs).logsumexp(1).mean())


@pytest.mark.parametrize("seed", range(4))
def test_no_other_weights_are_better(seed):
    log_probs = scores(seed)
    found = mixing_oracle.best_weights(log_probs)
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)
    reached = mean_log_likelihood(found, log_probs)
    # A search of another kind: over logits of the weights, by quasi-Newton steps.
    other = minimize(
        lambda z: -mean_log_likelihood(torch.tensor(z).softmax(0), log_probs), np.zeros(3)
    )
    assert reached >= -other.fun - 2e-6
    for weights in (*torch.eye(3, dtype=torch.float64), torch.full((3,), 1 / 3)):
        assert reached >= mean_log_likelihood(weights.clamp_min(1e-12), log_probs) - 2e-6


def test_it_finds_the_weights_that_the_tokens_were_drawn_with():
    """Each token is certain under one expert, impossible under the others: shares are counts."""
    owner = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    log_probs = torch.where(torch.nn.functional.one_hot(owner) > 0, 0.0, -40.0)
    found = mixing_oracle.best_weights(log_probs)
    assert found.tolist() == pytest.approx([0.7, 0.25, 0.05], abs=1e-6)


def test_an_expert_that_is_always_better_gets_all_the_weight():
    log_probs = scores(0)
    log_probs[:, 1] = log_probs.max(1).values + 0.5
    assert mixing_oracle.best_weights(log_probs)[1] > 1 - 1e-4


def two_ledgers(names=("red", "green", "blue")):
    """Router and held-out ledger of the same domains with other scores."""
    plain = ledger_of(np.ones((len(names) + 1, len(names))), names)
    return [
        replace(plain, log_probs=scores(seed, len(plain), len(names) + 1).float(), role=role)
        for seed, role in ((5, "router"), (6, "heldout"))
    ]


def test_weights_are_those_of_each_domain_of_the_fitting_documents():
    fitting, judged = two_ledgers()
    mixed = mixing_oracle.route(fitting, judged)
    for index in range(3):
        own = fitting.expert_log_probs[fitting.token_group == index]
        gates = mixed.gates[judged.token_group == index]
        assert torch.equal(gates, mixing_oracle.best_weights(own).expand_as(gates))
    fused = (mixed.gates * judged.expert_log_probs.exp()).sum(1).log()
    assert torch.allclose(mixed.log_probs, fused)


def test_heldout_documents_move_no_weight():
    fitting, judged = two_ledgers()
    other = replace(judged, log_probs=judged.log_probs.flip(0))
    found, again = (mixing_oracle.route(fitting, j).gates for j in (judged, other))
    assert torch.equal(found, again)


def test_fitted_where_it_is_judged_it_beats_every_pick_and_the_base_can_only_help():
    fitting, _ = two_ledgers()
    with_base = replace(fitting, experts=(*fitting.experts, "base"))
    table = evaluation.losses(
        fitting,
        {
            "mixing": mixing_oracle.route(fitting, fitting).log_probs,
            "with the base": mixing_oracle.route(with_base, with_base).log_probs,
        },
        "router",
    )
    losses = [table.equal_weight(n) for n in ("with the base", "mixing", "domain_oracle")]
    assert losses[0] <= losses[1] + 1e-6
    assert losses[1] <= losses[2] + 1e-6
    assert losses[1] < losses[2] - 0.01


def test_other_groups_or_experts_are_refused():
    fitting, judged = two_ledgers()
    with pytest.raises(ValueError, match="give ledgers of the same"):
        mixing_oracle.route(fitting, judged.restrict(("red", "green")))
    with pytest.raises(ValueError, match="give ledgers of the same"):
        mixing_oracle.route(fitting, replace(judged, experts=("red", "green", "blue", "base")))
