"""Sizes counted from a shape are those of the models that are built."""

import decoders
import pytest
import torch
from transformers.cache_utils import DynamicCache

from kalavai_helpers import fused_size, fusion, routing, tiers


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_parameters_are_those_of_the_fused_model(family):
    base, experts = decoders.cooperative(family)
    fused = fusion.fuse(base, experts, routing.EvidenceRouter(), 1)
    size = fused_size.of(base.config, 1)
    assert size.parameters(3) == fused.num_parameters()
    assert size.model == size.parameters(1) == base.num_parameters()


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_the_cache_holds_what_was_counted(family):
    base = decoders.base(family)
    cache = DynamicCache(config=base.config)
    ids = decoders.texts(1, 4)
    with torch.no_grad():
        base(ids, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    size = fused_size.of(base.config, 1)
    assert size.cached_trunk + size.cached_branch == held / 4


def test_multiplications_are_those_of_blocks_and_heads():
    size = fused_size.of(decoders.base("llama, tied").config, 1)
    head = 16 * decoders.VOCAB
    block = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32
    norms = 2 * 16
    assert (size.head, size.shared, size.own) == (head, block + norms, 2 * (block + norms))
    assert size.multiplications(1) == size.shared + size.own + head
    assert size.multiplications(2.5) == size.shared + 2.5 * (size.own + head)
    assert size.multiplications(1, base=True) - size.multiplications(1) == size.own


def test_smollm2_has_as_many_parameters_as_its_makers_say():
    tier = tiers.get(tiers.PRETRAINED)
    size = fused_size.of(fused_size.config(tier), tier.frozen_layers)
    assert size.model == 134_515_008
    table = fused_size.table(size, (1, 3, 20))
    assert table.models[1] == table.work[1] == 1
    assert (table.models[3], table.work[3]) == pytest.approx((1.79, 2.21), abs=0.005)
    assert table.bf16_gb[1] == pytest.approx(0.269, abs=0.001)
    assert table.cache_kb[1] == pytest.approx(2 * 30 * 2 * 192 / 1000)
