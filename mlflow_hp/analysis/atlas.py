"""Atlas of descents over two hyperparameters: how each ends, and the valley of the best learning rates."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis import divergence, not_finite, oscillation, speed
from mlflow_hp.analysis.diagnosis.descent import FAR_ABOVE
from mlflow_hp.history import TrainingHistory
from mlflow_hp.terminal import count

OUTCOMES = ("crawls", "good", "oscillates", "diverges")
"""How a descent can end; its index is the outcome."""
CRAWLS, GOOD, OSCILLATES, DIVERGES = range(4)
LEFT = 0.9
"""Share of the loss at the start from which a training has not left it."""
NEAR_BEST = 1.5
"""Ratio to the lowest loss of its row up to which a descent is good although it would still fall."""
SCALINGS = {0.0: "no dependence", 0.5: "square-root scaling", 1.0: "linear scaling"}
"""Exponents with a name."""
VALLEY = 2.0
"""Ratio to the lowest loss up to which neighbouring values belong to the valley."""
STUCK = -1
"""A descent that has not left its start."""


class Atlas(NamedTuple):
    """Descents over a grid of two hyperparameters, with several seeds each.

    Attributes
    ----------
    x_name, y_name : str
        Names of the hyperparameters.
    x, y : ndarray of float, shape (n_x,), (n_y,)
        Their values, ascending.
    epochs : ndarray of float, shape (n_y, n_x, n_seeds, n_epochs)
        Training loss by epoch.
    loss : ndarray of float, shape (n_y, n_x, n_seeds)
        Loss after the last epoch: of the validation rows where there are some; nan or infinite if it diverged.
    outcomes : ndarray of int8, shape (n_y, n_x, n_seeds)
        How each descent ends, as an index of ``OUTCOMES``.
    loss_name : str
        ``"val_loss"`` or ``"loss"``.
    """

    x_name: str
    y_name: str
    x: np.ndarray
    y: np.ndarray
    epochs: np.ndarray
    loss: np.ndarray
    outcomes: np.ndarray
    loss_name: str

    @property
    def mean_loss(self) -> np.ndarray:
        """Geometric mean of the loss over the seeds, shape (n_y, n_x); infinite where one diverged."""
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.log(np.where(self.loss > 0, self.loss, np.nan)).mean(axis=2)
        logs[(self.outcomes == DIVERGES).any(axis=2) | ~np.isfinite(logs)] = math.inf
        return np.exp(logs)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the descents with each outcome."""
        counts = np.bincount(self.outcomes.ravel(), minlength=len(OUTCOMES)) / self.outcomes.size
        return dict(zip(OUTCOMES, counts.tolist(), strict=True))

    @property
    def valley(self) -> Valley:
        """The lowest loss for each y, and how it moves: see `valley`."""
        return valley(self)

    def sentences(self) -> list[str]:
        """Say what it shows: how many descents end how, the best point, and the valley.

        Returns
        -------
        list of str
            Three sentences.
        """
        verbs = dict(zip(OUTCOMES, ("crawl", "are good", "oscillate", "diverge"), strict=True))
        parts = ", ".join(f"{share:.0%} {verbs[name]}" for name, share in self.shares.items())
        mean = self.mean_loss
        row, column = np.unravel_index(int(np.argmin(mean)), mean.shape)
        where = f"{self.x_name}={self.x[column]:.3g}, {self.y_name}={self.y[row]:g}"
        seeds = count(self.loss.shape[2], "seed")
        return [
            f"Of {self.outcomes.size:,} descents {parts}.",
            f"The lowest {self.loss_name}, {mean[row, column]:.3g} (geometric mean over {seeds}), is at {where}.",
            f"How the best {self.x_name} depends on {self.y_name}: {self.valley.words}.",
        ]

    @property
    def usual_outcomes(self) -> np.ndarray:
        """Outcome of most seeds, int of shape (n_y, n_x); of equally many, the worse."""
        counts = np.stack([(self.outcomes == outcome).sum(axis=2) for outcome in range(len(OUTCOMES))])
        return np.asarray(len(OUTCOMES) - 1 - counts[::-1].argmax(axis=0), np.int8)


def outcome(losses: np.ndarray, epochs: np.ndarray) -> int:
    """Decide how a descent ends, by the rules of `mlflow_hp.analysis.diagnosis`.

    Parameters
    ----------
    losses : ndarray of shape (n_steps,)
        Loss of each batch.
    epochs : ndarray of shape (n_epochs,)
        Training loss by epoch.

    Returns
    -------
    int
        Index of ``OUTCOMES``: it diverges if it is not finite, ends far above its start, or has gone far above and not
        come back below it; it oscillates if it jumps from epoch to epoch; it crawls if it falls steadily and still has
        far to fall. ``STUCK`` if it has not left its start, which may be either: see `in_row`.
    """
    history = TrainingHistory.from_arrays({"batch_loss": losses}, {"loss": epochs})
    if not_finite(history) is not None or divergence(history) is not None:
        return DIVERGES
    start = float(losses[0])  # of the initial weights
    if epochs[-1] > LEFT * start:
        return DIVERGES if float(np.max(losses)) > FAR_ABOVE * start else STUCK
    if oscillation(history) is not None:
        return OSCILLATES
    return CRAWLS if speed(history) is not None else GOOD


def in_row(outcomes: np.ndarray, last: np.ndarray, *, x_is_rate: bool) -> np.ndarray:
    """Complete the outcomes by comparison with the descents of the same row.

    Parameters
    ----------
    outcomes : ndarray of int8, shape (n_y, n_x, n_seeds)
        From `outcome`.
    last : ndarray of float, shape (n_y, n_x, n_seeds)
        Training loss of the last epoch.
    x_is_rate : bool
        Whether x is the learning rate.

    Returns
    -------
    ndarray of int8, shape (n_y, n_x, n_seeds)
        Descents that would still fall are good if their loss is near the lowest of the row. Those that have not left
        their start crawl; but where x is the learning rate, they diverge at rates above that of the lowest loss: too
        large steps have left a network that cannot learn any more.
    """
    finite = np.where(np.isfinite(last), last, np.inf)
    lowest = finite.min(axis=1, keepdims=True)
    is_above = np.arange(last.shape[1])[None, :, None] > finite.argmin(axis=1)[:, None, :]
    stuck = np.where(is_above & x_is_rate, DIVERGES, CRAWLS)
    outcomes = np.where((outcomes == CRAWLS) & (finite <= NEAR_BEST * lowest), GOOD, outcomes)
    return np.where(outcomes == STUCK, stuck, outcomes).astype(np.int8)


class Valley(NamedTuple):
    """Best value of x for each y, and how it depends on y.

    Attributes
    ----------
    best : ndarray of shape (n_y,)
        Value of x with the lowest mean loss: the lowest point of a parabola through the values around it whose loss is
        at most ``VALLEY`` times as large, in logarithms (x as it is where one of its values is 0); nan if the lowest
        lies at the edge of the grid.
    slope, low, high : float
        Exponent b of best ~ y^b, and its 95 % confidence interval; nan with fewer than three values, and where x or y
        has the value 0, for which no power law holds.
    factor : float
        Best value at y = 1.
    has_zero : bool
        Whether x or y has the value 0.
    """

    best: np.ndarray
    slope: float
    low: float
    high: float
    factor: float
    has_zero: bool = False

    @property
    def words(self) -> str:
        """Say which rule the exponent agrees with."""
        if self.has_zero:
            return "no power law is fitted, as an axis has the value 0"
        if not math.isfinite(self.slope):
            return "too few rows have a lowest point inside the grid to tell how it moves"
        inside = [f"{b:g} ({name})" for b, name in SCALINGS.items() if self.low <= b <= self.high]
        verb = "lie" if len(inside) > 1 else "lies"
        rule = f"in which {verb} {' and '.join(inside)}" if inside else "which is none of the known scalings"
        return f"exponent {self.slope:.2f} (95 %: {self.low:.2f} to {self.high:.2f}), {rule}"


def valley(atlas: Atlas) -> Valley:
    """Find the valley of the lowest loss, and fit a power law to it by least squares in logarithms.

    Linear scaling of the learning rate with the batch size: Goyal et al., "Accurate, large minibatch SGD" (2017);
    square-root scaling: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014).

    Parameters
    ----------
    atlas : Atlas

    Returns
    -------
    Valley
    """
    from scipy.stats import linregress, t

    has_zero_x = bool((atlas.x <= 0).any())
    x = atlas.x if has_zero_x else np.log(atlas.x)
    best = np.array([_lowest(x, np.log(row)) for row in atlas.mean_loss])
    known = np.isfinite(best)
    if has_zero_x or (atlas.y <= 0).any():
        return Valley(best if has_zero_x else np.exp(best), math.nan, math.nan, math.nan, math.nan, has_zero=True)
    if known.sum() < 3:
        return Valley(np.exp(best), math.nan, math.nan, math.nan, math.nan)
    fit = linregress(np.log(atlas.y[known]), best[known])
    half = float(t.ppf(0.975, known.sum() - 2)) * fit.stderr
    return Valley(np.exp(best), float(fit.slope), float(fit.slope - half), float(fit.slope + half),
                  math.exp(fit.intercept))  # fmt: skip


def _lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Lowest point of the parabola through the values around the lowest one that are near it; nan at an edge.

    `y` is in logarithms; near is up to ``VALLEY`` times the lowest, and at least one value on each side.
    """
    index = int(np.argmin(y))
    if index in (0, len(y) - 1) or not np.isfinite(y[index]):
        return math.nan
    near = y <= y[index] + math.log(VALLEY)
    first = index - int(np.argmin(near[index::-1])) + 1 if not near[: index + 1].all() else 0
    last = index + int(np.argmin(near[index:])) - 1 if not near[index:].all() else len(y) - 1
    span = slice(min(first, index - 1), max(last, index + 1) + 1)
    xs, ys = x[span] - x[index], y[span]
    xs, ys = xs[np.isfinite(ys)], ys[np.isfinite(ys)]
    if len(xs) < 3:
        return float(x[index])
    second, slope, _ = np.polyfit(xs, ys, 2)
    if second <= 0:
        return float(x[index])
    return float(x[index] + np.clip(-slope / (2 * second), xs[0], xs[-1]))
