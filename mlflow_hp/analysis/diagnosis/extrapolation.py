"""Extrapolation of a curve by epoch to its planned end, with an interval that holds the true value in 90 % of cases.

Many curves are fitted: falling powers and exponentials of the epoch, alone and with a rise as of overfitting, over all,
the last half and the last quarter of the epochs, and the level at the end. The forecast is their median, weighted by
how well each fits the last quarter. Sums and averages of parametric curves: Domhan, Springenberg and Hutter 2015,
Speeding up automatic hyperparameter optimization of deep neural networks by extrapolation of learning curves; Klein et
al. 2017, Learning curve prediction with Bayesian neural networks; a prior of made curves: Adriaensen et al. 2023,
Efficient Bayesian learning curve extrapolation using prior-data fitted networks.

Their own spread is no interval that could be trusted: its width comes from quantile regression of the errors on curves
that were made and recorded for that, as in conformalized quantile regression (Romano, Patterson and Candes 2019).
``python -m benchmarks.forecast --tune`` prints the coefficients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import noise

MIN_VALUES = 4
"""Least number of epochs to extrapolate from."""
MAX_POINTS = 120
"""Longer curves are averaged over as many parts."""
TIMES = (0.04, 0.1, 0.25, 0.6, 1.5)
"""Decay times of the exponentials, as shares of the epochs so far."""
POWERS = (0.25, 0.5, 1.0, 2.0)
"""Exponents of the powers of the epoch."""
WINDOWS = (1.0, 0.5, 0.25)
"""Shares of the epochs, the last ones, that the curves are fitted to."""
FALL, FALL_AND_RISE, LEVEL = 1.0, 0.5, 6.0
"""Prior weights of a fit of each kind; there are dozens of the first two, and two of the last."""
BLOWN_UP = 3.0
"""Ratio of the last values to the lowest above which a positive curve is extrapolated in its logarithm."""
WIDEST = 2.0
"""Limit of each side of the interval, in units of the range of the last half of the values and the expected change."""
ABOVE = (0.866, -0.307, 0.880, 0.322, -0.022, 0.228, 0.315, 0.514, 0.019)
BELOW = (2.818, -0.121, 0.707, 0.266, 0.086, 0.178, 0.028, 0.198, -0.402)
"""Coefficients of the logarithm of the sides of the interval, for the features of `features`."""


class Interval(NamedTuple):
    """Expected value, and the ends of its interval of 90 %."""

    value: float
    low: float
    high: float


class Features(NamedTuple):
    """Extrapolation without its interval, in the curve's own scale: ``offset + scale * value``, or ``exp`` of that.

    `numbers` are the features that the interval's width depends on, `widest` is its limit, and `floor` the least value
    that is possible.
    """

    value: float
    numbers: np.ndarray
    widest: float
    floor: float
    offset: float
    scale: float
    is_log: bool

    def back(self, value: float) -> float:
        """Convert a value from the curve's own scale."""
        value = self.offset + self.scale * value
        return math.exp(min(value, 700.0)) if self.is_log else value


def extrapolate(values: np.ndarray, n_epochs: int) -> Interval:
    """Extrapolate a curve to its last planned epoch.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Finite values of the first n epochs, at least ``MIN_VALUES``.
    n_epochs : int
        Number of planned epochs, more than n.

    Returns
    -------
    Interval
        Value in the last planned epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis.diagnosis.extrapolation import extrapolate
    >>> epoch = np.arange(40)
    >>> ahead = extrapolate(0.5 + (1 + epoch[:20]) ** -0.5, 40)
    >>> ahead.low < 0.5 + 40 ** -0.5 < ahead.high
    True
    """
    ahead = features(values, n_epochs)
    above = min(math.exp(ahead.numbers @ np.array(ABOVE)), ahead.widest)
    below = min(math.exp(ahead.numbers @ np.array(BELOW)), ahead.widest, max(ahead.value - ahead.floor, 0.0))
    low, high = ahead.back(ahead.value - below), ahead.back(ahead.value + above)
    return Interval(ahead.back(ahead.value), low, high)


def features(values: np.ndarray, n_epochs: int) -> Features:
    """Extrapolate a curve, and compute what the width of its interval depends on.

    Parameters
    ----------
    values : ndarray of shape (n,)
        As for `extrapolate`.
    n_epochs : int
        As for `extrapolate`.

    Returns
    -------
    Features
        The extrapolation.
    """
    n, lowest, end = len(values), float(values.min()), float(np.median(values[-3:]))
    is_log = lowest > 0 and end > BLOWN_UP * lowest and end > 2 * float(np.median(values[:3]))
    if is_log:
        values = np.log(values)
    offset = float(values.min())
    scale = float(np.quantile(values, 0.9)) - offset or abs(float(values[-1])) or 1.0
    floor = -offset / scale if offset > 0 and not is_log else -math.inf
    scaled = (values - offset) / scale
    smooth = _without_spikes(scaled)
    jitter = max(noise(scaled), noise(smooth))
    value, spread, deviation = _ensemble(smooth, n_epochs - 1, floor, jitter)
    now = float(np.median(smooth[-max(1, min(3, n // 8)) :]))
    earlier = [int(n * share) for share in (0.5, 0.75) if int(n * share) > MIN_VALUES]
    missed = [abs(now - _ensemble(smooth[:k], n - 1, floor, jitter)[0]) for k in earlier] or [deviation]
    quarter = max(1, n // 4)
    recent = abs(float(smooth[-quarter:].mean()) - float(smooth[-max(2, n // 2) :][:quarter].mean()))
    change, ahead = abs(value - float(np.median(smooth[-3:]))), math.log(n_epochs / n)
    logarithms = np.log(np.array([spread, deviation, float(np.mean(missed)), recent, change]) + 1e-3)
    numbers = np.array([1.0, *logarithms, ahead, ahead**2, math.log(min(n, 200))])
    widest = WIDEST * (float(np.ptp(scaled[-max(4, n // 2) :])) + change)
    return Features(value, numbers, widest, floor, offset, scale, is_log)


def _ensemble(values: np.ndarray, last: float, floor: float, jitter: float) -> tuple[float, float, float]:
    """Weighted median of the fits at epoch `last`, the distance of their deciles, and their standard deviation."""
    epoch, points = _thinned(values)
    ends, errors, priors = _fits(epoch, points, len(values), last, floor)
    weights = (errors + 0.05 * jitter**2 + 1e-12) ** -3.0
    weights = weights / weights.max() * priors
    weights /= weights.sum()
    order = np.argsort(ends)
    places = np.searchsorted(np.cumsum(weights[order]), (0.1, 0.5, 0.9)).clip(max=len(ends) - 1)
    low, middle, high = ends[order][places]
    return float(middle), float(high - low), float(np.sqrt(weights @ (ends - middle) ** 2))


def _fits(
    epoch: np.ndarray, values: np.ndarray, n: int, last: float, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value of each fit at epoch `last`, its mean squared error over the last quarter of the n epochs, its prior."""
    at = np.append(epoch, last)
    falls = np.array([np.exp(-at / (time * n)) for time in TIMES] + [
        (at + shift) ** -power for shift in (1.0, 1 + 0.1 * n) for power in POWERS
    ])  # fmt: skip
    rises = (at / n, np.log1p(at) / math.log1p(n))
    quarter = epoch >= 0.75 * n
    curves, priors = [], []
    for window in WINDOWS:
        inside = np.append(epoch >= (1 - window) * n, False)
        if (n_inside := int(inside.sum())) < MIN_VALUES:
            continue
        target = values[inside[:-1]]
        curves.append(_falling(falls, inside, target, floor))
        priors.append(np.full(len(falls), FALL))
        for rise in rises if n_inside >= 6 else ():
            with_rise = _falling_and_rising(falls, rise, inside, target)
            curves.append(with_rise)
            priors.append(np.full(len(with_rise), FALL_AND_RISE))
    recent = values[quarter] if quarter.any() else values[-1:]
    levels = np.array([np.median(recent), np.mean(values[-3:])])
    curves.append(np.repeat(levels[:, np.newaxis], len(at), axis=1))
    priors.append(np.full(2, LEVEL))
    each = np.concatenate(curves)
    errors = ((each[:, :-1][:, quarter] - values[quarter]) ** 2).mean(axis=1)
    errors[-1] = errors[-2]  # both are the level; the mean of the last three would win by being close to them
    return each[:, -1], errors, np.concatenate(priors)


def _falling(falls: np.ndarray, inside: np.ndarray, target: np.ndarray, floor: float) -> np.ndarray:
    """Least squares of ``c + a f``, a >= 0, for each of `falls`, with the limit c not below the floor."""
    shapes, mean = falls[:, inside], target.mean()
    means = shapes.mean(axis=1)
    centred = shapes - means[:, np.newaxis]
    slope = np.maximum(centred @ (target - mean) / ((centred**2).sum(axis=1) + 1e-300), 0)
    limit = mean - slope * means
    if (below := limit < floor).any():
        through = np.maximum(shapes @ (target - floor) / ((shapes**2).sum(axis=1) + 1e-300), 0)
        slope, limit = np.where(below, through, slope), np.where(below, floor, limit)
    fitted: np.ndarray = limit[:, np.newaxis] + slope[:, np.newaxis] * falls
    return fitted


def _falling_and_rising(falls: np.ndarray, rise: np.ndarray, inside: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares of ``c + a f + b rise`` for each of `falls`; only those with a, b > 0."""
    shapes, mean = falls[:, inside], target.mean()
    means, mean_rise = shapes.mean(axis=1), rise[inside].mean()
    centred, centred_rise = shapes - means[:, np.newaxis], rise[inside] - mean_rise
    ff, fr, rr = (centred**2).sum(axis=1), centred @ centred_rise, float(centred_rise @ centred_rise)
    ft, rt = centred @ (target - mean), float(centred_rise @ (target - mean))
    determinant = ff * rr - fr**2 + 1e-12 * ff * rr + 1e-300
    a, b = (rr * ft - fr * rt) / determinant, (ff * rt - fr * ft) / determinant
    use = (a > 0) & (b > 0)
    a, b, means = a[use, np.newaxis], b[use, np.newaxis], means[use, np.newaxis]
    fitted: np.ndarray = mean - a * means - b * mean_rise + a * falls[use] + b * rise
    return fitted


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of a curve, averaged over ``MAX_POINTS`` parts if it is longer."""
    epoch = np.arange(len(values), dtype=float)
    if len(values) <= MAX_POINTS:
        return epoch, values
    edges = np.linspace(0, len(values), MAX_POINTS + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(epoch, edges[:-1]) / sizes, np.add.reduceat(values, edges[:-1]) / sizes


def _without_spikes(values: np.ndarray) -> np.ndarray:
    """Values limited to four standard deviations of the noise around the running median of five."""
    if len(values) < 5:
        return values
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5)
    median, limit = np.median(windows, axis=1), 4 * max(noise(values), 1e-12)
    return np.clip(values, median - limit, median + limit)
