"""Sphinx extension of the book: numbers from records, figures, and what stands under a title.

Roles
    ``{rec}`01_protocol/gain_evidence|.2f|ci``` prints a record of the built tier, and
    ``{pub}`<id>|.3f``` a value of the public record, each with its unit, as `prose.say` does in
    chapters. An unknown name is a warning, which fails the build.
Pages
    Pages with figures load plotly.js, taken from the installed plotly package so that its version
    is the one that wrote the figures. Nothing is requested from another site.
Chapters
    The title is followed by where the numbers come from: tier, seed, seconds, date, download.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from kalavai_helpers import prose
from kalavai_helpers.prose import Quantity

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent


class _NumberRole(SphinxRole):
    """Shared by both roles: reads ``name|format|options`` and reports what is wrong."""

    kind = ""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        name, *parts = self.text.split("|")
        try:
            quantity = self.look_up(name)
            return [nodes.raw("", quantity.markup(*parts), format="html")], []
        except (KeyError, ValueError, OSError) as error:
            reason = error.args[0] if isinstance(error, KeyError) and error.args else error
            logger.warning(
                "{%s}`%s`: %s", self.kind, self.text, reason, location=self.get_location()
            )
            return [nodes.problematic(self.rawtext, self.rawtext)], []

    def look_up(self, name: str) -> Quantity:
        raise NotImplementedError


class RecordRole(_NumberRole):
    """``{rec}``: a number that a chapter saved in this build."""

    kind = "rec"

    def look_up(self, name: str) -> Quantity:
        chapter, _, record = name.partition("/")
        tier = self.config.kalavai_tier
        path = Path(self.config.kalavai_root) / "_build" / "records" / tier / f"{chapter}.json"
        self.env.note_dependency(str(path))
        if not path.is_file():
            raise ValueError(
                f"chapter {chapter!r} has no records at tier {tier!r}: execute it first"
            )
        return prose.of_run(json.loads(path.read_text("utf-8")), record)


class PublishedRole(_NumberRole):
    """``{pub}``: a number of the public record, by id."""

    kind = "pub"

    def look_up(self, name: str) -> Quantity:
        return prose.of_record(name)


# What on a page needs which scripts.
SCRIPTS = {
    'class="kv-figure"': ("plotly.min.js", "figures.js"),
    'class="kv-planner"': ("planner.js",),
    'class="kv-claims"': ("claims.js",),
}


def _tag_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Add the scripts to pages that need them, and to no other."""
    names = [n for mark, found in SCRIPTS.items() if mark in context.get("body", "") for n in found]
    if not names:
        return
    assets = context["pathto"]("_assets/", resource=True).rstrip("/")
    tags = [f'<script defer src="{assets}/{name}"></script>' for name in names]
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)


def _copy_assets(app: Sphinx, error: Exception | None) -> None:
    """Copy the scripts beside the pages, outside ``_static``: that folder is for every page."""
    import plotly

    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_assets"
    folder.mkdir(exist_ok=True)
    bundle = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    for source in (bundle, *HERE.glob("*.js")):
        target, content = folder / source.name, source.read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)


def _note_origin(app: Sphinx, doctree: nodes.document) -> None:
    """Put tier, seed, time, date and the download under a chapter's title."""
    page = app.env.docname
    folder, _, chapter = page.rpartition("/")
    if folder != "notebooks":
        return
    tier = app.config.kalavai_tier
    sidecar = Path(app.config.kalavai_root) / "_build" / "executed" / tier / f"{chapter}.json"
    app.env.note_dependency(str(sidecar))
    title = next(doctree.findall(nodes.title), None)
    if title is None or not sidecar.is_file():
        logger.warning("chapter without a title or without %s", sidecar.name, location=page)
        return
    run = json.loads(sidecar.read_text("utf-8"))
    parts = [f"Executed at tier <b>{tier}</b>", f"seed {run['seed']}", f"text {run['corpora']}"]
    parts.append(f"{run['seconds']:.0f} s")
    if run.get("peak_memory_mb"):
        parts.append(f"{run['peak_memory_mb']:.0f} MB")
    if run.get("date"):
        parts.append(run["date"])
    link = f'<a href="../ipynb/{chapter}.ipynb" download>download the executed notebook</a>'
    html = f'<p class="kv-origin">{" · ".join([*parts, link])}</p>'
    title.parent.insert(title.parent.index(title) + 1, nodes.raw("", html, format="html"))


def _add_stylesheet(app: Sphinx) -> None:
    app.config.html_static_path.append(str(HERE / "static"))
    app.add_css_file("kalavai.css", priority=900)  # behind the theme's


def setup(app: Sphinx) -> dict[str, Any]:
    """Register roles and events. ``KALAVAI_TIER`` and ``KALAVAI_ROOT`` name the built run."""
    app.add_config_value("kalavai_tier", os.environ.get("KALAVAI_TIER", "ci"), "env")
    app.add_config_value("kalavai_root", os.environ.get("KALAVAI_ROOT", os.getcwd()), "env")
    app.add_role("rec", RecordRole())
    app.add_role("pub", PublishedRole())
    app.connect("builder-inited", _add_stylesheet)
    app.connect("doctree-read", _note_origin)
    app.connect("html-page-context", _tag_scripts)
    app.connect("build-finished", _copy_assets)
    # A change in what prints numbers rebuilds every page: Sphinx compares the number with the stored one.
    version = zlib.crc32(Path(__file__).read_bytes() + Path(prose.__file__).read_bytes())
    return {"version": "1", "env_version": version, "parallel_read_safe": True}
