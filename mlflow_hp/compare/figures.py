"""Plotly's figures as plain data: colours, what names become in them, and what all figures share."""

from __future__ import annotations

import re
from typing import Any, Literal

from mlflow_hp.compare.formatting import short

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B4EA3", "#C44E52", "#4D9A8A",
)  # fmt: skip
"""Okabe and Ito's, without black and yellow, which are lost on dark or on light, and four more that stay apart."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""With the next dash the colours begin again."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
BEHIND = "rgba(128,128,128,0.45)"
"""Of what stands behind what is named."""
NAMED = 20
"""So many runs of a figure have a colour and a place in the legend."""
LONGEST_NAME = 48


def text(words: str, longest: int = LONGEST_NAME) -> str:
    """Words as Plotly shows them literally: it takes a subset of HTML, and cuts nothing by itself."""
    words = short(re.sub(r"[\x00-\x1f\x7f]", " ", words), longest) or "(no name)"
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def line(index: int, width: float = 1.8) -> dict[str, Any]:
    """The line of the one that is number `index` (0-based)."""
    dash = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "width": width, "dash": dash}


def marker(index: int, size: float = 8) -> dict[str, Any]:
    """The marker of the one that is number `index` (0-based)."""
    symbol = SYMBOLS[(index + index // len(COLOURS)) % len(SYMBOLS)]
    return {"color": COLOURS[index % len(COLOURS)], "size": size, "symbol": symbol}


def figure(
    data: list[dict[str, Any]], x: dict[str, Any] | str, y: dict[str, Any] | str, height: int = 420, **layout: Any
) -> dict[str, Any]:
    """A figure with two axes; an axis that is given as text has that title."""
    axes = [{"title": {"text": a}} if isinstance(a, str) else a for a in (x, y)]
    shared = [
        {"automargin": True, "zeroline": False, "exponentformat": "power" if axis.get("type") == "log" else "none"}
        for axis in axes
    ]
    names = sum(1 for trace in data if trace.get("showlegend", "name" in trace))
    above = {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "font": {"size": 11}}
    return {
        "data": data,
        "layout": {
            "xaxis": shared[0] | axes[0],
            "yaxis": shared[1] | axes[1],
            "height": height + 9 * max(0, names - 4),
            "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
            "hovermode": "closest",
            "hoverlabel": {"namelength": -1},
            "legend": above,
            "showlegend": names > 0,
        }
        | layout,
    }


def scale(values: list[float]) -> Literal["log", "linear"]:
    """The kind of axis: logarithmic for positive numbers that are spread over powers of ten."""
    return "log" if values and min(values) > 0 and max(values) > 30 * min(values) else "linear"
