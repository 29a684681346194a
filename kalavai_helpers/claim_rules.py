"""Rules that recompute a published statement from released values.

Each rule takes arrays of released values, in the order of the record, and gives one number; a
condition gives 1 where it holds and 0 where it does not. `kalavai_helpers.claims` reads the
notation in which a claim names its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from kalavai_helpers import prediction

RULES: dict[str, Callable[..., float]] = {}


def rule(function: Callable[..., float]) -> Callable[..., float]:
    """Make a function known under its name."""
    RULES[function.__name__] = function
    return function


def _true(condition: object) -> float:
    return float(bool(condition))


# Values and statistics. Every argument is an array in the order of the record.


@rule
def value(a: np.ndarray) -> float:
    """The one value."""
    if len(a) != 1:
        raise ValueError(f"one value is wanted, the pattern matches {len(a)}")
    return float(a[0])


@rule
def average(*parts: np.ndarray) -> float:
    """Mean of everything."""
    return float(np.concatenate(parts).mean())


@rule
def deviation(*parts: np.ndarray) -> float:
    """Sample standard deviation."""
    return float(np.concatenate(parts).std(ddof=1))


@rule
def percent(a: np.ndarray) -> float:
    """A fraction as percent."""
    return 100 * value(a)


@rule
def lowest_mean(*parts: np.ndarray) -> float:
    """Lowest of the means of the arguments."""
    return float(min(part.mean() for part in parts))


@rule
def highest_mean(*parts: np.ndarray) -> float:
    """Highest of the means of the arguments."""
    return float(max(part.mean() for part in parts))


@rule
def spread(*parts: np.ndarray) -> float:
    """Highest minus lowest mean of the arguments; of one argument, of its values."""
    values = parts[0] if len(parts) == 1 else [part.mean() for part in parts]
    return float(np.max(values) - np.min(values))


@rule
def largest_size(*parts: np.ndarray) -> float:
    """Largest absolute value."""
    return float(np.abs(np.concatenate(parts)).max())


@rule
def count(a: np.ndarray) -> float:
    """Number of values that are not zero (a released run that never happened has none)."""
    return float(np.count_nonzero(a))


@rule
def count_above(a: np.ndarray, limit: np.ndarray) -> float:
    """Number of values above the limit."""
    return float((a > limit).sum())


@rule
def percent_above(a: np.ndarray, limit: np.ndarray) -> float:
    """Share of values above the limit, in percent."""
    return 100 * float((a > limit).mean())


# Losses.


@rule
def gain(models: np.ndarray, fused: np.ndarray) -> float:
    """Gain (%) of the fused model over the best of several equal-weight losses."""
    return float(100 * (models.min() - fused.mean()) / models.min())


@rule
def gain_by_domain(fused: np.ndarray, *models: np.ndarray) -> float:
    """Gain (%) over the best model, each given by its losses on every domain."""
    return gain(np.array([model.mean() for model in models]), fused)


@rule
def improvement(before: np.ndarray, after: np.ndarray) -> float:
    """How much lower the mean loss became, in percent."""
    return float(100 * (before.mean() - after.mean()) / before.mean())


@rule
def divergence(base: np.ndarray, own: np.ndarray) -> float:
    """Mean relative loss reduction (%) of each specialist on its own domain."""
    return float((100 * (base - own) / base).mean())


@rule
def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the first minus mean of the second."""
    return float(a.mean() - b.mean())


@rule
def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Absolute difference of the means."""
    return abs(difference(a, b))


@rule
def ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the first over mean of the second."""
    return float(a.mean() / b.mean())


@rule
def scaled(a: np.ndarray, factor: np.ndarray) -> float:
    """Largest value times a number."""
    return float(a.max() * factor[0])


@rule
def reduced(before: np.ndarray, percent: np.ndarray) -> float:
    """A loss after a stated reduction in percent."""
    return value(before) * (1 - value(percent) / 100)


@rule
def perplexity(a: np.ndarray) -> float:
    """Mean of exp(loss)."""
    return float(np.exp(a).mean())


@rule
def base_perplexity(fused: np.ndarray, reduction: np.ndarray) -> float:
    """Perplexity of the base from the loss behind it and the relative reduction (%)."""
    return float(np.exp(fused / (1 - reduction / 100)).mean())


# Regression.


@rule
def law(version: str, what: str, x: np.ndarray | None = None, *, record: Mapping) -> float:
    """A coefficient of the refitted line, its zero, its points, or its prediction at ``x``."""
    line = prediction.fit(prediction.points(version, record))
    if what == "zero":
        return -line.intercept / line.slope
    return line.predict(value(x)) if what == "predict" else float(getattr(line, what))


@rule
def line(slope: np.ndarray, intercept: np.ndarray, x: np.ndarray) -> float:
    """The printed formula at ``x``."""
    return value(slope) * value(x) + value(intercept)


@rule
def law_explains(version: str, gains: np.ndarray, *own: np.ndarray, record: Mapping) -> float:
    """Share of variance of other gains that the refitted line explains; ``own`` by specialist."""
    divergences = np.mean(own, axis=0)
    fitted = prediction.fit(prediction.points(version, record))
    missed = sum((g - fitted.predict(d)) ** 2 for d, g in zip(divergences, gains, strict=True))
    return float(1 - missed / ((gains - gains.mean()) ** 2).sum())


@rule
def correlation_with_log(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of log a with b."""
    return float(np.corrcoef(np.log(a), b)[0, 1])


# Conditions: 1 if it holds, else 0.


@rule
def below(a: np.ndarray, b: np.ndarray) -> float:
    """Every value of the first is lower than its partner (or the one value) of the second."""
    return _true((a < b).all())


@rule
def wins(a: np.ndarray, b: np.ndarray) -> float:
    """In how many places the first is lower than the second."""
    return float((a < b).sum())


@rule
def above(a: np.ndarray, limit: np.ndarray) -> float:
    """Every value is above the limit."""
    return _true((a > limit).all())


@rule
def remainder_above(a: np.ndarray, limit: np.ndarray) -> float:
    """What is left of one beside every value is above the limit."""
    return _true((1 - a > limit).all())


@rule
def remainder(*parts: np.ndarray) -> float:
    """What the means of the arguments leave of one."""
    return float(1 - sum(part.mean() for part in parts))


@rule
def gain_exceeds(limit: np.ndarray, fused: np.ndarray, models: np.ndarray) -> float:
    """The gain over the best of several equal-weight losses is above the limit, in percent."""
    return _true(gain(models, fused) > value(limit))


@rule
def contains(a: np.ndarray, wanted: np.ndarray) -> float:
    """One of the values is the wanted one."""
    return _true(np.isin(wanted, a).all())


@rule
def differs(a: np.ndarray, b: np.ndarray, tolerance: np.ndarray) -> float:
    """The means differ by more than the tolerance."""
    return _true(gap(a, b) > tolerance[0])


@rule
def differs_from_loss_reduction(
    printed: np.ndarray, base: np.ndarray, own: np.ndarray, tolerance: np.ndarray
) -> float:
    """A printed divergence is something else than the relative loss reduction."""
    return _true(abs(value(printed) - divergence(base, own)) > tolerance[0])


@rule
def same_order(*pairs: np.ndarray) -> float:
    """Methods, first all by one protocol and then all by another, are ordered alike."""
    half = len(pairs) // 2
    one, other = ([part.mean() for part in part_list] for part_list in (pairs[:half], pairs[half:]))
    return _true((np.argsort(one) == np.argsort(other)).all())


@rule
def go(divergences: np.ndarray, gains: np.ndarray) -> float:
    """Every run passes the released rule: mean divergence above 15 % and gain above 7 %."""
    return _true(((divergences > 15) & (gains > 7)).all())


# Experts: the name of a released token's gate ends with the expert that has it.


def _switches(experts: list[str]) -> int:
    return sum(a != b for a, b in pairwise(experts))


def _experts(names: Sequence[str]) -> list[str]:
    return [name.partition("/top_gate_")[2].partition("/")[0] for name in names]


@rule
def switches_if(names: Sequence[str], place: np.ndarray, expert: str, stored: np.ndarray) -> float:
    """The stored number of switches is what the tokens give if one of them went to ``expert``."""
    experts = _experts(names)
    experts[int(value(place))] = expert
    return _true(_switches(experts) == value(stored))


# Positions.


@rule
def position_of_highest(a: np.ndarray, positions: np.ndarray) -> float:
    """Position of the highest value."""
    return float(positions[int(a.argmax())])


@rule
def lead_from(a: np.ndarray, b: np.ndarray, positions: np.ndarray) -> float:
    """First position from which the first stays above the second; infinite if there is none."""
    behind = np.flatnonzero(a <= b)
    start = 0 if not len(behind) else int(behind[-1]) + 1
    return float(positions[start]) if start < len(positions) else math.inf
