"""Published cooperatives that are subsets of a recorded one: measured here, beside their release.

All of them are read off the same documents, so that one bootstrap serves what is said of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from . import evaluation, gain_rules, losses, prediction, released_cooperatives, released_held_out
from .ledger import Ledger
from .losses import Estimate, Losses, Weights, over_runs
from .routing import EvidenceRouter
from .specialists import BASE

SIX = {name: tuple(name.split("+")) for name in released_held_out.CONDITIONS}
"""The six conditions of August 2026."""
FUSED = "fused"

Draws = Mapping[str, np.ndarray]
"""Measures (..., K) of K cooperatives, by name: gain, divergence, oracle (%)."""


@dataclass(frozen=True)
class Conditions:
    """Cooperatives measured on a held-out ledger.

    Attributes
    ----------
    sets
        K cooperatives: name, and whose specialists take part.
    value, drawn
        Their measures (K,), and those of resamples of the text (N_RESAMPLES, K).
    table
        Losses of base and specialists on all documents.
    """

    sets: Mapping[str, tuple[str, ...]]
    value: Draws
    drawn: Draws
    table: Losses

    def of(self, names: Sequence[str]) -> Conditions:
        """Some of the cooperatives."""
        rows = [list(self.sets).index(name) for name in names]
        return replace(
            self,
            sets={name: self.sets[name] for name in names},
            value={key: values[..., rows] for key, values in self.value.items()},
            drawn={key: values[..., rows] for key, values in self.drawn.items()},
        )

    def estimate(self, statistic: Callable[[Draws], np.ndarray]) -> Estimate:
        """A statistic of the cooperatives with a 95 % interval over the sources of their text.

        Parameters
        ----------
        statistic
            Maps measures (..., K) to values (...).
        """
        found = statistic(self.value), statistic(self.drawn)
        return losses.percentile(*found, "sources", self.sources)

    @property
    def sources(self) -> int:
        """Number of sources of the text of all of them together."""
        own = {domain for domains in self.sets.values() for domain in domains}
        return sum(count for domain, count in self.table.units().items() if domain in own)

    def each(self, measure: str) -> dict[str, Estimate]:
        """One measure of every cooperative."""
        return {name: self.of([name]).estimate(lambda m: m[measure][..., 0]) for name in self.sets}


def measure(ledger: Ledger, sets: Mapping[str, tuple[str, ...]]) -> Conditions:
    """Fuse cooperatives by evidence routing and measure them, each on its own domains.

    Parameters
    ----------
    ledger
        Of experts that are named after its groups.
    """
    columns = {}
    for name, domains in sets.items():
        part = ledger.restrict(domains)
        own = torch.isin(
            ledger.token_group, torch.tensor([ledger.groups.index(d) for d in domains])
        )
        fused = evaluation.route(part, {FUSED: EvidenceRouter()})[FUSED].log_probs
        # Elsewhere it stays zero, and is not read.
        columns[name] = torch.zeros(len(ledger), dtype=fused.dtype).masked_scatter(own, fused)
    table = evaluation.losses(ledger, columns)

    def draws(weights: Weights) -> Draws:
        by_model = {m: table.by_group(m, weights) for m in (BASE, *ledger.experts, *sets)}
        found = [_measures(by_model, ledger.groups, *one) for one in sets.items()]
        return {key: np.stack([one[key] for one in found], -1) for key in found[0]}

    return Conditions(sets, draws(None), draws(table.resamples()), table)


def _measures(
    losses: Mapping[str, np.ndarray], groups: Sequence[str], name: str, domains: Sequence[str]
) -> Draws:
    """Measures (...) of one cooperative from losses (..., D) by model."""
    at = [groups.index(domain) for domain in domains]
    base = losses[BASE][..., at]
    matrix = np.stack([losses[domain][..., at] for domain in domains], -2)
    own = np.stack([losses[d][..., groups.index(d)] for d in domains], -1)
    best = matrix.mean(-1).min(-1)
    return {
        "gain": 100 * (best - losses[name][..., at].mean(-1)) / best,
        "divergence": (100 * (base - own) / base).mean(-1),
        "oracle": 100 * (best - matrix.min(-2).mean(-1)) / best,
    }


def above_line(measured: Conditions, line: gain_rules.Plane | prediction.Law) -> Estimate:
    """How far the gain of one cooperative lies above a line in divergence, pp."""

    def statistic(m: Draws) -> np.ndarray:
        return (m["gain"] - _told(line, m["divergence"]))[..., 0]

    return measured.estimate(statistic)


def _told(line: gain_rules.Plane | prediction.Law, divergence: np.ndarray) -> np.ndarray:
    if isinstance(line, prediction.Law):
        return line.predict(divergence)
    return line.slopes[0] * divergence + line.intercept


def tested_line(six: Conditions) -> dict[str, Estimate]:
    """The line of eight points asked about the six, as its authors asked it.

    Returns
    -------
    dict
        in_band (how many lie in its 95 % band), line_rms and line_error (root mean square and mean
        absolute error, pp), above_band (how far the one that lies highest is above the band, pp;
        negative where none is above), rank_divergence (rank correlation of gain and divergence),
        rank_released (of the gains here and the released ones), net (largest distance of gain and
        oracle gain, pp).
    """
    law = prediction.fit(prediction.points(released_held_out.LINE))
    released = released_held_out.held_out().loc[list(six.sets), "gain"].to_numpy(float)

    def above(m: Draws) -> np.ndarray:
        return (m["gain"] - law.prediction_interval(m["divergence"])[1]).max(-1)

    def in_band(m: Draws) -> np.ndarray:
        low, high = law.prediction_interval(m["divergence"])
        return ((low <= m["gain"]) & (m["gain"] <= high)).sum(-1)

    def missed(m: Draws) -> np.ndarray:
        return law.predict(m["divergence"]) - m["gain"]

    statistics: dict[str, Callable[[Draws], np.ndarray]] = {
        "in_band": in_band,
        "above_band": above,
        "line_rms": lambda m: np.sqrt((missed(m) ** 2).mean(-1)),
        "line_error": lambda m: np.abs(missed(m)).mean(-1),
        "rank_divergence": lambda m: rank_correlation(m["divergence"], m["gain"]),
        "rank_released": lambda m: rank_correlation(
            np.broadcast_to(released, m["gain"].shape), m["gain"]
        ),
        "net": lambda m: np.abs(m["gain"] - m["oracle"]).max(-1),
    }
    return {name: six.estimate(statistic) for name, statistic in statistics.items()}


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of values (..., K) without ties, (...)."""
    n = a.shape[-1]
    apart = a.argsort(-1).argsort(-1) - b.argsort(-1).argsort(-1)
    return 1 - 6 * (apart**2).sum(-1) / (n * (n**2 - 1))


def covered(six: Conditions, home: Sequence[str], other: str) -> Estimate:
    """Loss reduction (%) on another domain by that one of some specialists that has the least."""
    table, at = six.table, six.table.groups.index(other)

    def statistic(weights: Weights) -> np.ndarray:
        base = table.by_group(BASE, weights)[..., at]
        there = np.stack([table.by_group(name, weights)[..., at] for name in home])
        return (100 * (base - there) / base).min(0)

    return replace(table.interval(statistic), over="sources", units=table.units()[other])


def numbers(measured: Conditions, printed: gain_rules.Plane) -> dict[str, tuple[Estimate, str]]:
    """What is said of the published cooperatives, and its unit, by the name of a record.

    Parameters
    ----------
    measured
        Of ``private``, ``cross-lingual``, ``twenty`` and the six.
    printed
        The line as printed. The discussion of August 2026 measures against the line of eight.
    """
    found: dict[str, tuple[Estimate, str]] = {}
    for name in ("private", "cross-lingual", "twenty"):
        for measure in ("gain", "divergence", "oracle"):
            value = measured.of([name]).estimate(lambda m, key=measure: m[key][..., 0])
            found[f"{name.replace('-', '_')}_{measure}"] = value, "%"
    languages = measured.of(["cross-lingual"])
    eight = prediction.fit(prediction.points(released_held_out.LINE))
    found["twenty_above_line"] = above_line(measured.of(["twenty"]), printed), "pp"
    found["cross_lingual_above_line"] = above_line(languages, printed), "pp"
    found["cross_lingual_above_line_of_eight"] = above_line(languages, eight), "pp"
    six = measured.of([*SIX])
    units = {"in_band": "conditions", "rank_divergence": "", "rank_released": ""}
    for name, value in tested_line(six).items():
        found[f"six_here_{name}"] = value, units.get(name, "pp")
    found["languages_on_code"] = covered(six, ("welsh", "yoruba"), "code"), "%"
    return found


def beside(six: Conditions) -> pd.DataFrame:
    """The six as released and as measured here: one row a condition.

    Returns
    -------
    Columns (measure, where): divergence, gain, line error (line − gain, pp) and oracle gain,
    released and here; of the gain here also the ends of its interval.
    """
    law = prediction.fit(prediction.points(released_held_out.LINE))
    released = released_held_out.held_out().loc[list(six.sets)]
    gains = six.each("gain")
    here = pd.DataFrame(dict(six.value), index=list(six.sets))
    return pd.DataFrame(
        {
            "divergence, released": released["divergence"],
            "divergence, here": here["divergence"],
            "gain, released": released["gain"],
            "gain, here": here["gain"],
            "from": {name: found.low for name, found in gains.items()},
            "to": {name: found.high for name, found in gains.items()},
            "line − gain, released": released["error"],
            "line − gain, here": law.predict(here["divergence"]) - here["gain"],
            "oracle gain, released": released["oracle"],
            "oracle gain, here": here["oracle"],
        }
    ).rename_axis("condition")


def released() -> pd.DataFrame:
    """The eight conditions of the line and the six of August 2026, a row a condition.

    Returns
    -------
    Means over seeds of what :func:`released_cooperatives.cooperatives` knows; kind says which.
    """
    table = released_cooperatives.cooperatives()
    table = table[table["kind"] != released_cooperatives.OTHER]
    august = table["kind"] == released_cooperatives.AUGUST
    name = table["trained"].where(~august, table.index.to_series())
    means = table.select_dtypes("number").groupby(name, sort=False).mean()
    return means.assign(kind=table.groupby(name, sort=False)["kind"].first())


def of_seeds(ledgers: Sequence[Ledger]) -> dict[str, Estimate]:
    """Gain (evidence routing) and mean divergence, %, of one cooperative by several seeds.

    Parameters
    ----------
    ledgers
        One a seed, of one base, on the same documents.
    """
    tables = []
    for ledger in ledgers:
        fused = evaluation.route(ledger, {FUSED: EvidenceRouter()})[FUSED].log_probs
        tables.append(evaluation.losses(ledger, {FUSED: fused}))
    domains = ledgers[0].experts

    def value(run: int, weights: Weights, measure: str) -> np.ndarray:
        models = (BASE, *domains, FUSED)
        by_model = {m: tables[run].by_group(m, weights) for m in models}
        return _measures(by_model, tables[run].groups, FUSED, domains)[measure]

    found = {
        name: over_runs(tables, lambda run, weights, m=name: value(run, weights, m))
        for name in ("gain", "divergence")
    }
    # A document that is a source of its own is counted as one.
    return {k: replace(v, over=v.over.replace("documents", "sources")) for k, v in found.items()}
