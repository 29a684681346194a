"""Rules that tell the gain of a cooperative, found on half of the specialists, judged on the others.

A rule is a plane in what is known of a cooperative: in the losses of base and specialists, each on
its own domain, or in the whole loss matrix. Subsets share specialists, so nothing here counts
subsets: a rule is learned from cooperatives within one half of the specialists and asked about
those within the other, for many random halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from . import published
from .losses import Estimate

Names = tuple[str, ...]

OWN: dict[str, Names] = {
    "divergence": ("divergence",),
    "(1 − 1/N) · divergence": ("shared_divergence",),
    "reduction": ("reduction",),
    "at home": ("at_home",),
    "divergence, 1/N": ("divergence", "one_over_n"),
    "divergence, its spread": ("divergence", "divergence_spread"),
    "divergence, strongest": ("divergence", "strongest"),
    "divergence, base loss": ("divergence", "base"),
    "at home, 1/N": ("at_home", "one_over_n"),
    "at home, base loss": ("at_home", "base"),
}
"""Short forms in what :func:`of_own` knows: one or two predictors, with a slope each."""

MATRIX: dict[str, Names] = {
    "transfer": ("transfer",),
    "over the average": ("over_average",),
    "divergence, transfer": ("divergence", "transfer"),
    "at home, transfer": ("at_home", "transfer"),
    "oracle": ("oracle",),
    "oracle, 1/N": ("oracle", "one_over_n"),
    "oracle, at home": ("oracle", "at_home"),
}
"""Short forms that need to know what specialists lose abroad as well (:func:`of_matrix`)."""

ALL_OWN = (
    *("one_over_n", "divergence", "divergence_spread", "base"),
    *("strongest", "reduction", "at_home"),
)
ALL_MATRIX = (*ALL_OWN, "transfer", "best_over_base", "over_average", "oracle")


def of_own(base: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """What is known of a cooperative from losses (N,) of the base and of each domain's specialist.

    Returns
    -------
    dict
        n, one_over_n; divergence (mean over domains, %), divergence_spread (standard deviation, pp),
        shared_divergence = (1 − 1/N) · divergence; base (mean loss, nats/token); reduction (of the
        mean loss by the own specialists, %); strongest (share of what the specialists save at home
        that the strongest one saves); at_home (%): what the oracle would gain over the best
        specialist if abroad every specialist were the base, neither better nor worse.
    """
    n, saved = len(base), base - own
    divergence = 100 * saved / base
    best = base.mean() - saved.max() / n
    gained = saved.clip(0)  # who is worse than the base at home has no share
    return {
        "n": n,
        "one_over_n": 1 / n,
        "divergence": float(divergence.mean()),
        "divergence_spread": float(divergence.std()),
        "shared_divergence": float((1 - 1 / n) * divergence.mean()),
        "base": float(base.mean()),
        "reduction": float(100 * saved.sum() / base.sum()),
        "strongest": float(gained.max() / gained.sum()) if gained.any() else np.nan,
        "at_home": float(100 * (best - own.mean()) / best),
    }


def of_matrix(base: np.ndarray, matrix: np.ndarray) -> dict[str, float]:
    """All that is known of a cooperative from its losses (N, N), specialists × domains.

    Returns
    -------
    dict
        What :func:`of_own` gives, and transfer (mean loss reduction of a specialist on the others'
        domains, %, negative where they forget), best_over_base (gain of the best specialist over
        the base, %), over_average (what the oracle gains over the mean of the specialists, %) and
        oracle (over the best of them, %).
    """
    n = len(base)
    abroad = (100 * (base - matrix) / base)[~np.eye(n, dtype=bool)]
    best, oracle = matrix.mean(1).min(), matrix.min(0).mean()
    return {
        **of_own(base, np.diag(matrix)),
        "transfer": float(abroad.mean()),
        "best_over_base": float(100 * (base.mean() - best) / base.mean()),
        "over_average": float(100 * (matrix.mean() - oracle) / matrix.mean()),
        "oracle": float(100 * (best - oracle) / best),
    }


Columns = Mapping[str, np.ndarray]
"""Cooperatives, an array (S,) a column: a table, or some of its rows with their ``weight``."""


@dataclass(frozen=True)
class Plane:
    """Gain (%) = intercept + Σ slope · predictor; ``form`` names it."""

    form: str
    names: Names
    slopes: tuple[float, ...]
    intercept: float

    def __call__(self, table: Columns | pd.DataFrame) -> np.ndarray:
        """Gains (%) of cooperatives, NaN where a predictor is not known."""
        told = np.full(len(table["gain"]), self.intercept)
        for name, slope in zip(self.names, self.slopes, strict=True):
            told += slope * np.asarray(table[name], float)
        return told


Rule = Callable[[Columns], Plane]


def weighted(table: pd.DataFrame, rows: np.ndarray | None = None) -> Columns:
    """Some cooperatives of a table, with a ``weight`` that gives every size the same share.

    There are 190 pairs and one cooperative of twenty, so a plain mean would be about pairs.
    """
    numbers = table.select_dtypes("number")
    found = {name: numbers[name].to_numpy(float)[... if rows is None else rows] for name in numbers}
    _, which, count = np.unique(found["n"], return_inverse=True, return_counts=True)
    return {**found, "weight": 1 / (count[which] * len(count))}


def fit(table: Columns, names: Names, form: str = "", penalty: float = 0.0) -> Plane:
    """Least squares in some predictors of :func:`weighted` cooperatives.

    Parameters
    ----------
    penalty
        Of a ridge on standardised predictors, in units of their variance.
    """
    weights, gain = table["weight"], table["gain"]
    mean = weights @ gain
    if not names:
        return Plane(form, (), (), float(mean))
    x = np.stack([table[name] for name in names], 1)
    centre = weights @ x
    scale = np.sqrt(weights @ (x - centre) ** 2)
    scale[scale < 1e-9] = np.inf  # a predictor that never varied says nothing
    z = (x - centre) / scale
    normal = (z * weights[:, None]).T @ z + (penalty + 1e-12) * np.eye(len(names))
    slopes = np.linalg.solve(normal, (z * weights[:, None]).T @ (gain - mean)) / scale
    return Plane(form, names, tuple(slopes.tolist()), float(mean - slopes @ centre))


def shortest(table: Columns, forms: Mapping[str, Names]) -> Plane:
    """The form of which the plane has the smallest mean absolute error where it is fitted."""
    planes = [fit(table, names, form) for form, names in forms.items()]
    return min(planes, key=lambda plane: _scores(table, plane)["error"])


def _published(_: Columns) -> Plane:
    form = "regression-n6/all/formula/{}/s_na/as_stated"
    slope, intercept = (published.value(form.format(part)) for part in ("slope", "intercept"))
    return Plane("as printed", ("divergence",), (slope,), intercept)


def _as_it_is(name: str) -> Rule:
    """A rule that says a predictor is the gain, and learns nothing."""
    return lambda _: Plane(name.replace("_", " "), (name,), (1.0,), 0.0)


PENALTY = 0.02
"""Of the ridges, in variances of a predictor. On a made-up cooperative of twenty, errors across halves
change by less than 0.1 pp from 0.003 to 0.3."""

RULES: dict[str, tuple[str, Rule]] = {
    "mean gain": ("nothing", partial(fit, names=())),
    "published line": ("own losses", _published),
    "refitted line": ("own losses", partial(fit, names=("divergence",))),
    "at home": ("own losses", _as_it_is("at_home")),
    "short rule": ("own losses", partial(shortest, forms=OWN)),
    "ridge": ("own losses", partial(fit, names=ALL_OWN, penalty=PENALTY)),
    "short rule, with losses abroad": ("loss matrix", partial(shortest, forms={**OWN, **MATRIX})),
    "ridge, with losses abroad": ("loss matrix", partial(fit, names=ALL_MATRIX, penalty=PENALTY)),
    "oracle gain": ("loss matrix", _as_it_is("oracle")),
}
"""What each rule needs to know of the cooperative it is asked about, and how it is learned from
others. The published line, ``at home`` and the oracle gain learn nothing; ``mean gain`` asks
nothing."""


def _scores(table: Columns, plane: Plane) -> dict[str, float]:
    """Error and bias (pp), unexplained and whole variance of the gains (pp²)."""
    weights, gain = table["weight"], table["gain"]
    off = plane(table) - gain
    return {
        "error": float(weights @ np.abs(off)),
        "bias": float(weights @ off),
        "unexplained": float(weights @ off**2),
        "variance": float(weights @ (gain - weights @ gain) ** 2),
    }


def _folds(
    table: pd.DataFrame, members: np.ndarray, halves: np.ndarray
) -> Iterator[tuple[int, Columns, Columns]]:
    """Halving, cooperatives within one half, cooperatives within the other; both ways round."""
    for number, pair in enumerate(halves):
        parts = [weighted(table, ~(members & ~half).any(1)) for half in pair]
        yield number, parts[0], parts[1]
        yield number, parts[1], parts[0]


def judge(table: pd.DataFrame, members: np.ndarray, halves: np.ndarray) -> pd.DataFrame:
    """Learn every rule on half of the specialists, and ask it about the other half.

    Parameters
    ----------
    table, members
        Cooperatives and their members (S, N), see :class:`subsets.Subsets`.
    halves
        (H, 2, N), see :func:`subsets.halvings`.

    Returns
    -------
    One row a rule, halving and direction: halving, rule, form (that was learned), and on the other
    half error (mean absolute, pp), bias (mean of told − measured, pp), unexplained and variance (of
    the gains, pp²). Every size of cooperative has the same weight.
    """
    rows = []
    for number, known, asked in _folds(table, members, halves):
        for name, (_, learn) in RULES.items():
            plane = learn(known)
            row = {"halving": number, "rule": name, "form": plane.form}
            rows.append({**row, **_scores(asked, plane)})
    return pd.DataFrame(rows)


def over_halves(values: Sequence[float] | np.ndarray, n_specialists: int) -> Estimate:
    """Mean of a statistic of halves of the specialists, with a 95 % interval over specialists.

    The percentiles of halves drawn without replacement: the delete-half jackknife (Shao and Wu
    1989), in which a half varies around the whole as the whole does around what it was drawn from.
    """
    values = np.asarray(values, float)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), "specialists", n_specialists)


def _ratio(parts: np.ndarray, wholes: np.ndarray, n_specialists: int) -> Estimate:
    """Ratio of means over halves; a mean of ratios would be about halves that hardly vary."""
    around = over_halves(parts / wholes, n_specialists)
    return replace(around, value=float(parts.mean() / wholes.mean()))


def columns(**estimates: Estimate) -> dict[str, float]:
    """A value a name, and the ends ``_low`` and ``_high`` of its interval."""
    return {
        name + end: value
        for name, found in estimates.items()
        for end, value in zip(("", "_low", "_high"), found.row().values(), strict=True)
    }


def compare(judged: pd.DataFrame, n_specialists: int) -> pd.DataFrame:
    """Sum up :func:`judge`: one row a rule.

    Returns
    -------
    Columns needs; error, bias (pp) and q2 (share of the variance of the gains that is explained,
    negative where the mean of the other half would do better), each with the ends ``_low`` and
    ``_high`` of its interval over specialists; form: the one learned most often, with its share of
    the halves.
    """
    rows = {}
    for name, part in judged.groupby("rule", sort=False):
        forms = part["form"].value_counts(normalize=True)
        left, whole = (part[column].to_numpy() for column in ("unexplained", "variance"))
        rows[name] = {
            "needs": RULES[name][0],
            **columns(
                error=over_halves(part["error"], n_specialists),
                bias=over_halves(part["bias"], n_specialists),
                q2=_ratio(whole - left, whole, n_specialists),
            ),
            "form": forms.index[0],
            "form_share": forms.iloc[0],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def apart(judged: pd.DataFrame, rule: str, rival: str, n_specialists: int) -> Estimate:
    """Error of a rule minus that of a rival, pp, on the same halves; below 0 the rule is better."""
    errors = [judged.loc[judged["rule"] == name, "error"].to_numpy() for name in (rule, rival)]
    return over_halves(errors[0] - errors[1], n_specialists)


def explained(
    table: pd.DataFrame,
    members: np.ndarray,
    halves: np.ndarray,
    names: Names = ALL_MATRIX,
) -> pd.DataFrame:
    """How much of the variance of the gain each predictor explains in the half it was not fitted on.

    Returns
    -------
    One row a predictor: alone (share of the variance that a line in it explains) and unique (what a
    ridge on all predictors explains beyond one on all but this), each with the ends of its interval
    over specialists.
    """
    planes = {"all": (names, PENALTY)}
    for name in names:
        planes[f"alone {name}"] = ((name,), 0.0)
        planes[f"without {name}"] = (tuple(other for other in names if other != name), PENALTY)
    left: dict[str, list[float]] = {key: [] for key in planes}
    variance = []
    for _, known, asked in _folds(table, members, halves):
        for key, (used, penalty) in planes.items():
            scores = _scores(asked, fit(known, used, penalty=penalty))
            left[key].append(scores["unexplained"])
        variance.append(scores["variance"])
    n, whole = members.shape[1], np.array(variance)
    unexplained = {key: np.array(values) for key, values in left.items()}
    rows = {
        name: columns(
            alone=_ratio(whole - unexplained[f"alone {name}"], whole, n),
            unique=_ratio(unexplained[f"without {name}"] - unexplained["all"], whole, n),
        )
        for name in names
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")


def learned(table: pd.DataFrame) -> dict[str, Plane]:
    """Every rule, learned from all cooperatives: to be said in a sentence, or asked elsewhere."""
    whole = weighted(table)
    return {name: learn(whole) for name, (_, learn) in RULES.items()}


def coefficients(
    table: pd.DataFrame, members: np.ndarray, halves: np.ndarray, plane: Plane
) -> dict[str, Estimate]:
    """Slopes and ``intercept`` of a fitted plane, each with an interval over specialists.

    The value is that of all cooperatives, the interval that of the same form fitted to halves.
    """
    fits = [fit(known, plane.names) for _, known, _ in _folds(table, members, halves)]
    found = {}
    for k, (name, slope) in enumerate(zip(plane.names, plane.slopes, strict=True)):
        around = over_halves([one.slopes[k] for one in fits], members.shape[1])
        found[name] = replace(around, value=slope)
    around = over_halves([one.intercept for one in fits], members.shape[1])
    return {**found, "intercept": replace(around, value=plane.intercept)}


def ask(planes: Mapping[str, Plane], conditions: pd.DataFrame) -> pd.DataFrame:
    """Ask rules about cooperatives of another origin: told − measured (pp), a column a rule.

    NaN where what a rule needs was not released.
    """
    told = {name: plane(conditions) - conditions["gain"] for name, plane in planes.items()}
    return pd.DataFrame(told, index=conditions.index)
