"""Figures of cost and guarantee: time against experts, change against ε, routers against oracle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .figure_curves import bars
from .figure_style import NEUTRAL, SYMBOLS, colour_of, styled

_KINDS = ("one domain", "switching")
NEAREST = 6
"""Routers drawn beside the oracle: those far off would press the others into one point."""


def cost(table: pd.DataFrame) -> go.Figure:
    """Draw time over that of one specialist against the number of experts.

    One slider sets ε, another marks a number of experts.

    Parameters
    ----------
    table
        Columns ``experts``, ``epsilon`` (0 is dense), ``documents`` (``one domain`` or
        ``switching``), ``ratio`` (times), ``bound_max`` and ``loss_change_pct``; one row a
        measurement.
    """
    dense = table[table.epsilon == 0].sort_values("experts")
    epsilons = sorted(e for e in table.epsilon.unique() if e > 0)
    first = 0.01 if 0.01 in epsilons else epsilons[0]
    counts = sorted(table.experts.unique())
    fig = go.Figure()
    fig.add_scatter(
        x=counts,
        y=counts,
        name="separate models",
        mode="lines",
        line={"color": NEUTRAL, "dash": "dot", "width": 1.5},
        hovertemplate="%{y:.0f} models<extra></extra>",
    )
    fig.add_scatter(
        x=dense.experts,
        y=dense.ratio,
        name="dense",
        mode="lines+markers",
        line={"color": NEUTRAL, "width": 2},
        hovertemplate="N = %{x}, dense: %{y:.2f} times<extra></extra>",
    )
    for index, kind in enumerate(_KINDS):
        fig.add_scatter(
            name=f"ε, {kind}",
            mode="lines+markers",
            marker={"size": 9, "symbol": SYMBOLS[index]},
            line={"color": colour_of(kind, index), "width": 2},
            hovertemplate=f"N = %{{x}}, {kind}: %{{y:.2f}} times<br>largest promised change "
            "%{customdata[0]:.4f}<br>loss %{customdata[1]:+.4f} %<extra></extra>",
            **_curve(table, first, kind),
        )
    steps = []
    for epsilon in epsilons:
        found = [_curve(table, epsilon, kind) for kind in _KINDS]
        data = {key: [curve[key] for curve in found] for key in found[0]}
        steps.append({"label": f"{epsilon:g}", "method": "restyle", "args": [data, [2, 3]]})
    marks = [
        {"label": str(n), "method": "relayout", "args": [{"shapes[0].x0": n, "shapes[0].x1": n}]}
        for n in counts
    ]
    marked = 3 if 3 in counts else counts[0]
    fig.add_vline(x=marked, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    styled(fig, "")
    fig.update_xaxes(title_text="specialists N", type="log", tickvals=counts, ticktext=counts)
    ticks = [n for n in (1, 2, 3, 5, 10, 20) if n <= max(counts)]
    fig.update_yaxes(
        title_text="time, one specialist = 1", type="log", tickvals=ticks, ticktext=ticks
    )
    fig.update_yaxes(range=np.log10([0.8, 1.2 * max(counts)]).tolist())
    sliders = [
        _slider("ε = ", steps, epsilons.index(first), 0.0),
        _slider("N = ", marks, counts.index(marked), 0.5),
    ]
    legend = {"yref": "paper", "y": 1.02, "yanchor": "bottom"}
    return fig.update_layout(sliders=sliders, legend=legend, margin={"t": 70, "b": 110})


def promise(table: pd.DataFrame) -> go.Figure:
    """Draw the change that ε promises not to exceed, and the change that was found.

    Parameters
    ----------
    table
        Index documents and epsilon > 0, columns ``change`` and ``mean_change`` (total variation),
        as :func:`kalavai_helpers.contract.measure` returns.
    """
    epsilons = sorted(table.index.unique("epsilon"))
    fig = go.Figure()
    fig.add_scatter(
        x=epsilons,
        y=epsilons,
        name="promised",
        mode="lines",
        line={"color": NEUTRAL, "dash": "dash"},
        hovertemplate="promised: at most %{y:g}<extra></extra>",
    )
    for index, kind in enumerate(table.index.unique("documents")):
        rows = table.loc[kind]
        for column, word, dash in (("change", "largest", "solid"), ("mean_change", "mean", "dot")):
            fig.add_scatter(
                x=rows.index,
                # A logarithmic axis has no zero, which is what a dense prediction changes by.
                y=rows[column].where(rows[column] > 0),
                name=f"{word}, {kind}",
                mode="lines+markers",
                marker={"size": 8, "symbol": SYMBOLS[index]},
                line={"color": colour_of(kind, index), "dash": dash},
                hovertemplate=f"{word}, {kind}: %{{y:.2g}} at ε = %{{x:g}}<extra></extra>",
            )
    styled(fig, "")
    fig.update_xaxes(title_text="ε", type="log", tickvals=epsilons, ticktext=_plain(epsilons))
    return fig.update_yaxes(
        title_text="total variation", type="log", dtick=1, exponentformat="power"
    )


def against_oracle(table: pd.DataFrame) -> go.Figure:
    """Draw the loss above the domain oracle, with its interval, of the routers nearest to it.

    Parameters
    ----------
    table
        As :func:`kalavai_helpers.router_comparison.compare` returns, one row a router.
    """
    rows = table.sort_values("above_oracle").head(NEAREST)
    return bars(
        [name.replace(", ", ",<br>") for name in rows.index],
        list(rows.above_oracle),
        list(rows.above_oracle_low),
        list(rows.above_oracle_high),
        reference=0.0,
        reference_label="domain oracle",
        number_format="+.4f",
        x_title="above the oracle, nats/token",
    )


def _curve(table: pd.DataFrame, epsilon: float, kind: str) -> dict[str, list]:
    rows = table[(table.epsilon == epsilon) & (table.documents == kind)].sort_values("experts")
    return {
        "x": rows.experts.tolist(),
        "y": rows.ratio.tolist(),
        "customdata": rows[["bound_max", "loss_change_pct"]].to_numpy().tolist(),
    }


def _slider(prefix: str, steps: list[dict], active: int, left: float) -> dict:
    return {
        "steps": steps,
        "active": active,
        "currentvalue": {"prefix": prefix},
        "pad": {"t": 60},
        "x": left,
        "len": 0.45,
        "ticklen": 0,
        "font": {"size": 11},
    }


def _plain(values: list[float]) -> list[str]:
    return [f"{value:g}" for value in values]
