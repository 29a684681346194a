"""Bases load from the Hub's cache at the pinned revision, and k decides what may train."""

from dataclasses import replace

import decoders
import pytest
import torch
from transformers import GPTNeoXForCausalLM

from kalavai_helpers import corpora, models, packing, tiers

SPLIT = (models.trunk, models.branch)
PYTHIA = replace(tiers.get("pythia-410m"), min_gpu_gb=0)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty Hub cache, with the network switched off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_published_checkpoint_loads_offline_from_the_cache(hub_cache, tiny_tier, colour_folder):
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = hub_cache / f"models--{PYTHIA.hub_id.replace('/', '--')}"
    reference = folder / "refs" / PYTHIA.revision
    reference.parent.mkdir(parents=True)
    reference.write_text(revision)
    snapshot = folder / "snapshots" / revision
    original = models.new_base(tiny_tier, 300, seed=3)
    original.half().save_pretrained(snapshot)
    mix = corpora.base_mix(f"folder:{colour_folder}", 50_000)
    packing.train_tokenizer(mix, 300).save(str(snapshot / "tokenizer.json"))

    base = models.load_base(PYTHIA)
    assert base.dtype == torch.float32, "float16 weights cannot be trained with AdamW"
    for name, value in original.state_dict().items():
        assert torch.equal(value.float(), base.state_dict()[name])
    assert models.load_tokenizer(PYTHIA).get_vocab_size() == 300


@pytest.mark.parametrize("load", [models.load_base, models.load_tokenizer])
def test_without_network_or_cache_the_error_says_what_to_do(hub_cache, load):
    with pytest.raises(ConnectionError, match=r"pythia-410m at step10000.*--tier ci"):
        load(PYTHIA)


def trainable(model: GPTNeoXForCausalLM) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_k_freezes_the_embedding_and_the_first_k_blocks(tiny_tier):
    everything = trainable(models.new_base(tiny_tier, 50, seed=0))
    for k in (0, 1, 2):
        model = models.new_base(tiny_tier, 50, seed=0)
        models.freeze(model, k)
        frozen = everything - trainable(model)
        blocks = {name.split(".")[2] for name in frozen if ".layers." in name}
        assert blocks == {str(i) for i in range(k)}
        assert any("embed_in" in name for name in frozen)
        assert not any("final_layer_norm" in name or "lm_head" in name for name in frozen)
    model = models.new_base(tiny_tier, 50, seed=0)
    models.freeze(model, None)
    assert trainable(model) == everything


def test_a_new_base_depends_on_its_seed_alone(tiny_tier):
    torch.manual_seed(1)
    first = models.new_base(tiny_tier, 50, seed=0).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = models.new_base(tiny_tier, 50, seed=0).state_dict()
    assert torch.equal(state, torch.get_rng_state()), "the global random state must not move"
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = models.new_base(tiny_tier, 50, seed=1).state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_trunk_and_branch_are_what_is_frozen_and_what_trains(family):
    for k in (0, 1, 3):
        model = decoders.base(family)
        models.freeze(model, k)
        assert not any(p.requires_grad for p in models.trunk(model, k).parameters())
        assert all(p.requires_grad for p in models.branch(model, k).parameters())
        trunk, branch = (models.n_parameters(part(model, k)) for part in SPLIT)
        assert branch == models.n_parameters(model, trainable=True)
        assert trunk + branch == models.n_parameters(model)


def test_an_average_holds_one_part_at_a_time():
    parts = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}]
    held = iter(parts)
    assert torch.equal(models.average(held)["a"], torch.tensor([2.0, 4.0]))
    assert torch.equal(parts[0]["a"], torch.tensor([1.0, 2.0])), "what came in stays as it was"
