"""Every subset of a cooperative's specialists is a cooperative of its own: drawn and measured.

All of it comes from one held-out ledger, without a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from . import evaluation, gain_rules, parallel, released_held_out, released_losses
from .filtering import subset_log_probs
from .ledger import Ledger
from .losses import Estimate
from .routing import EvidenceRouter, UniformRouter
from .specialists import BASE

HALVINGS = 100
ALL_UP_TO = 200
"""Sizes with no more subsets than that are taken whole: of twenty, pairs and 18 to 20."""
PER_HALF, PER_SIZE = 4, 80
"""Subsets drawn of a size within every half, and of a size above half of the specialists. With a
hundred halvings 6,292 subsets of twenty, which are routed in six seconds of one core."""

NAMED: dict[str, tuple[str, ...]] = {
    "private": released_losses.PRIVATE,
    "cross-lingual": released_held_out.DOMAINS,
}
"""Published cooperatives that are subsets of the twenty."""


@dataclass(frozen=True)
class Subsets:
    """Cooperatives within a cooperative.

    Attributes
    ----------
    experts
        The N specialists, each of the domain it is named after.
    members
        (S, N) true where a specialist takes part.
    table
        One row a subset: domains (joined by ``+``), best (its best specialist), what
        :func:`gain_rules.of_matrix` knows of it, equal-weight losses base, best_loss, oracle_loss,
        evidence_loss, uniform_loss (nats/token), and gain, gain_over_base, uniform_gain (%),
        net (gain − oracle, pp). The gain is that of evidence routing over the best specialist.
    """

    experts: tuple[str, ...]
    members: np.ndarray
    table: pd.DataFrame


def halvings(n: int, count: int = HALVINGS, seed: int = 0) -> np.ndarray:
    """Random halves of n specialists that share none, (count, 2, n) bool; of an odd n, one sits out.

    Raises
    ------
    ValueError
        For fewer than four: a half has to hold a cooperative.
    """
    if n < 4:
        raise ValueError(f"Halves of {n} specialists hold no cooperative: it takes at least four")
    rng = np.random.default_rng(seed)
    halves = np.zeros((count, 2, n), bool)
    for pair in halves:
        order = rng.permutation(n)
        pair[0, order[: n // 2]] = True
        pair[1, order[n // 2 : 2 * (n // 2)]] = True
    return halves


def draw(halves: np.ndarray, seed: int = 0) -> np.ndarray:
    """Subsets of two to all n specialists, (S, n) bool, each once, the small first.

    Up to half of the specialists they are drawn within the halves (H, 2, n), so that each half has
    some of every size; which is to draw them uniformly, since the halves are. No specialist is
    likelier than another.
    """
    rng = np.random.default_rng(seed)
    n = halves.shape[-1]
    found: set[tuple[int, ...]] = set()
    for size in range(2, n + 1):
        if math.comb(n, size) <= ALL_UP_TO:
            found |= set(combinations(range(n), size))
        elif size <= n // 2:
            for half in halves.reshape(-1, n):
                within = np.flatnonzero(half)
                for _ in range(min(PER_HALF, math.comb(len(within), size))):
                    found.add(tuple(sorted(rng.choice(within, size, replace=False).tolist())))
        else:
            for _ in range(PER_SIZE):
                found.add(tuple(sorted(rng.choice(n, size, replace=False).tolist())))
    members = np.zeros((len(found), n), bool)
    for row, chosen in zip(members, sorted(found, key=lambda c: (len(c), c)), strict=True):
        row[list(chosen)] = True
    return members


def measure(ledger: Ledger, members: np.ndarray, alpha: float = EvidenceRouter().alpha) -> Subsets:
    """Measure subsets of the experts of a held-out ledger, each on its own domains.

    Parameters
    ----------
    ledger
        Of experts that are named after its groups.
    members
        (S, N) bool.

    Raises
    ------
    ValueError
        If the ledger has domains without an expert, or experts without a domain.
    """
    if ledger.groups != ledger.experts:
        raise ValueError(
            f"Subsets need one expert a domain in the same order, not {ledger.experts} for "
            f"{ledger.groups}: restrict the ledger to the domains of its experts"
        )
    matrix = evaluation.losses(ledger).matrix((BASE, *ledger.experts)).to_numpy()
    evidence, uniform = _fused(ledger, members, alpha)
    rows = [
        _row(ledger.experts, matrix, np.flatnonzero(row), *fused)
        for row, *fused in zip(members, evidence, uniform, strict=True)
    ]
    return Subsets(ledger.experts, members, pd.DataFrame(rows))


def _row(
    experts: tuple[str, ...], matrix: np.ndarray, kept: np.ndarray, fused: float, uniform: float
) -> dict[str, object]:
    base, losses = matrix[0, kept], matrix[1:][np.ix_(kept, kept)]
    each = losses.mean(1)
    best = float(each.min())
    known = gain_rules.of_matrix(base, losses)
    gain = 100 * (best - fused) / best
    return {
        "domains": "+".join(experts[k] for k in kept),
        "best": experts[kept[each.argmin()]],
        **known,
        "best_loss": best,
        "oracle_loss": float(losses.min(0).mean()),
        "evidence_loss": fused,
        "uniform_loss": uniform,
        "gain": gain,
        "gain_over_base": 100 * (known["base"] - fused) / known["base"],
        "uniform_gain": 100 * (best - uniform) / best,
        "net": gain - known["oracle"],
    }


def _fused(ledger: Ledger, members: np.ndarray, alpha: float) -> np.ndarray:
    """Equal-weight losses (2, S) of evidence routing and of equal weights, nats/token."""
    log_probs = ledger.expert_log_probs
    texts = [log_probs[rows[rows >= 0]] for rows in ledger.positions()]
    tasks = []
    for group in range(len(ledger.groups)):
        own = [texts[k] for k in np.flatnonzero(ledger.group.numpy() == group)]
        taking_part = torch.from_numpy(members[members[:, group]].T.copy())
        tasks.append(partial(_of_domain, own, taking_part, alpha))
    sums = np.zeros((2, len(members)))
    for group, found in enumerate(parallel.side_by_side(tasks)):
        sums[:, members[:, group]] += found
    return sums / members.sum(1)


def _of_domain(texts: list[torch.Tensor], members: torch.Tensor, alpha: float) -> np.ndarray:
    """Mean losses (2, S) on the documents of a domain that all subsets have, nats/token."""
    sums = sum(torch.stack(subset_log_probs(text, members, alpha)) for text in texts)
    return -sums.numpy() / sum(map(len, texts))


def thinned(subsets: Subsets, per_size: int = 12, seed: int = 0) -> pd.DataFrame:
    """A few subsets of every size, for a figure and its table; the numbers come from all."""
    rng = np.random.default_rng(seed)
    rows = subsets.table.groupby("n").indices.values()
    kept = [rng.choice(rows_, min(per_size, len(rows_)), replace=False) for rows_ in rows]
    return subsets.table.iloc[np.sort(np.concatenate(kept))]


def growth(
    subsets: Subsets,
    halves: np.ndarray,
    measures: tuple[str, ...] = ("gain", "gain_over_base", "uniform_gain", "oracle"),
) -> pd.DataFrame:
    """How a measure goes with the number of contributors: its mean over subsets of each size.

    Returns
    -------
    One row a size: subsets, and for every measure its mean, ``_low`` and ``_high`` (95 % interval
    over specialists, from means within halves; NaN above half of the specialists, where any two
    subsets share members and no interval can be had), ``_p10`` and ``_p90`` (the middle 80 % of the
    subsets: a spread, and no interval).
    """
    table, n = subsets.table, len(subsets.experts)
    within = [~(subsets.members & ~half).any(1) for half in halves.reshape(-1, n)]
    rows = {}
    for size, part in table.groupby("n"):
        row: dict[str, float] = {"subsets": len(part)}
        own = (table["n"] == size).to_numpy()
        for name in measures:
            values = table[name].to_numpy(float)
            mean = Estimate(float(values[own].mean()), np.nan, np.nan)
            if size <= n // 2:
                halved = gain_rules.over_halves([values[own & w].mean() for w in within], n)
                mean = replace(halved, value=mean.value)
            tenth, ninth = np.quantile(values[own], [0.1, 0.9])
            row |= {
                **gain_rules.columns(**{name: mean}),
                f"{name}_p10": tenth,
                f"{name}_p90": ninth,
            }
        rows[size] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("contributors")


def cooperative(ledger: Ledger, domains: tuple[str, ...]) -> dict[str, Estimate]:
    """Measures of one subset with intervals over the sources of its text.

    Returns
    -------
    dict
        gain, uniform_gain, oracle (over the best specialist), gain_over_base and divergence (mean
        over domains), all in %.
    """
    part = ledger.restrict(domains)
    fused = evaluation.route(part, {"gain": EvidenceRouter(), "uniform_gain": UniformRouter()})
    table = evaluation.losses(part, {name: entry.log_probs for name, entry in fused.items()})

    def divergence(weights: np.ndarray | None) -> np.ndarray:
        base = table.by_group(BASE, weights)
        own = [table.by_group(d, weights)[..., k] for k, d in enumerate(domains)]
        return (100 * (base - np.stack(own, -1)) / base).mean(-1)

    return {
        **{name: evaluation.gain_pct(table, name, domains) for name in fused},
        "oracle": evaluation.gain_pct(table, "domain_oracle", domains),
        "gain_over_base": evaluation.gain_over_base_pct(table, "gain"),
        "divergence": table.interval(divergence),
    }


def named(
    ledger: Ledger, cooperatives: Mapping[str, tuple[str, ...]] | None = None
) -> pd.DataFrame:
    """The published cooperatives among the subsets, and all contributors together.

    Returns
    -------
    One row a cooperative: domains, n, sources (of its held-out text), and every measure of
    :func:`cooperative` with the ends ``_low`` and ``_high`` of its interval over sources.
    """
    chosen = {**(NAMED if cooperatives is None else cooperatives), "all": ledger.experts}
    rows = {}
    for name, domains in chosen.items():
        found = cooperative(ledger, domains)
        rows[name] = {
            "domains": "+".join(domains),
            "n": len(domains),
            "sources": found["gain"].units,
            **gain_rules.columns(**found),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cooperative")
