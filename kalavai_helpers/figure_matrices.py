"""Figures whose marks are cells: the loss matrix and the token-level routing heatmap."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kalavai_helpers.figure_style import (
    DARK_TEXT,
    DIVERGING_SCALE,
    GATE_SCALE,
    LOSS_SCALE,
    menu,
    styled,
)

PRINTED_TOKENS = 16  # more printed numbers would touch each other on a phone


def loss_matrix(
    matrix: np.ndarray,
    models: Sequence[str],
    domains: Sequence[str],
    title: str = "",
    *,
    reference: str | None = "base",
) -> go.Figure:
    """Draw the cross-domain loss matrix L[i, d] (paper, section 3).

    Parameters
    ----------
    matrix
        Losses in nats per token, shape (M, D); NaN where a loss is not known.
    models, domains
        Names of the M rows and of the D columns.
    title
        Title of the figure.
    reference
        Row that the colour compares with: a cell's colour is its loss minus the loss of that row
        on the same domain (blue lower, orange higher). Without such a row the colour is the loss.

    Returns
    -------
    plotly.graph_objects.Figure
        One heatmap; every cell prints its loss and the lowest loss of a column is bold.

    Raises
    ------
    ValueError
        If the shape does not match the names.
    """
    losses = np.asarray(matrix, dtype=np.float64)
    if losses.shape != (len(models), len(domains)):
        raise ValueError(
            f"loss_matrix got shape {losses.shape} for {len(models)} models and "
            f"{len(domains)} domains: rows are models, columns are domains"
        )
    best = losses == np.nanmin(losses, axis=0, keepdims=True)
    text = [
        ["" if np.isnan(v) else f"<b>{v:.2f}</b>" if top else f"{v:.2f}" for v, top in cells]
        for cells in (zip(*rows, strict=True) for rows in zip(losses, best, strict=True))
    ]
    hover = "%{y} on %{x}<br>%{customdata:.4f} nats/token"
    if reference in models:
        z = losses - losses[list(models).index(reference)]
        limit = float(np.nanmax(np.abs(z))) or 1.0
        style = {"colorscale": DIVERGING_SCALE, "zmin": -limit, "zmax": limit}
        bar = f"loss minus {reference}, nats/token"
        hover += f"<br>%{{z:+.4f}} against {reference}"
    else:
        z, style, bar = losses, {"colorscale": LOSS_SCALE}, "loss, nats/token"
    heatmap = go.Heatmap(
        z=z.astype(np.float32),
        x=list(domains),
        y=list(models),
        text=text,
        texttemplate="%{text}",
        customdata=losses.astype(np.float32),
        hovertemplate=hover + "<extra></extra>",
        textfont={"size": 12, "color": DARK_TEXT},
        xgap=2,
        ygap=2,
        colorbar=_bar_below(bar),
        **style,
    )
    fig = styled(go.Figure(heatmap), title)
    fig.update_xaxes(side="top", showgrid=False, type="category")
    fig.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return fig


def _bar_below(title: str, **extra: Any) -> dict[str, Any]:
    """A horizontal colour bar under the plot: on a phone the width belongs to the data."""
    return {
        "orientation": "h",
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "thickness": 10,
        "len": 1,
        "outlinewidth": 0,
        "title": {"text": title, "side": "bottom", "font": {"size": 12}},
        **extra,
    }


def _token_labels(tokens: Sequence[str]) -> dict[str, str]:
    """Readable token texts by position, for an axis whose categories are the positions.

    Tokens cannot be categories: a category axis merges equal ones, and keeps those of the prompt
    that it showed before. An explicit list of ticks would crowd, since plotly would not thin it.
    """
    shown = [re.sub(r"\s+", lambda m: "↵" if "\n" in m[0] else "", token) for token in tokens]
    return {str(t): html.escape(text, quote=False) or "␣" for t, text in enumerate(shown)}


def _printed(gates: np.ndarray) -> list[list[str]]:
    """Percents of the gates that matter; thirty zeros around one 98 would only distract."""
    return [[f"{100 * g:.0f}" if g >= 0.05 else "" for g in row] for row in gates.T]


def routing_heatmap(
    prompts: Sequence[Mapping[str, Any]], experts: Sequence[str], title: str = ""
) -> go.Figure:
    """Draw token-level gates: routers stacked over one token axis, prompts in a menu.

    Parameters
    ----------
    prompts
        Mappings with ``title``, ``tokens`` (T strings) and ``gates``: router → array (T, N) of
        gates in [0, 1]. Every prompt must have the same routers.
    experts
        Names of the N experts.
    title
        Title of the figure.

    Returns
    -------
    plotly.graph_objects.Figure
        One uint8 heatmap (whole percents) per prompt and router; prompts of up to 16 tokens print gates from 5 %.

    Raises
    ------
    ValueError
        If there is no prompt, a shape is not (T, N), routers differ or a gate is out of range.
    """
    if not prompts:
        raise ValueError("routing_heatmap needs at least one prompt")
    routers = list(prompts[0]["gates"])
    fig = make_subplots(
        len(routers),
        1,
        shared_xaxes=True,
        subplot_titles=routers,
        vertical_spacing=0.2 / len(routers),
    )
    for p, prompt in enumerate(prompts):
        tokens = list(prompt["tokens"])
        if list(prompt["gates"]) != routers:
            raise ValueError(
                f"prompt {prompt['title']!r} has routers {list(prompt['gates'])}, not {routers}"
            )
        for r, router in enumerate(routers):
            gates = np.asarray(prompt["gates"][router], dtype=np.float64)
            if gates.shape != (len(tokens), len(experts)):
                raise ValueError(
                    f"gates of {router!r} on {prompt['title']!r} have shape {gates.shape}, "
                    f"expected ({len(tokens)}, {len(experts)}): tokens by experts"
                )
            if not (np.isfinite(gates).all() and -1e-3 <= gates.min() <= gates.max() <= 1.001):
                raise ValueError(f"gates of {router!r} on {prompt['title']!r} leave [0, 1]")
            fig.add_heatmap(
                z=np.clip(np.rint(100 * gates.T), 0, 100).astype(np.uint8),
                x=[str(t) for t in range(len(tokens))],
                y=list(experts),
                visible=p == 0,
                coloraxis="coloraxis",
                text=_printed(gates) if len(tokens) <= PRINTED_TOKENS else None,
                texttemplate="%{text}" if len(tokens) <= PRINTED_TOKENS else None,
                textfont={"size": 10},
                hovertemplate=f"%{{x}}<br>{router}: %{{y}} %{{z}} %<extra></extra>",
                xgap=1 if len(tokens) <= 64 else 0,
                ygap=1,
                row=r + 1,
                col=1,
            )
    x_axes = ["xaxis", *(f"xaxis{r}" for r in range(2, len(routers) + 1))]
    buttons = []
    for p, prompt in enumerate(prompts):
        visible = [q == p for q in range(len(prompts)) for _ in routers]
        axes: dict[str, Any] = {}
        for axis in x_axes:
            axes[f"{axis}.labelalias"] = _token_labels(prompt["tokens"])
            axes[f"{axis}.range"] = [-0.5, len(prompt["tokens"]) - 0.5]
        args = [{"visible": visible}, axes]
        # A longer entry would leave a phone's screen.
        label = html.escape(textwrap.shorten(prompt["title"], 38, placeholder="…"), quote=False)
        buttons.append({"label": label, "method": "update", "args": args})
    styled(
        fig,
        title,
        coloraxis={
            "colorscale": GATE_SCALE,
            "cmin": 0,
            "cmax": 100,
            "colorbar": _bar_below("gate, %"),
        },
        updatemenus=[menu(buttons)],
        margin_t=100,
    )
    fig.update_annotations(font_size=13, x=0, xanchor="left")
    fig.update_xaxes(
        type="category",
        labelalias=_token_labels(prompts[0]["tokens"]),
        showgrid=False,
        tickfont_size=11,
    )
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return fig
