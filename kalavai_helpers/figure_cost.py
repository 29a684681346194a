"""Figures of cost and guarantee: time against experts, change against ε, routers against oracle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .figure_curves import bars
from .figure_style import NEUTRAL, SYMBOLS, colour_of, styled

_KINDS = ("one domain", "switching")
NEAREST = 6
"""Routers drawn beside the oracle: those far off would press the others into one point."""


def cost(table: pd.DataFrame) -> go.Figure:
    """Draw time over that of one specialist: above against N at one ε, below against ε at one N.

    A slider below each of the two sets the ε, or the N, that it is drawn for.

    Parameters
    ----------
    table
        Columns ``experts``, ``epsilon`` (0 is dense), ``documents`` (``one domain`` or
        ``switching``), ``ratio`` (times), ``bound_max`` and ``loss_change_pct``; one row a
        measurement.
    """
    dense = table[table.epsilon == 0].set_index("experts").ratio.sort_index()
    kept = table[table.epsilon > 0]
    epsilons, counts = sorted(kept.epsilon.unique()), sorted(kept.experts.unique())
    epsilon = 0.01 if 0.01 in epsilons else epsilons[0]
    count = 3 if 3 in counts else counts[0]
    fig = make_subplots(rows=2, cols=1, row_heights=[0.55, 0.45], vertical_spacing=0.3)
    fig.add_scatter(
        x=dense.index,
        y=dense.index,
        name="separate models",
        mode="lines",
        line={"color": NEUTRAL, "dash": "dot", "width": 1.5},
        hovertemplate="%{y:.0f} models<extra></extra>",
    )
    fig.add_scatter(
        x=dense.index,
        y=dense,
        name="dense",
        mode="lines+markers",
        line={"color": NEUTRAL, "width": 2},
        hovertemplate="N = %{x}, dense: %{y:.2f} times<extra></extra>",
    )
    by_count = [_curve(kept[kept.epsilon == epsilon], "experts", kind) for kind in _KINDS]
    by_epsilon = [_curve(kept[kept.experts == count], "epsilon", kind) for kind in _KINDS]
    for row, (curves, of) in enumerate(((by_count, "N"), (by_epsilon, "ε")), 1):
        for index, (kind, curve) in enumerate(zip(_KINDS, curves, strict=True)):
            fig.add_scatter(
                name=f"under ε, {kind}",
                legendgroup=kind,
                showlegend=row == 1,
                mode="lines+markers",
                marker={"size": 9, "symbol": SYMBOLS[index]},
                line={"color": colour_of(kind, index), "width": 2},
                hovertemplate=f"{of} = %{{x}}, {kind}: %{{y:.2f}} times<br>largest change promised "
                "%{customdata[0]:.4f}<br>loss %{customdata[1]:+.4f} %<extra></extra>",
                row=row,
                col=1,
                **curve,
            )
    fig.add_scatter(
        **_level(epsilons, dense[count]),
        showlegend=False,
        mode="lines",
        line={"color": NEUTRAL, "width": 2},
        hovertemplate="dense: %{y:.2f} times<extra></extra>",
        row=2,
        col=1,
    )
    above, below = [], []
    for e in epsilons:
        curves = [_curve(kept[kept.epsilon == e], "experts", kind) for kind in _KINDS]
        above.append(_step(f"{e:g}", curves, [2, 3]))
    for n in counts:
        curves = [_curve(kept[kept.experts == n], "epsilon", kind) for kind in _KINDS]
        curves.append(_level(epsilons, dense[n]))
        below.append(_step(str(n), curves, [4, 5, 6], {"yaxis2.range": _range(dense[n])}))
    styled(fig, "")
    ticks = [n for n in (1, 2, 3, 5, 10, 20) if n <= dense.index.max()]
    fig.update_xaxes(title_text="specialists N", tickvals=counts, ticktext=counts, row=1)
    fig.update_xaxes(
        title_text="ε, the change promised at most", tickvals=epsilons, ticktext=epsilons, row=2
    )
    fig.update_xaxes(type="log")
    limits = np.log10([0.8, 1.2 * dense.index.max()]).tolist()
    fig.update_yaxes(type="log", tickvals=ticks, ticktext=ticks, range=limits, row=1)
    fig.update_yaxes(range=_range(dense[count]), row=2)
    fig.update_yaxes(title_text="time, one specialist = 1")
    bottom = fig.layout.yaxis.domain[0]
    sliders = [
        _slider("ε = ", above, epsilons.index(epsilon), bottom),
        _slider("N = ", below, counts.index(count), 0.0),
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


def _curve(table: pd.DataFrame, along: str, kind: str) -> dict[str, list]:
    rows = table[table.documents == kind].sort_values(along)
    return {
        "x": rows[along].tolist(),
        "y": rows.ratio.tolist(),
        "customdata": rows[["bound_max", "loss_change_pct"]].to_numpy().tolist(),
    }


def _level(across: list[float], value: float) -> dict[str, list]:
    return {"x": [across[0], across[-1]], "y": [value, value]}


def _range(dense: float) -> list[float]:
    return [0.8, 1.05 * dense]


def _step(label: str, curves: list[dict], traces: list[int], layout: dict | None = None) -> dict:
    """A slider's step that gives traces other data."""
    data = {key: [curve.get(key) for curve in curves] for key in curves[0]}
    return {"label": label, "method": "update", "args": [data, layout or {}, traces]}


def _slider(prefix: str, steps: list[dict], active: int, bottom: float) -> dict:
    return {
        "steps": steps,
        "active": active,
        "currentvalue": {"prefix": prefix},
        "pad": {"t": 55},
        "y": bottom,
        "yanchor": "top",
        "x": 0.0,
        "len": 1.0,
        "ticklen": 0,
        "font": {"size": 11},
    }


def _plain(values: list[float]) -> list[str]:
    return [f"{value:g}" for value in values]
