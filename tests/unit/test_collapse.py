"""The published pooled router on cached states: exact, seeded, and its collapse is recognised."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from kalavai_helpers import collapse, evaluation, fusion, ledger, packing, pooled_fit, routing


@pytest.fixture(scope="module")
def found(tiny):
    return ledger.build(tiny)


@pytest.fixture(scope="module")
def pool(tiny):
    windows = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    return pooled_fit.build(tiny, windows)


def random_problem(shared, batch=3, n_tokens=5, n_experts=4, width=6, vocab=11):
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(batch, n_tokens, n_experts, width, generator=draw)
    heads = torch.randn(vocab, 1 if shared else n_experts, width, generator=draw)
    targets = torch.randint(vocab, (batch, n_tokens), generator=draw)
    gates = torch.randn(batch, n_experts, generator=draw).softmax(-1)
    return states, targets, gates, heads


@pytest.mark.parametrize("shared", [False, True])
def test_one_product_gives_the_mixture_of_the_experts_logits(shared):
    states, _, gates, heads = random_problem(shared)
    each = torch.einsum("btnd,vnd->btnv", states, heads.expand(-1, 4, -1))
    expected = torch.einsum("btnv,bn->btv", each, gates)
    assert torch.allclose(pooled_fit.mixed_logits(states, gates, heads), expected, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_in_the_gates_is_that_of_automatic_differentiation(shared):
    states, targets, gates, heads = random_problem(shared)
    gates.requires_grad_(True)
    logits = pooled_fit.mixed_logits(states, gates, heads)
    functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    ours = pooled_fit.gate_gradient(states, targets, gates.detach(), heads)
    assert torch.allclose(ours, gates.grad, atol=1e-5)


def test_cached_states_give_what_the_fused_model_gives(tiny, pool, found):
    """The shortcut is exact: same gates and log-probabilities as the fused Hugging Face model."""
    router, looks = pooled_fit.fit(pool, seed=1, steps=3)
    experts = {d: tiny.model(d) for d in tiny.domains}
    model = fusion.fuse(tiny.model("base"), experts, "uniform", 1, mixing="logit")
    model.router = router
    windows = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    from kalavai_helpers import scoring

    scored, _ = scoring.score(model, windows, "test")
    ours = pooled_fit.score(list(experts.values()), windows, looks[-1:], pool.heads)
    assert torch.allclose(scored.gates, looks[-1][found.window].double(), atol=1e-4)
    assert torch.allclose(scored.log_probs, ours[0].double(), atol=1e-3)


def test_a_seed_decides_a_fit_and_another_seed_gives_another(pool):
    first, again, other = (pooled_fit.fit(pool, seed, 5)[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_fitting_lowers_the_loss_on_the_pool(pool):
    router, _ = pooled_fit.fit(pool, seed=0, steps=60)
    features = pool.states.mean((1, 2))

    def loss(gates):
        logits = pooled_fit.mixed_logits(pool.states, gates, pool.heads)
        return functional.cross_entropy(logits.flatten(0, 1), pool.targets.flatten())

    uniform = torch.full((len(features), 3), 1 / 3)
    assert loss(router.weigh(features)) < loss(uniform)


def test_the_curriculum_shows_one_domain_at_a_time_and_frequencies_are_kept(pool, monkeypatch):
    shown = []
    original = pooled_fit.gate_gradient

    def watch(states, targets, gates, heads):
        match = [(pool.targets == row).all(1).nonzero()[0, 0] for row in targets]
        shown.append([int(pool.domain[i]) for i in match])
        return original(states, targets, gates, heads)

    monkeypatch.setattr(pooled_fit, "gate_gradient", watch)
    pooled_fit.fit(pool, seed=0, steps=12, chunks=(1, 0, 0), curriculum=6)
    assert [set(batch) for batch in shown[:6]] == [{0}, {1}, {2}, {0}, {1}, {2}]
    assert all(set(batch) == {0} for batch in shown[6:])


def test_a_domain_given_to_another_specialist_is_a_collapse_and_costs_its_advantage(found):
    right = torch.eye(3)[found.token_group].double()
    experts = found.expert_log_probs
    assert collapse.misrouted(collapse.mean_gates(found, right), found) == []
    assert collapse.captured(found, (right * experts).sum(1)) == pytest.approx([1, 1, 1])

    wrong = right.clone()
    first = found.token_group == 0
    wrong[first] = torch.tensor([0.1, 0.8, 0.1], dtype=torch.float64)
    gates = collapse.mean_gates(found, wrong)
    assert collapse.misrouted(gates, found) == [f"{found.groups[0]} → {found.experts[1]}"]
    everyone = torch.where(first[:, None], torch.eye(3)[1].double(), right)
    kept = collapse.captured(found, (everyone * experts).sum(1))
    assert kept[0] < 0.5
    assert kept[1:] == pytest.approx([1, 1])


def test_a_study_is_read_back_as_it_was_fitted_and_its_gain_adds_up(tiny, found, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes to start for a second of work
    conditions = (collapse.Condition("plain"), collapse.Condition("one", (1, 0, 0), 3))
    fits, again = (collapse.study(tiny, found, (0, 1), conditions) for _ in range(2))
    assert [(f.condition, f.seed) for f in fits] == [
        (name, seed) for name in ("plain", "one") for seed in (0, 1)
    ]
    for one, other in zip(fits, again, strict=True):
        assert torch.equal(one.fused.log_probs, other.fused.log_probs)
        assert one.looks[-1] == pytest.approx(collapse.mean_gates(found, one.fused.gates), abs=1e-5)
        assert one.fused.log_probs.shape == (len(found),)
    table = collapse.summary(fits, found)
    residual = table.oracle_gain - table.regret + table.bonus - table.gain
    assert residual.abs().max() < 1e-9
    fused = evaluation.losses(found, {"fused": fits[0].fused.log_probs})
    assert table.gain.iloc[0] == pytest.approx(
        evaluation.gain_pct(fused, "fused", found.experts).value
    )


def test_a_skewed_ledger_has_the_wanted_proportions(tiny):
    fitting = ledger.build(tiny, "router")
    weights, scarce = collapse.skewed(fitting, (8, 1, 1))
    shares = torch.bincount(fitting.token_group, weights)
    assert (shares / shares.sum()).tolist() == pytest.approx([0.8, 0.1, 0.1])
    kept = torch.bincount(scarce.token_group)
    assert (kept / kept.sum()).tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert len(scarce.features) == len(scarce) == len(scarce.window)


def fits_table(rows):
    frame = pd.DataFrame(rows, columns=["condition", "seed", "collapsed", "captured", "gain"])
    return frame.set_index(["condition", "seed"])


def test_collapses_are_counted_by_symptom_and_by_loss_and_mended_by_seed():
    table = fits_table(
        [
            ("plain", 0, "a → b", -1.0, 2.0),
            ("plain", 1, "", 0.4, 8.0),
            ("curriculum", 0, "", 0.9, 9.0),
            ("curriculum", 1, "b → a", 0.1, 3.0),
            ("skewed, plain", 0, "b → a", 0.1, 3.0),
            ("skewed, plain", 1, "", 0.8, 8.0),
            ("skewed, curriculum", 0, "b → a", 0.2, 3.5),
            ("skewed, curriculum", 1, "", 0.8, 8.0),
        ]
    )
    counted = collapse.frequency(table)
    assert counted.misrouted.tolist() == [1, 1, 1, 1]
    assert counted.lost_half.tolist() == [2, 1, 1, 1]
    assert counted.loc["plain", ["gain_min", "gain_max"]].tolist() == [2.0, 8.0]
    assert collapse.mended(table) == (2, 1)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 3, 0.0084, 0.9057), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0)],
)
def test_the_binomial_interval_is_clopper_and_pearsons(count, n, low, high):
    found = collapse.rate(count, n)
    assert (found.value, found.low, found.high) == pytest.approx((count / n, low, high), abs=1e-4)
    assert (found.over, found.units) == ("router seeds", n)


def test_a_share_needs_trials():
    for count, n in ((1, 0), (4, 3), (-1, 3)):
        with pytest.raises(ValueError, match="is not a share"):
            collapse.rate(count, n)


def test_the_interval_covers_the_truth_in_at_least_95_of_100_draws():
    truth, n = 0.2, 10
    drawn = np.random.default_rng(0).binomial(n, truth, 500)
    intervals = {count: collapse.rate(count, n) for count in set(drawn.tolist())}
    covered = [intervals[c].low <= truth <= intervals[c].high for c in drawn.tolist()]
    assert np.mean(covered) >= 0.95


def test_what_is_captured_is_a_share_of_the_specialists_advantage_over_the_base(found):
    base = found.column("base").double()
    oracle = evaluation.oracles(found)["domain_oracle"]
    halfway = (base + oracle) / 2
    assert collapse.captured(found, base) == pytest.approx([0, 0, 0], abs=1e-9)
    assert collapse.captured(found, halfway) == pytest.approx([0.5] * 3)


def pairs(before, after):
    rows = [("plain", i, "a → b" if bad else "", 0.5, 1.0) for i, bad in enumerate(before)]
    rows += [("curriculum", i, "a → b" if bad else "", 0.5, 1.0) for i, bad in enumerate(after)]
    return collapse.mends(fits_table(rows), "plain", "curriculum")


def test_one_mended_fit_shows_nothing_and_six_of_six_do():
    one = pairs([1] + [0] * 9, [0] * 10)
    assert one.value == pytest.approx(0.1)
    assert one.low < 0 < one.high
    six = pairs([1] * 6 + [0] * 4, [0] * 10)
    assert six.value == pytest.approx(0.6)
    assert 0 < six.low < six.value <= six.high
    worse = pairs([0] * 10, [1] * 6 + [0] * 4)
    assert (worse.value, worse.low, worse.high) == pytest.approx((-0.6, -six.high, -six.low))


def test_where_no_fit_changes_the_interval_still_says_how_little_is_known():
    none = pairs([0] * 10, [0] * 10)
    assert (none.value, none.low, none.high) == pytest.approx((0, -0.3085, 0.3085), abs=1e-4)


def test_evidence_keeps_at_least_what_its_bound_guarantees(found):
    fused = evaluation.route(found, {"evidence": routing.EvidenceRouter()})["evidence"]
    kept, least = collapse.captured(found, fused.log_probs), collapse.guaranteed(found)
    assert (kept >= least - 1e-9).all()
    assert (least < 1).all()
    assert (collapse.guaranteed(found, 0.1) < least).all()
