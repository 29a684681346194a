"""Figures with a menu: a comparison under several choices, and losses against a switch rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kalavai_helpers.figure_curves import curves
from kalavai_helpers.figure_style import NEUTRAL, SYMBOLS, colour_of, menu, printed, styled


def choices(
    labels: Sequence[str],
    options: Sequence[Mapping[str, Any]],
    x_title: str,
    *,
    marks: Mapping[str, float] | None = None,
    number_format: str = "+.1f",
) -> go.Figure:
    """Draw one value per label with its interval; a menu chooses how it was measured.

    The axis is the same for all choices, so that a value is seen to move.

    Parameters
    ----------
    labels
        Names of the K rows, the first on top.
    options
        Mappings with ``name`` (menu entry, short), ``values`` (K) and optionally ``low``, ``high``
        (K) and ``note`` (a line under the axis title).
    x_title
        Title of the value axis, with the unit.
    marks
        Vertical lines by label, e.g. a published value.
    number_format
        Format of the printed values.

    Raises
    ------
    ValueError
        If an option does not have one finite value per label.
    """
    fig = go.Figure()
    reach = [*(marks or {}).values()]
    for index, option in enumerate(options):
        x = np.asarray(option["values"], dtype=np.float64)
        if x.shape != (len(labels),) or not np.isfinite(x).all():
            raise ValueError(f"option {option['name']!r} needs {len(labels)} finite values: {x}")
        low = np.asarray(x if option.get("low") is None else option["low"], dtype=np.float64)
        high = np.asarray(x if option.get("high") is None else option["high"], dtype=np.float64)
        reach += [*low, *high]
        fig.add_scatter(
            x=x,
            y=list(labels),
            visible=index == 0,
            mode="markers+text",
            text=[f"<b>{printed(value, number_format)}</b>" for value in x],
            textposition="top center",
            cliponaxis=False,
            marker={
                "size": 10,
                "color": [colour_of("", k) for k in range(len(labels))],
                "symbol": [SYMBOLS[k % len(SYMBOLS)] for k in range(len(labels))],
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": high - x,
                "arrayminus": x - low,
                "color": NEUTRAL,
                "thickness": 1.5,
            },
            customdata=np.stack([low, high], 1),
            hovertemplate=f"%{{y}}<br>%{{x:{number_format}}} (%{{customdata[0]:{number_format}}} "
            f"to %{{customdata[1]:{number_format}}})<extra></extra>",
            showlegend=False,
        )
    titles = [f"{x_title}<br>{o['note']}" if o.get("note") else x_title for o in options]
    entries = _menu([o["name"] for o in options], len(options), titles)
    styled(fig, "", updatemenus=[entries])
    for label, value in (marks or {}).items():
        fig.add_vline(
            x=value,
            line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            annotation={"text": label, "font_size": 12},
            annotation_position="top",
        )
    pad = 0.12 * (max(reach) - min(reach))
    fig.update_xaxes(title_text=titles[0], nticks=6, zeroline=False)
    fig.update_xaxes(range=[min(reach) - pad, max(reach) + pad])
    fig.update_yaxes(
        showgrid=False,
        type="category",
        # Half a row of room above the first, for its number.
        range=[len(labels) - 0.5, -0.8],
        categoryorder="array",
        categoryarray=list(labels),
    )
    return fig.update_layout(margin_t=100)


def switch_curves(
    views: Mapping[str, Sequence[Mapping[str, Any]]], ticks: Sequence[str], x_title: str
) -> go.Figure:
    """Draw curves over a few named positions; a menu chooses among views of the same lines.

    Parameters
    ----------
    views
        Title of the value axis (short: it is the menu entry too) → series as in
        :func:`figure_curves.curves`, without ``x``; ``y`` has one value per tick.
    ticks
        Names of the K positions, from left to right.
    x_title
        Title of the axis of positions.
    """
    fig = None
    for view, series in views.items():
        part = curves([{**s, "x": np.arange(len(ticks))} for s in series], x_title, view)
        for trace in part.data:
            trace.visible = fig is None
            if trace.hovertemplate:
                trace.text = list(ticks)
                trace.hovertemplate = f"{trace.name}, %{{text}}<br>%{{y:.4f}}<extra></extra>"
        fig = part if fig is None else fig.add_traces(part.data)
    count = len(fig.data) // len(views)
    fig.update_layout(updatemenus=[_menu(list(views), len(views), list(views), count, "y")])
    fig.update_xaxes(tickvals=np.arange(len(ticks)), ticktext=list(ticks), nticks=None)
    return fig.update_layout(margin_t=90)


def _menu(
    names: Sequence[str], n: int, titles: Sequence[str], count: int = 1, axis: str = "x"
) -> dict[str, Any]:
    """A menu that shows one of ``n`` blocks of ``count`` traces and retitles an axis."""
    buttons = []
    for index, (name, title) in enumerate(zip(names, titles, strict=True)):
        visible = [block == index for block in range(n) for _ in range(count)]
        layout = {f"{axis}axis.title.text": title}
        if axis == "y":
            layout["yaxis.autorange"] = True
        buttons.append({"label": name, "method": "update", "args": [{"visible": visible}, layout]})
    return menu(buttons)
