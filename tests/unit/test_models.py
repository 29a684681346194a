"""A new base depends on its seed, and k decides what of a model may train."""

import decoders
import pytest
import torch
from transformers import GPTNeoXForCausalLM

from kalavai_helpers import models

SPLIT = (models.trunk, models.branch)


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
