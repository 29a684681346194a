"""Findings: what the released values say of a claim, and what happened when it was run.

A claim of `data/claims.csv` names the record that decides it. Its value is looked up in the run of
this moment (in memory, or saved by this build) and in every recorded run; `verdicts` gives the
word. Front page, chapters and ledger show what `of` returns, so that they cannot disagree.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import artifacts, claims, records, tiers, verdicts
from .claims import Claim
from .verdicts import Kind, Level, Test, Word

OWN = "this book"
"""``where`` of statements that nobody published: the book's own."""
SILENT = ("", "count", "probability", "R²")
"""Units that a number is not read with."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_DECIMALS = 6  # beyond, a power of ten is easier to read


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
            return with_unit(number(self.value), self.unit)
        if self.low == self.high:  # a count, or a bound over everything there is
            return f"{with_unit(number(self.value), self.unit)}, exact"
        places = decimals(self.low, self.high)
        value, low, high = (number(x, places) for x in (self.value, self.low, self.high))
        return f"{with_unit(value, self.unit)} [{low}, {high}]"

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
                if one.word is Word.CONTRADICTED:
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
            shown = self.run is Word.CONTRADICTED and self.kind is Kind.EVERY
            return f"{how}, by a counterexample" if shown else how
        if not self.evidence:
            return "not run"
        return "no verdict: only a replication can judge a published number"


def number(value: float, places: int | None = None) -> str:
    """A number as print shows it, with a true minus sign; very small and large as powers of ten.

    ``places`` are decimals; without them, five significant digits.
    """
    if value == 0 or (places is None and 1e-3 <= abs(value) < 1e6):
        text = f"{value:.{places}f}" if places is not None else f"{float(f'{value:.5g}'):.10g}"
    elif places is not None and places <= _MOST_DECIMALS:
        text = f"{value:.{places}f}"
    else:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa}\u202f·\u202f10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "\u2212")


def decimals(low: float, high: float) -> int:
    """Decimals that show two digits of an interval's half-width."""
    half = (high - low) / 2
    return max(0, 1 - math.floor(math.log10(half)))


def with_unit(text: str, unit: str) -> str:
    """Set a unit behind a number, unless it is read without one."""
    return text if unit in SILENT else f"{text}\u202f{unit}"


def stated(claim: Claim) -> str:
    """What the statement says: a number with its unit, or that a condition holds."""
    if claim.kind == "condition":
        return "holds"
    return with_unit(claim.value.replace("-", "\u2212"), claim.unit)


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
                if record in run["records"]
            ]
    if claim.where == OWN and not recomputed:
        word = None
    return Finding(claim, kind, test, word, recomputed, tuple(found))


@cache
def _audit() -> dict[str, tuple[Word, tuple[str, ...]]]:
    found = {}
    for row in claims.audit().itertuples():
        if row.kind == "condition":
            values = ["holds" if outcome.value else "does not hold" for outcome in row.outcomes]
        else:
            values = [with_unit(number(outcome.value), row.unit) for outcome in row.outcomes]
        found[row.id] = Word(row.verdict), tuple(dict.fromkeys(values))
    return found


def _released(id: str) -> tuple[Word, tuple[str, ...]]:
    return _audit()[id]


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

    Where a tier was both built and recorded, the built run stands for it.
    """
    current = records.current()
    if current is not None and current["chapter"] == chapter:
        now = [current]
    else:
        tier = tier or (current["tier"] if current else None)
        folder = (root or artifacts.project_root()) / "_build" / "records"
        now = _read([folder / tier / f"{chapter}.json"] if tier else [])
    kept = _read(sorted((artifacts.data() / "recorded").glob(f"*/{chapter}.json")))
    built = {run["tier"] for run in now}
    found = [*now, *(run for run in kept if run["tier"] not in built)]

    def strength(run: Mapping[str, Any]) -> tuple[int, int]:
        level = verdicts.level_of(run["tier"], run["corpora"])
        return level, tiers.NAMES.index(run["tier"])

    return sorted(found, key=strength, reverse=True)


def _read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in paths if path.is_file()]


def front(tier: str | None = None, root: Path | None = None) -> list[Finding]:
    """Return the findings of the front page, in its order."""
    placed = sorted((int(claim.front), claim.id) for claim in claims.load() if claim.front)
    return [of(id, tier, root) for _, id in placed]


# How findings are written. Words stand in the text, so that a page without the site's styles, or
# without colours, says the same.


def badge(word: Word) -> str:
    """A word as every page shows it."""
    return f'<span class="kv-badge kv-{word.tone}">{word.value}</span>'


def line(one: Evidence) -> str:
    """One run: level, word, value with interval, seeds."""
    said = f"{badge(one.word)} " if one.word else ""
    return (
        f'<div class="kv-level"><b>{one.level.title}</b> {said}<span class="kv-found">'
        f"{html.escape(one.found)}</span> <small>{html.escape(one.behind)}</small></div>"
    )


def release_line(found: Finding) -> str:
    """What is stated, and what the released values give."""
    if found.released is None:
        return "not published: the book asks it"
    text = badge(found.released)
    if found.recomputed:
        text += f' <span class="kv-found">{html.escape(" · ".join(found.recomputed))}</span>'
    return text


def box(found: Finding) -> str:
    """The verdict box of a chapter, as HTML that reads without a style sheet."""
    claim = found.claim
    tone = found.run.tone if found.run else (found.released.tone if found.released else "none")
    parts = []
    if found.released is not None:
        parts.append(f"released values: {found.released.value}")
    parts.append(f"when it is run: {found.answer}")
    head = "; ".join(parts)
    text = (
        f'<div class="kv-verdict kv-{tone}" data-claim="{claim.id}"><p><strong>'
        f"{head[0].upper()}{head[1:]}.</strong></p><p><em>Statement:</em> "
        f"{html.escape(claim.statement)} ({html.escape(claim.where)}; a {found.kind.value})."
    )
    if claim.where != OWN:
        text += f" Stated: {html.escape(stated(claim))}."
    if found.released is not None and found.recomputed:
        text += f" Released values give {html.escape(' · '.join(found.recomputed))}."
    text += "</p>"
    if found.evidence:
        where = f"true if {found.test}" if found.test else ""
        unit = found.evidence[0].unit
        text += f"<p>{html.escape(with_unit(where, unit))}:</p>" if where else ""
        text += "<ul>" + "".join(f"<li>{line(one)}</li>" for one in found.evidence) + "</ul>"
    return text + "</div>"


def plain(found: Finding) -> str:
    """The verdict box as text, for front ends that show no HTML."""
    lines = [f"{found.claim.statement}", f"  when it is run: {found.answer}"]
    if found.released is not None:
        lines.insert(1, f"  released values: {found.released.value}")
    for one in found.evidence:
        said = f"{one.word.value}, " if one.word else ""
        lines.append(f"  {one.level.title}: {said}{one.found}, {one.behind}")
    return "\n".join(lines)


def show(*ids: str) -> None:
    """Display the verdict box of claims: both answers, with value, interval and seeds a level."""
    from IPython.display import display

    for id in ids:
        found = of(id)
        display({"text/html": box(found), "text/plain": plain(found)}, raw=True)


def summary(found: Sequence[Finding]) -> list[tuple[str, str]]:
    """What holds, what was seen and what is unknown: a heading and a sentence each.

    Parameters
    ----------
    found
        The findings of the front page.
    """
    ledger = Counter(word for id, (word, _) in _audit().items() if get(id).where != OWN)
    here = Counter(one.released for one in found if one.released)
    parts = [
        (
            "Of the release",
            f"{ledger.total()} published statements are in the ledger; for "
            f"{_counts(ledger, verdicts.RELEASED)}. Of the {here.total()} below: "
            f"{_counts(here, verdicts.RELEASED)}.",
        )
    ]
    for level in sorted(Level, reverse=True):
        best = [next((e for e in one.evidence if e.level is level), None) for one in found]
        words = Counter(one.word for one in best if one is not None)
        if not words:
            continue
        judged = sum(n for word, n in words.items() if word)
        text = f"{level.meaning}: {judged} statements tried, {_counts(words, verdicts.RUN)}"
        if words[None]:
            text += f"; {words[None]} published numbers have ours beside them, without a verdict"
        parts.append((f"In {level.title}", f"{text}."))
    absent = [level for level in sorted(Level, reverse=True) if not _ran(found, level)]
    text = "".join(f"nothing ran as {level.title} ({level.meaning}); " for level in absent)
    open_ = sum(one.run in (None, Word.UNCLEAR, Word.NOT_AT_THIS_SIZE) for one in found)
    parts.append(
        ("Unknown", f"{text}{open_} of the {len(found)} statements have no answer from a run yet.")
    )
    return [(title, sentence[0].upper() + sentence[1:]) for title, sentence in parts]


def _ran(found: Sequence[Finding], level: Level) -> bool:
    return any(one.level is level for each in found for one in each.evidence)


def _counts(counts: Mapping[Word | None, int], words: Sequence[Word]) -> str:
    return ", ".join(f"{counts[word]} {word.value}" for word in words if counts.get(word))
