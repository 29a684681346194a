"""Rules for the statements of August 2026, beside those of `kalavai_helpers.claim_rules`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from kalavai_helpers import prediction
from kalavai_helpers.claim_rules import gain_by_domain, gap, improvement, line, rule, value
from kalavai_helpers.released_held_out import domain_losses

_Z = 1.96  # two-sided 95 % of a normal distribution: right answers of 100 are close to one


def _true(condition: object) -> float:
    return float(bool(condition))


# The line, and points that it was not fitted on.


def _line(version: str, record: Mapping) -> prediction.Law:
    return prediction.fit(prediction.points(version, record))


@rule
def law_rms(version: str, x: np.ndarray, gains: np.ndarray, *, record: Mapping) -> float:
    """Root mean square error (pp) of the refitted line on other points."""
    line = _line(version, record)
    return rms(np.array([line.predict(d) for d in x]), gains)


@rule
def law_in_band(version: str, x: np.ndarray, gains: np.ndarray, *, record: Mapping) -> float:
    """How many other points lie in the 95 % prediction band of the refitted line."""
    bands = [_line(version, record).prediction_interval(d) for d in x]
    return float(sum(low <= g <= high for (low, high), g in zip(bands, gains, strict=True)))


@rule
def law_none_above(version: str, x: np.ndarray, gains: np.ndarray, *, record: Mapping) -> float:
    """No other point lies above the band: whatever the line misses, it promised too much."""
    line = _line(version, record)
    return _true(all(g <= line.prediction_interval(d)[1] for d, g in zip(x, gains, strict=True)))


@rule
def law_inside_all(version: str, x: np.ndarray, *, record: Mapping) -> float:
    """Every divergence lies in the range of the points of the line."""
    known = prediction.points(version, record)["divergence"]
    return _true(((x >= known.min()) & (x <= known.max())).all())


@rule
def law_refit(
    version: str, what: str, x: np.ndarray, gains: np.ndarray, *, record: Mapping
) -> float:
    """A coefficient of the line through its points and others together."""
    known = prediction.points(version, record)
    both = pd.concat([known, pd.DataFrame({"divergence": x, "gain": gains})])
    return float(getattr(prediction.fit(both), what))


@rule
def law_slope_bound(version: str, side: str, *, record: Mapping) -> float:
    """Lower or upper end of the slope's 95 % interval."""
    from scipy import stats

    line = _line(version, record)
    _, width, error = line._spread
    reach = float(stats.t.ppf(0.975, line.n - 2)) * error / float(np.sqrt(width))
    return line.slope + (reach if side == "high" else -reach)


@rule
def residual(slope: np.ndarray, intercept: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Distance of one point, or of the mean of several, from a line."""
    return float(y.mean()) - line(slope, intercept, x)


@rule
def restored(slope: np.ndarray, intercept: np.ndarray, x: np.ndarray, left: np.ndarray) -> float:
    """The point that a line and its residual were made of."""
    return line(slope, intercept, x) + value(left)


@rule
def total(*parts: np.ndarray) -> float:
    """Sum."""
    return float(np.concatenate(parts).sum())


@rule
def rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference."""
    return float(np.sqrt(np.mean((a - b) ** 2)))


@rule
def uncorrelated(a: np.ndarray, b: np.ndarray) -> float:
    """The order of one says nothing (Spearman, 5 %) about the order of the other."""
    from scipy import stats

    return _true(stats.spearmanr(a, b).pvalue > 0.05)


# Losses, solved from equal weights over sets of domains (``@tamil+yoruba,yoruba+welsh``).


@rule
def solved(sets: str, wanted: str, means: np.ndarray) -> float:
    """Mean loss over the wanted domains behind means over sets of domains."""
    losses = domain_losses(sets.split(","), means.tolist())
    return float(np.mean([losses[domain] for domain in wanted.split("+")]))


@rule
def solved_base(sets: str, wanted: str, means: np.ndarray, *divergences: np.ndarray) -> float:
    """Mean base loss over the wanted domains, from solved losses and divergences (%) of each."""
    each = zip(wanted.split("+"), divergences, strict=True)
    return float(np.mean([solved(sets, d, means) / (1 - x.mean() / 100) for d, x in each]))


@rule
def solved_below(sets: str, wanted: str, means: np.ndarray, rival: np.ndarray) -> float:
    """The mean loss over the wanted domains is lower than another model's."""
    return _true(solved(sets, wanted, means) < value(rival))


@rule
def solved_above(sets: str, wanted: str, means: np.ndarray, rival: np.ndarray) -> float:
    """The mean loss over the wanted domains is higher than another model's."""
    return _true(solved(sets, wanted, means) > value(rival))


@rule
def solved_explains(
    sets: str, means: np.ndarray, best: np.ndarray, gains: np.ndarray, tolerance: np.ndarray
) -> float:
    """Always using the own specialist gives every gain within a tolerance (pp)."""
    oracle = np.array([solved(sets, name, means) for name in sets.split(",")])
    return _true(np.abs(100 * (best - oracle) / best - gains).max() <= tolerance[0])


@rule
def covers(
    sets: str, home: str, other: str, means: np.ndarray, divergence: np.ndarray, best: np.ndarray
) -> float:
    """The specialist of one domain is no worse than the base on the other of a pair.

    ``best`` is its mean loss over both, ``divergence`` (%) that of the other domain's specialist.
    """
    there = 2 * value(best) - solved(sets, home, means)
    return _true(there <= solved_base(sets, other, means, divergence))


# Gains.


@rule
def conversion(base: np.ndarray, fused: np.ndarray, *models: np.ndarray) -> float:
    """Gain over the best specialist per mean divergence; losses by domain, models in that order."""
    own = np.array([model[i] for i, model in enumerate(models)])
    return gain_by_domain(fused, *models) / float((100 * (base - own) / base).mean())


@rule
def rising_steps(*ratios: np.ndarray) -> float:
    """How many of the steps from one quotient (numerator; denominator) to the next go up."""
    values = [n.mean() / d.mean() for n, d in zip(ratios[::2], ratios[1::2], strict=True)]
    return float(sum(a < b for a, b in pairwise(values)))


@rule
def share(start: np.ndarray, reached: np.ndarray, rival: np.ndarray) -> float:
    """Part of the way from one loss to a rival's that another loss has gone."""
    return float((start.mean() - reached.mean()) / (start.mean() - rival.mean()))


@rule
def shrinks_less(before: np.ndarray, after: np.ndarray, b: np.ndarray, a: np.ndarray) -> float:
    """The second improvement is no smaller than the first."""
    return _true(improvement(b, a) >= improvement(before, after))


@rule
def population_deviation(*parts: np.ndarray) -> float:
    """Standard deviation that divides by n."""
    return float(np.concatenate(parts).std())


# Accuracies and perplexities.


@rule
def accuracy_gain(fused: np.ndarray, *models: np.ndarray) -> float:
    """How much higher (%) the mean accuracy is than the best single model's mean."""
    best = max(model.mean() for model in models)
    return float(100 * (fused.mean() - best) / best)


@rule
def factors_within(before: np.ndarray, after: np.ndarray, limits: np.ndarray) -> float:
    """How many before / after lie between the limits."""
    factors = before / after
    return float(((factors >= limits[0]) & (factors <= limits[1])).sum())


@rule
def bit_factors_within(
    ppl: np.ndarray, before: np.ndarray, after: np.ndarray, limits: np.ndarray
) -> float:
    """As `factors_within`, from the base's perplexity and bits per byte before and after."""
    return factors_within(ppl, ppl ** (after / before), limits)


@rule
def agrees(a: np.ndarray, b: np.ndarray, tolerance: np.ndarray) -> float:
    """The means differ by no more than the tolerance."""
    return _true(gap(a, b) <= tolerance[0])


@rule
def each_agrees(a: np.ndarray, b: np.ndarray, percent: np.ndarray) -> float:
    """Every value is within so many percent of its partner."""
    return _true((np.abs(a / b - 1) <= percent[0] / 100).all())


@rule
def differs_somewhere(a: np.ndarray, b: np.ndarray, tolerance: np.ndarray) -> float:
    """Some value differs from its partner by more than the tolerance."""
    return _true(largest_gap(a, b) > tolerance[0])


@rule
def largest_is(a: np.ndarray, wanted: np.ndarray) -> float:
    """The largest value is the wanted one."""
    return _true(a.max() == wanted[0])


@rule
def log_below(a: np.ndarray, b: np.ndarray) -> float:
    """The mean loss behind the first perplexities is lower."""
    return _true(np.log(a).mean() < np.log(b).mean())


@rule
def log_within(a: np.ndarray, b: np.ndarray, percent: np.ndarray) -> float:
    """The loss behind one perplexity is within so many percent of that behind the other."""
    return each_agrees(np.log(b), np.log(a), percent)


@rule
def rest_within(
    before: np.ndarray,
    others: np.ndarray,
    after: np.ndarray,
    moved: np.ndarray,
    percent: np.ndarray,
) -> float:
    """As `log_within`, for the one domain whose perplexity is not among the others.

    ``before`` and ``after`` are mean losses over all domains.
    """
    one, other = (
        value(mean) * (len(rest) + 1) - np.log(rest).sum()
        for mean, rest in ((before, others), (after, moved))
    )
    return each_agrees(np.array([other]), np.array([one]), percent)


@rule
def above_chance(right: np.ndarray, chance: np.ndarray, n: np.ndarray) -> float:
    """Every share of right answers is higher than 95 % of guessers reach."""
    return _true((right > chance + _Z * np.sqrt(chance * (1 - chance) / n)).all())


@rule
def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference between partners."""
    return float(np.abs(a - b).max())


@rule
def near_chance(right: np.ndarray, chance: np.ndarray, n: np.ndarray) -> float:
    """No share of right answers is further from chance than 95 % of guessers are."""
    return _true((np.abs(right - chance) <= _Z * np.sqrt(chance * (1 - chance) / n)).all())


@rule
def decided(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> float:
    """Some share of right answers differs from its partner by more than chance allows."""
    error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    return _true((np.abs(a - b) > _Z * error).any())


@rule
def decided_together(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> float:
    """As `decided`, all questions taken together."""
    return decided(np.array([a.mean()]), np.array([b.mean()]), np.array([n.sum()]))


@rule
def undecided(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> float:
    """No share of right answers differs from its partner by more than chance allows."""
    return 1 - decided(a, b, n)
