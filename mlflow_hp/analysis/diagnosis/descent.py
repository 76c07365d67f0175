"""How the training loss goes down by epoch: too slowly, in jumps, or not at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import change_rate, curve, first_losses, noise
from mlflow_hp.analysis.diagnosis.finding import Finding, two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

SMALLER = 1 / 3
"""Of a learning rate that is too large: a third of it is to be tried, and so on until nothing diverges (Bengio 2012,
Practical recommendations for gradient-based training of deep architectures, section 3.1.1)."""
FAR_ABOVE = 2.0
"""A loss that ends over so many times its first epoch has diverged: noise does not double the mean of an epoch."""
BLOWN_UP = 10.0
"""So many times the first batches' median loss tells that it diverged within the first epoch: batches differ less."""
RISES = 0.3
"""Share of epochs in which a jumping loss rises: noise about a level reverses half, a zig-zag half, a descent few."""
JUMP = (0.1, 0.01)
"""A jump is large over these shares of the loss and of its fall. Of the loss: the mean over n samples whose losses vary
as much as they are large has a noise of 1 / sqrt(n), which is less from n = 100 on; and an epoch has the same samples.
Of the fall: a loss near 0 may jump."""
SLOWLY = 0.5
"""Where a quarter of the epochs brings over this share of the fall that the quarter before it brought, as much is
still to come: at 1/2, the falls of all quarters after it add up to its own."""
MUCH = ((0.1, 0.05), (0.001, 0.5))
"""A fall still to come is much over both shares of a pair, of the loss and of the fall so far: over a tenth of the loss
and more than the last crumbs; or over half of the fall so far, for then training has hardly begun."""
LARGER = (2.0, 10.0)
"""Least and most that a learning rate is raised at once: it is searched on a logarithmic scale (Bengio 2012, section
3.3), and beyond ten times lie too many values untried."""


def divergence(history: TrainingHistory) -> Finding | None:
    """Whether the training loss ends far above its start, though finite (else: ``not_finite``).

    It does where its median over the last quarter of the epochs is over ``FAR_ABOVE`` times the first epoch's mean,
    or over ``BLOWN_UP`` times the first batches' median, for it can blow up within the first epoch.
    """
    loss = curve(history, "loss")
    if loss is None or loss[0] <= 0:
        return None
    end, first = float(np.median(loss[-_quarter(loss) :])), first_losses(history)[:3]
    start = float(np.median(first)) if len(first) else math.inf
    if end <= FAR_ABOVE * loss[0] and not 0 < BLOWN_UP * start < end:
        return None
    start = min(start, float(loss[0]))
    told, evidence = change_rate(history, SMALLER)
    text = f"The training loss ends at {end:.3g}, {end / start:.3g} times the {start:.3g} that it began with."
    return Finding("divergence", "diverges", text, {"loss_growth": end / start, **evidence}, told)


def oscillation(history: TrainingHistory) -> Finding | None:
    """Whether the training loss jumps by epoch: it rises in many, and far.

    In over ``RISES`` of the epochs, by a mean of over ``JUMP`` of the median loss and of the fall from the first
    epoch to the lowest.
    """
    loss = curve(history, "loss")
    if loss is None:
        return None
    change = np.diff(loss)
    rises, level = change[change > 0], float(np.median(np.abs(loss)))
    share, jump = len(rises) / len(change), float(rises.mean()) if len(rises) else 0.0
    if share < RISES or jump <= max(JUMP[0] * level, JUMP[1] * float(loss[0] - loss.min())):
        return None
    told, evidence = change_rate(history, SMALLER)
    text = f"The training loss jumps: it rises in {share:.0%} of the epochs, by {jump / level:.0%} of its level each."
    evidence = {"share_of_epochs_rising": share, "mean_rise": jump, **evidence}
    return Finding("oscillation", "oscillates", text, evidence, told)


def speed(history: TrainingHistory) -> Finding | None:
    """Whether the training loss falls steadily and has still far to go: it learns too slowly.

    By `still_to_fall`. The factor to try for the learning rate is what would bring nine tenths of what is left within
    as many epochs, within ``LARGER``.
    """
    loss = curve(history, "loss")
    still = None if loss is None else still_to_fall(loss)
    if loss is None or still is None:
        return None
    quarters = math.log(0.1) / math.log(still.shrinks) if still.shrinks < 1 else math.inf
    factor = float(np.clip(1 + quarters / 4, *LARGER))
    told, evidence = change_rate(history, factor)
    more = int(two_digits(factor * len(loss)))
    evidence = {"expected_fall": still.ahead, **evidence, "suggested_epochs": more}
    text = (
        f"It learns slowly: the training loss falls steadily, each quarter of the epochs by {still.shrinks:.0%} of the "
        f"fall before, and from {loss[-1]:.3g} it would fall by some {still.ahead:.2g} more in twice the epochs."
    )
    return Finding("speed", "learns slowly", text, evidence, f"{told}, or epochs={more}")


class StillToFall(NamedTuple):
    """The fall that a curve would have in twice the epochs, and a quarter's fall over that of the one before."""

    ahead: float
    shrinks: float


def still_to_fall(loss: np.ndarray) -> StillToFall | None:
    """How a loss by epoch, (n_epochs,), would go on; None where it does not fall steadily, or would not fall by much.

    With the means over the last three quarters of the epochs, a, b and c, the falls shrink by r = (b - c) / (a - b)
    from quarter to quarter. As a geometric series, the next four bring (b - c) (r + r^2 + r^3 + r^4). Steadily: r is
    over ``SLOWLY``, and the last fall over four standard deviations of the means' noise. Much: over ``MUCH``.
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
