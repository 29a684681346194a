"""A pooled fit goes on until it has converged, by a criterion that is stated and kept."""

import numpy as np
import pytest
import torch

from kalavai_helpers import convergence, pooled_fit, tiers


def problem(seed: int, chunks: int = 40, width: int = 8, vocab: int = 12) -> pooled_fit.Pool:
    """Two domains whose states tell which of two experts is right, always the same experts."""
    fixed = torch.Generator().manual_seed(0)
    heads = torch.randn(vocab, 2, width, generator=fixed)
    centre = torch.randn(2, width, generator=fixed)
    draw = torch.Generator().manual_seed(seed)
    domain = torch.arange(2).repeat_interleave(chunks // 2)
    states = centre[domain][:, None, None] + torch.randn(chunks, 6, 2, width, generator=draw)
    right = states[torch.arange(chunks), :, domain]
    targets = torch.einsum("mtd,vmd->mtv", right, heads[:, domain]).argmax(-1)
    counts = torch.tensor([chunks // 2] * 2)
    features = states.mean((1, 2))
    none = states.new_zeros(0, width)
    return pooled_fit.Pool(states, targets, domain, counts, heads, none, features)


@pytest.fixture(scope="module")
def pools():
    return problem(1), problem(2)


@pytest.mark.parametrize("width", [None, 16])
def test_it_stops_where_the_smoothed_loss_stops_to_fall(pools, width):
    done = convergence.converge(*pools, seed=0, width=width)
    assert not done.capped
    loss, n = done.loss, convergence.SMOOTH
    smoothed = np.array([loss[i : i + n].mean() for i in range(len(loss) - n + 1)])
    falls = smoothed[:-n] - smoothed[n:]
    assert (falls[:-1] >= convergence.TOLERANCE).all()
    assert falls[-1] < convergence.TOLERANCE
    assert done.router.arguments()["width"] == width


def test_the_weights_are_those_with_the_least_loss_on_the_checks(pools):
    pool, checks = pools
    done = convergence.converge(pool, checks, seed=0, width=None)
    assert done.loss[done.steps // convergence.EVERY] == done.loss.min()
    gates = done.router.weigh(checks.states.mean((1, 2)))
    logits = pooled_fit.mixed_logits(checks.states, gates, checks.heads)
    found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), checks.targets.flatten())
    assert float(found) == pytest.approx(done.loss.min(), abs=1e-5)


def test_it_goes_on_from_the_fit_of_the_same_seed(pools):
    pool, checks = pools
    done = convergence.converge(pool, checks, seed=3, width=16)
    again, _ = pooled_fit.fit(pool, 3, done.steps, width=16)
    state = done.router.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())


def test_a_fit_that_still_improves_is_cut_short_and_says_so(pools, monkeypatch):
    monkeypatch.setattr(convergence, "MOST_STEPS", 2 * convergence.EVERY)
    done = convergence.converge(*pools, seed=0, width=None)
    assert done.capped
    assert len(done.loss) == 3


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ([1.0] * 9, False),  # too few looks to tell
        ([1.0] * 10, True),
        ([1.0] * 5 + [0.9998] * 5, False),
        ([1.0] * 5 + [0.99995] * 5, True),
        ([1.0] * 5 + [1.1] * 5, True),  # worse: it has begun to learn the pool by heart
    ],
)
def test_the_criterion(loss, expected):
    assert convergence.has_converged(loss) is expected


def test_the_width_is_that_published_for_the_base():
    widths = {name: pooled_fit.published_width(tiers.get(name)) for name in tiers.NAMES}
    assert widths["ci"] == widths["laptop"] == widths["pythia-410m"] == 256
    assert widths["pythia-1b"] is None
    assert widths["pythia-6.9b"] is None


def test_the_checks_are_router_documents(tiny):
    checks = pooled_fit.build(tiny, role="router", most=2)
    train = pooled_fit.build(tiny)
    rows = {tuple(row) for row in train.targets.tolist()}
    assert checks.domain.tolist() == [0, 0, 1, 1, 2, 2]
    assert not rows & {tuple(row) for row in checks.targets.tolist()}
    router_text = [d.text for domain in tiny.domains for d in tiny.documents(domain, "router")]
    said = tiny.tokenizer.decode(checks.targets[0].tolist()).split("<|endoftext|>")[0]
    assert any(said.strip() in text for text in router_text)


def test_a_new_seed_gives_another_fit(pools):
    first, again, other = (
        convergence.converge(*pools, seed=seed, width=None).loss for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
