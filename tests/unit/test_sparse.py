"""The ε-contract: no prediction moves further than the bound says, and no bound exceeds ε."""

import decoders
import pytest
import torch
from decoders import VOCAB
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import fusion, sparse
from kalavai_helpers.trunk_router import TrunkRouter

N = 4


@pytest.fixture(scope="module")
def model():
    """Four specialists behind a router that knows each quarter of the vocabulary for one's own."""
    base, specialists = decoders.cooperative(n=N)
    router = TrunkRouter(16, VOCAB, N, alpha=1e-3)
    with torch.no_grad():
        router.table[torch.arange(VOCAB), torch.arange(VOCAB) % N] = 2.0
        router.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    return fusion.fuse(base, specialists, router.requires_grad_(False))


def document(pieces, seed):
    """Tokens of the experts' own vocabularies; ``pieces`` holds (expert, length)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        (torch.randint(VOCAB // N, (length,), generator=generator) * N + expert)
        for expert, length in pieces
    ]
    return torch.cat(parts)


def switching(length=96):
    """Documents of one domain, of two, of all in turn at several paces, and of noise."""
    plans = [
        [(0, length)],
        [(3, length)],
        [(1, length // 2), (2, length // 2)],
        *([(i % N, pace) for i in range(length // pace + 1)] for pace in (1, 3, 8, 24)),
    ]
    rows = [document(plan, i)[:length] for i, plan in enumerate(plans)]
    return torch.stack([*rows, decoders.texts(1, length)[0]])


def variation(one, other):
    """Total variation (...) between predictions given as log-probabilities (..., V)."""
    return (one.double().exp() - other.double().exp()).abs().sum(-1) / 2


@pytest.mark.parametrize("epsilon", [0.001, 0.01, 0.1, 0.5])
@torch.no_grad()
def test_predictions_move_no_further_than_the_bound_and_the_bound_stays_below_epsilon(
    model, epsilon
):
    ids = switching(192)
    assert ids.numel() > 1500
    dense, skipping = model(ids), model(ids, epsilon=epsilon)
    moved = variation(dense.logits, skipping.logits)
    assert (moved <= skipping.bound + 1e-6).all()
    assert (skipping.bound <= epsilon).all()
    assert torch.equal(dense.gates, skipping.gates)
    assert not skipping.ran.all()
    assert skipping.ran.any(-1).all()
    assert dense.ran.all()
    assert (dense.bound == 0).all()


@torch.no_grad()
def test_token_by_token_through_the_cache_the_contract_holds_too(model):
    ids = switching(64)
    dense = model(ids).logits
    whole = model(ids, epsilon=0.05)
    past, work = None, torch.zeros(N)
    for t in range(ids.shape[1]):
        output = model(ids[:, t : t + 1], past_key_values=past, use_cache=True, epsilon=0.05)
        past = output.past_key_values
        work += output.branch_tokens
        assert (variation(dense[:, t : t + 1], output.logits) <= output.bound + 1e-6).all()
        assert (output.bound <= 0.05).all()
        assert torch.allclose(output.logits[:, 0], whole.logits[:, t], atol=1e-5)
    assert (work <= ids.numel()).all()  # nothing is read twice


@torch.no_grad()
def test_a_document_of_one_domain_costs_little_more_than_one_branch(model):
    ids = document([(2, 192)], 0)[None]
    output = model(ids, epsilon=0.01)
    assert output.branch_tokens[2] == 192
    assert output.branch_tokens.sum() < 1.5 * 192
    assert output.ran[:, 32:].sum(-1).float().mean() == 1


@torch.no_grad()
def test_the_rows_of_a_batch_do_not_decide_for_each_other(model):
    ids = switching()
    together = model(ids, epsilon=0.05)
    for row in range(len(ids)):
        alone = model(ids[row : row + 1], epsilon=0.05)
        assert torch.equal(alone.ran[0], together.ran[row])
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-5)


def test_in_generation_an_expert_that_is_not_needed_reads_nothing_until_it_is(model):
    start = document([(1, 40)], 0)[None]
    with torch.no_grad():
        cache = model(start, use_cache=True, logits_to_keep=1, epsilon=0.05).past_key_values
        assert [cache.length(f"s{i}") for i in range(N)] == [0, 40, 0, 0]
        turn = document([(3, 12)], 1)[None]
        output = model(turn, past_key_values=cache, epsilon=0.05)
        assert cache.length("s3") == 52
        assert cache.length("s0") < 52
        expected = model(torch.cat([start, turn], 1), epsilon=0.05).logits[:, 40:]
    assert torch.allclose(output.logits, expected, atol=1e-5)


@st.composite
def weights(draw):
    """Gates (T, N) that sum to one, zeros and ties among them."""
    n = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=1))
    table = torch.tensor(rows, dtype=torch.float32)
    table[:, 0] += table.sum(1) == 0
    return table / table.sum(1, keepdim=True)


@settings(max_examples=100, deadline=None)
@given(weights(), st.floats(0, 0.999))
def test_the_fewest_experts_are_kept_that_leave_at_most_epsilon(gates, epsilon):
    keep = sparse.kept(gates, epsilon)
    bound = sparse.bound(gates, keep)
    assert (bound <= epsilon).all()
    assert keep.gather(1, gates.argmax(1, keepdim=True)).all() or epsilon == 0 or keep.any(1).all()
    if epsilon:
        smallest = gates.double().masked_fill(~keep, 2).amin(1)
        more = keep.sum(1) > 1
        assert ((bound + smallest)[more] > epsilon * (1 - 1e-5)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=9))
def test_every_row_runs_once_and_as_far_as_it_needs(last):
    last = torch.tensor(last)
    reached = torch.zeros_like(last)
    for rows, end in sparse.runs(last):
        assert (reached[rows] == 0).all()
        reached[rows] = end
    assert (reached >= last).all()
    assert (reached[last == 0] == 0).all()
    assert (reached <= (2 * last).clamp_min(32)).all()
