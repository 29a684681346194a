"""Figures of the book: one house style, five builders, and :func:`show`.

Figures know arrays, not models. Every figure carries a text alternative and the numbers behind
it, and nothing is told by colour alone: lines have dashes and symbols, matrix cells print their
value. Under the book's executor (``KALAVAI_BOOK=1``) a figure leaves the kernel as one output in
two forms, HTML that the site draws and plotly's own JSON for JupyterLab and VS Code; elsewhere
plotly picks its renderer. What stands under a figure (caption, alternative, table) is an output of
its own, because these programs show one form of an output and plotly's has no room for it.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import plotly.io as pio

from kalavai_helpers.figure_curves import bars, curves, histogram
from kalavai_helpers.figure_matrices import loss_matrix, routing_heatmap
from kalavai_helpers.figure_style import (
    DOMAIN_COLOURS,
    DOMAIN_DASHES,
    DOMAIN_SYMBOLS,
    NEUTRAL,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DOMAIN_COLOURS",
    "DOMAIN_DASHES",
    "DOMAIN_SYMBOLS",
    "bars",
    "curves",
    "gains",
    "histogram",
    "joined",
    "loss_matrix",
    "routing_heatmap",
    "show",
]

PLOTLY = "application/vnd.plotly.v1+json"
FIGURE = 'class="kv-figure"'
NOTES = 'class="kv-notes"'

_counter = itertools.count(1)
_PLOTLY_TOP = 100  # px above a plot whose template sets no margin: plotly's own default


def gains(summary: pd.DataFrame) -> go.Figure:
    """Draw the gain of every method of ``evaluation.summary`` over best specialist and base.

    Selection by document or by token is left out: its scale would hide the methods. Values and
    intervals are printed of the gain over the best specialist; an open mark stands at the gain over
    the base, where the summary has it.
    """
    shown = summary.drop(index=["document_oracle", "token_oracle"])
    labels = [method.replace("_", " ") for method in shown.index]
    fig = bars(
        labels,
        list(shown.gain),
        list(shown.gain_low),
        list(shown.gain_high),
        reference=0.0,
        reference_label="best specialist",
        groups=list(shown.kind),
        x_title="gain over the best specialist, %",
        number_format="+.1f",
    )
    if "gain_over_base" in shown:
        fig.add_scatter(
            x=list(shown.gain_over_base),
            y=labels,
            name="the same over the base",
            mode="markers",
            marker={
                "size": 11,
                "symbol": "diamond-open",
                "color": NEUTRAL,
                "line": {"width": 1.5, "color": NEUTRAL},
            },
            hovertemplate="%{y}<br>%{x:+.1f} over the base<extra></extra>",
        )
    return fig


def show(
    fig: go.Figure,
    *,
    alt: str,
    table: pd.DataFrame | None,
    caption: str = "",
    height: int = 420,
    number_format: str = ".4f",
    max_rows: int = 300,
) -> None:
    """Show a figure with its text alternative, its caption and the table behind it.

    Parameters
    ----------
    fig
        The figure. Its title becomes a heading above the plot, where a phone can wrap it.
    alt
        What a reader who cannot see the figure should know. Required.
    table
        The numbers behind the figure, or None where there is none (say why in the caption).
    caption
        One or two sentences under the figure; plain text.
    height
        Height in pixels, reserved before any script runs.
    number_format
        Format of floating-point cells of the table.
    max_rows
        Rows of the table that the page shows, so that a page stays light.

    Raises
    ------
    ValueError
        If ``alt`` is empty.
    """
    from IPython.display import HTML, display

    if not alt.strip():
        raise ValueError("a figure needs alt text: say what it shows and what to see in it")
    fig.update_layout(height=height)
    if os.environ.get("KALAVAI_BOOK") == "1":
        spec = json.loads(pio.to_json(fig, validate=False))
        display({"text/html": _figure_html(spec, alt), PLOTLY: spec}, raw=True)
    else:
        fig.show()
    formatter = f"{{:{number_format}}}".format
    display(HTML(_notes_html(alt, table, caption, formatter, max_rows)))


def joined(figure: str, notes: str) -> str:
    """Return the HTML of a figure and of the notes under it as the site's one ``<figure>``."""
    return figure.replace("</figure>", f"{notes}</figure>")


def _figure_html(spec: dict[str, Any], alt: str) -> str:
    """Return the ``<figure>`` that the site's script draws."""
    chapter = re.sub(r"[^\w-]+", "-", os.environ.get("KALAVAI_CHAPTER", "chapter"))
    ident = f"kv-{chapter}-{next(_counter)}"
    layout = dict(spec["layout"])
    title = (layout.pop("title", None) or {}).get("text", "")
    # The page's heading replaces the title inside the plot, so its room goes too.
    template = layout.get("template", {}).get("layout", {})
    margin = {"t": _PLOTLY_TOP, **template.get("margin", {}), **layout.get("margin", {})}
    layout["margin"] = {**margin, "t": max(margin["t"] - 22, 8)}
    body = json.dumps({**spec, "layout": layout}, separators=(",", ":"), ensure_ascii=False)
    body = body.replace("<", "\\u003c")
    heading = f'<p class="kv-title">{title}</p>' if title else ""
    return (
        f'<figure {FIGURE}>{heading}<div class="kv-plot" role="img" id="{ident}"'
        f' aria-label="{html.escape(alt, quote=True)}" style="height:{layout["height"]}px"></div>'
        f'<script type="{PLOTLY}" data-for="{ident}">{body}</script></figure>'
    )


def _notes_html(
    alt: str,
    table: pd.DataFrame | None,
    caption: str,
    formatter: Callable[[float], str],
    max_rows: int,
) -> str:
    said = f"<figcaption>{html.escape(caption, quote=False)}</figcaption>" if caption else ""
    what, body = "What this figure shows", ""
    if table is not None:
        what, body = "The numbers behind this figure", _table_html(table, formatter, max_rows)
    return (
        f'<div {NOTES}>{said}<details class="kv-data"><summary>{what}</summary>'
        f'<p class="kv-alt">{html.escape(alt, quote=False)}</p>{body}</details></div>'
    )


def _table_html(table: pd.DataFrame, formatter: Callable[[float], str], max_rows: int) -> str:
    left = len(table) - max_rows
    body = table.head(max_rows).to_html(
        border=0, classes="kv-table", float_format=formatter, justify="right", na_rep="–"
    )
    note = f"<p>The first {max_rows} of {len(table)} rows.</p>" if left > 0 else ""
    return f'<div class="kv-scroll" tabindex="0">{body}</div>{note}'
