"""A cooperative is told apart by its seeds: of the specialists, and of the base they start from."""

import pickle
from dataclasses import replace

import pytest
import torch

from kalavai_helpers import artifacts, corpora, ledger, models, packing, specialists, tiers
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


def test_counted_windows_are_one_a_document_and_their_text_is_what_is_scored(tiny):
    counted = replace(tiny, tier=replace(tiny.tier, heldout_windows=5, router_windows=3))
    for role, n in (("heldout", 5), ("router", 3)):
        windows = counted.windows(role, "red")
        assert len(windows.input_ids) == len(windows.documents) == n
        assert windows.role == role
        whole = {d.id: d.text for d in corpora.split(tiny.corpora, "red")[role]}
        for row, document in zip(windows.targets, windows.documents, strict=True):
            assert tiny.tokenizer.decode(row[row != packing.IGNORE].tolist()) == document.text
            assert whole[document.id].startswith(document.text)
    found = ledger.of_windows(counted, {"red": counted.windows("heldout", "red")}, "counted")
    scored = [len(d.text.encode()) for d in counted.windows("heldout", "red").documents]
    assert found.n_bytes.tolist() == scored
    units = {d.unit for d in corpora.split(tiny.corpora, "red")["heldout"]}
    assert len(set(found.source)) == min(5, len(units))
    whole_text = counted.documents("red", "train")
    assert whole_text == tiny.documents("red", "train")


def test_a_specialist_without_probes_is_the_same_with_other_partners(tiny):
    alone = replace(tiny, tier=replace(tiny.tier, probe_windows=0), domains=("red",))
    assert alone.path("red") == replace(alone, domains=("blue", "red")).path("red")
    assert replace(tiny, domains=("blue", "red")).path("red") != tiny.path("red")


def test_a_specialist_without_probes_has_no_curve(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path))
    tier = replace(tiny.tier, probe_windows=0, base_steps=2, specialist_steps=2)
    bare = replace(tiny, tier=tier)
    assert bare.history("red").probes == [{}] * len(bare.history("red").steps)


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
