"""A tier is one dial: known names only, and a clear way out when the machine is too small."""

from dataclasses import replace

import pytest
import torch

from kalavai_helpers import tiers


def test_an_unknown_tier_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'huge'.*ci, laptop, pythia-410m"):
        tiers.get("huge")


def test_device_comes_with_its_reason():
    _, dtype, reason = tiers.get("ci").device()
    assert reason
    assert dtype in (torch.float32, torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_tier_that_needs_a_gpu_says_what_to_use_instead():
    with pytest.raises(RuntimeError, match="needs 130 GB of GPU memory, found none: use --tier"):
        tiers.get("pythia-6.9b").device()


def test_seeds_begin_with_the_given_one():
    tier = replace(tiers.get("ci"), n_seeds=3)
    assert tier.seeds(42) == (42, 137, 2026)
    assert tier.seeds(7) == (7, 42, 137)
    assert replace(tier, n_seeds=1).seeds(7) == (7,)


def test_the_published_tiers_are_pinned_to_the_published_revision():
    published = [tier for tier in tiers.TIERS.values() if tier.hub_id]
    assert published
    assert {tier.revision for tier in published} == {"step10000"}
