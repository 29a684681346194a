"""Fixed share: the fast filter is the plain one, and is what the theory says it is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import routing
from kalavai_helpers.filtering import fixed_share, subset_log_probs


def plain(evidence, alpha):
    """The definition, token by token, on probabilities."""
    n = evidence.shape[-1]
    weight, found = torch.full((len(evidence), n), 1 / n, dtype=torch.float64), []
    for t in range(evidence.shape[1]):
        weight = weight * evidence[:, t].double().exp()
        weight = (1 - alpha) * weight / weight.sum(1, keepdim=True) + alpha / n
        found.append(weight)
    return torch.stack(found, 1)


@st.composite
def evidence(draw):
    """(B, T, N), token by token or in blocks, from nearly nothing to hundreds of nats a token."""
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 150)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    scale = draw(st.sampled_from([0.01, 1.0, 30.0, 500.0]))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


alphas = st.sampled_from([0.0, 1e-12, 1e-4, 0.1, 0.9])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 5), alphas)
def test_blocks_side_by_side_give_what_token_by_token_gives(length, n, alpha):
    generator = torch.Generator().manual_seed(length)
    found = torch.randn(2, length, n, generator=generator)
    assert torch.allclose(fixed_share(found, alpha).exp(), plain(found, alpha), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(evidence(), alphas)
def test_weights_are_normalised_and_nobody_is_given_up(evidence, alpha):
    weights = fixed_share(evidence, alpha).exp()
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2], dtype=torch.float64))
    assert (weights >= alpha / weights.shape[-1] * (1 - 1e-9)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 120), st.integers(1, 119))
def test_the_filter_goes_on_from_where_it_stopped(length, cut):
    cut = min(cut, length - 1)
    evidence = torch.randn(1, length, 3, generator=torch.Generator().manual_seed(cut))
    whole = fixed_share(evidence, 0.01)
    rest = fixed_share(evidence[:, cut:], 0.01, whole[:, cut - 1])
    assert torch.allclose(rest, whole[:, cut:], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(evidence())
def test_without_switches_it_is_bayes(evidence):
    posterior, expected = torch.zeros_like(evidence[:, 0]), []
    for token in evidence.unbind(1):
        posterior = (posterior + token).log_softmax(-1)
        expected.append(posterior)
    assert torch.allclose(fixed_share(evidence, 0.0), torch.stack(expected, 1), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(evidence(), alphas, st.randoms())
def test_experts_in_another_order_have_their_weights_in_that_order(evidence, alpha, random):
    order = random.sample(range(evidence.shape[-1]), evidence.shape[-1])
    moved = fixed_share(evidence[..., order], alpha)
    assert torch.allclose(moved.exp(), fixed_share(evidence, alpha)[..., order].exp(), atol=1e-9)


def test_gradients_are_finite_through_blocks_and_certainty():
    evidence = (torch.randn(1, 100, 3) * 200).requires_grad_(True)
    for alpha in (0.0, 0.01):
        fixed_share(evidence, alpha).sum().backward()
        assert torch.isfinite(evidence.grad).all()


def test_the_evidence_router_reads_a_text_in_pieces_as_in_one():
    generator = torch.Generator().manual_seed(0)
    arrived = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64)
    arrived[:, 0] = 0
    router = routing.EvidenceRouter(0.01)
    shifted = torch.nn.functional.pad(arrived[:, 1:], (0, 0, 0, 1))
    whole = router(None, shifted)
    memory, found = {}, []
    for start, end in ((0, 1), (1, 50), (50, 60)):
        gates, new = router.resume(None, arrived[:, start:end], memory)
        memory = {k: torch.cat([memory[k], v], 1) if memory else v for k, v in new.items()}
        found.append(gates)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-9)
    again, _ = routing.Router.resume(router, None, arrived[:, 50:], {"arrived": arrived[:, :50]})
    assert torch.allclose(again, whole[:, 50:], atol=1e-9)
    assert math.isclose(float(whole[0, 0].sum()), 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.sampled_from([0.1, 3.0, 40.0]))
def test_subsets_side_by_side_give_what_routing_each_gives(length, n, scale):
    generator = torch.Generator().manual_seed(length)
    log_probs = -scale * torch.rand(length, n, generator=generator, dtype=torch.float64)
    members = torch.tensor([[number >> k & 1 for number in range(1, 2**n)] for k in range(n)]) == 1
    evidence, uniform = subset_log_probs(log_probs, members, 0.003)
    routers = {"evidence": routing.EvidenceRouter(0.003), "uniform": routing.UniformRouter()}
    for chosen, *found in zip(members.T, evidence, uniform, strict=True):
        own = log_probs[:, chosen]
        for value, router in zip(found, routers.values(), strict=True):
            fused = routing.fuse_log_probs(router(None, own[None])[0], own).sum()
            assert torch.isclose(value, fused, rtol=0, atol=1e-9)


def test_subsets_that_cannot_be_filtered_are_refused():
    log_probs, members = torch.zeros(4, 2), torch.tensor([[True, False], [True, False]])
    with pytest.raises(ValueError, match="no member"):
        subset_log_probs(log_probs, members, 0.01)
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        subset_log_probs(log_probs, members[:, :1], 0.0)
