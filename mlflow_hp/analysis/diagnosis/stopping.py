"""Rules on callbacks that stop a training, or should have stopped it.

Each takes a history and returns a finding, or None if there is nothing to report.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.curve import change_epochs
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
