"""The cross-lingual cooperatives of a recorded ledger: three languages and code, then ten languages.

Causal routers are fitted here. Of the published router the gates of ten seeds were recorded, with
the logit mixtures under them: `collapse` asks of them what it asks of its own fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from . import collapse, evaluation, kept_runs, languages, published, router_fit, routing
from .collapse import Fit
from .evaluation import Fused
from .kept_ledger import Kept
from .kept_runs import LOGITS, KeptRun
from .ledger import Ledger
from .losses import Estimate, Losses
from .router_fit import EMFit
from .specialists import BASE
from .teams import LANGUAGES, TWENTY, Team

TEN = TWENTY[:10]
"""The languages among the twenty."""
PLAIN = collapse.CONDITIONS[0].name
STRESSED = ("em, skewed", "em, scarce")
_POOLED = "pooled "
_DIVERGENCE = "cross-lingual/pythia-410m_step10000/metrics/divergence_{}/s{}/corr"
_STATED = (137, 2026)
"""Seeds behind the published gain."""


def of(kept: Kept, domains: tuple[str, ...], name: str) -> KeptRun:
    """Any cooperative of some domains under causal routers, on held-out text.

    What needs logits was recorded of the teams alone, and is not there.
    """
    fitting, held_out = (kept.parts[part].restrict(domains) for part in ("router", "heldout"))
    routers = {
        "uniform": routing.UniformRouter(),
        "linear": routing.fit_linear(fitting),
        "prefix-mean": router_fit.fit_prefix_mean(fitting),
        "em": router_fit.fit_em(fitting).router,
        "evidence": routing.EvidenceRouter(),
    }
    fused = evaluation.route(held_out, routers)
    return KeptRun(Team(name, domains), fitting, held_out, routers, fused)


def stressed(run: KeptRun) -> tuple[EMFit, dict[str, Fused]]:
    """The EM router of three languages and code, and what it gives on held-out text.

    Returns
    -------
    Its fit; by name ``em``, and the stress that chapter 7 puts it under: ``em, skewed`` weighs
    tokens in the released proportions, ``em, scarce`` has these because most text is left out.
    """
    plain = router_fit.fit_em(run.fitting)
    weights, scarce = collapse.skewed(run.fitting)
    routers = {
        "em": plain.router,
        STRESSED[0]: router_fit.fit_em(run.fitting, weights=weights).router,
        STRESSED[1]: router_fit.fit_em(scarce).router,
    }
    return plain, evaluation.route(run.ledger, routers)


def pooled(kept: Kept, team: Team) -> Fused:
    """What the recording's pooled router of one seed gives on a team's held-out text."""
    _, tokens = kept_runs.view(kept.parts["heldout"], "heldout", team)
    columns, window = kept.columns["heldout"], kept.parts["heldout"].window
    gates = columns[f"{team.name}: pooled, gates"][window][tokens]
    return Fused(columns[f"{team.name}: pooled{LOGITS}"][tokens], gates)


def fits(run: KeptRun) -> list[Fit]:
    """The published router of a team from every seed that was recorded, in natural proportions."""
    found = []
    for name, fused in run.fused.items():
        if name.startswith(_POOLED):
            looks = collapse.mean_gates(run.ledger, fused.gates)[None]
            found.append(Fit(PLAIN, int(name.removeprefix(_POOLED)), None, looks, fused))
    return found


def kept_domains(found: Ledger, fused: Mapping[str, Fused]) -> pd.DataFrame:
    """Whether fused models keep every domain, by both measures of chapter 7.

    Returns
    -------
    One row a method: misrouted (domains whose largest mean gate is not that of their best
    specialist), captured (lowest share of the best specialist's advantage over the base that is
    kept, over domains where one is better than the base), domain (where that is) and lost (whether
    a domain is misrouted, or keeps less than half).
    """
    table = evaluation.losses(found)
    improved = table.by_group("domain_oracle") < table.by_group(BASE)
    rows = {}
    for name, one in fused.items():
        wrong = collapse.misrouted(collapse.mean_gates(found, one.gates), found)
        shares = np.where(improved, collapse.captured(found, one.log_probs), np.inf)
        least = int(shares.argmin())
        rows[name] = {
            "misrouted": ", ".join(wrong),
            "captured": float(shares[least]),
            "domain": found.groups[least],
            "lost": bool(wrong) or bool(shares[least] < 0.5),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def gains(run: KeptRun, names: tuple[str, ...]) -> dict[str, tuple[Estimate, str]]:
    """Estimate and unit of gains over best specialist and base, by the record names of chapter 7."""
    table, found = run.losses(), {}
    for name in names:
        key = name.replace("-", "_").replace(", ", "_")
        found[f"gain_{key}"] = (evaluation.gain_pct(table, name, run.domains), "%")
        found[f"gain_over_base_{key}"] = (evaluation.gain_over_base_pct(table, name), "%")
    return found


def divergences(table: Losses, domains: tuple[str, ...]) -> dict[str, tuple[Estimate, str]]:
    """Estimate and unit of the divergence of each specialist, and of their mean, by record name."""
    found = {
        f"divergence_{d}": (_of_one(evaluation.divergence_pct(table, d), table, d), "%")
        for d in domains
    }

    def mean(weights: np.ndarray | None) -> np.ndarray:
        base = table.by_group(BASE, weights)
        own = [table.by_group(d, weights)[..., table.groups.index(d)] for d in domains]
        columns = [table.groups.index(d) for d in domains]
        return (100 * (1 - np.stack(own, -1) / base[..., columns])).mean(-1)

    return found | {"mean_divergence": (table.interval(mean), "%")}


def beside_released(moved: Mapping[str, tuple[Estimate, str]]) -> pd.DataFrame:
    """Divergences (%) of three languages and code, of :func:`divergences`, beside the released ones.

    Returns
    -------
    Index domain, then ``mean``; value, low, high, and released (mean of the stated seeds).
    """
    rows = {}
    for domain in LANGUAGES:
        seeds = [published.value(_DIVERGENCE.format(domain, seed)) for seed in _STATED]
        rows[domain] = {
            **moved[f"divergence_{domain}"][0].row(),
            "released": float(np.mean(seeds)),
        }
    mean = float(np.mean([row["released"] for row in rows.values()]))
    rows["mean"] = {**moved["mean_divergence"][0].row(), "released": mean}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")


def factors(run: KeptRun, method: str = "evidence") -> dict[str, tuple[Estimate, str]]:
    """How many times lower a fused model's perplexity is than the base's, by record name."""
    fused, table = run.fused[method].log_probs, evaluation.losses(run.ledger)
    found = {}
    for domain in run.domains:
        factor = languages.perplexity_factor(run.ledger, domain, fused)
        found[f"perplexity_{domain}_factor"] = (_of_one(factor, table, domain), "times")
    return found


def _of_one(estimate: Estimate, table: Losses, domain: str) -> Estimate:
    """An estimate of one domain, whose interval rests on the sources of that domain alone."""
    return replace(estimate, units=table.units()[domain])


def costs(run: KeptRun, method: str = "evidence") -> pd.DataFrame:
    """Perplexity and bits per byte by domain of base, own specialist and one fused model.

    Returns
    -------
    Index domain; perplexity and bits (a byte), each ``_base``, ``_own`` and ``_fused``; factor (how
    many times lower the fused perplexity is than the base's) with the ends of its interval.
    """
    found = factors(run, method)
    each, rows = languages.costs(run.ledger, {"fused": run.fused[method].log_probs}), {}
    for domain in run.domains:
        row: dict[str, float] = {}
        for unit, column in (("perplexity", "perplexity"), ("bits", "bits_per_byte")):
            for name, title in ((BASE, BASE), ("own specialist", "own"), ("fused", "fused")):
                row[f"{unit}_{title}"] = each.loc[(domain, name), column]
        factor, _ = found[f"perplexity_{domain}_factor"]
        row |= {"factor": factor.value, "factor_low": factor.low, "factor_high": factor.high}
        rows[domain] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")


def largest_excess(found: Ledger, log_probs: torch.Tensor) -> float:
    """The most nats by which a document's loss exceeds that of its best specialist."""
    return float(evaluation.document_regret(found, log_probs).max())
