"""A rung of the scale ladder from a recorded ledger: a pretrained base, its specialists of several seeds.

It has what `scaling` asks of a `ladder.Rung`, so that a measure is the same one on every rung. No
baseline was trained on pooled text at this size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from . import evaluation, kept_runs, released_ladder, scaling
from .evaluation import Fused
from .kept_ledger import Kept
from .kept_runs import KeptRun
from .ladder import EVIDENCE
from .ledger import WEIGHT_AVERAGE, Ledger
from .losses import Estimate, Losses
from .teams import Team

PARAMETERS = 134_515_008
"""Of SmolLM2-135M: 49,152 embeddings of width 576, which are the head too, 30 blocks of 3,540,096,
and a norm."""
ROUTERS = (EVIDENCE, "log-linear", "prefix-mean", "linear", "pooled", "uniform", "uniform, logits")
"""The causal routers; then as published: the router that reads the whole text, and equal weights,
both of which mix logits."""
_RELEASED = ("gain", "divergence", "oracle", "above_oracle")


@dataclass(frozen=True)
class KeptRung:
    """Cooperatives of one base and one text, whose specialists differ in their seed."""

    runs: tuple[KeptRun, ...]
    parameters: int = PARAMETERS

    @property
    def domains(self) -> tuple[str, ...]:
        """The contributors."""
        return self.runs[0].domains

    @property
    def cooperatives(self) -> tuple[Team, ...]:
        """What tells the runs apart: their teams, which have a seed."""
        return tuple(run.team for run in self.runs)

    @cached_property
    def ledgers(self) -> tuple[Ledger, ...]:
        """Held-out ledger of each seed."""
        return tuple(run.ledger for run in self.runs)

    @cached_property
    def fused(self) -> tuple[dict[str, Fused], ...]:
        """What `ROUTERS` give, for each seed."""
        return tuple({name: run.fused[name] for name in ROUTERS} for run in self.runs)

    @cached_property
    def tables(self) -> tuple[Losses, ...]:
        """Document sums of every method, for each seed."""
        return tuple(
            evaluation.losses(found, {name: entry.log_probs for name, entry in fused.items()})
            for found, fused in zip(self.ledgers, self.fused, strict=True)
        )

    def tables_with(self, *methods: str) -> list[Losses]:
        """The tables of the seeds for which all of the methods are there."""
        return [table for table in self.tables if set(methods) <= set(table.sums)]


def of(kept: Kept) -> KeptRung:
    """The published main experiment, by the specialists of every seed that was recorded."""
    return KeptRung(tuple(kept_runs.seeds(kept)))


def measures(rung: KeptRung) -> dict[str, tuple[Estimate, str]]:
    """Estimate and unit of what chapter 3 records of its largest rung, by the same names."""
    estimate = scaling.estimate
    return {
        "gain_largest": (estimate(rung, EVIDENCE), "%"),
        "gain_over_base_largest": (estimate(rung, EVIDENCE, "gain_over_base"), "%"),
        "gain_lowest": (scaling.lowest_gain([rung]), "%"),
        "uniform_largest": (estimate(rung, "uniform"), "%"),
        "uniform_logits_largest": (estimate(rung, "uniform, logits"), "%"),
        "pooled_largest": (estimate(rung, "pooled"), "%"),
        "weight_average_largest": (estimate(rung, WEIGHT_AVERAGE), "%"),
        "divergence_largest": (scaling.divergence(rung), "%"),
        "conversion_largest": (scaling.conversion(rung), "ratio"),
    }


def summary(rung: KeptRung) -> pd.DataFrame:
    """Gain and gain over the base (%) and loss (nats/token) of every method, best first.

    Returns
    -------
    Index method; each of ``scaling.MEASURES`` with the ends ``_low`` and ``_high`` of its interval.
    """
    rows = {}
    for method in (*ROUTERS, WEIGHT_AVERAGE, "domain_oracle"):
        row: dict[str, float] = {}
        for name in scaling.MEASURES:
            found = scaling.estimate(rung, method, name)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows[method] = row
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return frame.sort_values("loss")


def beside_released(rung: KeptRung) -> pd.DataFrame:
    """The rung above the published ones, whose text, tokenizer and recipe are others.

    Returns
    -------
    One row a model and router; columns gain (%) with gain_low and gain_high (here the 95 % interval,
    of released values the range over seeds), divergence (%), oracle (gain of the domain oracle, %),
    above_oracle (pp) and per_divergence (gain per divergence).
    """
    accounts = scaling.accounting([rung]).groupby("router")[["oracle", "gain"]].mean()
    moved = scaling.divergence(rung).value
    rows = {}
    for method in (EVIDENCE, "pooled", "uniform, logits"):
        gain, oracle = scaling.estimate(rung, method), accounts.loc[method, "oracle"]
        rows[f"135M: {method}"] = {
            **{"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high},
            **{"divergence": moved, "oracle": oracle, "above_oracle": oracle - gain.value},
        }
    for size, part in released_ladder.gains().groupby(level=0, sort=False):
        row = part[list(_RELEASED)].mean().to_dict()
        ends = {"gain_low": part.gain.min(), "gain_high": part.gain.max()}
        rows[f"{size}: published"] = {**row, **ends}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model and router")
    frame["per_divergence"] = frame["gain"] / frame["divergence"]
    order = ["gain", "gain_low", "gain_high", *_RELEASED[1:], "per_divergence"]
    return frame[order]


def accounting(rung: KeptRung, routers: Sequence[str] = ROUTERS) -> pd.DataFrame:
    """Exact terms of the gain (%) of each router, mean over seeds, and what they leave over (pp)."""
    terms = scaling.accounting([rung]).groupby("router", sort=False)
    mean = terms[["oracle", "regret", "bonus", "gain"]].mean()
    mean["residual"] = terms["residual"].agg(lambda left: left.abs().max())
    return mean.loc[list(routers)]
