"""Estimates from a recorded ledger as records of its side run, with what their intervals rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import records
from .kept_ledger import Kept
from .losses import Estimate

EQUAL = "equal weight over domains"


def keep(
    kept: Kept,
    found: Mapping[str, tuple[Estimate, str]],
    *,
    seeds: int | Sequence[int] = 1,
    protocol: str = EQUAL,
) -> None:
    """Record estimates in the side run of the ledger that they were computed from.

    Parameters
    ----------
    found
        By record name, estimate and unit.
    protocol
        Evaluation protocol; what the interval was taken over stands behind it.
    """
    with records.run_of(kept.about["tier"]):
        for name, (estimate, unit) in found.items():
            told = f"{protocol}; {estimate.taken}" if estimate.over else protocol
            records.record(
                name,
                estimate.value,
                unit,
                low=estimate.low,
                high=estimate.high,
                protocol=told,
                seeds=seeds,
            )
