"""The published formula on every subset of a recorded cooperative, and what decides the gain.

What chapter 6 shows of :mod:`subsets`, :mod:`gain_rules` and :mod:`subset_conditions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from . import (
    gain_rules,
    kept_runs,
    prediction,
    predictors,
    subset_accounts,
    subset_conditions,
    subsets,
)
from .gain_rules import Plane
from .kept_ledger import Kept
from .ledger import Ledger
from .losses import Estimate
from .released_cooperatives import AUGUST, FITTED
from .specialists import BASE
from .subset_conditions import SIX, Conditions
from .subsets import Subsets
from .teams import ENGLISH, TEAMS

PRINTED, REFITTED = "published line", "refitted line"
OWN_LOSSES = ("mean gain", PRINTED, REFITTED, "at home", "short rule")
"""Short rules that ask what base and specialists lose on each specialist's own domain, or less."""
LOSSES_ABROAD = ("short rule, with losses abroad", "oracle gain")
"""Short rules that ask what every specialist loses on every domain."""
FIXED = (PRINTED, "at home", "oracle gain")
"""Rules that are found on nothing here."""
WORDS = {
    "divergence": "divergence",
    "shared_divergence": "(1 − 1/N) · divergence",
    "reduction": "reduction of the mean loss",
    "at_home": "gain at home",
    "one_over_n": "1/N",
    "divergence_spread": "spread of the divergences",
    "strongest": "share of the strongest specialist",
    "base": "loss of the base",
    "transfer": "transfer",
    "best_over_base": "gain of the best specialist over the base",
    "over_average": "oracle gain over the average specialist",
    "oracle": "oracle gain",
}
"""What the predictors of :mod:`gain_rules` are called in a sentence."""
SUBJECTS = {
    "oracle": "what its best single specialist leaves to the others on all domains together",
    "over_average": "what its average specialist leaves to the others",
    "transfer": "what its specialists win or lose on the domains of the others",
    "at_home": "what its specialists save at home beyond what the best of them saves alone",
    "reduction": "what its specialists save at home together",
    "divergence": "the mean divergence of its specialists",
    "shared_divergence": "the mean divergence of its specialists and how many they are",
}
"""What decides the gain if a rule with this first predictor tells it best."""

Numbers = dict[str, tuple[Estimate, str]]
"""Estimates and their units, by the name of a record."""


@dataclass(frozen=True)
class Study:
    """Subsets of a cooperative, and rules that were judged on them.

    Attributes
    ----------
    ledger
        Held-out documents of the whole cooperative.
    halves
        (H, 2, N), see :func:`subsets.halvings`.
    whole, found
        Subsets of all sizes, and those of up to half of the specialists: a rule that was found on
        one half can be asked about these alone.
    accounts
        Some of ``whole`` with regret and bonus (:mod:`subset_accounts`).
    judged, rules
        Every rule on every half, and summed up (:func:`gain_rules.compare`).
    planes
        Every rule, learned from ``found``.
    """

    ledger: Ledger
    halves: np.ndarray
    whole: Subsets
    found: Subsets
    accounts: Subsets
    judged: pd.DataFrame
    rules: pd.DataFrame
    planes: dict[str, Plane]

    @property
    def n(self) -> int:
        """Number of specialists."""
        return len(self.whole.experts)

    @property
    def on(self) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """Table, members and halves, as :mod:`gain_rules` takes them."""
        return self.found.table, self.found.members, self.halves

    @cached_property
    def own(self) -> str:
        """The short rule that errs least of those that know losses at home."""
        return self._closest(OWN_LOSSES)

    @cached_property
    def abroad(self) -> str:
        """The short rule that errs least of those that know losses abroad."""
        return self._closest(LOSSES_ABROAD)

    @cached_property
    def best(self) -> str:
        """The short rule that errs least."""
        return self._closest((self.own, self.abroad))

    def _closest(self, rules: Sequence[str]) -> str:
        return str(self.rules.loc[list(rules), "error"].idxmin())

    def of_rule(self, rule: str, what: str = "error") -> Estimate:
        """What :func:`gain_rules.compare` says of a rule: ``error``, ``bias`` (pp) or ``q2``."""
        ends = (self.rules.loc[rule, f"{what}{end}"] for end in ("", "_low", "_high"))
        return Estimate(*ends, "specialists", self.n)

    def apart(self, rule: str, rival: str = REFITTED) -> Estimate:
        """Error of a rule minus that of a rival, pp; below 0 the rule errs less."""
        return gain_rules.apart(self.judged, rule, rival, self.n)

    def protocol(self) -> str:
        """What was asked, for records; their intervals are over specialists."""
        return (
            f"{len(self.found.table)} subsets of 2 to {self.n // 2} specialists of one base, every "
            f"size alike, evidence router, {2 * len(self.halves)} halves"
        )


def of(kept: Kept) -> Study:
    """Measure and judge the subsets of the first team of a kept ledger."""
    return study(kept_runs.view(kept.parts["heldout"], "heldout", TEAMS[0])[0])


def study(ledger: Ledger, halvings: int = subsets.HALVINGS) -> Study:
    """Measure and judge the subsets of a cooperative on its held-out documents."""
    halves = subsets.halvings(len(ledger.experts), halvings)
    whole = subsets.measure(ledger, subsets.draw(halves))
    found = subsets.up_to_half(whole)
    accounts = subset_accounts.account(ledger, whole, subset_accounts.chosen(whole, halves))
    judged = gain_rules.judge(found.table, found.members, halves)
    rules = gain_rules.compare(judged, len(ledger.experts))
    planes = gain_rules.learned(found.table)
    return Study(ledger, halves, whole, found, accounts, judged, rules, planes)


def subject(plane: Plane) -> str:
    """What decides the gain if this rule tells it best."""
    return SUBJECTS[plane.names[0]] if plane.names else "nothing that was asked about it"


def in_words(plane: Plane) -> str:
    """A rule as a formula, ``0.82 × divergence − 2.72``, or what it takes for the gain."""
    if not plane.names:
        return f"the mean gain of others, {_signed(plane.intercept)}\u202f%"
    if plane.slopes == (1.0,) and not plane.intercept:
        return f"the {WORDS[plane.names[0]]} itself"
    said = ""
    for slope, name in zip(plane.slopes, plane.names, strict=True):
        said += f"{_signed(slope, bool(said))} × {WORDS[name]}"
    return said + _signed(plane.intercept, True)


def _signed(value: float, later: bool = False) -> str:
    sign = "\u2212" if value < 0 else "+" if later else ""
    return f" {sign} {abs(value):.2f}" if later else f"{sign}{abs(value):.2f}"


def over_subsets(study: Study) -> Numbers:
    """What is said of the subsets, with intervals over specialists."""
    table = study.found.table
    line = gain_rules.coefficients(*study.on, study.planes[REFITTED])
    held = predictors.published_line(table)
    inside = 100.0 * table["gain"].between(held["low"], held["high"]).to_numpy()
    span = prediction.points("n6, 6.9B at 8.73")["divergence"]
    fitted = 100.0 * table["divergence"].between(span.min(), span.max()).to_numpy()
    found: Numbers = {
        "refitted_slope": (line["divergence"], ""),
        "refitted_intercept": (line["intercept"], "%"),
        "refitted_r2": (gain_rules.r2(*study.on, study.planes[REFITTED]), "R²"),
        "law_coverage": (subsets.mean(study.found, study.halves, inside), "%"),
        "inside_share": (subsets.mean(study.found, study.halves, fitted), "%"),
        "conversion_correlation": (conversion_correlation(study), "Pearson r"),
        "printed_line_bias": (study.of_rule(PRINTED, "bias"), "pp"),
        "best_rule_minus_refitted": (study.apart(study.best), "pp"),
        "own_rule_minus_refitted": (study.apart(study.own), "pp"),
        "short_rule_minus_refitted": (study.apart("short rule"), "pp"),
        "oracle_minus_refitted": (study.apart("oracle gain"), "pp"),
    }
    named = {
        "printed_line": PRINTED, "refitted_line": REFITTED, "mean_gain": "mean gain",
        "own_rule": study.own, "abroad_rule": study.abroad, "best_rule": study.best,
        "oracle": "oracle gain",
    }  # fmt: skip
    for name, rule in named.items():
        found[f"{name}_error"] = study.of_rule(rule), "pp"
        found[f"{name}_q2"] = study.of_rule(rule, "q2"), "Q²"
    accounts = subsets.up_to_half(study.accounts)
    for name, term in {"routing_regret": "regret", "mixing_bonus": "bonus"}.items():
        values = accounts.table[term].to_numpy()
        found[name] = subsets.mean(accounts, study.halves, values), "pp"
    for name, measure in {"gain_mean": "gain", "oracle_gain": "oracle", "net": "net"}.items():
        unit = "pp" if name == "net" else "%"
        found[name] = subsets.mean(study.found, study.halves, table[measure].to_numpy()), unit
    return found


def counted(study: Study) -> dict[str, tuple[float, str]]:
    """What is counted or is an extreme, by the name of a record: value and unit."""
    table, terms = study.whole.table, study.accounts.table
    residual = terms["oracle"] - terms["regret"] + terms["bonus"] - terms["gain"]
    larger = table[table["n"] > study.n // 2]
    found: dict[str, tuple[float, str]] = {
        "cooperatives": (len(table), ""),
        "judged_cooperatives": (len(study.found.table), ""),
        "specialists": (study.n, "specialists"),
        "half": (study.n // 2, "specialists"),
        "halvings": (len(study.halves), "halvings"),
        "gain_from": (table["gain"].min(), "%"),
        "gain_to": (table["gain"].max(), "%"),
        "divergence_from": (table["divergence"].min(), "%"),
        "divergence_to": (table["divergence"].max(), "%"),
        "accounting_residual": (residual.abs().max(), "pp"),
    }
    released = subset_conditions.released()
    for name, rule in {
        "printed_line": PRINTED, "refitted_line": REFITTED, "own_rule": study.own,
        "abroad_rule": study.abroad,
    }.items():  # fmt: skip
        plane = study.planes[rule]
        off = (plane(released) - released["gain"]).abs()
        found[f"{name}_on_six"] = off[released["kind"] == AUGUST].mean(), "pp"
        found[f"{name}_on_eight"] = off[released["kind"] == FITTED].mean(), "pp"
        found[f"{name}_on_larger"] = gain_rules.error(larger, plane), "pp"
    # A rule may need what was released of no condition.
    return {name: entry for name, entry in found.items() if not np.isnan(entry[0])}


def alone(explained: pd.DataFrame, predictor: str, n: int) -> Estimate:
    """What :func:`gain_rules.explained` says a predictor explains by itself, of n specialists."""
    row = explained.loc[predictor]
    return Estimate(row["alone"], row["alone_low"], row["alone_high"], "specialists", n)


def conversion_correlation(study: Study) -> Estimate:
    """Correlation of gain/divergence with the logarithm of the base's mean perplexity.

    Over subsets whose specialists are better than the base in the mean: without a divergence there
    is nothing to convert.
    """
    losses = study.ledger.token_group, study.ledger.column(BASE).double()
    by_domain = np.exp(-np.bincount(*losses) / np.bincount(losses[0]))
    table, members, halves = study.on
    sizes = members.sum(1)
    log_perplexity = np.log(members @ by_domain / sizes)
    divergence, gain = (table[name].to_numpy() for name in ("divergence", "gain"))

    def correlation(rows: np.ndarray) -> float:
        kept = np.flatnonzero(rows & (divergence > 0))
        both = np.stack([log_perplexity[kept], gain[kept] / divergence[kept]])
        covariance = np.cov(both, aweights=gain_rules.shares(sizes[kept]))
        return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))

    return subsets.over_specialists(study.found, halves, correlation)


def conditions(study: Study) -> Conditions:
    """The published cooperatives among the subsets: :data:`subsets.NAMED`, the six, and all."""
    sets = {**subsets.NAMED, **SIX, "twenty": study.ledger.experts}
    return subset_conditions.measure(study.ledger, sets)


def english(kept: Kept) -> tuple[list[int], Numbers]:
    """The main experiment's cooperative: the seeds that were recorded, and what is said of it."""
    recorded = {team["name"] for team in kept.about["teams"]}
    teams = [team for team in ENGLISH if team.name in recorded]
    held = kept.parts["heldout"]
    ledgers = [kept_runs.view(held, "heldout", team)[0] for team in teams]
    found = subset_conditions.of_seeds(ledgers)
    numbers = {f"english_{name}": (value, "%") for name, value in found.items()}
    return [team.seed for team in teams], numbers


def told(study: Study, rules: Sequence[str], per_size: int = 12) -> pd.DataFrame:
    """A few subsets with what rules tell of them that were learned on none of their specialists.

    Returns
    -------
    One row a subset: domains, n, best, divergence, gain (%), and a column a rule (%), the mean
    over the halvings.
    """
    gains = gain_rules.told_by_others(*study.on, rules).dropna()
    # A pair that no half held has been told by none.
    there = replace(study.found, table=study.found.table.loc[gains.index])
    shown = subsets.thinned(there, per_size)
    known = shown[["domains", "n", "best", "divergence", "gain"]]
    return known.join(gains.loc[shown.index])


def told_of_released(study: Study, rules: Sequence[str]) -> pd.DataFrame:
    """What rules learned from all subsets tell (%) of the eight and the six released conditions.

    Returns
    -------
    One row a condition: kind, divergence, gain (%), and a column a rule, NaN where what it needs
    was not released.
    """
    released = subset_conditions.released()
    gains = {rule: study.planes[rule](released) for rule in rules}
    return released[["kind", "divergence", "gain"]].assign(**gains)


def growth(study: Study) -> pd.DataFrame:
    """Terms of the gain by number of contributors, see :func:`subsets.growth`."""
    return subsets.growth(study.accounts, study.halves, subset_accounts.TERMS)
