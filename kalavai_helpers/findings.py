"""Findings: what the released values say of a claim, and what happened when it was run.

A claim of `data/claims.csv` names the record that decides it. Its value is looked up in the run of
this moment (in memory, or saved by this build) and in every recorded run; `verdicts` gives the
word. Front page, chapters and ledger show what `of` returns, so that they cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import artifacts, claims, records, tiers, verdicts, wording
from .claims import Claim
from .verdicts import Kind, Level, Test, Word

OWN = "this book"
"""``where`` of statements that nobody published: the book's own."""


@dataclass(frozen=True)
class Evidence:
    """What one run found.

    Attributes
    ----------
    level, tier, corpora, seed, date
        The run: where it stands, tier, source of text, first seed, day.
    value, low, high, unit
        The record, with its interval or None.
    seeds
        How many seeds it is a mean over; 1 if the record does not say.
    word
        Answer of this run to the second question, or None where it has none to give.
    """

    level: Level
    tier: str
    corpora: str
    seed: int
    date: str
    value: float
    low: float | None
    high: float | None
    unit: str
    seeds: int
    word: Word | None

    @property
    def found(self) -> str:
        """Value, unit and interval, e.g. ``15.97 % [15.11, 16.82]``."""
        if self.low is None or self.high is None:
            return wording.with_unit(wording.number(self.value), self.unit)
        if self.low == self.high:  # a count, or a bound over everything there is
            return f"{wording.with_unit(wording.number(self.value), self.unit)}, exact"
        places = wording.decimals(self.low, self.high)
        value, low, high = (wording.number(x, places) for x in (self.value, self.low, self.high))
        return f"{wording.with_unit(value, self.unit)} [{low}, {high}]"

    @property
    def behind(self) -> str:
        """Where it comes from: seeds, tier, text."""
        several = f"{self.seeds} seeds" if self.seeds > 1 else f"1 seed ({self.seed})"
        text = self.corpora.partition(":")[0].removesuffix("-open")
        text = {"builtin": "builtin text", "hub": "published text"}.get(text, "real text")
        return f"{several}, tier {self.tier}, {text}"


@dataclass(frozen=True)
class Finding:
    """Both answers to one claim.

    Attributes
    ----------
    claim, kind
        The statement, and what decides it.
    test
        The region of the record in which it is true; None if no chapter tests it.
    released
        Answer to the first question; None for statements that nobody published.
    recomputed
        What the released values give, one text for each way.
    evidence
        What runs found, the strongest first.
    """

    claim: Claim
    kind: Kind
    test: Test | None
    released: Word | None
    recomputed: tuple[str, ...]
    evidence: tuple[Evidence, ...]

    @property
    def deciding(self) -> Evidence | None:
        """The run that answers the second question, if one does.

        A counterexample decides at any level; otherwise the strongest run does.
        """
        if self.kind is Kind.EVERY:
            for one in self.evidence:
                if one.word in (Word.CONTRADICTED, Word.NOT_SEEN):
                    return one
        return next((one for one in self.evidence if one.word is not None), None)

    @property
    def run(self) -> Word | None:
        """Answer to the second question."""
        return self.deciding.word if self.deciding else None

    @property
    def answer(self) -> str:
        """Answer to the second question in words, with its level, or why there is none."""
        if self.kind is Kind.IDENTITY:
            return "no finding: it follows from a definition"
        if self.deciding is not None:
            how = f"{self.run.value} ({self.deciding.level.title})"
            against = self.run in (Word.CONTRADICTED, Word.NOT_SEEN)
            shown = against and self.kind is Kind.EVERY
            return f"{how}, by a counterexample" if shown else how
        if not self.evidence:
            return "not run"
        return "no verdict: only a replication can judge a published number"


def get(id: str) -> Claim:
    """Return a claim by id.

    Raises
    ------
    KeyError
        If there is none; names the file to look into.
    """
    for claim in claims.load():
        if claim.id == id:
            return claim
    raise KeyError(f"no claim {id!r} in data/claims.csv")


def of(id: str, tier: str | None = None, root: Path | None = None) -> Finding:
    """Join a claim with the released values and the runs.

    Parameters
    ----------
    id
        Of the claim.
    tier
        Tier of the built run; by default the tier of the run in memory, if there is one.
    root
        Folder whose ``_build/records`` holds the built run.
    """
    claim = get(id)
    kind, test = Kind(claim.evidence), None
    found: list[Evidence] = []
    word, recomputed = _released(id)
    if claim.tested:
        chapter, record, test = verdicts.parse(claim.tested)
        if record.startswith("released_"):
            word, recomputed = _from_release(runs(chapter, tier, root), record, test, word)
        else:
            found = [
                _evidence(run, run["records"][record], kind, test)
                for run in runs(chapter, tier, root)
                if _measured(run, record)
            ]
    if claim.where == OWN and not recomputed:
        word = None
    return Finding(claim, kind, test, word, recomputed, tuple(found))


def _measured(run: Mapping[str, Any], record: str) -> bool:
    """Whether a run measured a record, and does not repeat one of a recorded run."""
    entry = run["records"].get(record)
    if entry is None:
        return False
    repeats = (entry.get("protocol") or "").startswith("recorded")
    return not repeats or run["tier"] in {path.name for path in _kept().iterdir()}


def _kept() -> Path:
    return artifacts.data() / "recorded"


def further(found: Finding, tier: str | None = None, root: Path | None = None) -> list[tuple]:
    """Return (name, evidence) of more records of the same quantity, under other conditions."""
    lines = []
    for name in found.claim.measured:
        chapter, _, record = name.partition("/")
        lines += [
            (
                record.replace("_", " "),
                _evidence(run, run["records"][record], found.kind, found.test),
            )
            for run in runs(chapter, tier, root)
            if record in run["records"]
        ]
    return lines


@cache
def audit() -> dict[str, tuple[Word, tuple[str, ...]]]:
    """Answer to the first question, and what was recomputed, by claim."""
    found = {}
    for row in claims.audit().itertuples():
        deciding = [outcome.value for outcome in row.outcomes if outcome.decides]
        if row.kind == "condition":
            values = ["holds" if value else "does not hold" for value in deciding]
        else:
            values = [wording.with_unit(wording.number(value), row.unit) for value in deciding]
        found[row.id] = Word(row.verdict), tuple(dict.fromkeys(values))
    return found


def _released(id: str) -> tuple[Word, tuple[str, ...]]:
    return audit()[id]


def _from_release(
    found: Sequence[Mapping[str, Any]], record: str, test: Test, word: Word
) -> tuple[Word, tuple[str, ...]]:
    """A record made of released values answers the first question, the same in every run."""
    for run in found:
        entry = run["records"].get(record)
        if entry is not None:
            one = _evidence(run, entry, Kind.IDENTITY, test)
            return verdicts.released(test.relation(one.low, one.high)), (one.found,)
    return word, ()


def _evidence(run: Mapping[str, Any], entry: Mapping[str, Any], kind: Kind, test: Test) -> Evidence:
    level = verdicts.level_of(run["tier"], run["corpora"])
    return Evidence(
        level,
        run["tier"],
        run["corpora"],
        run["seed"],
        run["date"],
        entry["value"],
        entry["low"],
        entry["high"],
        entry["unit"],
        entry["seeds"] or 1,
        verdicts.word(kind, level, test.relation(entry["low"], entry["high"])),
    )


def runs(
    chapter: str, tier: str | None = None, root: Path | None = None
) -> list[Mapping[str, Any]]:
    """Return the runs of a chapter, the strongest first: this moment's, and the recorded ones.

    A run brings its side runs (see `records.run_of`). Where a tier was both built and recorded,
    the built run stands for it.
    """
    current = records.current()
    if current is not None and current["chapter"] == chapter:
        now = [current]
    else:
        tier = tier or (current["tier"] if current else None)
        folder = (root or artifacts.project_root()) / "_build" / "records"
        now = _read([folder / tier / f"{chapter}.json"] if tier else [])
    now = [one for run in now for one in (run, *run.get("sides", {}).values())]
    kept = _read(sorted(_kept().glob(f"*/{chapter}.json")))
    built = {run["tier"] for run in now}
    found = [*now, *(run for run in kept if run["tier"] not in built)]

    def strength(run: Mapping[str, Any]) -> tuple[int, int]:
        level = verdicts.level_of(run["tier"], run["corpora"])
        return level, tiers.NAMES.index(run["tier"])

    return sorted(found, key=strength, reverse=True)


def _read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in paths if path.is_file()]


_SAYS = {
    Word.RECOMPUTES: True,
    Word.CONTRADICTS: False,
    Word.SEEN: True,
    Word.NOT_SEEN: False,
    Word.CONTRADICTED: False,
}


def comparable(found: Finding) -> bool:
    """Whether both the released values and a run decide a published statement."""
    published = found.claim.where != OWN
    return published and found.released in _SAYS and found.run in _SAYS


def changed(found: Finding) -> bool:
    """Whether running it says otherwise than reading the release."""
    return comparable(found) and _SAYS[found.released] != _SAYS[found.run]


def front(tier: str | None = None, root: Path | None = None) -> list[Finding]:
    """Return the findings of the front page, in its order."""
    placed = sorted((int(claim.front), claim.id) for claim in claims.load() if claim.front)
    return [of(id, tier, root) for _, id in placed]


def show(*ids: str) -> None:
    """Display the verdict box of claims: both answers, with value, interval and seeds a level."""
    from IPython.display import display

    from . import boxes

    for id in ids:
        found = of(id)
        display({"text/html": boxes.box(found), "text/plain": boxes.plain(found)}, raw=True)
