"""Plotly figures as plain data: colours, escaped names, and the common layout."""

from __future__ import annotations

import re
from typing import Any, Literal

from mlflow_hp.compare.formatting import short

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B4EA3", "#C44E52", "#4D9A8A",
)  # fmt: skip
"""Okabe and Ito's palette without black and yellow, which are lost on dark or light, and four more distinct colours."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""Each dash style goes through all colours before the next."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
GREY = "rgba(128,128,128,0.45)"
"""Colour of the lines in the background."""
MAX_NAMED = 20
"""Runs of a figure that have a colour and an entry in the legend."""
MAX_NAME_LENGTH = 48


def text(name: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Escape and shorten a name: Plotly interprets a subset of HTML, and does not shorten."""
    name = short(re.sub(r"[\x00-\x1f\x7f]", " ", name), max_length) or "(no name)"
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def line(index: int, width: float = 1.8) -> dict[str, Any]:
    """Line style number `index` (0-based)."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "width": width, "dash": dash}


def marker(index: int, size: float = 8) -> dict[str, Any]:
    """Marker style number `index` (0-based)."""
    symbol = SYMBOLS[(index + index // len(COLOURS)) % len(SYMBOLS)]
    return {"color": COLOURS[index % len(COLOURS)], "size": size, "symbol": symbol}


def figure(
    data: list[dict[str, Any]], x: dict[str, Any] | str, y: dict[str, Any] | str, height: int = 420, **layout: Any
) -> dict[str, Any]:
    """Make a figure with two axes; a string for an axis is its title."""
    axes = [{"title": {"text": a}} if isinstance(a, str) else a for a in (x, y)]
    shared = [
        {"automargin": True, "zeroline": False, "exponentformat": "power" if axis.get("type") == "log" else "none"}
        for axis in axes
    ]
    n_named = sum(1 for trace in data if trace.get("showlegend", "name" in trace))
    legend_above = {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "font": {"size": 11}}
    return {
        "data": data,
        "layout": {
            "xaxis": shared[0] | axes[0],
            "yaxis": shared[1] | axes[1],
            "height": height + 9 * max(0, n_named - 4),
            "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
            "hovermode": "closest",
            "hoverlabel": {"namelength": -1},
            "legend": legend_above,
            "showlegend": n_named > 0,
        }
        | layout,
    }


def scale(values: list[float]) -> Literal["log", "linear"]:
    """Choose the type of an axis: logarithmic for positive values whose maximum is over 30 times their minimum."""
    return "log" if values and min(values) > 0 and max(values) > 30 * min(values) else "linear"
