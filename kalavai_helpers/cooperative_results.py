"""Results of the protocol over several runs: losses, gains and their exact terms, with intervals.

The runs are one cooperative by specialists of several seeds, on the same tokens. Where they share a
base, an interval says what other text and other seeds would change, and nothing of another base.
What each method loses in each resample is computed once, so that twenty specialists take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import pandas as pd
import torch

from . import evaluation, gain_rules, mixing_oracle
from .evaluation import Fused
from .kept_runs import KeptRun
from .ledger import WEIGHT_AVERAGE, Ledger
from .losses import Estimate, Losses, Weights, over_runs
from .router_comparison import MIXING, RIVAL
from .specialists import BASE

ORACLE = "domain_oracle"
TERMS = ("oracle_gain_pct", "routing_regret_pct", "mixing_bonus_pct", "gain_pct")
_DRAWN = "{}, drawn"


@dataclass(frozen=True)
class Results:
    """What all methods lose, over runs.

    Attributes
    ----------
    tables
        One a run: document sums of the base, specialists, oracles and fused models, and of each of
        these as it would be if one expert were drawn from its gates.
    experts
        Specialists, each of the domain it is named after.
    fused
        Names of the fused models.
    bases
        Whose base each run started from.
    """

    tables: tuple[Losses, ...]
    experts: tuple[str, ...]
    fused: tuple[str, ...]
    bases: tuple[Hashable, ...]
    _seen: dict[tuple[int, str, bool], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def taken(self) -> str:
        """Over what intervals are taken, with the number of sources of each domain, for captions."""
        return self.tables[0].taken(self.bases)

    def over(self, statistic: Callable[[int, Weights], np.ndarray]) -> Estimate:
        """Mean over runs of a statistic of run and document weights, with its interval."""
        return over_runs(self.tables, statistic, self.bases)

    def by_group(self, run: int, method: str, weights: Weights) -> np.ndarray:
        """Losses a domain (..., D), nats/token; ``weights`` are those of :meth:`over`."""
        key = run, method, weights is None
        if key not in self._seen:
            self._seen[key] = self.tables[run].by_group(method, weights)
        return self._seen[key]

    def equal(self, run: int, method: str, weights: Weights) -> np.ndarray:
        """Equal-weight loss (...), nats/token."""
        return self.by_group(run, method, weights).mean(-1)

    def best(self, run: int, weights: Weights) -> np.ndarray:
        """Equal-weight loss of the best specialist (...), chosen anew in every resample."""
        return np.min([self.equal(run, name, weights) for name in self.experts], axis=0)

    def loss(self, method: str) -> Estimate:
        """Equal-weight loss, nats/token."""
        return self.over(lambda r, w: self.equal(r, method, w))

    def gain(self, method: str) -> Estimate:
        """Gain over the best specialist, %."""
        return self._share(None, method)

    def over_base(self, method: str) -> Estimate:
        """Gain over the base, %."""
        return self.over(lambda r, w: 100 * (1 - self.equal(r, method, w) / self.equal(r, BASE, w)))

    def ahead(self, method: str, rival: str) -> Estimate:
        """Gain over the best specialist minus that of a rival, pp."""
        return self._share(rival, method)

    def above(self, method: str, reference: str = ORACLE) -> Estimate:
        """Loss minus that of another method, nats/token; below 0 it is better."""
        return self.over(lambda r, w: self.equal(r, method, w) - self.equal(r, reference, w))

    def best_over_base(self) -> Estimate:
        """How much lower the best specialist's loss is than the base's, %."""
        return self.over(lambda r, w: 100 * (1 - self.best(r, w) / self.equal(r, BASE, w)))

    def spread(self, method: str) -> float:
        """Standard deviation of the gain over runs, pp; 0 for one run."""
        each = [
            100 * float(1 - self.equal(r, method, None) / self.best(r, None)) for r in self._runs
        ]
        return float(np.std(each, ddof=1)) if len(each) > 1 else 0.0

    def divergences(self) -> dict[str, Estimate]:
        """Relative loss reduction of each specialist on its own domain, %, and their ``mean``."""

        def reduced(r: int, w: Weights) -> np.ndarray:
            base = self.by_group(r, BASE, w)
            own = [self.by_group(r, name, w)[..., k] for k, name in enumerate(self.experts)]
            return 100 * (base - np.stack(own, -1)) / base

        found = {
            name: self.over(lambda r, w, k=k: reduced(r, w)[..., k])
            for k, name in enumerate(self.experts)
        }
        return {**found, "mean": self.over(lambda r, w: reduced(r, w).mean(-1))}

    def change(self, expert: str, domain: str) -> Estimate:
        """Loss of a specialist on a domain minus the base's, nats/token."""
        return self.over(lambda r, w: self._changed(r, expert, domain, w))

    def changes(self) -> dict[str, Estimate]:
        """Mean change from the base, nats/token: of all specialists ``home`` and ``abroad``."""
        pairs = {"home": [(d, d) for d in self.experts], "abroad": [*permutations(self.experts, 2)]}
        return {
            name: self.over(
                lambda r, w, of=of: np.mean([self._changed(r, *pair, w) for pair in of], axis=0)
            )
            for name, of in pairs.items()
        }

    def pairs(self) -> dict[str, int]:
        """Of all N · (N − 1) ordered pairs: how many specialists lose on the domain of another.

        Returns
        -------
        ``to_own``: a specialist is worse there than the domain's own; ``to_base``: than the base.
        """
        matrix = self.matrix()
        pairs = [*permutations(self.experts, 2)]
        return {
            "to_own": sum(bool(matrix.loc[i, d] > matrix.loc[d, d]) for i, d in pairs),
            "to_base": sum(bool(matrix.loc[i, d] > matrix.loc[BASE, d]) for i, d in pairs),
        }

    def matrix(self) -> pd.DataFrame:
        """Loss matrix in nats/token, base and specialists × domains, mean over runs."""
        each = [table.matrix((BASE, *self.experts)) for table in self.tables]
        return sum(each) / len(each)

    def summary(self) -> pd.DataFrame:
        """Every method, best last: the table that :func:`evaluation.summary` describes."""
        kinds = {BASE: "base", WEIGHT_AVERAGE: "single model"}
        kinds |= dict.fromkeys(self.experts, "specialist") | dict.fromkeys(self.fused, "fused")
        groups, rows = self.tables[0].groups, {}
        drawn = {_DRAWN.format(name) for name in self.fused}
        for method in (name for name in self.tables[0].sums if name not in drawn):
            each = [self.by_group(run, method, None) for run in self._runs]
            rows[method] = {
                "kind": kinds.get(method, "oracle"),
                **gain_rules.columns(
                    loss=self.loss(method),
                    gain=self.gain(method),
                    gain_over_base=self.over_base(method),
                ),
                "gain_sd": self.spread(method),
                **dict(zip(groups, np.mean(each, axis=0), strict=True)),
            }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
        return table.sort_values("loss", ascending=False)

    def terms(self, name: str) -> dict[str, Estimate]:
        """Exact terms of the gain of a fused model, by the names of :data:`TERMS`."""
        drawn = _DRAWN.format(name)
        found = (
            self.gain(ORACLE),
            self._share(drawn, ORACLE),
            self._share(drawn, name),
            self.gain(name),
        )
        return dict(zip(TERMS, found, strict=True))

    def accounting(self) -> pd.DataFrame:
        """Exact terms of the gain of each fused model, % of the best specialist's loss.

        Returns
        -------
        One row a fused model: :data:`TERMS` with the ends ``_low`` and ``_high`` of their
        intervals; see :class:`evaluation.Accounting`.
        """
        rows = {name: gain_rules.columns(**self.terms(name)) for name in self.fused}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("router")

    @property
    def _runs(self) -> range:
        return range(len(self.tables))

    def _share(self, upper: str | None, lower: str) -> Estimate:
        """Loss of one method minus that of another, % of the best specialist's."""

        def statistic(r: int, w: Weights) -> np.ndarray:
            best = self.best(r, w)
            top = best if upper is None else self.equal(r, upper, w)
            return 100 * (top - self.equal(r, lower, w)) / best

        return self.over(statistic)

    def _changed(self, run: int, expert: str, domain: str, weights: Weights) -> np.ndarray:
        column = self.tables[run].groups.index(domain)
        names = (expert, BASE)
        own, base = (self.by_group(run, name, weights)[..., column] for name in names)
        return own - base


def of(
    runs: Sequence[tuple[Ledger, Mapping[str, Fused]]],
    bases: Sequence[Hashable] | None = None,
    fitting: Sequence[Ledger] = (),
) -> Results:
    """Results of runs on held-out text.

    Parameters
    ----------
    runs
        One (ledger, fused) a seed, all on the same tokens.
    bases
        Whose base each run started from; by default one base for all.
    fitting
        Router documents of each run, for the oracles that mix; none to leave those out.

    Raises
    ------
    ValueError
        If there is no run, or one has domains without a specialist.
    """
    if not runs:
        raise ValueError("Give at least one run: a kept ledger names its teams in about['teams']")
    tables = []
    for number, (ledger, fused) in enumerate(runs):
        if ledger.groups != ledger.experts:
            raise ValueError(
                f"Results need one specialist a domain, not {ledger.experts} for {ledger.groups}"
            )
        methods = {name: one.log_probs for name, one in fused.items()}
        for name, one in fused.items():
            methods[_DRAWN.format(name)] = (one.gates * ledger.expert_log_probs).sum(1)
        if fitting:
            methods |= mixing_oracles(fitting[number], ledger)
        tables.append(evaluation.losses(ledger, methods))
    ledger, fused = runs[0]
    bases = ("the one",) * len(runs) if bases is None else tuple(bases)
    return Results(tuple(tables), ledger.experts, tuple(fused), bases)


def of_kept(runs: Sequence[KeptRun]) -> Results:
    """Results of kept runs, which share their base, with the oracles that mix."""
    return of([(run.ledger, run.fused) for run in runs], fitting=[run.fitting for run in runs])


def mixing_oracles(fitting: Ledger, judged: Ledger) -> dict[str, torch.Tensor]:
    """Log-probabilities (n,) of the oracle that mixes, without and with the base as an expert."""
    found = {}
    for name, extra in ((MIXING, ()), (RIVAL, (BASE,))):
        parts = (replace(part, experts=(*part.experts, *extra)) for part in (fitting, judged))
        found[name] = mixing_oracle.route(*parts).log_probs
    return found
