"""Figures whose marks are lines and dots: curves, values with intervals, distributions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kalavai_helpers.figure_style import (
    DASHES,
    DOMAIN_DASHES,
    DOMAIN_SYMBOLS,
    NEUTRAL,
    SYMBOLS,
    colour_of,
    faded,
    printed,
    styled,
)


def curves(
    series: Sequence[Mapping[str, Any]],
    x_title: str,
    y_title: str,
    title: str = "",
    *,
    columns: int = 3,
) -> go.Figure:
    """Draw lines, with a band where a series has ``low`` and ``high``.

    Parameters
    ----------
    series
        Mappings with ``name``, ``x`` and ``y`` (sequences of one length) and optionally ``low``,
        ``high`` (the interval), ``group`` (title of the small multiple it belongs to; short) and
        ``width`` (pixels). The name gives colour, dash, symbol and legend entry, so that one
        domain looks the same in every panel.
    x_title, y_title
        Axis titles, with units.
    title
        Title of the figure.
    columns
        Small multiples in a row, when series name more than one panel.

    Raises
    ------
    ValueError
        If a series has no points or its lengths differ.
    """
    panels = list(dict.fromkeys(str(s.get("group", "")) for s in series))
    columns = min(columns, max(len(panels), 1))
    rows = max(1, math.ceil(len(panels) / columns))
    fig = make_subplots(
        rows,
        columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=panels if len(panels) > 1 else None,
        horizontal_spacing=0.025,
        vertical_spacing=0.16 / rows,
    )
    names = list(dict.fromkeys(str(s["name"]) for s in series))
    seen: set[str] = set()
    for s in series:
        name, x, y = str(s["name"]), np.asarray(s["x"]), np.asarray(s["y"], dtype=np.float32)
        if x.shape != y.shape or x.ndim != 1 or not x.size:
            raise ValueError(
                f"series {name!r}: x {x.shape} and y {y.shape} must be equal, not empty"
            )
        place = panels.index(str(s.get("group", "")))
        where = {"row": place // columns + 1, "col": place % columns + 1}
        index = names.index(name)
        colour = colour_of(name, index)
        if s.get("low") is not None and s.get("high") is not None:
            fig.add_scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([np.asarray(s["high"]), np.asarray(s["low"])[::-1]]).astype("f4"),
                fill="toself",
                fillcolor=faded(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
                mode="lines",
                **where,
            )
        # A few symbols tell lines apart; one at every point of a long curve would hide it.
        marks = {"size": 7, "symbol": DOMAIN_SYMBOLS.get(name, SYMBOLS[index % len(SYMBOLS)])}
        marks["maxdisplayed"] = 8
        fig.add_scatter(
            x=x,
            y=y,
            name=name,
            legendgroup=name,
            showlegend=name not in seen,
            mode="lines+markers",
            line={
                "color": colour,
                "width": s.get("width", 2),
                "dash": DOMAIN_DASHES.get(name, DASHES[index % len(DASHES)]),
            },
            marker=marks,
            hovertemplate=f"{name}<br>%{{x:,}}: %{{y:.4f}}<extra></extra>",
            **where,
        )
        seen.add(name)
    styled(fig, title, showlegend=len(names) > 1)
    fig.update_annotations(font_size=11)  # titles of the panels
    fig.update_xaxes(nticks=5)
    fig.update_xaxes(title_text=x_title, row=rows, col=(columns + 1) // 2)
    fig.update_yaxes(title_text=y_title, row=(rows + 1) // 2, col=1)
    return fig


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    reference: float | None = None,
    *,
    reference_label: str = "reference",
    groups: Sequence[str] | None = None,
    title: str = "",
    x_title: str = "",
    number_format: str = ".3f",
) -> go.Figure:
    """Draw one value per label as a dot with its interval and its printed number.

    Dots, unlike bars, may start anywhere, so that losses which differ in the second decimal can be
    told apart without a cut axis. With a ``reference`` each dot hangs on a stem from that value.

    Parameters
    ----------
    labels, values
        Names and values of the K rows, the first on top.
    low, high
        Ends of the interval of each value, in the unit of the values.
    reference
        Value of the vertical line, for instance the loss of the base model.
    reference_label
        What that line stands for.
    groups
        Domain or kind of each row; it gives colour, symbol and legend entry.
    title, x_title
        Titles of the figure and of the value axis (with the unit).
    number_format
        Format of the printed values.

    Raises
    ------
    ValueError
        If lengths differ or a value is not finite.
    """
    y = np.asarray(values, dtype=np.float64)
    if len(labels) != len(y) or not np.isfinite(y).all():
        raise ValueError(f"bars needs one finite value per label, got {len(labels)} and {y}")
    keys = list(groups) if groups is not None else [""] * len(y)
    ends_low = y if low is None else np.asarray(low, dtype=np.float64)
    ends_high = y if high is None else np.asarray(high, dtype=np.float64)
    fig = go.Figure()
    if reference is not None:
        stems_x = np.ravel([[reference, v, np.nan] for v in y])
        stems_y = np.ravel([[label, label, None] for label in labels]).tolist()
        fig.add_scatter(
            x=stems_x,
            y=stems_y,
            mode="lines",
            line={"color": NEUTRAL, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
        fig.add_vline(
            x=reference,
            line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"{reference_label} {printed(reference, number_format)}",
                "font_size": 12,
            },
            annotation_position="top",
        )
    span = np.stack([ends_low, ends_high], axis=1)
    for index, key in enumerate(dict.fromkeys(keys)):
        rows = [k for k, other in enumerate(keys) if other == key]
        fig.add_scatter(
            x=y[rows],
            y=[labels[k] for k in rows],
            name=key,
            showlegend=len(set(keys)) > 1 and keys != list(labels),
            mode="markers",
            marker={
                "size": 9,
                "color": colour_of(key, index),
                "symbol": DOMAIN_SYMBOLS.get(key, SYMBOLS[index % len(SYMBOLS)]),
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (ends_high - y)[rows],
                "arrayminus": (y - ends_low)[rows],
                "color": NEUTRAL,
                "thickness": 1.5,
                "visible": low is not None or high is not None,
            },
            customdata=span[rows],
            hovertemplate=f"%{{y}}<br>%{{x:{number_format}}} (%{{customdata[0]:{number_format}}} "
            f"to %{{customdata[1]:{number_format}}})<extra></extra>",
        )
    # The number stands in its own column at the right edge, clear of dots, stems and intervals.
    for label, value in zip(labels, y, strict=True):
        fig.add_annotation(
            x=1,
            xref="paper",
            xanchor="left",
            y=label,
            text=f"<b>{printed(value, number_format)}</b>",
            showarrow=False,
            xshift=6,
        )
    styled(fig, title)
    width = max(len(f"{v:{number_format}}") for v in y)
    fig.update_layout(margin_r=18 + 9 * width)
    fig.update_xaxes(title_text=x_title, nticks=6, zeroline=False)
    fig.update_yaxes(
        showgrid=False,
        autorange="reversed",
        type="category",
        categoryorder="array",
        categoryarray=list(labels),
    )
    return fig


def histogram(
    groups: Mapping[str, np.ndarray],
    x_title: str,
    title: str = "",
    *,
    bins: int = 20,
    span: tuple[float, float] | None = (0.0, 1.0),
) -> go.Figure:
    """Draw distributions as steps: share of values (%) per bin, one line per group.

    Parameters
    ----------
    groups
        Name → values, shape (n,); counted here, so that the page carries ``bins`` numbers only.
    x_title, title
        Titles of the value axis and of the figure.
    bins, span
        Number of equal bins and the range they cover (the range of the data when None).

    Raises
    ------
    ValueError
        If a group is empty.
    """
    arrays = {name: np.asarray(v, dtype=np.float64).ravel() for name, v in groups.items()}
    for name, values in arrays.items():
        if not values.size:
            raise ValueError(f"histogram group {name!r} is empty")
    pooled = np.concatenate(list(arrays.values()))
    edges = np.linspace(*(span or (pooled.min(), pooled.max())), bins + 1)
    spans = [f"{a:.3g} to {b:.3g}" for a, b in itertools.pairwise(edges)]
    fig = go.Figure()
    for index, (name, values) in enumerate(arrays.items()):
        share = 100 * np.histogram(values, edges)[0] / values.size
        colour = colour_of(name, index)
        fig.add_scatter(
            x=edges.astype(np.float32),
            y=np.append(share, share[-1]).astype(np.float32),
            text=[*spans, spans[-1]],
            name=name,
            mode="lines+markers",
            line={"shape": "hv", "color": colour, "width": 2, "dash": DASHES[index % 5]},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
            fill="tozeroy",
            fillcolor=faded(colour, 0.08),
            hovertemplate=f"{name}<br>%{{text}}: %{{y:.1f}} %<extra></extra>",
        )
    styled(fig, title, showlegend=True)
    fig.update_xaxes(title_text=x_title)
    fig.update_yaxes(title_text="share, %", rangemode="tozero")
    return fig
