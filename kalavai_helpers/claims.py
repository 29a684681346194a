"""The claims ledger: every published statement, recomputed from the released values.

`data/claims.csv` holds one statement a row, in the book's words, and how it is recomputed; no
verdict is written there. A recomputation reads ``rule(argument; argument)``. An argument is a
pattern of ids (``*`` stands for anything, several patterns are separated by commas) whose values
are meant, ``&pattern`` (the ids themselves), numbers ``#500,1000`` or a name ``@n8``.
``mean rule(…{seed}…)`` and ``std rule(…{seed}…)`` go over the seeds 42, 137 and 2026.

Several readings of one statement are separated by ``||``. The first is the statement as it stands;
every other one says in brackets what it is and why it is there, as ``[open: which seeds is not
said] rule(…)``. See `READINGS` for which of them decide.

A statement that released values contradict is derived twice: ``second`` holds another derivation,
through other released values. Where there is none, or it agrees with the statement, the verdict is
no stronger than *ambiguous*.

Statements are dated. Web page and abstract are older than the discussion of August 2026; its log
and the changed paper have statements of their own, some of which replace older ones.
"""

from __future__ import annotations

import csv
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

import kalavai_helpers.discussion_rules  # noqa: F401  its rules join those of claim_rules
from kalavai_helpers import artifacts, claim_rules, prediction, published

if TYPE_CHECKING:
    import pandas as pd

SEEDS = ("42", "137", "2026")
VERDICTS = ("recomputes", "contradicts", "ambiguous", "untestable")
READINGS = {
    "": "as stated",
    "open": "the statement leaves it open",
    "superseded": "from a file that was replaced later",
    "other seeds": "with other seeds than it names",
    "other protocol": "by another protocol than it names",
}
"""Kinds of readings. The first two decide alike; a superseded file can only take a *contradicts*
back, since the statement may have been made from it; the last two are shown and decide nothing."""
_READING = re.compile(r"(?:\[([^]:]+): ([^]]+)\] )?(.*)")
_CALL = re.compile(r"(?:(mean|std) )?(\w+)\((.*)\)")
_FILES = ("results/", "experiments/", "logs/")  # every other source only states values


@dataclass(frozen=True)
class Claim:
    """One published statement.

    Attributes
    ----------
    id, statement, section
        Name, our words, and the part of the page that it stands in.
    where
        ``web page``, ``abstract``, ``paper, August 2026`` or ``discussion log``.
    value
        As printed; ``<`` or ``>`` before a bound, ``true`` for a condition.
    unit, protocol, kind
        ``kind`` is ``number`` or ``condition``.
    published
        Ids of the stated value in the public record.
    recomputation
        See the module; empty where nothing released decides.
    second
        An independent derivation, by another path through the released values, where there is one.
    tolerance
        Largest difference that still agrees; 0 for a bound.
    reason
        Why this tolerance, or why there is none.
    chapter
        Page of the chapter that asks it again, or empty.
    measured
        Records of chapters that say what this book found, as ``CHAPTER/NAME``.
    evidence
        What decides whether it happens when it is run: ``number``, ``mechanism``, ``every`` or
        ``identity``.
    tested
        The record that decides, with a comparison, as ``CHAPTER/NAME > 0``; empty if none does.
    front
        Place on the front page, or empty.
    since, superseded
        When it was stated, and the id of the statement that took its place since, or empty.
    """

    id: str
    statement: str
    where: str
    section: str
    value: str
    unit: str
    protocol: str
    kind: str
    published: tuple[str, ...]
    recomputation: str
    second: str
    tolerance: float
    reason: str
    chapter: str
    measured: tuple[str, ...]
    evidence: str
    tested: str
    front: str
    since: str
    superseded: str

    @property
    def number(self) -> float:
        """The stated value; 1 for a condition."""
        return 1.0 if self.value == "true" else float(self.value.lstrip("<>"))

    def agrees(self, value: float) -> bool:
        """Whether a recomputed value bears the statement out."""
        if self.value[0] in "<>":
            return value < self.number if self.value[0] == "<" else value > self.number
        return abs(value - self.number) <= self.tolerance + 1e-9


@dataclass(frozen=True)
class Outcome:
    """One recomputation: its text, value and the ids that it read; its kind of reading and why."""

    text: str
    value: float
    ids: tuple[str, ...]
    reading: str = ""
    why: str = ""

    @property
    def decides(self) -> bool:
        """Whether it speaks of the statement as it stands, or as it may be read."""
        return self.reading in ("", "open")


@cache
def load() -> tuple[Claim, ...]:
    """Return every claim of `data/claims.csv`, in the order of the page."""
    path = artifacts.data() / "claims.csv"
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            for names in ("published", "measured"):
                line[names] = tuple(line[names].split())
            line["tolerance"] = float(line["tolerance"] or _rounding(line["value"]))
            found.append(Claim(**line))
    return tuple(found)


def _rounding(printed: str) -> float:
    """Half a unit in the last printed place; 0 for bounds and conditions."""
    if not re.fullmatch(r"-?[0-9.]+", printed):
        return 0.0
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


@cache
def record() -> Mapping[str, float]:
    """Return every released value by id."""
    frame = published.load()
    return MappingProxyType(dict(zip(frame["id"], frame["value"].astype(float), strict=True)))


@cache
def released() -> tuple[str, ...]:
    """Return the ids of values from result files, without what page, abstract and paper state."""
    frame = published.load()
    return tuple(frame["id"][frame["source"].str.startswith(_FILES)])


def ids_of(pattern: str, record: Mapping[str, float]) -> list[str]:
    """Return the ids that match a pattern, in the order of the record.

    An exact id may name a statement of the web page or the abstract; a pattern finds only
    released values, so that no statement confirms itself.

    Raises
    ------
    KeyError
        If none matches.
    """
    if pattern in record:
        return [pattern]
    found = fnmatch.filter(released(), pattern)
    if not found:
        raise KeyError(f"no released id matches {pattern!r}")
    return found


def evaluate(text: str, record: Mapping[str, float]) -> list[Outcome]:
    """Return the outcome of every recomputation in ``text``, none for an empty one.

    Raises
    ------
    ValueError, KeyError
        If the notation is wrong, a rule unknown or a pattern matches nothing; names the text.
    """
    return [_evaluate(part.strip(), record) for part in text.split("||") if part.strip()]


def _evaluate(text: str, record: Mapping[str, float]) -> Outcome:
    kind, why, text = _READING.fullmatch(text).groups(default="")
    if kind not in READINGS:
        raise ValueError(f"not a reading: {kind!r} of {text!r}; choose from {', '.join(READINGS)}")
    match = _CALL.fullmatch(text)
    if match is None or match[2] not in claim_rules.RULES:
        raise ValueError(f"not a recomputation: {text!r}; rules are {', '.join(claim_rules.RULES)}")
    used: list[str] = []

    def argument(raw: str) -> np.ndarray | str | list[str]:
        raw = raw.strip()
        if raw.startswith("&"):
            used.extend(ids := ids_of(raw[1:], record))
            return ids
        if raw.startswith("@"):
            return raw[1:]
        if raw.startswith("#"):
            return np.array([float(number) for number in raw[1:].split(",")])
        ids = [id for pattern in raw.split(",") for id in ids_of(pattern.strip(), record)]
        used.extend(ids)
        return np.array([record[id] for id in ids])

    def call(arguments: str) -> float:
        parts = [argument(raw) for raw in arguments.split(";")]
        if not match[2].startswith("law"):
            return claim_rules.RULES[match[2]](*parts)
        frame = prediction.points(parts[0], record)
        used.extend([*frame["divergence_id"], *frame["gain_id"]])
        return claim_rules.RULES[match[2]](*parts, record=record)

    try:
        if match[1]:
            each = [call(match[3].replace("{seed}", seed)) for seed in SEEDS]
            result = float(np.mean(each) if match[1] == "mean" else np.std(each, ddof=1))
        else:
            result = call(match[3])
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{text}: {error}") from error
    return Outcome(text, result, tuple(dict.fromkeys(used)), kind, why)


def verdict(
    claim: Claim, outcomes: list[Outcome], second: list[Outcome] | None = None
) -> tuple[str, str]:
    """Return one of ``VERDICTS`` and, for *ambiguous*, what keeps it from being stronger.

    Parameters
    ----------
    outcomes
        Readings of the statement (see `READINGS`).
    second
        The independent derivation. It must agree with the readings, and without one nothing is
        contradicted: a slip in a single path would be the book's error, not the record's.
    """
    if not outcomes:
        return "untestable", ""
    agree = {claim.agrees(outcome.value) for outcome in outcomes if outcome.decides}
    twice = {claim.agrees(outcome.value) for outcome in second or ()}
    if len(agree) == 2:
        return "ambiguous", "readings that the statement leaves open differ"
    if twice - agree:
        return "ambiguous", "two derivations differ"
    if agree == {True}:
        return "recomputes", ""
    if any(claim.agrees(o.value) for o in outcomes if o.reading == "superseded"):
        return "ambiguous", "it recomputes only from a file that was replaced later"
    if not twice:
        return "ambiguous", "released values differ from it, but by a single path"
    return "contradicts", ""


def audit(values: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Recompute every claim.

    Parameters
    ----------
    values
        Values by id in place of the released ones, to see what a change would do.

    Returns
    -------
    pandas.DataFrame
        One row a claim: the columns of `Claim`, then recomputed (first of several), difference
        (recomputed − stated), verdict, doubt (what keeps an ambiguous one from being stronger),
        outcomes and second_outcomes (lists of `Outcome`).
    """
    import pandas as pd

    values = record() if values is None else values
    rows = []
    for claim in load():
        outcomes = evaluate(claim.recomputation, values)
        second = evaluate(claim.second, values)
        first = outcomes[0].value if outcomes else float("nan")
        word, doubt = verdict(claim, outcomes, second)
        rows.append(
            {
                **claim.__dict__,
                "recomputed": first,
                "difference": first - claim.number,
                "verdict": word,
                "doubt": doubt,
                "outcomes": outcomes,
                "second_outcomes": second,
            }
        )
    return pd.DataFrame(rows)
