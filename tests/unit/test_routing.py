"""Routers: gates are weights, causal ones know the past alone, and evidence keeps its bounds."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import routing


@st.composite
def scores(draw, max_tokens=12, max_experts=4):
    """Log-probabilities (1, T, N) of a document, any values that experts could give."""
    n_tokens = draw(st.integers(1, max_tokens))
    n_experts = draw(st.integers(2, max_experts))
    values = draw(
        st.lists(st.floats(-30, 0), min_size=n_tokens * n_experts, max_size=n_tokens * n_experts)
    )
    return torch.tensor(values, dtype=torch.float64).reshape(1, n_tokens, n_experts)


@settings(max_examples=100, deadline=None)
@given(scores(), st.sampled_from([0.0, 0.003, 0.2]))
def test_evidence_gates_are_weights_and_start_equal(log_probs, alpha):
    gates = routing.EvidenceRouter(alpha)(None, log_probs)
    assert torch.allclose(gates.sum(-1), torch.ones(1, dtype=torch.float64).expand(gates.shape[:2]))
    assert (gates >= 0).all()
    assert torch.allclose(gates[:, 0], torch.full_like(gates[:, 0], 1 / gates.shape[-1]))


@settings(max_examples=100, deadline=None)
@given(scores())
def test_without_switches_a_document_costs_at_most_ln_n_more_than_its_best_expert(log_probs):
    gates = routing.EvidenceRouter(0.0)(None, log_probs)
    fused = -routing.fuse_log_probs(gates, log_probs).sum()
    best = -log_probs.sum(1).max()
    assert fused <= best + math.log(log_probs.shape[-1]) + 1e-9


@settings(max_examples=60, deadline=None)
@given(scores(max_tokens=7, max_experts=3), st.sampled_from([0.01, 0.1, 0.5]))
def test_fixed_share_bound_holds_against_every_segmentation(log_probs, alpha):
    n_tokens, n_experts = log_probs.shape[1:]
    gates = routing.EvidenceRouter(alpha)(None, log_probs)
    fused = float(-routing.fuse_log_probs(gates, log_probs).sum())
    for path in itertools.product(range(n_experts), repeat=n_tokens):
        loss = -sum(float(log_probs[0, t, e]) for t, e in enumerate(path))
        segments = 1 + int((np.diff(path) != 0).sum())
        bound = routing.fixed_share_bound(segments, n_tokens, n_experts, alpha)
        assert fused <= loss + bound + 1e-9


@settings(max_examples=60, deadline=None)
@given(scores())
def test_mixing_never_does_worse_than_drawing_an_expert(log_probs):
    gates = routing.EvidenceRouter()(None, log_probs)
    drawn = (gates * log_probs).sum(-1)
    assert (routing.fuse_log_probs(gates, log_probs) >= drawn - 1e-9).all()


def test_evidence_finds_the_expert_and_follows_a_switch():
    log_probs = torch.full((1, 60, 2), math.log(0.1))
    log_probs[0, :30, 0] = log_probs[0, 30:, 1] = math.log(0.5)
    gates = routing.EvidenceRouter()(None, log_probs)[0]
    assert gates[10, 0] > 0.95
    assert gates[45, 1] > 0.95
    stubborn = routing.EvidenceRouter(0.0)(None, log_probs)[0]
    assert stubborn[45, 1] < 0.5


def test_a_gate_never_sees_the_token_it_weighs():
    log_probs = torch.randn(2, 10, 3)
    changed = log_probs.clone()
    changed[:, 6:, 0] -= 5.0
    router = routing.EvidenceRouter()
    before, after = router(None, log_probs), router(None, changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_uniform_gates_are_equal():
    assert torch.equal(
        routing.UniformRouter()(None, torch.randn(1, 4, 5)), torch.full((1, 4, 5), 0.2)
    )


def test_names_make_routers_and_unknown_ones_list_them():
    assert routing.make("evidence", alpha=0.1).alpha == 0.1
    with pytest.raises(ValueError, match="uniform, evidence, linear, pooled"):
        routing.make("oracle")


@pytest.mark.parametrize("alpha", [-0.1, 1.0])
def test_alpha_must_be_a_chance(alpha):
    with pytest.raises(ValueError, match="alpha"):
        routing.EvidenceRouter(alpha)


def test_linear_router_learns_whom_the_features_point_to(tiny):
    from dataclasses import replace

    from kalavai_helpers import ledger

    found = ledger.build(tiny, "router")
    best = found.expert_log_probs.argmax(1)
    telling = replace(found, features=torch.nn.functional.one_hot(best, 3).float())
    router = routing.fit_linear(telling)
    gates = routing.ledger_gates(router, telling)
    assert float((gates.argmax(1) == best).double().mean()) > 0.99
    loss = -routing.fuse_log_probs(gates, found.expert_log_probs).mean()
    uniform = -routing.fuse_log_probs(torch.full_like(gates, 1 / 3), found.expert_log_probs).mean()
    assert loss < uniform


def test_a_router_that_is_not_causal_cannot_be_read_off_a_ledger(tiny):
    from kalavai_helpers import ledger

    with pytest.raises(ValueError, match="not causal"):
        routing.ledger_gates(routing.PooledRouter(4, 3), ledger.build(tiny))


@pytest.fixture(scope="module")
def fitting(tiny):
    from kalavai_helpers import ledger

    return ledger.build(tiny, "router")


def test_em_never_lowers_the_likelihood_and_starts_at_the_uniform_mixture(fitting):
    from kalavai_helpers import router_fit

    objective = router_fit.fit_em(fitting, iterations=8, tolerance=0.0).objective
    log_probs = fitting.expert_log_probs
    uniform = routing.fuse_log_probs(torch.full_like(log_probs, 1 / 3), log_probs).mean()
    assert objective[0] == pytest.approx(float(uniform), abs=1e-9)
    assert (np.diff(objective) >= -1e-9).all()
    assert objective[-1] > objective[0]
    # ... and the uniform mixture is within ln N of the best expert of every token.
    assert objective[0] >= float(log_probs.max(1).values.mean()) - math.log(3)


def test_em_has_no_seed(fitting):
    from kalavai_helpers import router_fit

    torch.manual_seed(1)
    first = router_fit.fit_em(fitting, iterations=3).router.weight
    torch.manual_seed(2)
    assert torch.equal(first, router_fit.fit_em(fitting, iterations=3).router.weight)


def test_em_treats_the_experts_alike(fitting):
    """Renaming the experts renames the gates and changes nothing else."""
    from dataclasses import replace

    from kalavai_helpers import router_fit

    order = (2, 0, 1)
    renamed = replace(fitting, experts=tuple(fitting.experts[i] for i in order))
    weight = router_fit.fit_em(fitting, iterations=4).router.weight
    assert torch.allclose(
        router_fit.fit_em(renamed, iterations=4).router.weight, weight[list(order)], atol=1e-4
    )


def test_em_reaches_what_climbing_directly_reaches(fitting):
    from kalavai_helpers import router_fit

    fitted = {"em": router_fit.fit_em(fitting, 60).router, "direct": routing.fit_linear(fitting)}
    losses = {
        name: float(
            -routing.fuse_log_probs(
                routing.ledger_gates(router, fitting), fitting.expert_log_probs
            ).mean()
        )
        for name, router in fitted.items()
    }
    assert losses["em"] == pytest.approx(losses["direct"], abs=2e-3)


def test_em_weighs_tokens_as_if_they_were_repeated(fitting):
    from dataclasses import replace

    from kalavai_helpers import router_fit

    twice = torch.arange(len(fitting)).repeat_interleave(1 + (fitting.token_group == 0))
    parts = ("log_probs", "features", "document", "window")
    repeated = replace(fitting, **{name: getattr(fitting, name)[twice] for name in parts})
    weights = 1.0 + (fitting.token_group == 0)
    one = router_fit.fit_em(fitting, 60, tolerance=1e-9, weights=weights).objective[-1]
    assert one == pytest.approx(
        router_fit.fit_em(repeated, 60, tolerance=1e-9).objective[-1], abs=1e-3
    )


def test_prefix_means_start_anew_with_every_document(fitting):
    from kalavai_helpers import router_fit

    means = router_fit.prefix_means(fitting)
    for document in (0, 1, fitting.n_documents - 1):
        states = fitting.features[fitting.document == document]
        expected = states.cumsum(0) / torch.arange(1, len(states) + 1)[:, None]
        assert torch.allclose(means[fitting.document == document], expected, atol=1e-4)


def test_ledger_gates_of_a_router_with_memory_know_the_document_and_nothing_before(fitting):
    """What is fitted on prefix means is what the router reads off the ledger."""
    from kalavai_helpers import router_fit

    router = router_fit.fit_prefix_mean(fitting)
    expected = router.scores(router_fit.prefix_means(fitting)).softmax(-1)
    assert torch.allclose(routing.ledger_gates(router, fitting).float(), expected, atol=1e-5)


def test_prefix_mean_learns_a_domain_that_only_the_whole_prefix_shows(fitting):
    """States too noisy to tell a token's domain by themselves tell it together."""
    from dataclasses import replace

    from kalavai_helpers import router_fit

    own = torch.nn.functional.one_hot(fitting.token_group, 3).float()
    generator = torch.Generator().manual_seed(0)
    noisy = replace(fitting, features=own + 4 * torch.randn(own.shape, generator=generator))
    right = {
        name: float((routing.ledger_gates(r, noisy).argmax(1) == noisy.token_group).double().mean())
        for name, r in {
            "prefix": router_fit.fit_prefix_mean(noisy),
            "token": routing.fit_linear(noisy),
        }.items()
    }
    assert right["prefix"] > 0.8 > 0.55 > right["token"]


def test_a_pooled_router_with_a_hidden_layer_is_two_products_without_bias():
    router = routing.PooledRouter(5, 3, 4)
    assert {name: tuple(p.shape) for name, p in router.named_parameters()} == {
        "hidden.weight": (4, 5),
        "linear.weight": (3, 4),
    }
    means = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    hidden = (means @ router.hidden.weight.T).clamp_min(0)
    assert torch.allclose(router.weigh(means), (hidden @ router.linear.weight.T).softmax(-1))
    assert router.arguments() == {"n_features": 5, "n_experts": 3, "width": 4}
    assert routing.PooledRouter(5, 3).arguments()["width"] is None


def test_a_prefix_mean_router_is_fitted_on_the_means_that_it_reads(fitting):
    from kalavai_helpers import learned_routers, router_fit

    log_probs = fitting.expert_log_probs

    def loss(router):
        return -float(
            routing.fuse_log_probs(routing.ledger_gates(router, fitting), log_probs).mean()
        )

    single = learned_routers.PrefixMeanRouter(fitting.features.shape[1], log_probs.shape[1])
    routing.climb(single, fitting.features, log_probs.float())
    assert loss(router_fit.fit_prefix_mean(fitting)) < loss(single) - 1e-3


@pytest.mark.parametrize("width", [None, 4])
def test_padding_does_not_count_in_a_pooled_mean(width):
    generator = torch.Generator().manual_seed(0)
    router = routing.PooledRouter(5, 3, width)
    features = torch.randn(2, 6, 5, generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    gates = router(features, torch.zeros(2, 6, 3), mask)
    alone = router(features[1:, :4], torch.zeros(1, 4, 3))
    assert torch.allclose(gates[1, :4], alone[0], atol=1e-6)
