"""The published experiments of high divergence as cooperatives of a recorded ledger.

Three languages and code, three private domains, and all twenty contributors: how far specialists
moved, whether that is most among languages, and whether each passes the rule by which the authors
went on (GO: mean divergence above 15 %, gain above 7 %).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from . import evaluation, published, released_losses, scaling, subsets
from .corpora import MAIN_DOMAINS
from .ledger import Ledger
from .losses import Estimate, Losses, Weights
from .routing import EvidenceRouter
from .specialists import BASE
from .teams import LANGUAGES, TWENTY

CROSS, PRIVATE, ALL = "cross-lingual", "private", "20 contributors"
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    CROSS: LANGUAGES,
    PRIVATE: released_losses.PRIVATE,
    ALL: TWENTY,
}
KEYS = {CROSS: "cross_lingual", PRIVATE: "private", ALL: "twenty"}
"""How the records name them."""
MAIN = "code, science, fiction"
GO_DIVERGENCE_PCT, GO_GAIN_PCT = 15.0, 7.0
_METHOD = "evidence"
_RELEASED = {
    CROSS: ("cross-lingual/pythia-410m_step10000/metrics", (137, 2026)),
    PRIVATE: ("private-domain/pythia-410m_step10000/metrics", (42, 137, 2026)),
    ALL: ("20-contributor/pythia-1b_step10000/", (42, 137, 2026)),
}
"""Where its values were released, and the seeds behind the stated gain."""


def losses(ledger: Ledger) -> Losses:
    """Losses of base and specialists on the text of all experiments, the main one included."""
    domains = tuple(dict.fromkeys((*MAIN_DOMAINS, *TWENTY)))
    return evaluation.losses(ledger.restrict(domains))


def divergence(table: Losses, domains: tuple[str, ...]) -> Estimate:
    """Mean divergence (%) of the specialists of some domains."""
    return table.interval(lambda weights: _mean(table, domains, weights))


def lowest(table: Losses) -> Estimate:
    """The lowest mean divergence (%) of the experiments of high divergence."""
    return table.interval(
        lambda weights: np.min([_mean(table, d, weights) for d in EXPERIMENTS.values()], axis=0)
    )


def lead(table: Losses, name: str = CROSS) -> Estimate:
    """Mean divergence of one experiment minus the highest of the others, pp.

    The others are those of high divergence and the main one.
    """
    every = {**EXPERIMENTS, MAIN: MAIN_DOMAINS}

    def statistic(weights: Weights) -> np.ndarray:
        others = [_mean(table, d, weights) for n, d in every.items() if n != name]
        return _mean(table, every[name], weights) - np.max(others, axis=0)

    return table.interval(statistic)


def go_margin(ledger: Ledger, domains: tuple[str, ...]) -> Estimate:
    """How far a cooperative passes the GO rule, pp: the smaller of both excesses; below 0 it fails.

    The gain is that of evidence routing over the best specialist.
    """
    part = ledger.restrict(domains)
    fused = evaluation.route(part, {_METHOD: EvidenceRouter()})[_METHOD]
    table = evaluation.losses(part, {_METHOD: fused.log_probs})

    def statistic(weights: Weights) -> np.ndarray:
        gain = scaling.MEASURES["gain"](table, _METHOD, domains, weights)
        moved = _mean(table, domains, weights)
        return np.minimum(moved - GO_DIVERGENCE_PCT, gain - GO_GAIN_PCT)

    return table.interval(statistic)


def _mean(table: Losses, domains: tuple[str, ...], weights: Weights) -> np.ndarray:
    base = table.by_group(BASE, weights)
    each = []
    for domain in domains:
        column = table.groups.index(domain)
        own = table.by_group(domain, weights)[..., column]
        each.append(100 * (base[..., column] - own) / base[..., column])
    return np.mean(each, axis=0)


def measures(ledger: Ledger) -> dict[str, tuple[Estimate, str]]:
    """Estimate and unit of each experiment's gains and divergence, by record name.

    Returns
    -------
    dict
        ``gain_``, ``gain_over_base_``, ``uniform_`` and ``oracle_`` (all over the best specialist but
        the second) and ``divergence_`` of each of ``KEYS``, in %; see :func:`subsets.cooperative`.
    """
    found = {}
    for name, domains in EXPERIMENTS.items():
        for measure, estimate in subsets.cooperative(ledger, domains).items():
            title = measure.removesuffix("_gain")
            found[f"{title}_{KEYS[name]}"] = (estimate, "%")
    return found


def beside_released(measured: Mapping[str, tuple[Estimate, str]]) -> pd.DataFrame:
    """What was measured beside what was released, one row an experiment.

    Returns
    -------
    Index experiment; contributors, sources (of held-out text), gain, gain_over_base and divergence
    (%), the first with its interval, then released_gain and released_divergence.
    """
    rows, known = {}, released()
    for name, domains in EXPERIMENTS.items():
        gain, _ = measured[f"gain_{KEYS[name]}"]
        rows[name] = {
            "contributors": len(domains),
            "sources": gain.units,
            **{"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high},
            "gain_over_base": measured[f"gain_over_base_{KEYS[name]}"][0].value,
            "divergence": measured[f"divergence_{KEYS[name]}"][0].value,
            "released_gain": known.gain[name],
            "released_divergence": known.divergence[name],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("experiment")


def released() -> pd.DataFrame:
    """Released gain and mean divergence (%) of the experiments, mean of the seeds that are stated.

    Returns
    -------
    Index experiment; gain, divergence, seeds.
    """
    rows = {}
    for name, (run, seeds) in _RELEASED.items():
        values = {
            column: [published.value(f"{run}/{metric}/s{seed}/corr") for seed in seeds]
            for column, metric in (
                ("gain", "improvement_vs_spec"),
                ("divergence", "mean_divergence"),
            )
        }
        rows[name] = {**{c: float(np.mean(v)) for c, v in values.items()}, "seeds": len(seeds)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("experiment")
