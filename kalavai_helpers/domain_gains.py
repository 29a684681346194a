"""What a cooperative does for each of its domains: twenty contributors, and the private ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import collapse, evaluation, published
from .evaluation import Fused
from .ledger import Ledger
from .losses import Estimate, Losses
from .specialists import BASE
from .teams import TWENTY

_RUN = "20-contributor/pythia-1b_step10000/"
_GATE = "input_{}/mean_gate_own/s42/mean_sequence_gate_first_10"


def by_domain(found: Ledger, fused: Fused) -> pd.DataFrame:
    """What each contributor brings and gets, on the domain that is theirs.

    Returns
    -------
    Index domain; losses base, own (specialist) and fused, nats/token; in % of the base's loss
    divergence (what the own specialist saves) and saved (what the fused model saves), and in % of
    the own specialist's over_own, each with the ends ``_low`` and ``_high`` of its interval over
    sources; own_gate (mean gate of the own specialist), largest (specialist with the largest mean
    gate) and sources.
    """
    table = evaluation.losses(found, {"fused": fused.log_probs})
    gates, units = collapse.mean_gates(found, fused.gates), table.units()
    rows = {}
    for column, domain in enumerate(found.groups):
        losses = {
            name: float(table.by_group(method)[column])
            for name, method in ((BASE, BASE), ("own", domain), ("fused", "fused"))
        }
        row: dict[str, object] = dict(losses)
        for name, above, below in (
            ("divergence", BASE, domain),
            ("saved", BASE, "fused"),
            ("over_own", domain, "fused"),
        ):
            share = _saved(table, column, above, below)
            row |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        row["own_gate"] = float(gates[column, found.experts.index(domain)])
        row["largest"] = found.experts[int(gates[column].argmax())]
        row["sources"] = units[domain]
        rows[domain] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")


def _saved(table: Losses, column: int, above: str, below: str) -> Estimate:
    """What one method's loss on a domain is below another's, % of the other's."""

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        high, low = (table.by_group(name, weights)[..., column] for name in (above, below))
        return 100 * (high - low) / high

    return table.interval(statistic)


def degraded(rows: pd.DataFrame) -> list[str]:
    """Domains on which the fused model's loss is above the base's."""
    return list(rows.index[rows["fused"] > rows[BASE]])


def n_degraded(found: Ledger, fused: Fused) -> Estimate:
    """How many domains a fused model makes worse than the base, with an interval over sources."""
    table = evaluation.losses(found, {"fused": fused.log_probs})
    return table.interval(
        lambda weights: (table.by_group("fused", weights) > table.by_group(BASE, weights)).sum(-1)
    )


def released() -> pd.DataFrame:
    """The published cooperative of twenty at 1B, seed 42, by domain.

    Returns
    -------
    Index domain; divergence and saved (% of the base's loss), own_gate (mean over the first ten
    sequences).
    """
    rows = {}
    for domain in TWENTY:
        base, fused = (
            published.value(f"{_RUN}model_{model}/loss_{domain}/s42/corr")
            for model in (BASE, "moe")
        )
        rows[domain] = {
            "divergence": published.value(f"{_RUN}/divergence_{domain}/s42/corr"),
            "saved": 100 * (base - fused) / base,
            "own_gate": published.value(_RUN + _GATE.format(domain)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")
