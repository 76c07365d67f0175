"""Rules on callbacks that stop a training, or should have stopped it.

Each takes a history and returns a finding, or None if there is nothing to report.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import MIN_EPOCHS, change_epochs
from mlflow_hp.analysis.diagnosis.finding import Change, Finding, epochs
from mlflow_hp.analysis.diagnosis.result import success

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

WATCHING = ("EarlyStopping", "ReduceLROnPlateau")
"""Kinds of Keras' callbacks that watch a metric of the epochs."""
STILL_FALLS = 0.02
"""Fall of the loss in its last epoch, as a share of it, from which a training that was stopped was still learning."""
GOOD_ENOUGH = 0.9
"""Share of the way from a constant prediction to a perfect one from which a training may stop."""
FALLS_FAST = 0.15
"""Fall of a loss over its last epoch, as a share of it, from which more epochs are sure to lower it further: after
twenty epochs that each bring a tenth less than the one before, it would be a quarter."""
FEWEST_STEPS = 5
"""Number of steps in each quarter of a single epoch from which they tell."""
MORE = 5
"""Factor of the number of epochs that is proposed."""


def missing_metric(history: TrainingHistory) -> Finding | None:
    """Detect a callback that watches a metric that no epoch has: Keras warns, and the callback never acts."""
    names = list(history.epoch_metrics)
    for callback in history.program.callbacks if names else ():
        monitor = str(callback.config.get("monitor"))
        if callback.kind not in WATCHING or monitor in names or monitor in ("learning_rate", "None"):
            continue
        closest = (difflib.get_close_matches(monitor, names, 1, 0.0) or names)[0]
        return Finding(
            "metric_that_is_missing",
            "missing metric",
            f"{callback.kind} watches {monitor}, which no epoch has: it never acts. There are {', '.join(names)}.",
            {},
            f'{callback.kind}(monitor="{closest}")',
            severity="problem",
            cause="a callback that watches a missing metric",
            where={"callback": callback.kind},
            change=(Change("monitor", monitor, closest),),
        )
    return None


def stopped_early(history: TrainingHistory) -> Finding | None:
    """Detect an EarlyStopping that ended a training that was still learning.

    The fit has fewer epochs than planned, the loss still fell by over ``STILL_FALLS`` in the last of them, and the
    result is not ``GOOD_ENOUGH``.
    """
    planned, loss = history.program.fit.get("epochs"), history.epochs.get("loss")
    stops = [each for each in history.program.callbacks if each.kind == "EarlyStopping"]
    if not stops or loss is None or not isinstance(planned, int) or not 1 < len(loss) < planned or not history.complete:
        return None
    fall = float(loss[-2] - loss[-1]) / abs(float(loss[-2]) or 1.0)
    reached = success(history)
    if not fall > STILL_FALLS or (reached is not None and reached >= GOOD_ENOUGH):
        return None
    config = stops[0].config
    patience, delta = config.get("patience") or 0, config.get("min_delta") or 0.0
    better = max(5, 2 * int(patience))
    return Finding(
        "stopped_early",
        "stopped too early",
        f"EarlyStopping(patience={patience}, min_delta={abs(delta):g}) ended the training after "
        f"{epochs(len(loss)) if len(loss) > 1 else '1 epoch'} of {planned}, while the loss still fell by {fall:.0%} an "
        "epoch.",
        {"fall_of_last_epoch": fall},
        f'EarlyStopping(monitor="{config.get("monitor")}", patience={better}, min_delta=0)',
        severity="problem",
        cause="EarlyStopping without patience",
        where={"callback": "EarlyStopping", "epoch": len(loss) - 1},
        change=(
            Change("patience", patience, better),
            Change("min_delta", abs(delta), 0.0),
            *change_epochs(history, planned),
        ),
    )


def few_epochs(history: TrainingHistory) -> Finding | None:
    """Detect a training of a few epochs that ends while its losses fall fast, and its result is not `GOOD_ENOUGH`.

    It has fewer epochs than the rules on curves need. Of a single epoch, the mean loss of the last quarter of the steps
    is compared with that of the quarter before.
    """
    n_epochs = history.n_epochs
    if not 1 <= n_epochs < MIN_EPOCHS or not history.complete or history.program.fit.get("epochs") != n_epochs:
        return None
    falls = [fall for name in ("loss", "val_loss") if (fall := _fall_of_last(history, name)) is not None]
    reached = success(history, "val_")
    reached = success(history) if reached is None else reached
    if not falls or min(falls) < FALLS_FAST or (reached is not None and reached >= GOOD_ENOUGH):
        return None
    better = MORE * max(n_epochs, 2)
    count = "1 epoch" if n_epochs == 1 else epochs(n_epochs)
    return Finding(
        "few_epochs",
        "too few epochs",
        f"The training ends after {count}, while its loss falls by {min(falls):.0%} at the end.",
        {"fall_at_end": min(falls), "suggested_epochs": better},
        f"epochs={better}",
        severity="problem",
        cause="too few epochs",
        change=change_epochs(history, better),
    )


def _fall_of_last(history: TrainingHistory, name: str) -> float | None:
    """Fall of a loss at the end, as a share of it; None if it is unknown."""
    values = history.epochs.get(name)
    if values is None or len(values) == 1:
        steps = history.steps.get("batch_loss", np.zeros(0)) if name == "loss" else np.zeros(0)
        if len(steps) < 4 * FEWEST_STEPS:
            return None
        values = np.array([part.mean() for part in np.array_split(steps, 4)])
    before, last = float(values[-2]), float(values[-1])
    return (before - last) / abs(last) if math.isfinite(before - last) and last else None
