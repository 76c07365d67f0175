"""Round numbers for ticks, contours and the edges of cells, and their short texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.ticker import MaxNLocator

LINEAR_STEPS = (1, 2, 5, 10)
"""Distances of ticks, times a power of ten."""
LOG_STEPS = ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,))
"""Ticks in each decade, from the most to the fewest."""
COMMAS_FROM = 5e3
"""A linear axis that reaches this far has labels with commas; else all have equally many digits."""
MAX_DECADES = 50
"""Largest distance of ticks, in decades."""
DECADES_LABELLED = 1.8
"""A logarithmic axis over fewer decades has labels at 1, 2 and 5 times each power of ten."""
PLAIN_FROM, PLAIN_BELOW = 1e-4, 1e6
"""Numbers of this size are written without a power of ten."""
MINUS = "\N{MINUS SIGN}"
COLOUR_BAR = "<colorbar>"
"""Matplotlib's label of the axes of a colour bar."""
TOLERANCE = 0.4
"""Largest share of the gap to the next number by which `rounded` moves a number."""


def tick_text(value: float) -> str:
    """Text of a round number: ``0.01``, ``25,000``, ``2e-7``."""
    if value == 0 or PLAIN_FROM <= abs(value) < PLAIN_BELOW:
        return f"{value:,.10g}"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def round_values(low: float, high: float, most: int = 6, *, log: bool = False) -> np.ndarray:
    """Compute round numbers from `low` to `high`, at most `most` (at least 2), as ticks.

    Parameters
    ----------
    low, high : float
        Ends of the range, both included.
    most : int
        Largest number of ticks. Defaults to 6.
    log : bool
        Whether they are evenly spread on a logarithmic axis; `low` is positive then. Defaults to False.

    Returns
    -------
    ndarray of shape (n,)
        Ascending; both ends where no round numbers lie between.
    """
    values = _log_edges(low, high, most - 1) if log else _linear_edges(low, high, most - 1)
    margin = (1e-9 * low, 1e-9 * high) if log else (1e-9 * (high - low),) * 2
    inside = values[(values >= low - margin[0]) & (values <= high + margin[1])]
    return inside if len(inside) > 1 else np.unique([low, high])


def round_edges(low: float, high: float, most: int, *, log: bool = False) -> np.ndarray:
    """Compute edges at round numbers of at most `most` intervals that cover `low` to `high`; arguments as above."""
    return _log_edges(low, high, most) if log else _linear_edges(low, high, most)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round ascending `values` (n,) to as few digits as keep each within ``TOLERANCE`` of the gap to its neighbours."""
    gaps = np.diff(values)
    if not len(gaps):
        return values
    room = TOLERANCE * np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
    result = values.copy()
    for index, (value, nearest) in enumerate(zip(values, room, strict=True)):
        texts = (float(f"{value:.{digits}g}") for digits in range(1, 17))
        result[index] = next((text for text in texts if abs(text - value) <= nearest), value)
    return result


def round_ticks(axes: Axes) -> None:
    """Put ticks with short labels at round numbers of both axes, and of the other axes of the figure: colour bars."""
    colour_bars = [other for other in axes.figure.axes if other.get_label() == COLOUR_BAR]
    for each in (axes, *colour_bars):
        for axis in (each.xaxis, each.yaxis):
            _round_ticks(axis)


def whole_ticks() -> MaxNLocator:
    """Make a locator of ticks at round whole numbers: steps, epochs, folds."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator("auto", integer=True, steps=list(LINEAR_STEPS))


def _round_ticks(axis: Axis) -> None:
    from matplotlib.ticker import (
        AutoLocator,
        FuncFormatter,
        LogFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
        NullLocator,
        ScalarFormatter,
    )

    formatter: Any = axis.get_major_formatter()
    if isinstance(axis.get_major_locator(), AutoLocator):
        axis.set_major_locator(MaxNLocator("auto", steps=list(LINEAR_STEPS)))
    if isinstance(formatter, ScalarFormatter) and not isinstance(axis.get_major_locator(), NullLocator):
        low, high = sorted(axis.get_view_interval())
        largest = max(abs(low), abs(high))
        if COMMAS_FROM <= largest < PLAIN_BELOW and high - low > 1e-3 * largest:
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value).replace("-", MINUS)))
    elif isinstance(formatter, LogFormatter) and isinstance(axis.get_major_locator(), LogLocator):
        low, high = sorted(axis.get_view_interval())
        if low <= 0:
            return
        decades = float(np.log10(high / low))
        if decades < DECADES_LABELLED:
            axis.set_major_locator(LogLocator(subs=LOG_STEPS[1] if decades > 0.7 else LOG_STEPS[0], numticks=20))
            axis.set_minor_formatter(NullFormatter())
        if low >= PLAIN_FROM and high < PLAIN_BELOW:
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value).replace("-", MINUS)))
            axis.set_minor_formatter(NullFormatter())


def _linear_edges(low: float, high: float, most: int) -> np.ndarray:
    from matplotlib.ticker import MaxNLocator

    return np.asarray(MaxNLocator(max(most, 1), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))


def _log_edges(low: float, high: float, most: int) -> np.ndarray:
    """Edges from the last round number that is not above `low` to the first that is not below `high`."""
    decades = np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    candidates = [np.multiply.outer(10.0**decades, steps).ravel() for steps in LOG_STEPS]
    wide = np.arange(max(decades[0] - MAX_DECADES, -300), min(decades[-1] + MAX_DECADES, 300))
    candidates += [10.0 ** wide[wide % every == 0] for every in range(2, MAX_DECADES)]
    tolerance = 1e-9
    edges = candidates[-1]
    for values in candidates:
        below, above = values[values <= low * (1 + tolerance)], values[values >= high * (1 - tolerance)]
        if not len(below) or not len(above):
            continue
        edges = values[(values >= below[-1]) & (values <= above[0])]
        if len(edges) - 1 <= most:
            break
    return np.asarray(edges)
