"""Boxes, lines and sentences in which findings are shown.

Words stand in the text, so that a page without the site's styles, or without colours, says the same.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence

from . import findings, verdicts, wording
from .findings import OWN, Evidence, Finding
from .verdicts import Level, Test, Word


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
        f"{html.escape(claim.statement)} ({html.escape(claim.where)}; kind: {found.kind.value})."
    )
    if claim.where != OWN:
        text += f" Stated: {html.escape(wording.stated(claim))}."
    if found.released is not None and found.recomputed:
        text += f" From the released values: {html.escape(' · '.join(found.recomputed))}."
    text += "</p>"
    if found.evidence:
        where = f"true if {_region(found.test)}" if found.test else ""
        unit = found.evidence[0].unit
        text += f"<p>{html.escape(wording.with_unit(where, unit))}:</p>" if where else ""
        text += "<ul>" + "".join(f"<li>{line(one)}</li>" for one in found.evidence) + "</ul>"
    return text + "</div>"


def _region(test: Test) -> str:
    """Where a statement is true, as print shows it: ``> 2``, ``within 10 of 80``, ``0``."""
    bound = wording.number(test.bound)
    if test.comparison != "within":
        return f"{test.comparison} {bound}"
    return f"within {wording.number(test.margin)} of {bound}" if test.margin else bound


def plain(found: Finding) -> str:
    """The verdict box as text, for front ends that show no HTML."""
    lines = [f"{found.claim.statement}", f"  when it is run: {found.answer}"]
    if found.released is not None:
        lines.insert(1, f"  released values: {found.released.value}")
    for one in found.evidence:
        said = f"{one.word.value}, " if one.word else ""
        lines.append(f"  {one.level.title}: {said}{one.found}, {one.behind}")
    return "\n".join(lines)


def summary(found: Sequence[Finding]) -> list[tuple[str, str]]:
    """What holds, what was seen and what is unknown: a heading and a sentence each.

    Parameters
    ----------
    found
        The findings of the front page.
    """
    ledger = Counter(
        word for id, (word, _) in findings.audit().items() if findings.get(id).where != OWN
    )
    here = Counter(one.released for one in found if one.released and one.claim.where != OWN)
    parts = [
        (
            "What holds of the release",
            f"the ledger asks {ledger.total()} published statements of the released values: "
            f"{_counts(ledger, verdicts.RELEASED)}. Of the {here.total()} published ones below: "
            f"{_counts(here, verdicts.RELEASED)}.",
        )
    ]
    for level in sorted(Level, reverse=True):
        best = [next((e for e in one.evidence if e.level is level), None) for one in found]
        words = Counter(one.word for one in best if one is not None)
        if not words:
            continue
        judged = sum(n for word, n in words.items() if word)
        text = (
            f"{level.meaning}: {_many(judged, 'statement')} tried, {_counts(words, verdicts.RUN)}"
        )
        if words[None]:
            text += f"; {_many(words[None], 'published number')} with ours beside, no verdict"
        parts.append((f"What was seen: {level.title}", f"{text}."))
    absent = [level for level in sorted(Level, reverse=True) if not _ran(found, level)]
    text = "".join(f"nothing ran as {level.title} ({level.meaning}); " for level in absent)
    open_ = sum(one.run in (None, Word.UNCLEAR, Word.NOT_AT_THIS_SIZE) for one in found)
    parts.append(
        (
            "What is unknown",
            f"{text}{open_} of the {len(found)} statements below have no answer from a run.",
        )
    )
    return [(title, sentence[0].upper() + sentence[1:]) for title, sentence in parts]


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _ran(found: Sequence[Finding], level: Level) -> bool:
    return any(one.level is level for each in found for one in each.evidence)


def _counts(counts: Mapping[Word | None, int], words: Sequence[Word]) -> str:
    return ", ".join(f"{word.value} {counts[word]}" for word in words if counts.get(word))
