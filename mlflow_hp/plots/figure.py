"""Figures without global state, and the colours that all pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's, which stay apart for colour-blind readers; grey for what stands behind."""
DECADES_FOR_LOG = 2.0
"""Positive numbers that span more decades than this are drawn on a logarithmic axis."""


def new_axes(width: float = 8.0, height: float = 5.0) -> Axes:
    """The axes of a new figure, `width` by `height` inches."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), dpi=120, layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save(axes: Axes, file: Path | str) -> Path:
    """Write the figure of `axes` to `file`, whose folder is made where it is missing."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def log_if_wide(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis where all of `values` that are finite are positive and span over two decades."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and np.log10(finite.max() / finite.min()) > DECADES_FOR_LOG:
        axes.set_yscale("log")


def figure_of(axes: Axes) -> Figure:
    """The figure that holds `axes`."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure
