"""Data of a linear regression, with lines through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FitInfo(NamedTuple):
    """Data and regression lines: x, y (n,), label -> (w, b) of each line, and labels of the axes.

    Attributes
    ----------
    x : ndarray of shape (n,)
        Feature.
    y : ndarray of shape (n,)
        Target.
    lines : dict of str to tuple of float
        Label -> (w, b) of each line.
    labels : tuple of str
        Names of the two axes.
    """

    x: np.ndarray
    y: np.ndarray
    lines: dict[str, tuple[float, float]]
    labels: tuple[str, str]


def draw_fit(info: FitInfo, axes: Axes | None = None) -> Axes:
    """Draw the data and each line ``y = w x + b``.

    Parameters
    ----------
    info : FitInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    axes = new_axes() if axes is None else axes
    axes.plot(info.x, info.y, "o", color=COLOURS[7], alpha=0.45, markersize=4, label="data")
    ends = np.array([info.x.min(), info.x.max()])
    for index, (label, (w, b)) in enumerate(info.lines.items()):
        if np.isfinite([w, b]).all():
            axes.plot(ends, w * ends + b, color=COLOURS[1 - index % 2], linewidth=2.2, label=label,
                      linestyle=("-", "--")[index % 2])  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1])
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, loc="best")
    finish(axes, "data and regression line")
    return axes
