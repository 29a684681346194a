"""Baselines: what they read, what they start from, and that their scores are of the same tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kalavai_helpers import baselines, ledger, models, packing, tiers
from kalavai_helpers.baselines import COMPUTE, EXPOSURE, WIDER, Baseline


def test_equal_exposure_reads_exactly_the_sequences_that_each_specialist_reads(tiny):
    tier = tiny.tier
    pooled = Baseline(tiny, EXPOSURE)._parts
    for domain, part in zip(tiny.domains, pooled, strict=True):
        chunks = packing.pack(tiny.documents(domain, "train"), tiny.tokenizer, tier.seq_len)
        recipe = replace(Baseline(tiny, EXPOSURE).recipe, steps=tier.specialist_steps)
        read = [chunks.input_ids[recipe.rows(len(chunks), s)] for s in range(recipe.steps)]
        assert np.array_equal(part.input_ids, np.concatenate(read))


def test_equal_exposure_gives_every_domain_what_its_specialist_saw(tiny):
    tier = tiny.tier
    found = Baseline(tiny, EXPOSURE).exposure()
    assert found == dict.fromkeys(tiny.domains, tier.specialist_steps * tier.batch_size)


def test_equal_compute_reads_as_much_in_all_and_in_natural_proportions(tiny):
    tier = tiny.tier
    found = Baseline(tiny, COMPUTE).exposure()
    assert sum(found.values()) == 3 * tier.specialist_steps * tier.batch_size
    sizes = {
        d: len(packing.pack(tiny.documents(d, "train"), tiny.tokenizer, tier.seq_len))
        for d in tiny.domains
    }
    for domain, count in found.items():
        expected = sum(found.values()) * sizes[domain] / sum(sizes.values())
        assert abs(count - expected) <= sizes[domain]  # the last epoch is not complete


def test_a_single_model_takes_as_many_steps_as_all_specialists(tiny):
    recipe = Baseline(tiny, COMPUTE).recipe
    assert recipe.steps == 3 * tiny.tier.specialist_steps
    assert (recipe.lr, recipe.frozen_layers) == (tiny.tier.specialist_lr, tiny.tier.frozen_layers)


def test_the_stored_name_depends_on_everything_that_makes_the_model(tiny):
    tier = tiny.tier
    others = [
        Baseline(tiny, EXPOSURE),
        Baseline(tiny, WIDER),
        Baseline(replace(tiny, seed=7), COMPUTE),
        Baseline(replace(tiny, domains=("blue", "red")), COMPUTE),
        Baseline(replace(tiny, tier=replace(tier, frozen_layers=2)), COMPUTE),
        Baseline(replace(tiny, tier=replace(tier, specialist_steps=31)), COMPUTE),
        Baseline(replace(tiny, tier=replace(tier, base_steps=21)), COMPUTE),
        Baseline(replace(tiny, tier=replace(tier, train_bytes=2000)), COMPUTE),
    ]
    names = {baseline.path for baseline in [Baseline(tiny, COMPUTE), *others]}
    assert len(names) == len(others) + 1


def test_columns_are_scores_of_the_ledgers_tokens_and_are_kept(tiny, monkeypatch):
    found = ledger.build(tiny)
    baseline = Baseline(tiny, COMPUTE)
    joined = baselines.with_baselines(found, [baseline])
    assert joined.models == (*found.models, COMPUTE)
    assert len(joined.column(COMPUTE)) == len(found)
    windows = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    own, _ = ledger.score(baseline.model(), windows, "again")
    assert torch.equal(joined.column(COMPUTE), own)
    # Trained on these domains, it must know them better than the base.
    assert joined.column(COMPUTE).mean() > joined.column("base").mean()

    monkeypatch.setattr(ledger, "score", None)  # a second look may not touch a model
    assert torch.equal(Baseline(tiny, COMPUTE).log_probs(), own)


def test_a_truncated_model_is_set_aside_and_trained_again(tiny):
    baseline = Baseline(replace(tiny, tier=replace(tiny.tier, specialist_steps=2)), EXPOSURE)
    first = baseline.model().state_dict()
    baseline.path.write_bytes(baseline.path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="set aside"):
        again = baseline.model().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_frozen_trunk_stays_that_of_the_base(tiny):
    trained = models.trunk(Baseline(tiny, COMPUTE).model(), tiny.tier.frozen_layers)
    base = models.trunk(tiny.model("base"), tiny.tier.frozen_layers)
    pairs = zip(trained.parameters(), base.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("name", ["ci", "laptop"])
@pytest.mark.parametrize("n_models", [2, 3, 5])
def test_the_wider_model_holds_about_as_many_parameters_as_all_specialists(name, n_models):
    tier = tiers.get(name).sweep()
    found = baselines.wider(tier, n_models)
    ratio = baselines.n_parameters(found) / (n_models * baselines.n_parameters(tier))
    assert 0.8 < ratio < 1.25
    assert (found.hidden_size // found.n_heads) % 4 == 0
    assert replace(found, hidden_size=tier.hidden_size) == tier


def test_parameters_are_counted_as_the_model_has_them(tiny_tier):
    model = models.new_base(tiny_tier, tiny_tier.vocab_size, 0)
    assert baselines.n_parameters(tiny_tier) == models.n_parameters(model)


def test_a_wider_model_starts_from_a_base_of_its_own_with_the_same_tokens(tiny):
    small = replace(tiny, tier=replace(tiny.tier, base_steps=2, specialist_steps=2))
    baseline = Baseline(small, WIDER)
    assert baseline.start.tier.hidden_size > small.tier.hidden_size
    assert len(baseline.log_probs()) == len(ledger.build(small))


def test_unknown_and_impossible_baselines_are_refused_with_the_way_out(tiny):
    with pytest.raises(ValueError, match="monolithic_compute"):
        Baseline(tiny, "mono")
    hub = replace(tiny, tier=tiers.get("pythia-410m"))
    with pytest.raises(ValueError, match="leave the baseline 'wider' out"):
        Baseline(hub, WIDER)
