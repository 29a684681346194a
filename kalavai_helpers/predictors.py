"""Cooperatives of the study, measured, and the ways to tell their gains, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from . import evaluation, prediction
from .forecast import LEVEL
from .forecast_runs import Run
from .losses import N_RESAMPLES, Estimate, percentile
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
    the base, mean over domains). All on held-out documents, intervals over sources and documents.
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
    "published line": ("divergence", "after", "none"),
    "refitted line": ("divergence", "after", "needed"),
    "true KL": ("kl", "after", "needed"),
    "base perplexity": ("perplexity", "before", "needed"),
    "mean gain": (None, "before", "needed"),
    "probe forecast": ("forecast", "before", "needed"),
}
"""How a gain can be told: from which column, before or after the full runs of the recipe that is
asked about, and whether a bank of other recipes is needed as well."""


@cache
def published_law() -> prediction.Law:
    """Return the published line, refitted to its six points: a line of other models."""
    return prediction.fit(prediction.points("n6, 6.9B at 8.73"))


def _law(table: pd.DataFrame, column: str = "divergence") -> prediction.Law:
    """Fit the gains of cooperatives by a line in a column; perplexity by its logarithm."""
    return prediction.fit(
        pd.DataFrame({"divergence": _scaled(table, column), "gain": table["gain"]})
    )


def _scaled(table: pd.DataFrame, column: str) -> pd.Series:
    return np.log(table[column]) if column == "perplexity" else table[column]


def _read(law: prediction.Law, divergence: pd.Series) -> pd.DataFrame:
    bounds = [law.prediction_interval(x, LEVEL) for x in divergence]
    found = pd.DataFrame(bounds, index=divergence.index, columns=["low", "high"])
    return found.assign(value=law.slope * divergence + law.intercept)


def published_line(table: pd.DataFrame) -> pd.DataFrame:
    """Read every gain off the published line: value, low and high (80 %), index as in ``table``."""
    return _read(published_law(), table["divergence"])


def refitted_line(table: pd.DataFrame) -> pd.DataFrame:
    """Read every gain off the line through the cooperatives of the other recipes.

    The rival that saw what the forecast saw: same recipes, same folds.

    Returns
    -------
    value, low and high (80 % prediction interval), index as in ``table``.
    """
    parts = []
    for recipe, rows in table.groupby("recipe", sort=False):
        parts.append(_read(_law(table[table["recipe"] != recipe]), rows["divergence"]))
    return pd.concat(parts).loc[table.index]


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
    found = pd.DataFrame(index=table.index, columns=[*PREDICTORS], dtype=float)
    found["published line"] = published_line(table)["value"]
    found["refitted line"] = refitted_line(table)["value"]
    found["probe forecast"] = table["forecast"]
    for recipe in table["recipe"].unique():
        own = table["recipe"] == recipe
        others = table[~own]
        found.loc[own, "mean gain"] = others["gain"].mean()
        for name in ("true KL", "base perplexity"):
            column = PREDICTORS[name][0]
            law = _law(others, column)
            found.loc[own, name] = law.slope * _scaled(table.loc[own], column) + law.intercept
    return found


def _errors(table: pd.DataFrame) -> pd.DataFrame:
    """Absolute errors of every way, pp, and the recipe of each row."""
    errors = predict_all(table).sub(table["gain"], axis=0).abs()
    return errors.assign(recipe=table["recipe"])


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the ways of ``PREDICTORS`` on the same cooperatives.

    Returns
    -------
    pandas.DataFrame
        One row a way: told (before or after the runs), bank (of other recipes: needed or none),
        median error (pp) with its interval over recipes (low, high), mean error (pp), q2 (share
        of the variance of the gains that is explained, negative where the mean of all gains
        would do better).
    """
    errors = _errors(table)
    total = float(((table["gain"] - table["gain"].mean()) ** 2).sum())
    rows = {}
    for way, (_, told, bank) in PREDICTORS.items():
        middle = over_groups(errors[[way, "recipe"]], "recipe", lambda r, w=way: r[w].median())
        rows[way] = {
            "told": told,
            "bank": bank,
            "median error": middle.value,
            "low": middle.low,
            "high": middle.high,
            "mean error": errors[way].mean(),
            "q2": 1 - float((errors[way] ** 2).sum()) / total,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def over_groups(
    table: pd.DataFrame,
    group: str,
    statistic: Callable[[pd.DataFrame], float],
    over: str = "recipes",
) -> Estimate:
    """Estimate a statistic of a table with a 95 % interval over whole groups of its rows.

    Rows of a group (cooperatives of one recipe, seeds of one condition) share their specialists:
    resampling rows would count them as independent. ``over`` is the plural of what a group is.
    """
    parts = list(table.groupby(group, sort=False).indices.values())
    random = np.random.default_rng(0)
    drawn = random.integers(len(parts), size=(N_RESAMPLES, len(parts)))
    values = [statistic(table.take(np.concatenate([parts[i] for i in row]))) for row in drawn]
    return percentile(statistic(table), np.array(values), over, len(parts))


def error_ratio(table: pd.DataFrame, way: str, rival: str) -> Estimate:
    """Median absolute error of one way of ``PREDICTORS`` over that of a rival.

    Both tell the same cooperatives; the interval resamples whole recipes, of both alike.
    """
    errors = _errors(table)[[way, rival, "recipe"]]
    return over_groups(errors, "recipe", lambda r: float(r[way].median() / r[rival].median()))


def standing(ratio: Estimate) -> str:
    """Say what a ratio of errors means: ``smaller``, ``larger`` or, across 1, ``no different``."""
    if ratio.high < 1:
        return "smaller"
    return "larger" if ratio.low > 1 else "no different"


def by_family(told: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Sum up forecasts of families of recipes that were left out whole.

    Parameters
    ----------
    told
        Rows of :func:`forecast.leave_out_families`.
    table
        The whole study, to refit the line to the recipes outside each family.

    Returns
    -------
    pandas.DataFrame
        One row a family: recipes, cooperatives, coverage (%) with its interval over recipes (low,
        high), forecast error and line error (median, pp), refused (%), inside and accepted (of
        the cooperatives that are not refused: how many lie inside, and how many there are).
    """
    rows = {}
    for name, part in told.groupby("family", sort=False):
        law = _law(table[~table["recipe"].isin(part["recipe"])])
        line = law.slope * part["divergence"] + law.intercept
        covered = over_groups(part[["recipe", "inside"]], "recipe", coverage)
        accepted = part[~part["refused"]]
        rows[name] = {
            "recipes": part["recipe"].nunique(),
            "cooperatives": len(part),
            "coverage": covered.value,
            "low": covered.low,
            "high": covered.high,
            "forecast error": (part["forecast"] - part["gain"]).abs().median(),
            "line error": (line - part["gain"]).abs().median(),
            "refused": 100 * part["refused"].mean(),
            "inside": int(accepted["inside"].sum()),
            "accepted": len(accepted),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def coverage(rows: pd.DataFrame) -> float:
    """Share of cooperatives whose gain lies in its interval, %."""
    return float(100 * rows["inside"].mean())
