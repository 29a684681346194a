"""Figures of mean gates: to whom a router sends the text of each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kalavai_helpers.figure_style import GATE_SCALE, styled


def _cells(gates: np.ndarray) -> list[list[str]]:
    """Whole percents; a cross marks a row whose largest gate is not its own."""
    text = []
    for d, row in enumerate(gates):
        largest = int(row.argmax())
        text.append(
            [
                f"✗ {100 * g:.0f}" if i == largest != d else f"{100 * g:.0f}"
                for i, g in enumerate(row)
            ]
        )
    return text


def gate_matrices(
    frames: Mapping[str, Mapping[str, np.ndarray]],
    experts: Sequence[str],
    slider: str = "",
    title: str = "",
    columns: int = 2,
) -> go.Figure:
    """Draw mean gates as matrices, domains in rows and specialists in columns, with a slider.

    Parameters
    ----------
    frames
        Label of a slider position → panels: title → mean gates (N, N) in [0, 1], row d the text of
        domain d, column i the specialist. Every frame has the same panels.
    experts
        Names of the N domains and of their specialists, in one order.
    slider
        What the slider counts, such as ``"router seed"``.

    Returns
    -------
    plotly.graph_objects.Figure
        uint8 heatmaps (whole percents); a row whose largest gate is not its own has a cross there.

    Raises
    ------
    ValueError
        If there is no frame, panels differ, a shape is not (N, N) or a gate is out of range.
    """
    if not frames:
        raise ValueError("gate_matrices needs at least one frame")
    panels = list(next(iter(frames.values())))
    rows = -(-len(panels) // columns)
    fig = make_subplots(
        rows,
        columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=panels,
        horizontal_spacing=0.03,
        vertical_spacing=0.18 / rows,
    )
    for f, (label, frame) in enumerate(frames.items()):
        if list(frame) != panels:
            raise ValueError(f"frame {label!r} has panels {list(frame)}, not {panels}")
        for p, panel in enumerate(panels):
            gates = np.asarray(frame[panel], dtype=np.float64)
            if gates.shape != (len(experts), len(experts)):
                raise ValueError(
                    f"gates of {panel!r} at {label!r} have shape {gates.shape}, expected "
                    f"({len(experts)}, {len(experts)}): domains by specialists"
                )
            if not (np.isfinite(gates).all() and -1e-3 <= gates.min() <= gates.max() <= 1.001):
                raise ValueError(f"gates of {panel!r} at {label!r} leave [0, 1]")
            fig.add_heatmap(
                z=np.clip(np.rint(100 * gates), 0, 100).astype(np.uint8),
                x=list(experts),
                y=list(experts),
                zmin=0,
                zmax=100,
                colorscale=GATE_SCALE,
                showscale=False,
                visible=f == 0,
                text=_cells(gates),
                texttemplate="%{text}",
                textfont={"size": 11},
                hovertemplate=f"{panel}<br>%{{y}} text: %{{z}} % to the %{{x}} specialist"
                "<extra></extra>",
                xgap=1,
                ygap=1,
                row=p // columns + 1,
                col=p % columns + 1,
            )
    steps = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [g == f for g in range(len(frames)) for _ in panels]}],
        }
        for f, label in enumerate(frames)
    ]
    styled(fig, title)
    if len(frames) > 1:
        fig.update_layout(
            sliders=[
                {
                    "steps": steps,
                    "currentvalue": {"prefix": f"{slider}: ", "font": {"size": 13}},
                    "x": 0,
                    "len": 1,
                    "y": 0,
                    "yanchor": "top",
                    "pad": {"t": 62, "l": 6, "r": 6},
                }
            ],
            margin_b=112,
        )
    fig.update_annotations(font_size=12)
    fig.update_xaxes(type="category", showgrid=False, tickfont_size=11)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False, tickfont_size=11)
    return fig
