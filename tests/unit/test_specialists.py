"""A cooperative is told apart by its seeds: of the specialists, and of the base they start from."""

import pickle
from dataclasses import replace

import pytest
import torch

from kalavai_helpers import artifacts, models, specialists, tiers
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


def test_a_specialist_is_stored_without_the_base_and_put_onto_it(tiny):
    k = tiny.tier.frozen_layers
    base, red = tiny.model(BASE), tiny.model("red")
    tensors = artifacts.load_tensors(tiny.path("red"))[0]
    assert set(tensors) == set(red.state_dict()) - _frozen(base, k)
    for name, value in red.state_dict().items():
        assert torch.equal(value, tensors.get(name, base.state_dict()[name])), name


def test_the_weight_average_keeps_the_trunk_to_the_bit(tiny):
    base, average = (tiny.model(name).state_dict() for name in (BASE, "weight_average"))
    experts = [tiny.model(domain).state_dict() for domain in tiny.domains]
    for name, value in average.items():
        if name in _frozen(tiny.model(BASE), tiny.tier.frozen_layers):
            assert torch.equal(value, base[name]), name
        else:
            mean = torch.stack([expert[name] for expert in experts]).mean(0)
            assert torch.allclose(value, mean, atol=1e-6), name


def _frozen(model, k):
    models.freeze(model, k)
    return {name for name, p in model.named_parameters() if not p.requires_grad}


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
