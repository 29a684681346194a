"""Curves over durations, and several figures behind a row of buttons (no kernel needed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from .figure_curves import curves
from .figure_style import menu

if TYPE_CHECKING:
    import pandas as pd

_APART = ((0.0, 0.43), (0.57, 1.0))


def views(figures: Mapping[str, go.Figure]) -> go.Figure:
    """Join figures into one whose buttons show one of them at a time, the first at the start.

    Parameters
    ----------
    figures
        Label of the button (short) → figure. All must have the same panels; layout and panel
        titles are those of the first.

    Raises
    ------
    ValueError
        If there is no figure, or if their panels differ.
    """
    if not figures:
        raise ValueError("views needs at least one figure")
    parts = list(figures.values())
    axes = [_axes(part) for part in parts]
    if any(other != axes[0] for other in axes):
        raise ValueError(f"views needs figures with the same panels, got axes {axes}")
    joined = go.Figure(parts[0])
    for part in parts[1:]:
        for trace in part.data:
            joined.add_trace(type(trace)({**trace.to_plotly_json(), "visible": False}))
    owner = [label for label, part in figures.items() for _ in part.data]
    # A range that a reader zoomed into belongs to the view that was left.
    fresh = {f"{axis}.autorange": True for axis in axes[0]}
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [{"visible": [name == label for name in owner]}, fresh],
        }
        for label in figures
    ]
    joined.update_layout(
        updatemenus=[menu(buttons, type="buttons", direction="right")],
        margin_t=100,
    )
    return joined


def _axes(figure: go.Figure) -> list[str]:
    return sorted(key for key in figure.layout.to_plotly_json() if key[1:5] == "axis")


def log_curves(
    series: Sequence[Mapping[str, Any]], x_title: str, y_title: str, *, own_scales: bool = False
) -> go.Figure:
    """Draw :func:`figure_curves.curves` over a logarithmic x axis, in two columns.

    Parameters
    ----------
    own_scales
        Give each of the two panels its own y axis, with room for its labels on a phone.
    """
    fig = curves(series, x_title, y_title, columns=2)
    # Powers of ten only: a phone has room for three labels a panel.
    fig.update_xaxes(type="log", dtick=1, tickformat="~s")
    if own_scales:
        fig.update_yaxes(matches=None, showticklabels=True)
        for column, (start, end) in enumerate(_APART):
            fig.update_xaxes(domain=[start, end], col=column + 1)
            fig.layout.annotations[column].x = (start + end) / 2
    return fig


def by_depth(rows: pd.DataFrame, label: str = "{} frozen") -> list[dict[str, Any]]:
    """Series for :func:`log_curves`: one line a frozen depth, one panel a denominator.

    Parameters
    ----------
    rows
        Columns denominator, depth, steps, value and optionally low, high.
    label
        Name of a line, with a place for the depth.
    """
    found = []
    for (name, depth), part in rows.groupby(["denominator", "depth"], sort=False):
        one = {"name": label.format(depth), "group": f"over {name}", "x": part.steps}
        found.append(one | {"y": part.value, "low": part.get("low"), "high": part.get("high")})
    return found
