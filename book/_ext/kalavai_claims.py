"""Sphinx extension of the book: the claims ledger as a page.

``{claims}`` writes a summary and one table row a published statement, ``{consistency}`` the checks
of released values against each other. Both are computed while the site is built. The rows are in
the page itself: search, filters and sorting (claims.js) need neither a kernel nor the network.
"""

from __future__ import annotations

import html
import json
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kalavai_helpers.verdicts import Verdict

HERE = Path(__file__).parent
# Verdict → how its badge looks, and what it means.
VERDICTS = {
    "recomputes": ("reproduced", "the released values give what is stated"),
    "contradicts": ("contradicted", "they give something else"),
    "ambiguous": ("ambiguous", "released values disagree about it; each is named"),
    "untestable": ("not-testable", "nothing that decides it was released"),
}
_SILENT = ("", "count", "probability", "R²")  # units that a number is not read with
COLUMNS = {
    "verdict": "Verdict",
    "claim": "Statement",
    "stated": "Stated",
    "found": "Recomputed",
    "measured": "This book",
}
_RECORDED = "laptop"  # the tier whose runs are kept beside the built one


def _badge(verdict: str) -> str:
    return f'<span class="kv-badge {VERDICTS[verdict][0]}">{verdict}</span>'


def _number(value: float, digits: int = 5) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{float(f'{value:.{digits}g}'):.{max(digits, 5)}g}"
    else:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa}·10<sup>{int(exponent)}</sup>"
    return text.replace("-", "−")


class ClaimsDirective(SphinxDirective):
    """``{claims}``: the summary and the ledger."""

    def run(self) -> list[nodes.Node]:
        from kalavai_helpers import claims

        _depend(self.env)
        frame = claims.audit()
        return [nodes.raw("", self._summary(frame) + self._table(frame), format="html")]

    def _summary(self, frame: Any) -> str:
        counts = frame["verdict"].value_counts()
        items = "".join(
            f'<li><a href="#ledger" data-verdict="{verdict}"><b>{counts.get(verdict, 0)}</b>'
            f" {_badge(verdict)}</a><span>{meaning}</span></li>"
            for verdict, (_, meaning) in VERDICTS.items()
        )
        return (
            f"<p>{len(frame)} statements, {(frame['where'] == 'abstract').sum()} of them in the"
            f' abstract, the others on the web page.</p><ul class="kv-counts">{items}</ul>'
        )

    def _table(self, frame: Any) -> str:
        verdicts = "".join(f"<option>{verdict}</option>" for verdict in VERDICTS)
        sections = "".join(
            f"<option>{html.escape(name)}</option>" for name in dict.fromkeys(frame["section"])
        )
        orders = "".join(
            f'<option value="{i}">{name}</option>' for i, name in enumerate(COLUMNS.values())
        )
        tools = (
            '<form class="kv-tools" id="ledger" role="search" hidden>'
            '<label>Search <input type="search" name="text" autocomplete="off"></label>'
            f'<label>Verdict <select name="verdict"><option value="">all</option>{verdicts}'
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
        meta = [row.where, row.section, *filter(None, [row.protocol.replace("as stated", "")])]
        text = f"{html.escape(row.statement)}<small>{html.escape(' · '.join(meta))}</small>"
        if row.outcomes:
            ways = "".join(
                f"<li><code>{html.escape(outcome.text)}</code> = {_number(outcome.value)}</li>"
                for outcome in row.outcomes
            )
            text += (
                f"<details><summary>how</summary><ul>{ways}</ul><p>{self._limit(row)}</p></details>"
            )
        else:
            text += f"<small>{html.escape(row.reason)}</small>"
        if row.chapter in self.env.found_docs:
            number = int(Path(row.chapter).name.partition("_")[0])
            text += f' <a href="{row.chapter}.html">Chapter {number}</a>'
        values = [self._found(row, outcome.value) for outcome in row.outcomes]
        if row.kind == "condition":
            values = [{1.0: "holds", 0.0: "does not hold"}[o.value] for o in row.outcomes]
        found = "".join(f"<div>{value}</div>" for value in values) or "—"
        stated = "holds" if row.kind == "condition" else row.value.replace("-", "−")
        stated = html.escape(stated) + (
            f"\u202f{html.escape(row.unit)}" if row.unit not in _SILENT else ""
        )
        key = list(VERDICTS).index(row.verdict)
        order = row.recomputed if row.outcomes else ""
        return (
            f'<tr id="claim-{row.id}" data-verdict="{row.verdict}" data-section="'
            f'{html.escape(row.section)}"><td data-key="{key}">{_badge(row.verdict)}</td>'
            f'<td>{text}</td><td data-key="{_key(row)}">'
            f'{stated}</td><td data-key="{order}">{found}</td>{self._measured(row)}</tr>'
        )

    def _measured(self, row: Any) -> str:
        """Return the cell of what chapters found: in this build, and in the recorded run."""
        lines, key = [], ""
        for name in row.measured:
            chapter, _, record = name.partition("/")
            for tier, run in _runs(self.config, self.env, chapter).items():
                entry = run.get("records", {}).get(record)  # a text source may not decide it
                if entry is not None:
                    key = key if key or isinstance(entry["value"], str) else entry["value"]
                    lines.append(f"<div><small>{tier}</small> {_finding(entry)}</div>")
        return f'<td data-key="{key}">{"".join(lines) or "—"}</td>'

    def _found(self, row: Any, value: float) -> str:
        """Return a recomputed value and, unless a bound was stated, how far off it is."""
        if row.value[0] in "<>":
            return _number(value)
        apart = value - _key(row)
        sign = "+" if apart > 0 else ""
        return f"{_number(value)} <small>{sign}{_number(apart, 2)}</small>"

    def _limit(self, row: Any) -> str:
        if not row.tolerance:
            return html.escape(row.reason)
        return f"Agrees within {_number(row.tolerance)}: {html.escape(row.reason)}."


def _runs(config: Any, env: Any, chapter: str) -> dict[str, dict]:
    """Return the saved runs of a chapter by tier: the built one first, then the recorded one."""
    from kalavai_helpers import recorded

    root, tier = Path(config.kalavai_root), config.kalavai_tier
    paths = {tier: root / "_build" / "records" / tier / f"{chapter}.json"}
    paths.setdefault(_RECORDED, recorded.folder(_RECORDED) / f"{chapter}.json")
    for path in paths.values():
        env.note_dependency(str(path))
    return {
        name: json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for name, path in paths.items()
    }


def _finding(entry: dict) -> str:
    """Return a record as the ledger shows it: a badge for a verdict, else the number or word."""
    if isinstance(entry["value"], str):
        look, word = entry["value"], html.escape(entry["value"].replace("-", " "))
        is_verdict = look in {verdict.value for verdict in Verdict}
        return f'<span class="kv-badge {look}">{word}</span>' if is_verdict else word
    text = _number(entry["value"], 3)
    if entry["unit"] not in _SILENT:
        text += f"\u202f{html.escape(entry['unit'])}"
    if entry["low"] is not None:
        text += f" <small>{_number(entry['low'], 3)} to {_number(entry['high'], 3)}</small>"
    return text


def _key(row: Any) -> float:
    return 1.0 if row.value == "true" else float(row.value.lstrip("<>"))


class ConsistencyDirective(SphinxDirective):
    """``{consistency}``: counts by kind of check, and every disagreement."""

    def run(self) -> list[nodes.Node]:
        from kalavai_helpers import consistency

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
            f"<tr><th><code>{html.escape(row.stored)}</code></th><td>{_number(row.value)}</td>"
            f"<td>{_number(row.recomputed)}</td></tr>"
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


def _add_script(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    if 'class="kv-claims"' not in context.get("body", ""):
        return
    assets = context["pathto"]("_assets/", resource=True).rstrip("/")
    tag = f'<script defer src="{assets}/claims.js"></script>'
    context["metatags"] = context.get("metatags", "") + "\n" + tag


def _copy_script(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_assets"
    folder.mkdir(exist_ok=True)
    (folder / "claims.js").write_bytes((HERE / "claims.js").read_bytes())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the script of the page that uses them."""
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("consistency", ConsistencyDirective)
    app.connect("html-page-context", _add_script)
    app.connect("build-finished", _copy_script)
    version = zlib.crc32(Path(__file__).read_bytes())
    return {"version": "1", "env_version": version, "parallel_read_safe": True}
