"""House style of the figures: colours, symbols, dashes, scales and the plotly template."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

#: One colour per domain, and per kind of method, for the whole book. Relative luminance lies between 0.13 and 0.30, so
#: that a line reaches a contrast of 3:1 on the light page and on the dark one.
DOMAIN_COLOURS: dict[str, str] = {
    "base": "#808080",
    "general": "#798898",
    "code": "#2a80e2",
    "science": "#e15e03",
    "fiction": "#9847ca",
    "tamil": "#0fa577",
    "yoruba": "#b9850d",
    "welsh": "#dd226c",
    "spanish": "#e15342",
    "hindi": "#d57703",
    "swahili": "#409d48",
    "vietnamese": "#00a0a0",
    "arabic": "#60892c",
    "indonesian": "#d33949",
    "thai": "#7968eb",
    "medical": "#0f9ebe",
    "legal": "#927049",
    "patent": "#7391b2",
    "math": "#5961f0",
    "finance": "#8b9700",
    "chemistry": "#d858c2",
    "dialogue": "#10888d",
    "instructions": "#bc7b9a",
    # kinds of methods, so that two gain figures on a page agree
    "specialist": "#3583dd",
    "single model": "#b28717",
    "fused": "#9350c4",
    "oracle": "#1ba174",
    "dense": "#808890",
}
SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash"]
#: Symbol and dash of a domain: a second and a third cue beside the colour.
DOMAIN_SYMBOLS: dict[str, str] = {
    name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(DOMAIN_COLOURS)
}
DOMAIN_DASHES: dict[str, str] = {
    name: DASHES[i % len(DASHES)] for i, name in enumerate(DOMAIN_COLOURS)
}

#: Gates (0 to 1) are drawn in cividis, which reads the same with and without colour vision.
GATE_SCALE = "Cividis"
# Blue is better than the reference, orange is worse; grey in the middle, where nothing changed.
# Light enough all along for dark text.
DIVERGING_SCALE = [
    [0.0, "#5a9fe0"],
    [0.5, "#eeeeee"],
    [1, "#ef8b45"],
]
# Lower losses are bluer, for a loss matrix without a row to compare with.
LOSS_SCALE = [[0.0, "#5a9fe0"], [1, "#eeeeee"]]
DARK_TEXT = "#16191d"
NEUTRAL = "#808890"  # reads on both themes: references, error bars, frames
FONT = "Inter, 'Source Sans 3', -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


def _template(ink: str, grid: str, paper: str) -> go.layout.Template:
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
        "ticklabelstandoff": 4,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {"x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 15}},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(DOMAIN_COLOURS.values())[2:8],
            "margin": {"l": 8, "r": 12, "t": 44, "b": 8},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "x": 0,
            },
            "hoverlabel": {"bgcolor": paper, "bordercolor": grid, "font": {"color": ink}},
        }
    )


pio.templates["kalavai"] = _template("#24292f", "#dfe3e8", "#ffffff")
pio.templates["kalavai_dark"] = _template("#d7dce2", "#39414a", "#171b21")


def styled(fig: go.Figure, title: str, **layout: Any) -> go.Figure:
    """Put the house template, the title and further layout on a figure, and return it."""
    fig.update_layout(template="kalavai", **layout)
    if title:
        fig.update_layout(title_text=title)
    return fig


def printed(value: float, number_format: str) -> str:
    """Return a value as a figure prints it: with the minus sign of its axes."""
    return f"{value:{number_format}}".replace("-", "\u2212")


def colour_of(name: str, index: int) -> str:
    """Return the colour of a domain; for another name the ``index``-th of the colour cycle."""
    fallback = list(DOMAIN_COLOURS.values())[2:8]
    return DOMAIN_COLOURS.get(name, fallback[index % len(fallback)])


def faded(colour: str, alpha: float = 0.16) -> str:
    """Return ``#rrggbb`` as a translucent fill."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def menu(buttons: list[dict[str, Any]], gap: int = 34, **options: Any) -> dict[str, Any]:
    """Return a menu above the left corner of a figure; ``options`` are those of updatemenus.

    Parameters
    ----------
    buttons
        What plotly calls the buttons of an updatemenu.
    gap
        Pixels between the menu and the plot.
    """
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": gap}}
    return {"buttons": buttons, **place, "showactive": True, **options}
