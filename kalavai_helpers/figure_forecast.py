"""Figures of predictions: points around a line, and predicted against measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kalavai_helpers.figure_style import NEUTRAL, SYMBOLS, colour_of, faded, menu, styled


def line_and_points(
    series: Sequence[Mapping[str, Any]],
    line: Mapping[str, Sequence[float]],
    x_title: str,
    y_title: str,
    title: str = "",
) -> go.Figure:
    """Draw groups of points with a straight line and its band.

    Parameters
    ----------
    series
        Mappings with ``name``, ``x``, ``y`` and ``labels`` (shown on hover), of one length.
    line
        ``x``, ``y``, ``low`` and ``high``: the line and its prediction interval.

    Raises
    ------
    ValueError
        If the lengths of a series differ.
    """
    fig = go.Figure()
    x = np.asarray(line["x"], dtype=np.float32)
    band = np.concatenate([np.asarray(line["high"]), np.asarray(line["low"])[::-1]])
    fig.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=band.astype(np.float32),
        fill="toself",
        fillcolor=faded(NEUTRAL),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add_scatter(
        x=x,
        y=np.asarray(line["y"], dtype=np.float32),
        mode="lines",
        name="line",
        line={"color": NEUTRAL, "width": 2, "dash": "dash"},
        hoverinfo="skip",
    )
    for index, part in enumerate(series):
        if not len(part["x"]) == len(part["y"]) == len(part["labels"]):
            raise ValueError(f"series {part['name']!r}: x, y and labels differ in length")
        fig.add_scatter(
            x=np.asarray(part["x"], dtype=np.float32),
            y=np.asarray(part["y"], dtype=np.float32),
            text=list(part["labels"]),
            name=part["name"],
            mode="markers",
            marker={
                "size": 8,
                "symbol": SYMBOLS[index % len(SYMBOLS)],
                "color": colour_of(part["name"], index),
            },
            hovertemplate="%{text}<br>%{x:.1f}, %{y:.2f}<extra></extra>",
        )
    styled(fig, title, showlegend=True)
    fig.update_xaxes(title_text=x_title, nticks=6, zeroline=False)
    fig.update_yaxes(title_text=y_title, nticks=6, zeroline=False)
    return fig


def predicted(
    measured: Sequence[float],
    ways: Mapping[str, Mapping[str, Sequence[float]]],
    labels: Sequence[str],
    unit: str,
    title: str = "",
) -> go.Figure:
    """Draw predicted against measured values, one way of predicting at a time or all of them.

    Parameters
    ----------
    measured
        (K,) measured values.
    ways
        Name → ``value``, ``low``, ``high``, each (K,): predictions with their intervals. A filled
        mark has the measured value in its interval, an open one has not.
    labels
        (K,) what is shown on hover.
    unit
        Of all values, for the axis titles.

    Raises
    ------
    ValueError
        If lengths differ.
    """
    x = np.asarray(measured, dtype=float)
    fig = go.Figure()
    spans = [x]
    for index, (name, way) in enumerate(ways.items()):
        y, low, high = (np.asarray(way[part], dtype=float) for part in ("value", "low", "high"))
        if not len(x) == len(labels) == len(y) == len(low) == len(high):
            raise ValueError(f"{name!r}: measured values, labels and predictions differ in number")
        inside = (low <= x) & (x <= high)
        spans.append(y)
        symbol = SYMBOLS[index % len(SYMBOLS)]
        colour = colour_of(name, index)
        fig.add_scatter(
            x=x.astype(np.float32),
            y=y.astype(np.float32),
            name=name,
            visible=index == 0,
            text=list(labels),
            customdata=np.stack([low, high], 1).astype(np.float32),
            mode="markers",
            marker={
                "size": 8,
                "color": colour,
                "symbol": [symbol if hit else f"{symbol}-open" for hit in inside],
                "line": {"width": 2, "color": colour},
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (high - y).astype(np.float32),
                "arrayminus": (y - low).astype(np.float32),
                "color": faded(colour, 0.45),
                "thickness": 1.5,
                "width": 0,
            },
            hovertemplate="%{text}<br>measured %{x:+.2f}<br>predicted %{y:+.2f} "
            "(%{customdata[0]:+.2f} to %{customdata[1]:+.2f})<extra></extra>",
        )
    bounds = [float(np.min(np.concatenate(spans))), float(np.max(np.concatenate(spans)))]
    fig.add_scatter(
        x=bounds,
        y=bounds,
        mode="lines",
        name="predicted = measured",
        line={"color": NEUTRAL, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [{"visible": [shown(index) for index in range(len(ways))] + [True]}],
        }
        for label, shown in (
            *((name, lambda k, i=i: k == i) for i, name in enumerate(ways)),
            ("both" if len(ways) == 2 else "all", lambda k: True),
        )
    ]
    styled(
        fig,
        title,
        showlegend=True,
        updatemenus=[menu(buttons, gap=8, type="buttons", direction="right")],
        margin_t=70,
    )
    fig.update_xaxes(title_text=f"measured gain, {unit}", nticks=6, zeroline=False)
    fig.update_yaxes(title_text=f"predicted gain, {unit}", nticks=6, zeroline=False)
    return fig
