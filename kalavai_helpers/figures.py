"""Figures of the book: one house style, five builders, and :func:`show`.

Figures know arrays, not models. Every figure carries a text alternative and the numbers behind
it, and nothing is told by colour alone: lines have dashes and symbols, matrix cells print their
value. Under the book's executor (``KALAVAI_BOOK=1``) a figure leaves the kernel as one
``text/html`` output that the site draws; elsewhere plotly picks its own renderer.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    "loss_matrix",
    "routing_heatmap",
    "show",
    "to_html",
]

_counter = itertools.count(1)


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
    formatter = f"{{:{number_format}}}".format
    if os.environ.get("KALAVAI_BOOK") == "1":
        display(HTML(to_html(fig, alt, table, caption, height, formatter, max_rows)))
        return
    fig.update_layout(height=height).show()
    if table is not None:
        display(HTML(_table_html(table, formatter, max_rows)))


def to_html(
    fig: go.Figure,
    alt: str,
    table: pd.DataFrame | None,
    caption: str,
    height: int,
    formatter: Callable[[float], str] = "{:.4f}".format,
    max_rows: int = 300,
) -> str:
    """Return the ``<figure>`` that the site's script draws; see :func:`show`."""
    chapter = re.sub(r"[^\w-]+", "-", os.environ.get("KALAVAI_CHAPTER", "chapter"))
    ident = f"kv-{chapter}-{next(_counter)}"
    spec = json.loads(pio.to_json(fig, validate=False))
    layout = spec["layout"]
    title = (layout.pop("title", None) or {}).get("text", "")
    # The page's heading replaces the title inside the plot, so its room goes too.
    margin = {**layout["template"]["layout"]["margin"], **layout.get("margin", {})}
    layout["margin"] = {**margin, "t": max(margin["t"] - 22, 8)}
    layout["height"] = height
    body = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    parts = ['<figure class="kv-figure">']
    if title:
        parts.append(f'<p class="kv-title">{title}</p>')
    parts.append(
        f'<div class="kv-plot" role="img" id="{ident}" aria-label="{html.escape(alt, quote=True)}"'
        f' style="height:{height}px"></div>'
        f'<script type="application/vnd.plotly.v1+json" data-for="{ident}">{body}</script>'
    )
    if caption:
        parts.append(f"<figcaption>{html.escape(caption, quote=False)}</figcaption>")
    if table is not None:
        parts.append(_table_html(table, formatter, max_rows))
    return "".join([*parts, "</figure>"])


def _table_html(table: pd.DataFrame, formatter: Callable[[float], str], max_rows: int) -> str:
    left = len(table) - max_rows
    body = table.head(max_rows).to_html(
        border=0, classes="kv-table", float_format=formatter, justify="right", na_rep="–"
    )
    note = f"<p>The first {max_rows} of {len(table)} rows.</p>" if left > 0 else ""
    return (
        '<details class="kv-data"><summary>The numbers behind this figure</summary>'
        f'<div class="kv-scroll" tabindex="0">{body}</div>{note}</details>'
    )
