"""Sphinx extension of the book: the claims ledger as a page.

``{claims}`` writes a summary and one table row a published statement, ``{consistency}`` the checks
of released values against each other. Both are computed while the site is built. The rows are in
the page itself: search, filters and sorting (claims.js) need neither a kernel nor the network.
"""

from __future__ import annotations

import html
import zlib
from pathlib import Path
from typing import Any

import kalavai_findings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kalavai_helpers import boxes, claims, consistency, findings, wording
from kalavai_helpers.verdicts import RELEASED, RUN, Word

COLUMNS = {
    "verdict": "Released",
    "claim": "Statement",
    "stated": "Stated",
    "found": "Recomputed",
    "measured": "This book",
}


class ClaimsDirective(SphinxDirective):
    """``{claims}``: the summary and the ledger."""

    def run(self) -> list[nodes.Node]:
        _depend(self.env)
        kalavai_findings.depend(self.env, self.config)
        frame = claims.audit()
        frame = frame[frame["where"] != findings.OWN]
        return [nodes.raw("", self._summary(frame) + self._table(frame), format="html")]

    def _summary(self, frame: Any) -> str:
        counts = frame["verdict"].value_counts()
        items = "".join(
            f'<li><a href="#ledger" data-verdict="{word.value}"><b>{counts.get(word.value, 0)}</b>'
            f" {boxes.badge(word)}</a><span>{word.meaning}</span></li>"
            for word in RELEASED
        )
        places = ", ".join(
            f"{count} ({where})" for where, count in frame["where"].value_counts().items()
        )
        return f'<p>{len(frame)} statements: {places}.</p><ul class="kv-counts">{items}</ul>'

    def _table(self, frame: Any) -> str:
        verdicts, run = (
            "".join(f"<option>{word.value}</option>" for word in words) for words in (RELEASED, RUN)
        )
        sections = "".join(
            f"<option>{html.escape(name)}</option>" for name in dict.fromkeys(frame["section"])
        )
        orders = "".join(
            f'<option value="{i}">{name}</option>' for i, name in enumerate(COLUMNS.values())
        )
        tools = (
            '<form class="kv-tools" id="ledger" role="search" hidden>'
            '<label>Search <input type="search" name="text" autocomplete="off"></label>'
            f'<label>Released <select name="verdict"><option value="">all</option>{verdicts}'
            f'</select></label><label>Run <select name="run"><option value="">all</option>{run}'
            f'</select></label><label>Part <select name="section"><option value="">all</option>'
            f"{sections}</select></label>"
            f'<label class="kv-order">Order <select name="order"><option value="">as published'
            f'</option>{orders}</select></label><output aria-live="polite"></output></form>'
        )
        head = "".join(
            f'<th scope="col"><button type="button" data-column="{i}">{name}</button></th>'
            for i, name in enumerate(COLUMNS.values())
        )
        rows = "".join(self._row(row) for row in frame.itertuples())
        return (
            f'{tools}<div class="kv-ledger"><table class="kv-claims"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def _row(self, row: Any) -> str:
        meta = [row.where, row.section, row.protocol.replace("as stated", ""), row.since]
        meta = " · ".join(filter(None, meta))
        text = f"{html.escape(row.statement)}<small>{html.escape(meta)}</small>"
        if row.superseded:
            text += f'<small>Replaced by <a href="#claim-{row.superseded}">a later one</a>.</small>'
        if row.doubt:
            text += f"<small>{html.escape(row.doubt)}</small>"
        if row.outcomes:
            ways = "".join(map(_way, row.outcomes))
            again = "".join(map(_way, row.second_outcomes))
            text += f"<details><summary>how</summary><ul>{ways}</ul>"
            text += f"<p>Derived again:</p><ul>{again}</ul>" if again else ""
            text += f"<p>{self._limit(row)}</p></details>"
        else:
            text += f"<small>{html.escape(row.reason)}</small>"
        text += kalavai_findings.chapter_link(self.env, row.chapter)
        values = [self._found(row, outcome.value) for outcome in row.outcomes]
        if row.kind == "condition":
            values = [{1.0: "holds", 0.0: "does not hold"}[o.value] for o in row.outcomes]
        found = "".join(
            f"<div>{value}</div>"
            if outcome.decides
            else f'<div class="kv-reading"><small>{value} '
            f"{claims.READINGS[outcome.reading]}</small></div>"
            for value, outcome in zip(values, row.outcomes, strict=True)
        )
        found = found or "—"
        found_words = kalavai_findings.of(row.id, self.config)
        key = [word.value for word in RELEASED].index(row.verdict)
        order = row.recomputed if row.outcomes else ""
        run = found_words.run.value if found_words.run else ""
        return (
            f'<tr id="claim-{row.id}" data-verdict="{row.verdict}" data-run="{run}" data-section="'
            f'{html.escape(row.section)}"><td data-key="{key}">{boxes.badge(Word(row.verdict))}'
            f'</td><td>{text}</td><td data-key="{_key(row)}">'
            f"{html.escape(wording.stated(found_words.claim))}</td>"
            f'<td data-key="{order}">{found}</td>{self._measured(found_words)}</tr>'
        )

    def _measured(self, found: findings.Finding) -> str:
        """Return the cell of what runs say: the second answer, every level, further records."""
        if not (found.claim.tested or found.claim.front):
            return '<td data-key="">—</td>'
        key = found.evidence[0].value if found.evidence else ""
        root, tier = Path(self.config.kalavai_root), self.config.kalavai_tier
        more = "".join(
            f"<small>{html.escape(name)}</small>{boxes.line(one)}"
            for name, one in findings.further(found, tier, root)
        )
        return f'<td data-key="{key}">{kalavai_findings.run_cell(found)}{more}</td>'

    def _found(self, row: Any, value: float) -> str:
        """Return a recomputed value and, unless a bound was stated, how far off it is."""
        if row.value[0] in "<>":
            return wording.number(value)
        apart = value - _key(row)
        sign = "+" if apart > 0 else ""
        return f"{wording.number(value)} <small>{sign}{wording.number(apart, digits=2)}</small>"

    def _limit(self, row: Any) -> str:
        if not row.tolerance:
            return html.escape(row.reason)
        return f"Agrees within {wording.number(row.tolerance)}: {html.escape(row.reason)}."


def _way(outcome: claims.Outcome) -> str:
    """One derivation: what kind of reading it is and why it stands there, its text, its value."""
    kind = claims.READINGS[outcome.reading]
    reading = f"<em>{kind} ({html.escape(outcome.why)}):</em> " if outcome.why else ""
    return f"<li>{reading}<code>{html.escape(outcome.text)}</code> = {wording.number(outcome.value)}</li>"


def _key(row: Any) -> float:
    return 1.0 if row.value == "true" else float(row.value.lstrip("<>"))


class ConsistencyDirective(SphinxDirective):
    """``{consistency}``: counts by kind of check, and every disagreement."""

    def run(self) -> list[nodes.Node]:
        _depend(self.env)
        frame = consistency.audit()
        wrong = frame[~frame["agrees"]]
        kinds = frame.groupby("family")["agrees"].agg(["count", "sum"])
        lines = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{line['count']}</td>"
            f"<td>{line['count'] - line['sum']}</td></tr>"
            for name, line in kinds.iterrows()
        )
        text = (
            f"<p>{len(frame)} checks, {len(wrong)} of which do not agree within what rounding "
            'allows.</p><div class="kv-scroll"><table class="kv-table"><thead><tr><th>Kind</th>'
            f"<th>Checks</th><th>Disagree</th></tr></thead><tbody>{lines}</tbody></table></div>"
        )
        lines = "".join(
            f"<tr><th><code>{html.escape(row.stored)}</code></th><td>{wording.number(row.value)}</td>"
            f"<td>{wording.number(row.recomputed)}</td></tr>"
            for row in wrong.itertuples()
        )
        text += (
            '<p>Where they disagree:</p><div class="kv-scroll"><table class="kv-table"><thead><tr>'
            "<th>Stored value</th><th>Stored</th><th>Recomputed</th></tr></thead>"
            f"<tbody>{lines}</tbody></table></div>"
        )
        return [nodes.raw("", text, format="html")]


def _depend(env: Any) -> None:
    """Rebuild the page when the record, the ledger or the rules change."""
    from kalavai_helpers import artifacts

    for name in ("claims.csv", "published/values.csv"):
        env.note_dependency(str(artifacts.data() / name))
    for name in ("claim*.py", "consistency*.py", "prediction.py"):
        for path in artifacts.PACKAGE.glob(name):
            env.note_dependency(str(path))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("consistency", ConsistencyDirective)
    version = zlib.crc32(Path(__file__).read_bytes())
    return {"version": "1", "env_version": version, "parallel_read_safe": True}
