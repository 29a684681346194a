"""Losses, gains and their accounting: identities that must hold to rounding."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import artifacts, evaluation, exercises, ledger, packing
from kalavai_helpers.ledger import Ledger


def random_ledger(seed, n_documents=9, n_experts=3):
    """A ledger of random scores: documents of unequal length over as many domains as experts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, n_documents)
    n = int(lengths.sum())
    experts = tuple("abcdef"[:n_experts])
    return Ledger(
        models=("base", *experts),
        experts=experts,
        groups=experts,
        log_probs=torch.from_numpy(-rng.gamma(2.0, 1.5, (n, n_experts + 1))).float(),
        features=torch.zeros(n, 1),
        document=torch.from_numpy(np.repeat(np.arange(n_documents), lengths)),
        window=torch.from_numpy(np.repeat(np.arange(n_documents), lengths)),
        group=torch.arange(n_documents) % n_experts,
        n_bytes=torch.from_numpy(4 * lengths),
        role="heldout",
        source=np.arange(n_documents).astype(str),
    )


def random_gates(found, seed):
    logits = torch.from_numpy(
        np.random.default_rng(seed).normal(0, 2, (len(found), len(found.experts)))
    )
    return logits.softmax(-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_gain_is_oracle_gain_minus_regret_plus_bonus(seed, n_experts):
    from kalavai_helpers.routing import fuse_log_probs

    found = random_ledger(seed, 10, n_experts)
    gates = random_gates(found, seed)
    fused = fuse_log_probs(gates, found.expert_log_probs)
    account = evaluation.account(found, "x", fused, gates)
    total = (
        account.oracle_gain_pct.value
        - account.routing_regret_pct.value
        + account.mixing_bonus_pct.value
    )
    assert account.gain_pct.value == pytest.approx(total, abs=1e-9)
    assert account.mixing_bonus_pct.value >= -1e-9


def test_regret_and_bonus_have_one_definition_and_losses_alone_give_their_difference():
    """Own runs and the public record agree on the same mixture, and no other name is given away."""
    from kalavai_helpers import prediction
    from kalavai_helpers.routing import fuse_log_probs

    found = random_ledger(4)
    gates = random_gates(found, 4)
    fused = fuse_log_probs(gates, found.expert_log_probs)
    account = evaluation.account(found, "x", fused, gates)
    table = evaluation.losses(
        found, {"fused": fused, "drawn": (gates * found.expert_log_probs).sum(1)}
    )
    own = table.matrix(found.experts)
    released = prediction.account(
        own.min().tolist(), float(own.mean(axis=1).min()), table.by_group("fused").tolist()
    )
    assert set(released) == {"oracle", "above_oracle", "gain"}
    assert released["above_oracle"] == pytest.approx(account.above_oracle_pct.value, abs=1e-4)
    assert released["above_oracle"] == pytest.approx(
        account.routing_regret_pct.value - account.mixing_bonus_pct.value, abs=1e-4
    )
    assert released["oracle"] == pytest.approx(account.oracle_gain_pct.value, abs=1e-4)
    assert released["gain"] == pytest.approx(account.gain_pct.value, abs=1e-4)
    # The regret is of an expert drawn from the gates, whatever mixing wins back elsewhere.
    best = own.mean(axis=1).min()
    lost = table.equal_weight("drawn") - table.equal_weight("domain_oracle")
    assert account.routing_regret_pct.value == pytest.approx(100 * lost / best, abs=1e-4)


def test_gain_over_base_stands_beside_the_gain_over_the_best_specialist():
    runs = [(found, {}) for found in (random_ledger(2), random_ledger(2))]
    table = evaluation.losses(runs[0][0])
    summary = evaluation.summary(runs)
    base = table.equal_weight("base")
    for name in ("a", "b", "domain_oracle"):
        expected = 100 * (base - table.equal_weight(name)) / base
        assert evaluation.gain_over_base_pct(table, name).value == pytest.approx(expected)
        row = summary.loc[name]
        assert row.gain_over_base == pytest.approx(expected)
        assert row.gain_over_base_low <= row.gain_over_base <= row.gain_over_base_high
    assert summary.gain_over_base["base"] == 0
    over_best = 100 * (1 - table.equal_weight("a") / min(table.equal_weight(n) for n in "abc"))
    assert summary.gain["a"] == pytest.approx(over_best)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_finer_oracles_are_never_worse(seed):
    table = evaluation.losses(random_ledger(seed))
    order = [table.equal_weight(n) for n in ("token_oracle", "document_oracle", "domain_oracle")]
    assert order == sorted(order)
    assert order[2] <= min(table.equal_weight(name) for name in "abc") + 1e-9


def test_loss_matrix_is_the_mean_over_a_domain_s_tokens():
    found = random_ledger(1)
    matrix = evaluation.losses(found).matrix(("base", "a"))
    for column, group in enumerate(found.groups):
        tokens = found.token_group == column
        assert matrix.loc["a", group] == pytest.approx(
            float(-found.column("a")[tokens].mean()), rel=1e-5
        )
    assert evaluation.losses(found).equal_weight("a") == pytest.approx(matrix.loc["a"].mean())


def test_gain_and_divergence_are_their_definitions():
    found = random_ledger(2)
    table = evaluation.losses(found)
    best = min(table.equal_weight(name) for name in "abc")
    expected = 100 * (best - table.equal_weight("base")) / best
    assert evaluation.gain_pct(table, "base", tuple("abc")).value == pytest.approx(expected)
    base, own = table.by_group("base")[1], table.by_group("b")[1]
    assert evaluation.divergence_pct(table, "b").value == pytest.approx(100 * (base - own) / base)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sums = rng.normal(2.0, 1.0, 40)
        table = evaluation.Losses(
            {"m": sums}, np.ones(40), np.zeros(40, int), ("g",), np.arange(40)
        )
        estimate = table.interval(lambda w, table=table: table.equal_weight("m", w))
        hits += estimate.low <= 2.0 <= estimate.high
    assert 50 <= hits <= 60


def test_hard_routing_picks_the_largest_gate():
    found = random_ledger(3)
    gates = random_gates(found, 3)
    chosen = evaluation.dispatch(found, gates)
    rows = torch.arange(len(found))
    assert torch.equal(chosen, found.expert_log_probs[rows, gates.argmax(1)])


def test_token_share_counts_tokens():
    found = random_ledger(4)
    half = torch.arange(len(found)) % 2 == 0
    share = evaluation.token_share([(found, half)])
    assert share.value == pytest.approx(float(half.double().mean()))
    both = evaluation.token_share([(found, half), (found, ~half)])
    assert both.value == pytest.approx(0.5)
    assert both.over.endswith("2 bases")


def test_bits_per_byte_counts_bytes_not_tokens():
    found = random_ledger(8)
    bits = []
    for group in range(3):
        documents = (found.group == group).nonzero().flatten()
        nats = -found.column("a")[torch.isin(found.document, documents)].double().sum()
        bits.append(float(nats) / math.log(2) / int(found.n_bytes[documents].sum()))
    assert evaluation.bits_per_byte(found, found.column("a")) == pytest.approx(np.mean(bits))


def test_summary_over_seeds_is_the_mean_of_the_seeds():
    runs = []
    for seed in (5, 6):
        found = random_ledger(7)
        noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, len(found)))
        fused = evaluation.Fused(found.column("a").double() + noise, random_gates(found, seed))
        runs.append((found.with_column("weight_average", found.column("b")), {"mix": fused}))
    single = [evaluation.summary([run]).loc["mix", "gain"] for run in runs]
    both = evaluation.summary(runs).loc["mix"]
    assert both.gain == pytest.approx(np.mean(single))
    assert both.gain_sd == pytest.approx(np.std(single, ddof=1))
    assert isinstance(evaluation.summary(runs), pd.DataFrame)


def test_a_truncated_ledger_is_set_aside_and_rebuilt(tiny):
    whole = ledger.build(tiny)
    text = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    path = ledger.column_path(tiny, text, "heldout", "red")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(artifacts.CorruptArtifactWarning, match="heldout-"):
        again = ledger.build(tiny)
    assert torch.equal(whole.log_probs, again.log_probs)
    assert path.with_name(path.name + ".corrupt").exists()


def test_ledger_scores_are_the_model_s_own(tiny):
    found = ledger.build(tiny)
    windows = tiny.windows("heldout", "green")
    logits = tiny.model("red")(torch.from_numpy(windows.input_ids)).logits.log_softmax(-1)
    targets = torch.from_numpy(windows.targets)
    real = targets >= 0
    expected = logits[real].gather(1, targets[real][:, None])[:, 0]
    assert torch.allclose(found.column("red")[found.token_group == 1], expected, atol=1e-4)
    assert found.features.shape == (len(found), tiny.tier.hidden_size)


def test_an_exercise_checker_rejects_a_wrong_answer(capsys):
    exercises.check(1.0, 1.0)
    assert "[OK]" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="Not yet"):
        exercises.check(1.1, 1.0)
    with pytest.raises(AssertionError, match="Not yet"):
        exercises.check(math.nan, 1.0)


def test_every_resample_chooses_its_own_best_specialist():
    """Two specialists that are best on other documents: which one leads is chance, and counts."""
    ups = np.random.default_rng(0).normal(0, 1, 30)
    sums = {"a": 3 + ups, "b": 3 - ups, "fused": np.full(30, 3.0)}
    table = evaluation.Losses(sums, np.ones(30), np.zeros(30, int), ("g",), np.arange(30))
    weights = table.resamples() / 30
    best = np.minimum(weights @ sums["a"], weights @ sums["b"])
    low, high = np.quantile(100 * (best - 3) / best, [0.025, 0.975])
    found = evaluation.gain_pct(table, "fused", ("a", "b"))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.high <= 0  # the better of the two is never worse than their mean


def test_document_regret_is_against_each_documents_own_best_expert():
    found = random_ledger(9)
    log_probs = found.column("b").double()
    expected = []
    for document in range(found.n_documents):
        rows = found.document == document
        best = found.expert_log_probs[rows].sum(0).max()
        expected.append(float(best - log_probs[rows].sum()))
    assert evaluation.document_regret(found, log_probs) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["domain_oracle", "evidence"])
def test_a_method_with_the_name_of_a_model_is_refused(name):
    """Its losses would stand for the model's: a domain called evidence had a gain of 0."""
    found = replace(random_ledger(3), models=("base", "a", "b", name), experts=("a", "b", name))
    with pytest.raises(ValueError, match=f"{name} names a model of the ledger and a method"):
        evaluation.losses(found, {"evidence": found.column("a")})
