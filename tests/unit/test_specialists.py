"""A cooperative is told apart by its seeds: of the specialists, and of the base they start from."""

import pickle
from dataclasses import replace

import pytest
import torch

from kalavai_helpers import specialists, tiers
from kalavai_helpers.specialists import BASE


def test_another_base_seed_is_another_base_and_other_specialists(tiny):
    other = replace(tiny, base_seed=7)
    assert other.path(BASE) != tiny.path(BASE)
    assert all(other.path(domain) != tiny.path(domain) for domain in tiny.domains)
    assert other.tokenizer.to_str() == tiny.tokenizer.to_str()
    ours, theirs = tiny.model(BASE), other.model(BASE)
    assert not torch.equal(ours.lm_head.weight, theirs.lm_head.weight)


def test_a_base_learns_from_batches_of_its_own_seed(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(
        specialists.training, "train", lambda model, chunks, recipe, *a, **k: seen.append(recipe)
    )
    replace(tiny, base_seed=11).train(BASE)
    replace(tiny, base_seed=tiny.base_seed, seed=12).train("red")
    assert [recipe.seed for recipe in seen] == [11, 12]


def test_a_base_from_the_hub_is_one_for_all_base_seeds(tiny):
    hub = replace(tiny, tier=replace(tiers.get("pythia-410m"), train_bytes=2000))
    assert replace(hub, base_seed=7).base_key == hub.base_key


def test_all_fields_travel_to_another_process(tiny):
    sent = replace(tiny, base_seed=7)
    received = pickle.loads(pickle.dumps(sent))
    assert received == sent
    assert received.base_key == sent.base_key


@pytest.mark.parametrize("base_seeds", [(3,), (3, 4)])
def test_training_all_trains_each_base_once(tiny, tmp_path, monkeypatch, base_seeds):
    # In this process: a worker that an earlier test left would know that test's store.
    monkeypatch.setattr(specialists.parallel, "side_by_side", lambda tasks: [t() for t in tasks])
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path))
    tier = replace(tiny.tier, base_steps=2, specialist_steps=2)
    made = [replace(tiny, tier=tier, seed=s, base_seed=b) for b in base_seeds for s in (1, 2)]
    specialists.train_all(made)
    assert len(list(tmp_path.glob("models/base-*.safetensors"))) == len(base_seeds)
    assert all(one.path(domain).exists() for one in made for domain in one.domains)
