"""Where a deeper freeze overtakes, and where a gain peaks: located with an interval, or not found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .durations import Condition, Outcome
from .gain_curves import BEST, OVER_BASE, curve, durations_of, interval, lead, seeds_of
from .losses import Estimate


def locate(steps: Sequence[float], difference: np.ndarray) -> np.ndarray:
    """Duration from which a difference stays above zero to the end of the grid, (...).

    Linear interpolation in log duration between the last two grid points of unlike sign. 0 where
    the difference is positive throughout, infinity where it is not positive at the end: neither
    is a crossover within the grid.

    Parameters
    ----------
    steps
        Durations, ascending, (D,).
    difference
        Deeper minus shallower, (..., D).
    """
    difference = np.asarray(difference, dtype=float)
    log_steps = np.log(np.asarray(steps, dtype=float))
    ahead = difference > 0
    # Index of the last duration at which the deeper freeze is not ahead, -1 where there is none.
    last = len(log_steps) - 1 - np.argmax(~ahead[..., ::-1], axis=-1)
    last = np.where(ahead.all(-1), -1, last)
    left = np.clip(last, 0, len(log_steps) - 2)
    low = np.take_along_axis(difference, left[..., None], -1)[..., 0]
    high = np.take_along_axis(difference, left[..., None] + 1, -1)[..., 0]
    rise = np.where(high > low, high - low, 1.0)
    share = np.clip(-low / rise, 0.0, 1.0)
    found = np.exp(log_steps[left] + share * (log_steps[left + 1] - log_steps[left]))
    return np.where(last < 0, 0.0, np.where(last == len(log_steps) - 1, np.inf, found))


@dataclass(frozen=True)
class Crossover:
    """Where a deeper freeze overtakes, in optimiser steps.

    Attributes
    ----------
    steps
        Position; 0 when the deeper freeze is ahead throughout, infinity when it never is at the
        end.
    low, high
        95 % interval over sources and documents (and seeds), cut at the ends of the grid.
    missing
        Share of resamples without a crossover inside the grid.
    """

    steps: float
    low: float
    high: float
    missing: float

    @property
    def found(self) -> bool:
        """Whether the sample as it is crosses inside the grid."""
        return 0 < self.steps < np.inf

    def text(self) -> str:
        """What was found, in words."""
        if self.found:
            where = f"at {self.steps:.0f} steps [{self.low:.0f}, {self.high:.0f}]"
        else:
            who = (
                "the deeper freeze is ahead throughout"
                if self.steps == 0
                else ("no freezing is still ahead at the longest duration")
            )
            where = f"none found at this tier ({who})"
        return f"{where}; {100 * self.missing:.0f} % of resamples have none"


def crossover(outcomes: Mapping[Condition, Outcome], depth: int, denominator: str) -> Crossover:
    """Locate where ``depth`` frozen blocks overtake none, by gain over a denominator.

    Documents are resampled jointly for all conditions (they share their tokens), and so are the
    seeds that both depths have.
    """
    steps = durations_of(outcomes, depth)
    missing = []

    def position(weights: np.ndarray | None) -> np.ndarray:
        found = locate(steps, lead(outcomes, depth, denominator, weights))
        if weights is None:
            return found
        missing.append(float(np.mean((found == 0) | np.isinf(found))))
        return np.clip(found, steps[0], steps[-1])

    found = interval(outcomes, position)
    return Crossover(found.value, found.low, found.high, missing[0])


def ratio(outcomes: Mapping[Condition, Outcome], depth: int) -> Estimate:
    """Crossover over base divided by crossover over the best specialist, as log2.

    0 where both denominators agree. A crossover outside the grid counts as at its end, so that
    the ratio is then a bound on the disagreement.
    """
    steps = durations_of(outcomes, depth)

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        by_base, by_best = (
            np.clip(locate(steps, lead(outcomes, depth, name, weights)), steps[0], steps[-1])
            for name in (OVER_BASE, BEST)
        )
        return np.log2(by_base / by_best)

    return interval(outcomes, statistic)


def peak(outcomes: Mapping[Condition, Outcome], depth: int, denominator: str) -> int:
    """Duration (steps) with the highest gain of a depth."""
    values = curve(outcomes, depth, denominator, seeds_of(outcomes, depth))
    return durations_of(outcomes, depth)[int(values.argmax())]


def hump(outcomes: Mapping[Condition, Outcome], depth: int, denominator: str) -> Estimate:
    """How far (pp) the highest gain of a depth lies above both ends of the grid.

    0 where the gain is highest at an end: then it does not rise and fall.
    """
    seeds = seeds_of(outcomes, depth)

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        values = curve(outcomes, depth, denominator, seeds, weights)
        return values.max(-1) - np.maximum(values[..., 0], values[..., -1])

    return interval(outcomes, statistic)
