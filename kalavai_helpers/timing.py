"""Timing: calls that take turns, so that a ratio compares neighbours in time, with its spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Spread:
    """Median of repeats and the quartiles around it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Spread of at least one value."""
        low, median, high = np.quantile(list(values), [0.25, 0.5, 0.75])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, in the order in which they ran."""

    seconds: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Seconds: median and quartiles."""
        return Spread.of(self.seconds)

    def over(self, other: Timing) -> Spread:
        """Ratio to another call of the same turns, taken turn by turn."""
        return Spread.of(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def __add__(self, other: Timing) -> Timing:
        """Time of both calls together, turn by turn."""
        return Timing(tuple(a + b for a, b in zip(self.seconds, other.seconds, strict=True)))


def interleaved(
    calls: Mapping[Name, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[Name, Timing]:
    """Time calls in turns (see :func:`in_turns`)."""
    watched = {name: partial(_seconds, call) for name, call in calls.items()}
    return in_turns(watched, repeats, warmup)


def in_turns(
    measures: Mapping[Name, Callable[[], float]], repeats: int, warmup: int = 1
) -> dict[Name, Timing]:
    """Run measures that return seconds in turns: all of them once, then all again.

    A slow minute of the machine then meets all of them, and cancels in their ratios. Each turn
    starts with another of them, so that none always follows the same one.

    Parameters
    ----------
    warmup
        Turns that are not counted: first calls allocate memory and choose kernels.
    """
    names = list(measures)
    found: dict[Name, list[float]] = {name: [] for name in names}
    for turn in range(warmup + repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            seconds = measures[name]()
            if turn >= warmup:
                found[name].append(seconds)
    return {name: Timing(tuple(seconds)) for name, seconds in found.items()}


def now() -> float:
    """Seconds on a clock that only goes forward, once the device has done all its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(call: Callable[[], object]) -> float:
    began = now()
    call()
    return now() - began


@dataclass(frozen=True)
class Bar:
    """What a measurement has to reach."""

    sign: str
    value: float

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value <= self.value if self.sign == "≤" else value >= self.value


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes
    ----------
    part, what
        Which experiment it belongs to, and what was measured, in words.
    unit
        ``×`` for ratios; else seconds, bytes and the like.
    where
        What was varied: number of experts, epsilon, tokens and the like.
    also
        What else was found in the same place.
    """

    part: str
    what: str
    spread: Spread
    unit: str = "×"
    bar: Bar | None = None
    where: dict[str, Any] = field(default_factory=dict)
    also: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        bar = self.bar and {
            "sign": self.bar.sign,
            "value": self.bar.value,
            "met": self.bar.met(self.spread.value),
        }
        return {
            "part": self.part,
            "what": self.what,
            "unit": self.unit,
            "median": self.spread.value,
            "low": self.spread.low,
            "high": self.spread.high,
            "bar": bar,
            "where": self.where,
            "also": self.also,
        }
