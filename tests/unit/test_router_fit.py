"""Fitted routers: as likely as they claim, the same every time, refused where they do not fit."""

import math
from dataclasses import replace

import pytest
import torch

from kalavai_helpers import (
    expert_states,
    fusion,
    ledger,
    membership,
    packing,
    router_fit,
    routing,
)
from kalavai_helpers.learned_routers import ExpertStateRouter, LogLinearRouter, TemperedRouter


@pytest.fixture(scope="module")
def fitting(tiny):
    return ledger.build(tiny, "router")


@pytest.fixture(scope="module")
def experts(tiny):
    return expert_states.build(tiny, "router")


def likelihood(router, found):
    gates = routing.ledger_gates(router, found)
    return float(routing.fuse_log_probs(gates, found.expert_log_probs).mean())


def same(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_stochastic_steps_come_close_to_em_and_depend_on_the_seed_alone(fitting):
    em = likelihood(router_fit.fit_em(fitting).router, fitting)
    first = router_fit.fit_sgd(fitting, seed=1)
    assert likelihood(first, fitting) == pytest.approx(em, abs=0.01)
    some = router_fit.fit_sgd(fitting, seed=1, steps=50)
    torch.manual_seed(5)
    assert same(some, router_fit.fit_sgd(fitting, seed=1, steps=50))
    assert not same(some, router_fit.fit_sgd(fitting, seed=2, steps=50))


def test_a_hidden_layer_learns_what_no_linear_gate_can(fitting):
    """Whom to ask is the product of two signs: no linear function of them tells."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(len(fitting), 2, generator=generator)
    right = (signs.prod(1) > 0).long()
    log_probs = torch.full((len(fitting), 2), math.log(0.1))
    log_probs[torch.arange(len(fitting)), right] = math.log(0.5)
    found = replace(
        fitting, models=("a", "b"), experts=("a", "b"), log_probs=log_probs, features=signs
    )
    uniform = likelihood(routing.UniformRouter(), found)
    linear = likelihood(router_fit.fit_em(found).router, found)
    mlp = router_fit.fit_mlp(found, seed=3, steps=300)
    assert linear == pytest.approx(uniform, abs=0.02)
    assert likelihood(mlp, found) > uniform + 0.3
    torch.manual_seed(5)
    assert same(mlp, router_fit.fit_mlp(found, seed=3, steps=300))
    assert not same(mlp, router_fit.fit_mlp(found, seed=4, steps=300))


def test_fitted_alpha_is_at_least_as_likely_as_any_other(fitting):
    router = router_fit.fit_alpha(fitting)
    best = likelihood(router, fitting)
    for alpha in (0.0, 1e-5, 1e-3, 0.003, 0.03, 0.3):
        assert best >= likelihood(routing.EvidenceRouter(alpha), fitting) - 1e-5
    assert router_fit.fit_alpha(fitting).alpha == router.alpha


def test_fitted_alpha_follows_how_often_the_expert_changes(fitting):
    def switching_every(length, n=480):
        rows = torch.arange(n)
        log_probs = torch.full((n, 3), math.log(0.05))
        log_probs[rows, (rows // length) % 3] = math.log(0.6)
        names, document = fitting.experts, torch.zeros(n, dtype=torch.long)
        return replace(fitting, models=names, log_probs=log_probs, document=document)

    often, seldom = (router_fit.fit_alpha(switching_every(n)).alpha for n in (4, 80))
    assert 0.1 < often < 0.5
    assert seldom < often / 5


def test_log_linear_is_at_least_as_likely_as_each_of_its_two_parts(fitting):
    router = router_fit.fit_log_linear(fitting, [0.01])
    best = likelihood(router, fitting)
    assert best >= likelihood(routing.EvidenceRouter(0.01), fitting) - 1e-4
    assert best >= likelihood(routing.fit_linear(fitting), fitting) - 1e-4
    assert min(router.powers) >= 0
    torch.manual_seed(5)
    assert same(router, router_fit.fit_log_linear(fitting, [0.01]))


def test_a_ledger_of_documents_a_few_at_a_time_gives_the_same_gates(fitting, monkeypatch):
    router = router_fit.fit_log_linear(fitting, [0.01])
    whole = routing.ledger_gates(router, fitting)
    monkeypatch.setattr(routing, "_MAX_PADDED", 1)
    assert torch.allclose(routing.ledger_gates(router, fitting), whole, atol=1e-9)


@pytest.mark.parametrize("kind", ["expert states", "log-linear", "mlp"])
def test_the_model_gives_the_gates_of_the_ledger(tiny, fitting, experts, kind):
    router, role_ledger = {
        "expert states": lambda: (router_fit.fit_em(experts).router, experts),
        "log-linear": lambda: (router_fit.fit_log_linear(fitting, [0.01]), fitting),
        "mlp": lambda: (router_fit.fit_mlp(fitting, steps=20), fitting),
    }[kind]()
    specialists = {domain: tiny.model(domain) for domain in tiny.domains}
    model = fusion.fuse(tiny.model("base"), specialists, router, tiny.tier.frozen_layers)
    windows = tiny.windows("router", "blue")
    inputs = torch.from_numpy(windows.input_ids[:1])
    real = torch.from_numpy(windows.targets[:1] != packing.IGNORE)
    expected = routing.ledger_gates(router, role_ledger)[: int(real.sum())]
    with torch.no_grad():
        found = model(inputs).gates[real].double()
    assert torch.allclose(found, expected, atol=1e-4)


def test_expert_states_are_the_mean_over_experts_and_come_back_from_the_store(tiny, experts):
    windows = tiny.windows("router", "blue")
    inputs = torch.from_numpy(windows.input_ids[:1])
    with torch.no_grad():
        states = [tiny.model(d).base_model(inputs).last_hidden_state for d in tiny.domains]
    real = torch.from_numpy(windows.targets[:1] != packing.IGNORE)
    expected = torch.stack(states).mean(0)[real]
    assert torch.allclose(experts.features[: len(expected)], expected, atol=1e-5)
    again = expert_states.build(tiny, "router")
    assert torch.equal(again.features, experts.features)
    assert torch.equal(again.log_probs, ledger.build(tiny, "router").log_probs)


def test_a_router_is_only_read_off_the_states_it_was_fitted_on(tiny, fitting, experts):
    router = router_fit.fit_em(experts).router
    assert isinstance(router, ExpertStateRouter)
    assert isinstance(router_fit.fit_sgd(experts, steps=1), ExpertStateRouter)
    with pytest.raises(ValueError, match=r"reads states of the experts.*expert_states.read"):
        routing.ledger_gates(router, fitting)
    for fit in (routing.fit_linear, router_fit.fit_mlp, router_fit.fit_log_linear):
        with pytest.raises(ValueError, match=r"reads states of the base.*ledger.build"):
            fit(experts)
    with pytest.raises(ValueError, match="blue, green, red, and the experts are green, red"):
        router_fit.fit_em(membership.leave(experts, "blue"))
    with pytest.raises(ValueError, match="read the states of its experts again"):
        experts.restrict(("red", "blue"))
    with pytest.raises(ValueError, match="The ledger has 3 experts"):
        expert_states.read(fitting, [tiny.model("red")], tiny.windows("router", "red"))


@pytest.mark.parametrize("name", ["linear", "mlp", "log-linear", "tempered", "evidence"])
def test_whoever_leaves_takes_their_gate_along_and_the_others_are_renormalised(fitting, name):
    router = {
        "linear": lambda: routing.fit_linear(fitting),
        "mlp": lambda: router_fit.fit_mlp(fitting, steps=20),
        # Without switches: a share that goes to whoever left is no matter of gates.
        "log-linear": lambda: router_fit.fit_log_linear(fitting, [0.0]),
        "tempered": lambda: TemperedRouter(routing.fit_linear(fitting), 0.5),
        "evidence": lambda: routing.EvidenceRouter(0.0),
    }[name]()
    gates = routing.ledger_gates(router, fitting)[:, [0, 2]]
    there = gates.sum(1) > 1e-9
    assert there.double().mean() > 0.3
    expected = gates / gates.sum(1, keepdim=True)
    left = membership.leave(fitting, fitting.experts[1])
    if name != "evidence":
        with pytest.raises(ValueError, match=r"between 3 experts, and the ledger has 2.*without"):
            routing.ledger_gates(router, left)
    found = routing.ledger_gates(membership.without(router, 1), left)
    assert torch.allclose(found[there], expected[there], atol=1e-5)


@pytest.mark.parametrize(
    ("router", "expert", "message"),
    [
        (ExpertStateRouter(4, 3), 0, "depends on all its experts: fit it again"),
        (routing.LinearRouter(4, 3), 3, "Expert 3 cannot leave: there are 3"),
        (routing.LinearRouter(4, 1), 0, "Expert 0 cannot leave: there are 1"),
        (TemperedRouter(LogLinearRouter(4, 3), top_k=3), 1, "top_k is 3: keep from 1 to 2"),
    ],
)
def test_who_cannot_be_taken_out_of_a_router_is_told_why(router, expert, message):
    with pytest.raises(ValueError, match=message):
        membership.without(router, expert)


def test_a_fitted_router_cannot_judge_a_join(fitting):
    two = replace(fitting, experts=("blue", "green"))
    router = routing.fit_linear(two)
    scores = fitting.column("red")
    with pytest.raises(ValueError, match="between 2 experts, and the ledger has 3: fit it again"):
        membership.join(two, "another", scores, router)
