"""Rules on the training loss by epoch: diverging, oscillating, or falling too slowly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import SMALLER, change_rate, curve, first_losses, noise
from mlflow_hp.analysis.diagnosis.finding import Finding, two_digits
from mlflow_hp.analysis.diagnosis.result import success

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

FAR_ABOVE = 2.0
"""Ratio of the last to the first epoch's loss above which training diverged: noise does not double an epoch's mean."""
BLOWN_UP = 10.0
"""Ratio to the first batches' median loss above which it diverged within the first epoch: batches differ by less."""
RISES = 0.3
"""Share of rising epochs above which a loss oscillates: half of them rise in noise or a zig-zag, few in a descent."""
JUMP = (0.1, 0.01)
"""Least size of a jump, as shares of the loss and of its fall. Of the loss: the mean over n samples whose losses vary
as much as they are large has a noise of 1 / sqrt(n), which is less from n = 100 on; and every epoch has the same
samples. Of the fall: a loss near 0 may jump."""
SLOWLY = 0.5
"""Ratio of the falls of two consecutive quarters of the epochs above which as much is still to come: at 1/2, the falls
of all later quarters add up to that of the last."""
MUCH = ((0.1, 0.05), (0.001, 0.5))
"""Pairs of shares, of the loss and of the fall so far; a fall still to come is large if it exceeds both of a pair. The
first is over a tenth of the loss and not negligible; the second over half of the fall so far, as early in training."""
POOR = 0.3
"""Share of the way from a constant prediction to a perfect one below which any fall still to come is a problem."""
LARGE_FALL = 0.15
"""Share of the loss from which a fall still to come is a problem, no hint."""
LARGER = (2.0, 10.0)
"""Least and largest factor to raise a learning rate by: it is searched on a logarithmic scale (Bengio 2012, section
3.3), and a larger step would skip too many values."""


def divergence(history: TrainingHistory) -> Finding | None:
    """Detect a training loss that ends far above its start, though finite (else: ``not_finite``).

    Its median over the last quarter of the epochs exceeds ``FAR_ABOVE`` times the first epoch's mean, or
    ``BLOWN_UP`` times the first batches' median: it can blow up within the first epoch.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    loss = curve(history, "loss")
    if loss is None or loss[0] <= 0:
        return None
    end, first = float(np.median(loss[-_quarter(loss) :])), first_losses(history)[:3]
    start = float(np.median(first)) if len(first) else math.inf
    if end <= FAR_ABOVE * loss[0] and not 0 < BLOWN_UP * start < end:
        return None
    start = min(start, float(loss[0]))
    smaller = change_rate(history, SMALLER)
    text = f"The training loss ends at {end:.3g}, {end / start:.3g} times its start of {start:.3g}."
    return Finding(
        "divergence",
        "diverges",
        text,
        {"loss_growth": end / start, **smaller.evidence},
        smaller.text,
        severity="problem",
        cause="the learning rate is too large",
        change=smaller.change,
    )


def oscillation(history: TrainingHistory) -> Finding | None:
    """Detect a training loss that jumps from epoch to epoch.

    It rises in over ``RISES`` of the epochs, and by more than ``JUMP`` on average, relative to the median loss and to
    the fall from the first epoch to the lowest.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    loss = curve(history, "loss")
    if loss is None:
        return None
    change = np.diff(loss)
    rises, level = change[change > 0], float(np.median(np.abs(loss)))
    share, jump = len(rises) / len(change), float(rises.mean()) if len(rises) else 0.0
    if share < RISES or jump <= max(JUMP[0] * level, JUMP[1] * float(loss[0] - loss.min())):
        return None
    smaller = change_rate(history, SMALLER)
    text = f"The training loss jumps: it rises in {share:.0%} of the epochs, by {jump / level:.0%} of its level each."
    return Finding(
        "oscillation",
        "oscillates",
        text,
        {"share_of_epochs_rising": share, "mean_rise": jump, **smaller.evidence},
        smaller.text,
        severity="problem",
        cause="the learning rate is too large, or the batch too small",
        change=smaller.change,
    )


def speed(history: TrainingHistory) -> Finding | None:
    """Detect slow learning: a training loss that falls steadily and still has far to fall, by `still_to_fall`.

    The suggested factor for the learning rate is the one that would cover nine tenths of the remaining fall in the
    same number of epochs, within ``LARGER``.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    loss = curve(history, "loss")
    expected = None if loss is None else still_to_fall(loss)
    if loss is None or expected is None:
        return None
    quarters = math.log(0.1) / math.log(expected.ratio) if expected.ratio < 1 else math.inf
    factor = float(np.clip(1 + quarters / 4, *LARGER))
    larger = change_rate(history, factor)
    more = int(two_digits(factor * len(loss)))
    evidence = {"expected_fall": expected.fall, **larger.evidence, "suggested_epochs": more}
    text = (
        f"It learns slowly: the training loss falls steadily, each quarter of the epochs by {expected.ratio:.0%} of "
        f"the fall before, and from {loss[-1]:.3g} would fall by some {expected.fall:.2g} more in twice the epochs."
    )
    return Finding(
        "speed",
        "learns slowly",
        text,
        evidence,
        f"{larger.text}, or epochs={more}",
        severity="problem" if expected.fall > LARGE_FALL * abs(float(loss[-1])) or _is_poor(history) else "hint",
        cause="the learning rate is too small, or the training too short",
        change=larger.change,
    )


def _is_poor(history: TrainingHistory) -> bool:
    reached = success(history)
    return reached is not None and reached < POOR


class StillToFall(NamedTuple):
    """Expected fall of a curve in twice the epochs, and the ratio of its fall from quarter to quarter."""

    fall: float
    ratio: float


def still_to_fall(loss: np.ndarray) -> StillToFall | None:
    """Extrapolate a loss by epoch, (n_epochs,); None if it does not fall steadily, or would not fall by much.

    With the means over the last three quarters of the epochs, a, b and c, the falls shrink by r = (b - c) / (a - b)
    from quarter to quarter. As a geometric series, the next four add up to (b - c) (r + r^2 + r^3 + r^4). Steadily: r
    exceeds ``SLOWLY``, and the last fall four standard deviations of the means' noise. Much: more than ``MUCH``.
    """
    size = _quarter(loss)
    a, b, c = (float(part.mean()) for part in np.split(loss[-3 * size :], 3))
    fall, before = b - c, a - b
    if fall <= 4 * noise(loss) * math.sqrt(2 / size) or fall <= SLOWLY * before:
        return None
    shrinks = min(fall / before, 1.0) if before > 0 else 1.0
    ahead = fall * sum(shrinks**i for i in range(1, 5))
    of_loss, of_fall = ahead / max(abs(c), 1e-300), ahead / (float(loss.max()) - c)
    much = any(of_loss > share and of_fall > share_of_fall for share, share_of_fall in MUCH)
    return StillToFall(ahead, shrinks) if much else None


def _quarter(loss: np.ndarray) -> int:
    return max(len(loss) // 4, 1)
