"""Cooperatives of the study, measured, and the ways to tell their gains, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from . import evaluation, prediction
from .forecast_runs import Run
from .losses import N_RESAMPLES, Estimate
from .routing import EvidenceRouter
from .specialists import BASE

EVIDENCE = "evidence"


def subsets(domains: tuple[str, ...], recipe: int) -> list[tuple[str, ...]]:
    """Cooperatives of a recipe: seven sets of two to all of its domains, drawn once for all."""
    n = len(domains)
    random = np.random.default_rng([2026, recipe])
    found: dict[tuple[str, ...], None] = {}
    for size in (2, 2, 3, 3, 4, (n + 4) // 2, n):
        drawn = None
        while drawn is None or (drawn in found and size < n):
            rows = sorted(random.choice(n, min(size, n), replace=False))
            drawn = tuple(domains[row] for row in rows)
        found[drawn] = None
    return list(found)


def cooperatives(runs: Sequence[Run]) -> pd.DataFrame:
    """Fuse every cooperative of the runs with the evidence router and measure it.

    Returns
    -------
    One row a cooperative: recipe (index into ``runs``), domains (joined by ``+``), kept (their
    places in ``Run.domains``), n, steps, frozen, width, text_kb; gain, gain_low, gain_high, oracle, regret, bonus (%), residual of
    their sum (pp); the predictors divergence (mean, %), kl (mean, nats/token), perplexity (of
    the base, mean over domains). All on held-out documents, intervals over documents.
    """
    rows = []
    for recipe, run in enumerate(runs):
        whole = evaluation.losses(run.ledger)
        matrix = whole.matrix((BASE, *run.domains))
        for chosen in subsets(run.domains, recipe):
            rows.append({"recipe": recipe, **knobs(run), **_measured(run, matrix, chosen)})
    return pd.DataFrame(rows)


def knobs(run: Run) -> dict[str, float]:
    """What distinguishes a recipe from the others of a study."""
    tier = run.tier
    return {
        "steps": tier.specialist_steps,
        "frozen": tier.frozen_layers,
        "width": tier.hidden_size,
        "text_kb": round(float(run.text_bytes.mean()) / 1000),
    }


def _measured(run: Run, matrix: pd.DataFrame, chosen: tuple[str, ...]) -> dict[str, object]:
    ledger = run.ledger.restrict(chosen)
    fused = evaluation.route(ledger, {EVIDENCE: EvidenceRouter()})[EVIDENCE]
    parts = evaluation.account(ledger, EVIDENCE, fused.log_probs, fused.gates)
    oracle, regret, bonus, gain = (
        getattr(parts, f"{name}_pct").value
        for name in ("oracle_gain", "routing_regret", "mixing_bonus", "gain")
    )
    base = matrix.loc[BASE, list(chosen)].to_numpy()
    own = np.array([matrix.loc[d, d] for d in chosen])
    kept = [run.domains.index(d) for d in chosen]
    return {
        "domains": "+".join(chosen),
        "kept": kept,
        "n": len(chosen),
        "gain": gain,
        "gain_low": parts.gain_pct.low,
        "gain_high": parts.gain_pct.high,
        "oracle": oracle,
        "regret": regret,
        "bonus": bonus,
        "residual": oracle - regret + bonus - gain,
        "divergence": float(np.mean(100 * (base - own) / base)),
        "kl": float(run.kl[kept].mean()),
        "perplexity": float(np.exp(base).mean()),
    }


PREDICTORS = {
    "published line": ("divergence", "after"),
    "refitted line": ("divergence", "after"),
    "true KL": ("kl", "after"),
    "base perplexity": ("perplexity", "before"),
    "mean gain": (None, "before"),
    "probe forecast": ("forecast", "before"),
}
"""How a gain can be told: from which column, and whether before or after the runs are paid."""


@cache
def published_law() -> prediction.Law:
    """Return the published line, refitted to its six points."""
    return prediction.fit(prediction.points("n6, 6.9B at 8.73"))


def predict_all(table: pd.DataFrame) -> pd.DataFrame:
    """Predict every gain of a study in each way of ``PREDICTORS``, its own recipe left out.

    Parameters
    ----------
    table
        Rows of :func:`forecast.leave_one_out`. Divergence and KL are those measured after the
        full runs: the best case of a method that needs them.

    Returns
    -------
    pandas.DataFrame
        One column a way, %, index as in ``table``.
    """
    law = published_law()
    found = pd.DataFrame(index=table.index, columns=[*PREDICTORS], dtype=float)
    found["published line"] = law.slope * table["divergence"] + law.intercept
    found["probe forecast"] = table["forecast"]
    for recipe in table["recipe"].unique():
        own = table["recipe"] == recipe
        others = table[~own]
        found.loc[own, "mean gain"] = others["gain"].mean()
        for name in ("refitted line", "true KL", "base perplexity"):
            column = PREDICTORS[name][0]
            scale = np.log if column == "perplexity" else np.asarray
            line = prediction.fit(
                pd.DataFrame({"divergence": scale(others[column]), "gain": others["gain"]})
            )
            found.loc[own, name] = line.slope * scale(table.loc[own, column]) + line.intercept
    return found


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the ways of ``PREDICTORS`` on the same cooperatives.

    Returns
    -------
    pandas.DataFrame
        One row a way: told (before or after the runs), median and mean absolute error (pp), q2
        (share of the variance of the gains that is explained, negative where the mean of all
        gains would do better).
    """
    errors = predict_all(table).sub(table["gain"], axis=0)
    total = float(((table["gain"] - table["gain"].mean()) ** 2).sum())
    return pd.DataFrame(
        {
            "told": [told for _, told in PREDICTORS.values()],
            "median error": errors.abs().median(),
            "mean error": errors.abs().mean(),
            "q2": 1 - (errors**2).sum() / total,
        },
        index=[*PREDICTORS],
    )


def over_groups(
    table: pd.DataFrame, group: str, statistic: Callable[[pd.DataFrame], float]
) -> Estimate:
    """Estimate a statistic of a table with a 95 % interval over whole groups of its rows.

    Rows of a group (cooperatives of one recipe, seeds of one condition) share their specialists:
    resampling rows would count them as independent.
    """
    parts = list(table.groupby(group, sort=False).indices.values())
    random = np.random.default_rng(0)
    drawn = random.integers(len(parts), size=(N_RESAMPLES, len(parts)))
    values = [statistic(table.take(np.concatenate([parts[i] for i in row]))) for row in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(statistic(table)), float(low), float(high))


def error_ratio(table: pd.DataFrame) -> float:
    """Median absolute error of the probe forecast over that of the published line."""
    law = published_law()
    line = law.slope * table["divergence"] + law.intercept
    errors = [(told - table["gain"]).abs().median() for told in (table["forecast"], line)]
    return float(errors[0] / errors[1])
