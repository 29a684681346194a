"""What a kept ledger tells of its recording: base, recipe, and the time that it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from . import tiers

KINDS = {
    "validation": "choosing the recipe",
    "specialist": "training specialists",
    "reading": "reading text with every model",
    "pool": "published routers",
    "pooled": "published routers",
    "logits": "mixing logits",
}
"""What the steps of a recording do, by the first word of their names."""


def recipe(about: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, with what the tier says where a ledger does not tell it.

    Returns
    -------
    Fields of :class:`tiers.Tier`, and ``tokens``: that one specialist was trained on.
    """
    found = {**tiers.get(about["tier"]).recipe(), **about["recipe"]}
    return found | {"tokens": found["specialist_steps"] * found["batch_size"] * found["seq_len"]}


def base(about: Mapping[str, Any]) -> str:
    """Name of the checkpoint that everybody started from, and where it came from."""
    told = about["checkpoint"]
    return told if isinstance(told, str) else f"{told['name']} ({told['where']})"


def durations(about: Mapping[str, Any]) -> pd.Series:
    """Minutes of one core by what was done, in its order; steps ran side by side on all cores."""
    found: dict[str, float] = {}
    for step, seconds in about["durations_s"].items():
        words = step.replace(",", " ").split()
        kind = KINDS.get(words[0] if words else "", "all else")
        found[kind] = found.get(kind, 0.0) + seconds / 60
    return pd.Series(found, name="minutes of one core", dtype=float).rename_axis("work")
