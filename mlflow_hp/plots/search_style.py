"""What the pictures of a search share: names that fit, where a score axis ends, a title, a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.figure import figure_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults

FAR_BELOW = 10.0
"""Scores are cut off that lie so many times further below the median than the best lies above the lower quartile."""
LONGEST = 60
"""Letters of a candidate's name in a row of a picture."""
LONGEST_IN_LEGEND = 110
LONGEST_VALUE = 24
"""Letters of a parameter's value."""


def say(axes: Axes, title: str) -> None:
    """A small title that says what is drawn and what is left out."""
    axes.set_title(title, fontsize=8, color="#555555", loc="left", wrap=True)


def legend_below(axes: Axes) -> None:
    """Put the legend below the picture, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center")


def lowest_shown(scores: np.ndarray) -> float:
    """The lower edge of a picture: the lowest score that is not far below most others."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return 0.0
    quartile, middle = np.quantile(finite, [0.25, 0.5])
    near = finite[finite >= middle - FAR_BELOW * (finite.max() - quartile)]
    return float(near.min() if finite.max() > quartile else finite.min())


def limits_of(mean: np.ndarray, std: np.ndarray, low: float) -> tuple[float, float]:
    """The ends of a score axis with a margin; bars that reach below those that are shown are cut off."""
    if not mean.size:
        return 0.0, 1.0
    top = float((mean + std).max())
    span = top - low or abs(top) or 1.0
    reach = float(np.where(mean >= low, mean - std, low).min())
    return max(reach, low - 0.25 * span) - 0.04 * span, top + 0.04 * span


def row_labels(results: SearchResults, chosen: np.ndarray) -> tuple[list[str], str]:
    """Names of the candidates `chosen`: where they get long the values alone, and then what these are."""
    names = results.labels
    labels = [names[index] for index in chosen]
    key = ""
    if len(results.parameters) > 1 and max(map(len, labels), default=0) > LONGEST:
        parameters = [results.parameter(name) for name in results.parameters]
        labels = [" | ".join(p.labels[p.codes[index]] for p in parameters) for index in chosen]
        key = f"names: {' | '.join(results.parameters)}"
    return [short(label, LONGEST) for label in labels], short(key, 2 * LONGEST_IN_LEGEND)


def digits_of(value: float, span: float) -> str:
    """A value with as many digits as tell it from others over `span`."""
    if abs(value) >= 1e6 or not span > 0:
        return f"{value:.3g}"
    return f"{value:.{int(np.clip(2 - np.floor(np.log10(span)), 0, 6))}f}"
