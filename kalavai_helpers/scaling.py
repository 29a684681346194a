"""What a ladder says: measures of every method on every rung, with intervals, and their trend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import evaluation
from .ladder import EVIDENCE, METHODS, Rung
from .losses import Estimate, Losses, Weights, over_runs
from .specialists import BASE


def _gain(table: Losses, method: str, experts: tuple[str, ...], weights: Weights) -> np.ndarray:
    best = np.min([table.equal_weight(name, weights) for name in experts], axis=0)
    return 100 * (best - table.equal_weight(method, weights)) / best


def _over_base(
    table: Losses, method: str, experts: tuple[str, ...], weights: Weights
) -> np.ndarray:
    base = table.equal_weight(BASE, weights)
    return 100 * (base - table.equal_weight(method, weights)) / base


def _loss(table: Losses, method: str, experts: tuple[str, ...], weights: Weights) -> np.ndarray:
    return table.equal_weight(method, weights)


MEASURES = {"gain": _gain, "gain_over_base": _over_base, "loss": _loss}
"""Gain over the best specialist (%), gain over the base (%), equal-weight loss (nats/token)."""


def estimate(rung: Rung, method: str, measure: str = "gain") -> Estimate:
    """A measure of a method on a rung, mean over the seeds that it was run for."""
    tables, function = rung.tables_with(method), MEASURES[measure]
    return over_runs(tables, lambda s, w: function(tables[s], method, rung.domains, w))


def summary(rungs: Sequence[Rung]) -> pd.DataFrame:
    """Every measure of every method on every rung, one row each, methods in their fixed order.

    Returns
    -------
    Index ``method``; columns width, parameters (of one specialist), total_parameters, seeds, and
    each of ``MEASURES`` with the ends ``_low`` and ``_high`` of its 95 % interval.
    """
    rows = []
    for method in METHODS:
        for rung in rungs:
            if not rung.tables_with(method):
                continue
            row = {
                "method": method,
                "width": rung.tier.hidden_size,
                "parameters": rung.parameters,
                "total_parameters": rung.total_parameters(method),
                "seeds": len(rung.tables_with(method)),
            }
            for name in MEASURES:
                found = estimate(rung, method, name)
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append(row)
    return pd.DataFrame(rows).set_index("method")


def divergences(rungs: Sequence[Rung]) -> pd.DataFrame:
    """Divergence (%) of every specialist and their mean, mean over seeds, one row a rung."""
    rows = {}
    for rung in rungs:
        each = [
            [evaluation.divergence_pct(table, domain).value for domain in rung.domains]
            for table in rung.tables
        ]
        mean = np.mean(each, axis=0)
        rows[rung.parameters] = {**dict(zip(rung.domains, mean, strict=True)), "mean": mean.mean()}
    return pd.DataFrame(rows).T.rename_axis("parameters")


def accounting(rungs: Sequence[Rung]) -> pd.DataFrame:
    """Exact terms of the gain (%) of every router, seed and rung, and what they leave over (pp)."""
    rows = []
    for rung in rungs:
        for coop, found, fused in zip(rung.cooperatives, rung.ledgers, rung.fused, strict=True):
            for name, entry in fused.items():
                terms = evaluation.account(found, name, entry.log_probs, entry.gates)
                parts = {
                    "oracle": terms.oracle_gain_pct.value,
                    "regret": terms.routing_regret_pct.value,
                    "bonus": terms.mixing_bonus_pct.value,
                    "gain": terms.gain_pct.value,
                }
                left = parts["oracle"] - parts["regret"] + parts["bonus"] - parts["gain"]
                where = {"parameters": rung.parameters, "seed": coop.seed, "router": name}
                rows.append({**where, "best": terms.best_specialist, **parts, "residual": left})
    return pd.DataFrame(rows).set_index("parameters")


def change(rungs: Sequence[Rung], method: str = EVIDENCE) -> Estimate:
    """Gain (pp) on the widest rung minus gain on the narrowest, paired by document and seed."""
    small, large = (rung.tables_with(method) for rung in (rungs[0], rungs[-1]))
    experts = rungs[0].domains
    return over_runs(
        small,
        lambda s, w: _gain(large[s], method, experts, w) - _gain(small[s], method, experts, w),
    )


def slope(rungs: Sequence[Rung], method: str = EVIDENCE) -> Estimate:
    """Least-squares change of the gain (pp) for ten times the parameters, over all rungs.

    Raises
    ------
    ValueError
        If there is only one rung.
    """
    if len(rungs) < 2:
        raise ValueError("a slope over sizes needs at least two rungs, this tier has one")
    x = np.log10([rung.parameters for rung in rungs])
    share = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    each = [rung.tables_with(method) for rung in rungs]

    def line(s: int, w: Weights) -> np.ndarray:
        gains = [_gain(tables[s], method, rungs[0].domains, w) for tables in each]
        return sum(part * gain for part, gain in zip(share, gains, strict=True))

    return over_runs(each[0], line)


def lowest_gain(rungs: Sequence[Rung], method: str = EVIDENCE) -> Estimate:
    """The lowest gain (%) of all rungs: above zero only if the gain is so at every size."""
    each = [(rung.tables_with(method), rung.domains) for rung in rungs]
    return over_runs(
        each[0][0], lambda s, w: np.min([_gain(t[s], method, d, w) for t, d in each], axis=0)
    )


def advantage(
    rung: Rung, rival: str, domain: str | None = None, method: str = EVIDENCE
) -> Estimate:
    """100 · (L(rival) − L(method)) / L(rival), %, on the seeds that ran the rival.

    L is the equal-weight loss, or the loss on ``domain``.
    """
    tables = rung.tables_with(method, rival)
    return over_runs(tables, lambda s, w: _advantage(rung, tables[s], rival, domain, method, w))


def lowest_advantage(
    rungs: Sequence[Rung], rival: str, *, by_domain: bool = False, method: str = EVIDENCE
) -> Estimate | None:
    """The lowest advantage (%) of all rungs, or of all rungs and domains; None if never run."""
    cases = [
        (rung, rung.tables_with(method, rival), domain)
        for rung in rungs
        if rung.tables_with(method, rival)
        for domain in (rung.domains if by_domain else (None,))
    ]
    if not cases:
        return None

    def statistic(s: int, w: Weights) -> np.ndarray:
        return np.min([_advantage(r, t[s], rival, d, method, w) for r, t, d in cases], axis=0)

    return over_runs(cases[0][1], statistic)


def _advantage(
    rung: Rung, table: Losses, rival: str, domain: str | None, method: str, weights: Weights
) -> np.ndarray:
    if domain is None:
        theirs, ours = (table.equal_weight(name, weights) for name in (rival, method))
    else:
        column = rung.domains.index(domain)
        theirs, ours = (table.by_group(name, weights)[..., column] for name in (rival, method))
    return 100 * (theirs - ours) / theirs
