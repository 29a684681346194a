"""Routers with weights: exact gradients, causal with and without a cache, whole after saving."""

import math

import decoders
import pytest
import torch
from decoders import VOCAB
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from kalavai_helpers import fusion, routing
from kalavai_helpers.learned_routers import (
    ExpertStateRouter,
    LogLinearRouter,
    MLPRouter,
    PrefixMeanRouter,
    TemperedRouter,
)
from kalavai_helpers.trunk_router import TrunkRouter

WIDTH, N = 16, 3
CLOSE = 1e-5


def scattered(router, seed=1):
    """The router with random weights that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in router.named_parameters():
            size = 0.3 if name.endswith("log_powers") else 1.0
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return router.requires_grad_(False)


MADE = {
    "linear": lambda: routing.LinearRouter(WIDTH, N),
    "prefix-mean": lambda: PrefixMeanRouter(WIDTH, N),
    "mlp": lambda: MLPRouter(WIDTH, N, width=8),
    "log-linear": lambda: LogLinearRouter(WIDTH, N, [0.02]),
    "two filters": lambda: LogLinearRouter(WIDTH, N, [0.001, 0.2]),
    "expert-states": lambda: ExpertStateRouter(WIDTH, N),
    "tempered evidence": lambda: TemperedRouter(routing.EvidenceRouter(0.05), 0.5, 2),
    "tempered log-linear": lambda: TemperedRouter(LogLinearRouter(WIDTH, N), 2.0),
    "tempered trunk": lambda: TemperedRouter(TrunkRouter(WIDTH, VOCAB, N, 0.05), top_k=2),
}


def fused(name, **options):
    base, specialists = decoders.cooperative()
    return fusion.fuse(base, specialists, scattered(MADE[name]()), **options)


@pytest.mark.parametrize("name", ["linear", "prefix-mean", "mlp", "two filters", "expert-states"])
def test_the_gradient_of_every_weight_is_that_of_the_loss(name):
    model = fused(name).double()
    ids = decoders.texts(2, 12)
    model.router.requires_grad_(True)
    model(ids, labels=ids).loss.backward()
    step = 1e-5
    for parameter in model.router.parameters():
        # The largest entry of the gradient: a check of noise against noise could not fail.
        at = parameter.grad.abs().flatten().argmax()
        flat = parameter.data.view(-1)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                flat[at] += sign * step
                losses.append(model(ids, labels=ids).loss.item())
                flat[at] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        found = parameter.grad.flatten()[at].item()
        assert abs(found) > 1e-5
        assert slope == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_a_prefix_keeps_its_gates_whatever_follows_with_a_cache_and_without(name):
    model = fused(name)
    ids = decoders.texts()
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 7) % VOCAB
    whole, other = model(ids), model(changed)
    assert torch.allclose(whole.gates[:, :12], other.gates[:, :12], atol=CLOSE)
    assert (whole.gates[:, 12:] - other.gates[:, 12:]).abs().max() > 1e-3
    past, gates = None, []
    for start, end in ((0, 7), (7, 12), (12, 13), (13, 20)):
        output = model(changed[:, start:end], past_key_values=past, use_cache=True)
        past = output.past_key_values
        gates.append(output.gates)
    assert torch.allclose(torch.cat(gates, 1), other.gates, atol=CLOSE)


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_padding_on_the_left_changes_no_gate(name):
    model = fused(name)
    ids = decoders.texts(1, 12)
    mask = torch.ones(1, 17, dtype=torch.long)
    mask[:, :5] = 0
    padded = torch.nn.functional.pad(ids, (5, 0))
    found = model(padded, attention_mask=mask).gates[:, 5:]
    assert torch.allclose(found, model(ids).gates, atol=CLOSE)


@pytest.mark.parametrize("name", ["prefix-mean", "mlp", "two filters", "tempered evidence"])
def test_generation_is_the_same_with_and_without_a_cache(name):
    model = fused(name)
    ids = decoders.texts(2, 8)
    made = [
        model.generate(ids, do_sample=False, max_new_tokens=6, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_saved_and_loaded_every_bit_of_the_router_is_the_same(name, tmp_path):
    model = fused(name)
    model.save_pretrained(tmp_path / "fused")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")
    assert type(loaded.router) is type(model.router)
    assert loaded.router.arguments() == model.router.arguments()
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    ids = decoders.texts()
    before, after = model(ids), loaded(ids)
    assert torch.equal(before.gates, after.gates)
    assert torch.equal(before.logits, after.logits)


def test_prefix_mean_gates_are_those_of_the_mean_of_all_states_so_far():
    router = scattered(PrefixMeanRouter(WIDTH, N))
    states = torch.randn(2, 9, WIDTH, generator=torch.Generator().manual_seed(0))
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, :3] = False  # padding on the left
    gates = router(states, torch.zeros(2, 9, N), real)
    for row, begin in ((0, 0), (1, 3)):
        for t in range(begin, 9):
            mean = states[row, begin : t + 1].mean(0)
            assert torch.allclose(gates[row, t], (router.weight @ mean).softmax(-1), atol=1e-5)
    # At the first token it is the linear router of the same weights, and only there.
    linear = routing.LinearRouter(WIDTH, N)
    linear.load_state_dict(router.state_dict())
    beside = linear(states, torch.zeros(2, 9, N))
    assert torch.allclose(gates[0, 0], beside[0, 0], atol=1e-6)
    assert not torch.allclose(gates[0, 1:], beside[0, 1:], atol=1e-2)


def test_padding_without_a_state_spoils_no_mean():
    router = scattered(PrefixMeanRouter(WIDTH, N))
    states = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[False, False, True, True, True, True]])
    expected = router(states[:, 2:], torch.zeros(1, 4, N))
    states[:, :2] = torch.nan
    assert torch.allclose(router(states, torch.zeros(1, 6, N), real)[:, 2:], expected, atol=1e-6)


def test_a_tempered_router_looks_back_as_far_as_the_one_within():
    assert TemperedRouter(PrefixMeanRouter(WIDTH, N)).looks_back
    assert not TemperedRouter(MLPRouter(WIDTH, N)).looks_back


@st.composite
def texts(draw):
    """Log-probabilities and states of one document, N experts, float64."""
    length = draw(st.integers(1, 10))
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    log_probs = -5 * torch.rand(1, length, N, generator=generator, dtype=torch.float64)
    return torch.randn(1, length, WIDTH, generator=generator), log_probs


@settings(max_examples=40, deadline=None)
@given(texts(), st.permutations(range(N)), st.sampled_from(["linear", "mlp", "two filters"]))
def test_renaming_the_experts_renames_the_gates(text, order, name):
    states, log_probs = text
    router, renamed = scattered(MADE[name]()), scattered(MADE[name]())
    gates = router(states, log_probs)
    weights = renamed.state_dict()
    renamed.load_state_dict(
        {k: v[list(order)] if k in router.per_expert else v for k, v in weights.items()}
    )
    found = renamed(states, log_probs[..., list(order)])
    assert torch.allclose(found, gates[..., list(order)], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(texts(), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_log_linear_without_switches_is_the_posterior_to_a_power_times_the_gate(text, a, b):
    """With α = 0 the filter is Bayes' rule: w ∝ the likelihood of the tokens so far."""
    states, log_probs = text
    router = scattered(LogLinearRouter(WIDTH, N, [0.0]))
    with torch.no_grad():
        router.log_powers.copy_(torch.tensor([a, b]).log())
    linear = router.scores(states).softmax(-1)
    before = log_probs.cumsum(1) - log_probs
    expected = before.softmax(-1) ** a * linear**b
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(router(states, log_probs), expected, atol=1e-5)


def test_log_linear_contains_the_evidence_and_the_linear_router():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 9, WIDTH, generator=generator)
    log_probs = -5 * torch.rand(1, 9, N, generator=generator)
    for powers, other in (
        ((1.0, 0.0), routing.EvidenceRouter(0.02)),
        ((0.0, 1.0), scattered(MADE["linear"]())),
    ):
        router = scattered(LogLinearRouter(WIDTH, N, [0.02]))
        with torch.no_grad():
            router.log_powers.copy_(torch.tensor(powers).log())
        assert router.powers == list(powers)
        expected = other(states, log_probs)
        assert torch.allclose(router(states, log_probs), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(texts(), st.floats(0.1, 10), st.integers(1, N))
def test_tempered_gates_are_weights_in_the_same_order_and_at_most_k(text, temperature, top_k):
    plain = routing.EvidenceRouter(0.05)(*text)
    gates = TemperedRouter(routing.EvidenceRouter(0.05), temperature, top_k)(*text)
    assert torch.allclose(gates.sum(-1), torch.ones_like(gates[..., 0]))
    assert ((gates > 0).sum(-1) <= top_k).all()
    assert torch.equal(gates.argmax(-1), plain.argmax(-1))
    kept = gates > 0
    # What is kept stays in proportion: ratios of gates are raised to 1/τ.
    first = gates.argmax(-1, keepdim=True)
    ratio = (plain / plain.gather(-1, first)) ** (1 / temperature)
    assert torch.allclose((gates / gates.gather(-1, first))[kept], ratio[kept], atol=1e-9)


def test_temperature_one_and_all_experts_change_no_bit_and_a_cold_router_decides():
    log_probs = -5 * torch.rand(2, 30, N, generator=torch.Generator().manual_seed(0))
    plain = routing.EvidenceRouter()(None, log_probs)
    assert torch.equal(TemperedRouter("evidence", 1.0, N)(None, log_probs), plain)
    cold = TemperedRouter("evidence", 1e-3)(None, log_probs)[:, 5:]
    top = TemperedRouter("evidence", top_k=1)(None, log_probs)[:, 5:]
    assert torch.allclose(cold, top, atol=1e-3)
    assert set(top.unique().tolist()) == {0.0, 1.0}
    hot = TemperedRouter("evidence", 1e6)(None, log_probs)
    assert torch.allclose(hot, torch.full_like(hot, 1 / N), atol=1e-3)


@torch.no_grad()
def test_what_top_k_cuts_need_not_run_where_the_trunk_decides():
    model = fused("tempered trunk")
    ids = decoders.texts()
    everything, skipping = model(ids), model(ids, epsilon=1e-9)
    assert everything.ran.all()
    assert (skipping.ran.sum(-1) == 2).all()
    assert (skipping.bound == 0).all()
    assert torch.allclose(everything.logits, skipping.logits, atol=CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperedRouter("evidence", 0.0), "temperature is a finite number above 0, not 0"),
        (lambda: TemperedRouter("evidence", -1.0), "above 0, not -1"),
        (lambda: TemperedRouter("evidence", math.nan), "above 0, not nan"),
        (lambda: TemperedRouter("evidence", math.inf), "above 0, not inf"),
        (lambda: TemperedRouter("evidence", top_k=0), "top_k is 0: keep at least 1"),
        (lambda: TemperedRouter("evidence", top_k=1.5), r"1\.5 is no whole number"),
        (lambda: TemperedRouter(MLPRouter(4, 3), top_k=4), "top_k is 4: keep from 1 to 3"),
        (
            lambda: TemperedRouter("evidence", top_k=4)(None, torch.zeros(1, 5, 3)),
            "top_k is 4: keep from 1 to 3",
        ),
        (lambda: TemperedRouter(TemperedRouter("uniform")), "tempered already"),
        (lambda: TemperedRouter("magic"), "Unknown router 'magic'"),
        (lambda: LogLinearRouter(4, 3, [1.0]), r"in \[0, 1\), not 1"),
        (lambda: LogLinearRouter(4, 3, []), "There are 0 alphas and 1 powers: give at least one"),
        (lambda: LogLinearRouter(4, 3, [0.1], [1.0]), "There are 1 alphas and 1 powers"),
        (lambda: LogLinearRouter(4, 3, powers=[1.0, -0.5]), r"from 0 up, not \[1.0, -0.5\]"),
        (lambda: routing.PooledRouter(4, 3, 0), "width counts hidden units, at least 1, not 0"),
        (lambda: MLPRouter(4, 3, width=0), "width counts hidden units, at least 1, not 0"),
        (lambda: routing.make("mlp"), "mlp router cannot be made so .*'n_features'"),
        (lambda: routing.make("evidence", beta=1), "evidence router cannot be made so .*'beta'"),
    ],
)
def test_bad_arguments_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("router", "options", "message"),
    [
        (MLPRouter(WIDTH, 4), {}, "mlp router chooses between 4 experts, and there are 3"),
        (TemperedRouter(LogLinearRouter(WIDTH, 2)), {}, "between 2 experts, and there are 3"),
        (TemperedRouter("evidence", top_k=4), {}, "top_k is 4, and there are 3 experts"),
        (ExpertStateRouter(WIDTH, N), {"epsilon": 0.1}, "expert-states router need every expert"),
        (LogLinearRouter(WIDTH, N), {"epsilon": 0.1}, "log-linear router need every expert"),
        (TemperedRouter("evidence"), {"epsilon": 0.1}, "tempered router need every expert"),
        ("mlp", {}, "mlp router cannot be made so"),
    ],
)
def test_a_router_that_does_not_fit_is_refused_when_fused(router, options, message):
    base, specialists = decoders.cooperative()
    with pytest.raises(ValueError, match=message):
        fusion.fuse(base, specialists, router, **options)


def test_a_tempered_router_that_reads_the_future_still_refuses_to_generate():
    base, specialists = decoders.cooperative()
    router = TemperedRouter(scattered(routing.PooledRouter(WIDTH, N)), 0.5)
    model = fusion.fuse(base, specialists, router)
    assert model.config.mixing == "logit"
    with pytest.raises(fusion.FusionError, match="cannot generate"):
        model.generate(decoders.texts(), max_new_tokens=2)
