"""Helpers shared by the plots of a search: shortened names, limits of the score axis, note and legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.figure import figure_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults

FAR_BELOW = 10.0
"""Scores further below the median than this many times the distance from lower quartile to best are cut off."""
MAX_NAME_LENGTH = 60
"""Letters of a candidate's name in a row."""
MAX_LEGEND_LENGTH = 110
MAX_VALUE_LENGTH = 24
"""Letters of a parameter's value."""


def add_note(axes: Axes, note: str) -> None:
    """Write a small note above the axes on what is drawn and what is left out."""
    axes.set_title(note, fontsize=8, color="#555555", loc="left", wrap=True)


def legend_below(axes: Axes) -> None:
    """Put the legend below the axes, where it covers nothing; none if nothing drawn has a label."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure_of(axes).legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center")


def lowest_shown(scores: np.ndarray) -> float:
    """Lower edge of a plot: the lowest score that is not far below most others."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return 0.0
    quartile, middle = np.quantile(finite, [0.25, 0.5])
    near = finite[finite >= middle - FAR_BELOW * (finite.max() - quartile)]
    return float(near.min() if finite.max() > quartile else finite.min())


def limits_of(mean: np.ndarray, std: np.ndarray, low: float) -> tuple[float, float]:
    """Limits of a score axis, with a margin; error bars that reach far below `low` are cut off."""
    if not mean.size:
        return 0.0, 1.0
    top = float((mean + std).max())
    span = top - low or abs(top) or 1.0
    reach = float(np.where(mean >= low, mean - std, low).min())
    return max(reach, low - 0.25 * span) - 0.04 * span, top + 0.04 * span


def row_labels(results: SearchResults, chosen: np.ndarray) -> tuple[list[str], str]:
    """Label the candidates `chosen`; long labels have the values only, and the second result names the parameters."""
    names = results.labels
    labels = [names[index] for index in chosen]
    key = ""
    if len(results.parameters) > 1 and max(map(len, labels), default=0) > MAX_NAME_LENGTH:
        parameters = [results.parameter(name) for name in results.parameters]
        labels = [" | ".join(p.labels[p.codes[index]] for p in parameters) for index in chosen]
        key = f"names: {' | '.join(results.parameters)}"
    return [short(label, MAX_NAME_LENGTH) for label in labels], short(key, 2 * MAX_LEGEND_LENGTH)


def format_value(value: float, span: float) -> str:
    """Format a value with enough digits to distinguish it from others within `span`."""
    if abs(value) >= 1e6 or not span > 0:
        return f"{value:.3g}"
    return f"{value:.{int(np.clip(2 - np.floor(np.log10(span)), 0, 6))}f}"
