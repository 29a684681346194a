"""The figure of the scale ladder: methods over model size, with menus for both axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from kalavai_helpers.figure_style import DASHES, SYMBOLS, colour_of, styled

if TYPE_CHECKING:
    import pandas as pd

DODGE = 1.035
"""Methods of one size stand side by side: each is shifted by this factor on the log axis."""


def ladder(
    series: Sequence[Mapping[str, Any]],
    measures: Mapping[str, tuple[str, str]],
    sizes: Mapping[str, tuple[str, str]],
    title: str = "",
) -> go.Figure:
    """Draw several methods over model size, one line each, with error bars.

    Parameters
    ----------
    series
        Mappings with ``name`` and, for every key of ``sizes`` and ``measures``, a sequence of one
        length; a measure ``m`` comes with ``m_low`` and ``m_high``.
    measures
        Key → (menu entry, title of the value axis); the menu on the left switches.
    sizes
        Key → (menu entry, title of the logarithmic size axis); the menu on the right switches.
    title
        Title of the figure.

    Raises
    ------
    ValueError
        If there is no series, or lengths of one differ.
    """
    if not series:
        raise ValueError("ladder needs at least one series")
    for s in series:
        keys = [*sizes, *(f"{m}{end}" for m in measures for end in ("", "_low", "_high"))]
        lengths = {key: len(s[key]) for key in keys}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"series {s['name']!r} has lengths {lengths}: they must be equal")

    def x(size: str) -> list[np.ndarray]:
        middle = (len(series) - 1) / 2
        return [
            np.asarray(s[size], dtype=float) * DODGE ** (index - middle)
            for index, s in enumerate(series)
        ]

    def y(measure: str) -> dict[str, list[np.ndarray]]:
        values = [np.asarray(s[measure], dtype=float) for s in series]
        ends = {
            end: [np.asarray(s[f"{measure}_{end}"], dtype=float) for s in series]
            for end in ("low", "high")
        }
        return {
            "y": values,
            "error_y.array": [h - v for h, v in zip(ends["high"], values, strict=True)],
            "error_y.arrayminus": [v - b for b, v in zip(ends["low"], values, strict=True)],
        }

    first, size = next(iter(measures)), next(iter(sizes))
    drawn, at = y(first), x(size)
    fig = go.Figure()
    for index, s in enumerate(series):
        colour = colour_of(s["name"], index)
        fig.add_scatter(
            x=at[index],
            y=drawn["y"][index],
            name=s["name"],
            mode="lines+markers",
            line={"color": colour, "width": 2.5 if index == 0 else 1.5, "dash": DASHES[index % 5]},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9, "color": colour},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": drawn["error_y.array"][index],
                "arrayminus": drawn["error_y.arrayminus"][index],
                "color": colour,
                "thickness": 1.5,
                "width": 3,
            },
            customdata=np.asarray(s[size], dtype=float),
            hovertemplate=f"{s['name']}<br>%{{customdata:,}} parameters: %{{y:.3f}}<extra></extra>",
        )
    plain = [
        {
            "label": label,
            "method": "update",
            "args": [_listed(y(key)), {"yaxis.title.text": text}],
        }
        for key, (label, text) in measures.items()
    ]
    other = [
        {
            "label": label,
            "method": "update",
            "args": [
                _listed({"x": x(key), "customdata": [np.asarray(s[key], float) for s in series]}),
                {"xaxis.title.text": text},
            ],
        }
        for key, (label, text) in sizes.items()
    ]
    place = {"yanchor": "bottom", "y": 1, "pad": {"b": 10}, "showactive": True}
    styled(
        fig,
        title,
        showlegend=True,
        updatemenus=[
            {"buttons": plain, "x": 0, "xanchor": "left", **place},
            {"buttons": other, "x": 1, "xanchor": "right", **place},
        ],
        margin_t=90,
    )
    every = np.concatenate([values for key in sizes for values in x(key)])
    fig.update_xaxes(type="log", title_text=sizes[size][1], **_ticks(every))
    fig.update_yaxes(title_text=measures[first][1], nticks=6, zerolinewidth=1.5)
    return fig


def _listed(arrays: Mapping[str, list[np.ndarray]]) -> dict[str, list[list[float]]]:
    # Buttons carry plain lists: plotly does not decode its binary arrays inside menus.
    return {key: [np.round(v, 5).tolist() for v in values] for key, values in arrays.items()}


def _ticks(values: np.ndarray) -> dict[str, Any]:
    """One and three times the powers of ten: readable at any width, for any size."""
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    marks = [m * 10**p for p in np.arange(low - 1, high + 2) for m in (1, 3)]
    return {"tickvals": marks, "ticktext": [_short(mark) for mark in marks]}


def _short(number: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def of_summary(summary: pd.DataFrame) -> go.Figure:
    """Draw the table of ``scaling.summary``: three measures, two notions of size."""
    series = [
        {"name": method.replace("_", " "), **{c: rows[c].to_numpy() for c in rows}}
        for method, rows in summary.groupby(level=0, sort=False)
    ]
    return ladder(
        series,
        {
            "gain": ("gain over specialist", "gain over the best specialist, %"),
            "gain_over_base": ("gain over base", "gain over the base, %"),
            "loss": ("loss", "equal-weight loss, nats/token"),
        },
        {
            "parameters": ("one model", "parameters of one specialist"),
            "total_parameters": ("all parameters", "parameters kept in all"),
        },
    )
