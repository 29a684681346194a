"""Gains against training duration, by either denominator, with joint intervals.

A gain compares the fused model with something, and the published record uses two somethings: the
best specialist of the same condition, or the base. The base is one model for all conditions, so
an order by gain over base is an order by loss; the best specialist is another model in each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import durations
from .durations import EVIDENCE, TERMS, Condition, Outcome
from .losses import Estimate, Losses, run_weights
from .specialists import BASE

if TYPE_CHECKING:
    import pandas as pd

BEST, OVER_BASE = "best specialist", "base"
DENOMINATORS = (BEST, OVER_BASE)


def gain(
    table: Losses, denominator: str, weights: np.ndarray | None = None, method: str = EVIDENCE
) -> np.ndarray:
    """Gain of a method over the best specialist or over the base, % (...).

    Parameters
    ----------
    denominator
        ``"best specialist"`` or ``"base"``.
    weights
        Document weights (..., n_documents); the best specialist is chosen anew for each.

    Raises
    ------
    ValueError
        For another denominator.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"Unknown denominator {denominator!r}: use {' or '.join(DENOMINATORS)}")
    names = table.groups if denominator == BEST else (BASE,)
    reference = np.min([table.equal_weight(name, weights) for name in names], axis=0)
    return 100 * (reference - table.equal_weight(method, weights)) / reference


def frame(outcomes: Mapping[Condition, Outcome]) -> pd.DataFrame:
    """Everything measured, one row a condition, ordered by depth, steps and seed.

    Returns
    -------
    Columns steps, depth, seed; over_spec and over_base with ``_low`` and ``_high`` (%, evidence
    routing); oracle_over_base (%); the exact accounting of the gain over the best specialist
    (:data:`durations.TERMS`, %) and its residual (pp); divergence (%); own, foreign, best and
    fused losses (nats/token), own and foreign with their intervals.
    """
    rows = []
    for c in sorted(outcomes, key=lambda c: (c.depth, c.steps, c.seed)):
        table, terms = outcomes[c].losses, outcomes[c].accounting
        row = {"steps": c.steps, "depth": c.depth, "seed": c.seed}
        for name, statistic in {
            "over_spec": lambda w, t=table: gain(t, BEST, w),
            "over_base": lambda w, t=table: gain(t, OVER_BASE, w),
            "own": lambda w, t=table: durations.own_loss(t, w),
            "foreign": lambda w, t=table: durations.foreign_loss(t, w),
        }.items():
            found = table.interval(statistic)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        row["oracle_over_base"] = float(gain(table, OVER_BASE, method="domain_oracle"))
        row |= {name: terms[name].value for name in TERMS}
        row["residual"] = abs(
            row["oracle_gain_pct"]
            - row["routing_regret_pct"]
            + row["mixing_bonus_pct"]
            - row["gain_pct"]
        )
        row["divergence"] = float(durations.divergence(table))
        row["best"] = float(min(table.equal_weight(d) for d in table.groups))
        row["fused"] = float(table.equal_weight(EVIDENCE))
        rows.append(row)
    return _frame(rows)


def curve(
    outcomes: Mapping[Condition, Outcome],
    depth: int,
    denominator: str,
    seeds: Sequence[int],
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Gain of a depth at every duration, mean over seeds, % (..., n_durations).

    With document weights (R, n_documents) the seeds are resampled too, the same draw for every
    depth and denominator, so that curves can be compared resample by resample.
    """
    steps = durations_of(outcomes, depth)
    values = np.array(
        [
            [gain(outcomes[Condition(s, depth, seed)].losses, denominator, weights) for s in steps]
            for seed in seeds
        ]
    )  # (seeds, durations, ...)
    if weights is None:
        return values.mean(0)
    return np.einsum("sdr,rs->rd", values, run_weights(["the one"] * len(seeds)))


def durations_of(outcomes: Mapping[Condition, Outcome], depth: int) -> list[int]:
    """Durations, ascending, that both this depth and depth 0 have."""
    found = [{c.steps for c in outcomes if c.depth == k} for k in (0, depth)]
    return sorted(found[0] & found[1])


def seeds_of(outcomes: Mapping[Condition, Outcome], depth: int) -> list[int]:
    """Seeds for which both this depth and depth 0 have every duration."""
    steps = durations_of(outcomes, depth)
    return [
        seed
        for seed in dict.fromkeys(c.seed for c in outcomes)
        if all(Condition(s, k, seed) in outcomes for s in steps for k in (0, depth))
    ]


def lead(
    outcomes: Mapping[Condition, Outcome],
    depth: int,
    denominator: str,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Gain of a depth minus the gain of no freezing at every duration, pp (..., n_durations)."""
    seeds = seeds_of(outcomes, depth)
    deep, shallow = (curve(outcomes, k, denominator, seeds, weights) for k in (depth, 0))
    return deep - shallow


def interval(
    outcomes: Mapping[Condition, Outcome], statistic: Callable[[np.ndarray | None], np.ndarray]
) -> Estimate:
    """Interval of a statistic of several conditions: their documents are resampled jointly.

    A statistic of :func:`curve` resamples the seeds too.
    """
    return next(iter(outcomes.values())).losses.interval(statistic)


def gains(outcomes: Mapping[Condition, Outcome], depths: Sequence[int]) -> pd.DataFrame:
    """Gain of every depth at every duration, mean over the seeds it shares with depth 0.

    Returns
    -------
    Columns denominator, depth, steps, value, low, high (%), seeds (how many).
    """
    rows = []
    for depth in depths:
        seeds = seeds_of(outcomes, depth)
        for name in DENOMINATORS:
            rows += _spread(
                outcomes,
                durations_of(outcomes, depth),
                lambda w, d=depth, n=name, s=seeds: curve(outcomes, d, n, s, w),
                {"denominator": name, "depth": depth, "seeds": len(seeds)},
            )
    return _frame(rows)


def leads(outcomes: Mapping[Condition, Outcome], depths: Sequence[int]) -> pd.DataFrame:
    """:func:`lead` of every depth with its interval, columns as in :func:`gains`, in pp."""
    rows = []
    for depth in depths:
        for name in DENOMINATORS:
            rows += _spread(
                outcomes,
                durations_of(outcomes, depth),
                lambda w, d=depth, n=name: lead(outcomes, d, n, w),
                {"denominator": name, "depth": depth, "seeds": len(seeds_of(outcomes, depth))},
            )
    return _frame(rows)


def _spread(
    outcomes: Mapping[Condition, Outcome],
    steps: Sequence[int],
    statistic: Callable[[np.ndarray | None], np.ndarray],
    labels: dict[str, Any],
) -> list[dict[str, Any]]:
    """One row a duration, with the interval of that entry of a statistic (..., n_durations)."""
    found = [interval(outcomes, lambda w, i=i: statistic(w)[..., i]) for i in range(len(steps))]
    return [labels | {"steps": s} | e.row() for s, e in zip(steps, found, strict=True)]


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows).rename_axis("row")
