"""Sphinx extension of the book: verdicts as pages show them, all from `kalavai_helpers.findings`.

``{findings}`` writes the front page's summary and table, ``{own-findings}`` the statements that are
the book's own, ``{words}`` levels, words and kinds as the rule defines them, ``{runs}`` every
recorded, replaced or skipped run. The rows are plain HTML: they need neither script nor network.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kalavai_helpers import artifacts, boxes, claims, findings, recorded, verdicts, wording
from kalavai_helpers.findings import Finding

QUESTIONS = ("Do the released values say it?", "Does it happen when it is run?")


def depend(env: Any, config: Any) -> None:
    """Rebuild the page when claims, record, rules or runs change."""
    data = artifacts.data()
    built = Path(config.kalavai_root) / "_build" / "records" / config.kalavai_tier
    paths = [data / "claims.csv", data / "published" / "values.csv", data / "recorded" / "runs.csv"]
    paths += [*sorted((data / "recorded").glob("*/*.json")), *sorted(built.glob("*.json"))]
    for pattern in ("claim*.py", "findings.py", "verdicts.py", "prediction.py"):
        paths += artifacts.PACKAGE.glob(pattern)
    for path in paths:
        env.note_dependency(str(path))


def of(id: str, config: Any) -> Finding:
    """Return a finding with the run that this site is built from."""
    return findings.of(id, config.kalavai_tier, Path(config.kalavai_root))


def run_cell(found: Finding) -> str:
    """The answer to the second question, then every level that ran."""
    lines = "".join(boxes.line(one) for one in found.evidence)
    return f'<p class="kv-answer-word">{html.escape(found.answer)}</p>{lines}'


def chapter_link(env: Any, chapter: str) -> str:
    """Link to the chapter that asks a claim again, or nothing."""
    if chapter not in env.found_docs:
        return ""
    number = int(Path(chapter).name.partition("_")[0])
    return f' <a href="{chapter}.html">Chapter {number}</a>'


def table(env: Any, found: Sequence[Finding]) -> str:
    """One row a statement: what is stated, both answers; stacked on a phone."""
    first, second = (f'<span class="kv-label">{question}</span>' for question in QUESTIONS)
    heads = "".join(f'<th scope="col">{text}</th>' for text in ("Statement", *QUESTIONS))
    rows = ""
    for one in found:
        claim = one.claim
        text = html.escape(claim.statement) + chapter_link(env, claim.chapter)
        if claim.where != findings.OWN:
            text += f"<small>stated: {html.escape(wording.stated(claim))}</small>"
        rows += (
            f'<tr data-claim="{claim.id}"><th scope="row">{text}</th>'
            f"<td>{first}{boxes.release_line(one)}</td><td>{second}{run_cell(one)}</td></tr>"
        )
    return (
        f'<table class="kv-findings"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )


class FindingsDirective(SphinxDirective):
    """``{findings}``: the front page's summary in sentences, then its rows."""

    def run(self) -> list[nodes.Node]:
        depend(self.env, self.config)
        found = findings.front(self.config.kalavai_tier, Path(self.config.kalavai_root))
        told = "".join(
            f"<dt>{html.escape(title)}</dt><dd>{html.escape(text)}</dd>"
            for title, text in boxes.summary(found)
        )
        text = f'<dl class="kv-summary">{told}</dl>{table(self.env, found)}'
        return [nodes.raw("", text, format="html")]


class OwnDirective(SphinxDirective):
    """``{own-findings}``: statements that nobody published."""

    def run(self) -> list[nodes.Node]:
        depend(self.env, self.config)
        own = [claim.id for claim in claims.load() if claim.where == findings.OWN]
        text = table(self.env, [of(id, self.config) for id in own])
        return [nodes.raw("", text, format="html")]


class WordsDirective(SphinxDirective):
    """``{words}``: levels, kinds and the words of both questions, from the rule itself."""

    def run(self) -> list[nodes.Node]:
        depend(self.env, self.config)
        text = ""
        for question, words in zip(QUESTIONS, (verdicts.RELEASED, verdicts.RUN), strict=True):
            text += f"<p><strong>{question}</strong></p>" + _list(
                (boxes.badge(word), word.meaning) for word in words
            )
        text += "<p><strong>Levels of evidence</strong>, the strongest first:</p>" + _list(
            (f"<b>{level.title}</b>", level.meaning)
            for level in sorted(verdicts.Level, reverse=True)
        )
        text += "<p><strong>Kinds of statements</strong></p>" + _list(
            (f"<b>{kind.value}</b>", kind.meaning) for kind in verdicts.Kind
        )
        return [nodes.raw("", f'<div class="kv-words">{text}</div>', format="html")]


def _list(items: Any) -> str:
    return "<ul>" + "".join(f"<li>{a}: {html.escape(b)}</li>" for a, b in items) + "</ul>"


class RunsDirective(SphinxDirective):
    """``{runs}``: how many answers differ from reading the release, and every run of record."""

    def run(self) -> list[nodes.Node]:
        depend(self.env, self.config)
        ids = [claim.id for claim in claims.load() if claim.tested]
        both = [one for one in (of(id, self.config) for id in ids) if findings.comparable(one)]
        other = [one for one in both if findings.changed(one)]
        names = ", ".join(
            f'<a href="claims.html#claim-{one.claim.id}">{html.escape(one.claim.statement)}</a>'
            f" ({one.released.value}; {html.escape(one.answer)})"
            for one in other
        )
        text = (
            f'<p class="kv-changed">Of {len(both)} published statements that both the released '
            f"values and a run decide, {len(other)} changed between reading the release and "
            f"running{': ' if names else ''}{names}.</p>"
        )
        rows = ""
        for row in recorded.history():
            where = f"{row.tier}, {row.chapter}" + (f", {row.date}" if row.date else "")
            rows += (
                f'<tr data-outcome="{row.outcome}"><th scope="row">{html.escape(where)}'
                f"<small>{html.escape(row.seeds)}</small></th><td>{html.escape(row.outcome)}</td>"
                f"<td>{html.escape(row.reason)}</td></tr>"
            )
        heads = "".join(f'<th scope="col">{t}</th>' for t in ("Run", "Outcome", "Why"))
        text += (
            f'<table class="kv-findings"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>'
            "</table>"
        )
        return [nodes.raw("", text, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("findings", FindingsDirective)
    app.add_directive("own-findings", OwnDirective)
    app.add_directive("words", WordsDirective)
    app.add_directive("runs", RunsDirective)
    version = zlib.crc32(Path(__file__).read_bytes())
    return {"version": "1", "env_version": version, "parallel_read_safe": True}
