"""A tier is one dial: known names only, and a clear way out when the machine is too small."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kalavai_helpers import tiers


def test_an_unknown_tier_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'huge'.*ci, laptop, smollm2-135m, pythia-410m"):
        tiers.get("huge")


def test_device_comes_with_its_reason():
    _, dtype, reason = tiers.get("ci").device()
    assert reason
    assert dtype in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("found_gb", "found", "instead"),
    [(0, "none", "smollm2-135m"), (24.1, "24 GB", "pythia-410m"), (80, "80 GB", "pythia-1b")],
)
def test_a_tier_that_needs_a_larger_gpu_says_what_fits_instead(
    found_gb, found, instead, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found_gb > 0)
    card = SimpleNamespace(total_memory=found_gb * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    wanted = f"needs 130 GB of GPU memory, found {found}: use --tier {instead}$"
    with pytest.raises(RuntimeError, match=wanted):
        tiers.get("pythia-6.9b").device()


@pytest.mark.parametrize(
    ("has", "dtype"),
    [
        ({"avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_trains_in_bf16_where_tier_and_cpu_do(has, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert tiers.get("smollm2-135m").device()[:2] == (torch.device("cpu"), dtype)
    assert tiers.get("ci").device()[1] == torch.float32


def test_seeds_begin_with_the_given_one():
    tier = replace(tiers.get("ci"), n_seeds=3)
    assert tier.seeds(42) == (42, 137, 2026)
    assert tier.seeds(7) == (7, 42, 137)
    assert replace(tier, n_seeds=1).seeds(7) == (7,)


def test_published_bases_are_pinned():
    revisions = {t.name: t.revision for t in tiers.TIERS.values() if t.hub_id}
    pythia = {revision for name, revision in revisions.items() if name.startswith("pythia")}
    assert pythia == {"step10000"}
    assert re.fullmatch("[0-9a-f]{40}", revisions["smollm2-135m"])


def test_tiers_ascend_in_what_they_need():
    needed = [tier.min_gpu_gb for tier in tiers.TIERS.values()]
    assert needed == sorted(needed)
