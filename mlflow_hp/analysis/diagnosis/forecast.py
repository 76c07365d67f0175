"""Forecast of a training that is still running: its final loss, and whether the epochs to come bring anything more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import MIN_EPOCHS, SMALLER, change_rate, epoch_number, first_losses
from mlflow_hp.analysis.diagnosis.extrapolation import MIN_VALUES, Interval, extrapolate
from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.generalization import NEGLIGIBLE
from mlflow_hp.analysis.diagnosis.training import LEVEL
from mlflow_hp.history.step_record import learning_rates

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

CAUTION = 1.5
"""Factor of the lower side of the interval that a fit is ended by: the question is asked after every epoch."""
LASTS = 0.05
"""Share of the planned epochs, at least three, for which the epochs to come must look useless."""
EARLIEST = (0.2, 0.5)
"""Least share of the planned epochs after which a training is called hopeless, at least ``MIN_EPOCHS``; the second is
for a learning rate that changes, since a smaller one may still rescue it."""
LEARNED = 0.03
"""Share of the loss before the first step; a training that has fallen by more has learned something."""
FAR_ABOVE = 0.1
"""The same, for a training that is worse than at its start."""
SCHEDULES = ("LearningRateScheduler", "ReduceLROnPlateau")
"""Callbacks of Keras that change the learning rate."""


class Forecast(NamedTuple):
    """Forecast of the end of a training.

    Attributes
    ----------
    metric : str
        ``val_loss``, or ``loss`` of a training without validation.
    n_epochs : int
        Number of planned epochs.
    n_left : int
        Number of those still to come.
    value : float
        Expected value in the last planned epoch.
    low, high : float
        Ends of its interval of 90 %.
    lowest : float
        Lowest value so far.
    """

    metric: str
    n_epochs: int
    n_left: int
    value: float
    low: float
    high: float
    lowest: float


def forecast(history: TrainingHistory, n_epochs: int | None = None) -> Forecast | None:
    """Forecast the loss of the last planned epoch, by `extrapolate`.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training, as far as it has come.
    n_epochs : int, optional
        Number of planned epochs. Defaults to the recorded one.

    Returns
    -------
    Forecast or None
        The forecast; None if the training is at its end or too short, its plan is unknown, or its loss is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.analysis.diagnosis import forecast
    >>> epoch = np.arange(20)
    >>> history = TrainingHistory.from_arrays({"step": [0]}, {"epoch": epoch, "loss": 0.5 + (1 + epoch) ** -0.5})
    >>> ahead = forecast(history, n_epochs=40)
    >>> ahead.n_left, ahead.low < 0.5 + 40 ** -0.5 < ahead.high
    (20, True)
    """
    metric, values = _values(history)
    planned = planned_epochs(history) if n_epochs is None else n_epochs
    if planned is None or not MIN_VALUES <= len(values) < planned or not np.isfinite(values).all():
        return None
    ahead = extrapolate(values, planned)
    return Forecast(metric, planned, planned - len(values), *ahead, float(values.min()))


def prospects(history: TrainingHistory, n_epochs: int | None = None) -> Finding | None:
    """Decide whether the epochs to come can bring anything: verdict "brings nothing more", or "will not learn".

    They bring nothing more if even the low end of the forecast is no improvement on the lowest loss so far, after this
    epoch as after those before; not asked where the learning rate changes. A training will not learn if it never fell
    below its start, and does not fall: see `will_not_learn`.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training, as far as it has come.
    n_epochs : int, optional
        Number of planned epochs. Defaults to the recorded one.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    metric, values = _values(history)
    planned = planned_epochs(history) if n_epochs is None else n_epochs
    if planned is None or not MIN_EPOCHS <= len(values) < planned or not np.isfinite(values).all():
        return None
    n_left, subject = planned - len(values), "validation" if metric == "val_loss" else "training"
    changes, first = changes_rate(history), first_losses(history)
    start = float(np.median(first[:3])) if len(first) else float(values[0])
    evidence: dict[str, Any] = {"epochs_left": n_left, "lowest_loss": float(values.min())}
    if not history.meta.get("first_epoch") and will_not_learn(values, planned, start, changes=changes):
        level = float(np.median(values[-len(values) // 3 :]))
        text = (
            f"The {subject} loss is {level:.4g} after {len(values)} of {planned} epochs, no lower than the {start:.4g} "
            "that it began with, and does not fall: the epochs to come will not change that."
        )
        if level > start + FAR_ABOVE * abs(start):
            suggestion, numbers, change = change_rate(history, SMALLER**2)
        else:
            suggestion, numbers, change = "another learning rate or initialisation", {}, ()
        evidence |= numbers
        return Finding("forecast", "will not learn", text, evidence, suggestion, severity="problem", change=change)
    if changes or not brings_nothing_more(values, planned):
        return None
    ahead, lowest = extrapolate(values, planned), int(np.argmin(values))
    text = (
        f"The remaining {n_left} of {planned} epochs bring nothing more: the {subject} loss is expected to end at "
        f"{ahead.value:.4g} (90 % interval {ahead.low:.4g} to {ahead.high:.4g}); its lowest so far is "
        f"{values[lowest]:.4g}, of epoch {epoch_number(history, lowest) + 1}."
    )
    evidence |= {"forecast_loss": ahead.value, "forecast_low": ahead.low, "forecast_high": ahead.high}
    changes_of_epochs = (Change("epochs", planned, len(values)),)
    return Finding(
        "forecast", "brings nothing more", text, evidence, f"epochs={len(values)}, which is enough", severity="hint",
        change=changes_of_epochs,
    )  # fmt: skip


def brings_nothing_more(values: np.ndarray, n_epochs: int) -> bool:
    """Whether the low end of the forecast, widened by ``CAUTION``, is no improvement, for ``LASTS`` of the epochs.

    An improvement exceeds ``LEVEL`` of the lowest value so far and ``NEGLIGIBLE`` of the fall to it. A loss that has
    become lower by ``LEVEL`` in those epochs is left alone, however small it is.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Finite values of the first n epochs.
    n_epochs : int
        Number of planned epochs.

    Returns
    -------
    bool
        False if there are too few epochs to tell.
    """
    patience = max(3, math.ceil(LASTS * n_epochs))
    if len(values) < max(MIN_EPOCHS, EARLIEST[0] * n_epochs, MIN_VALUES + patience):
        return False
    n, lowest = len(values), float(values.min())
    if float(values[:-patience].min()) - lowest > LEVEL * abs(lowest):
        return False
    return all(_is_useless(values[:k], n_epochs) for k in (n, n - patience // 2, n - patience))


def _is_useless(values: np.ndarray, n_epochs: int) -> bool:
    lowest = float(values.min())
    tolerance = max(LEVEL * abs(lowest), NEGLIGIBLE * (float(values[0]) - lowest))
    ahead: Interval = extrapolate(values, n_epochs)
    return ahead.value - CAUTION * (ahead.value - ahead.low) > lowest - tolerance


def will_not_learn(values: np.ndarray, n_epochs: int, start: float, *, changes: bool = False) -> bool:
    """Whether a training has never been better than at its start, and does not become better.

    No median of three epochs is below its start by more than ``LEARNED``, and either the last two thirds of the epochs
    are above it by ``FAR_ABOVE`` and do not fall by a standard error from their first half to their second, or their
    fall, plus two standard errors and continued to the last planned epoch, stays within ``LEARNED``.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Finite values of the first n epochs.
    n_epochs : int
        Number of planned epochs.
    start : float
        Loss before the first step.
    changes : bool
        Whether the learning rate changes. Defaults to False.

    Returns
    -------
    bool
        False if there are too few epochs to tell.
    """
    n, unit = len(values), abs(start)
    if n < max(MIN_EPOCHS, EARLIEST[changes] * n_epochs):
        return False
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1)
    if medians.min() < start - LEARNED * unit:
        return False
    last = values[n // 3 :]
    before, after = last[: len(last) // 2], last[len(last) // 2 :]
    with np.errstate(over="ignore"):
        error = float(np.std(np.diff(last))) / 2**0.5 * (1 / len(before) + 1 / len(after)) ** 0.5
    fall = float(np.median(before)) - float(np.median(after))
    if np.median(last) > start + FAR_ABOVE * unit and fall < error:
        return True
    return (fall + 2 * error) / (len(last) / 2) * (n_epochs - n) < LEARNED * unit


def planned_epochs(history: TrainingHistory) -> int | None:
    """Number of epochs that the fit was to have, as recorded.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    int or None
        None if unknown.
    """
    planned = history.program.fit.get("epochs") or history.meta.get("params", {}).get("epochs")
    return int(planned) if isinstance(planned, int | float) and planned > 0 else None


def changes_rate(history: TrainingHistory) -> bool:
    """Whether the learning rate changes in the course of the training, as far as known.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    bool
        True if it has changed, or the optimizer or a callback has a schedule.
    """
    if any(callback.kind in SCHEDULES for callback in history.program.callbacks):
        return True
    optimizers = history.meta.get("optimizers") or {"": history.meta.get("optimizer", {})}
    if any(isinstance(each.get("learning_rate"), str) for each in optimizers.values()):
        return True
    rates = learning_rates(history.steps).values()
    return any(len(rate) > 1 and np.ptp(rate) > 1e-6 * np.abs(rate).max() for rate in rates)


def _values(history: TrainingHistory) -> tuple[str, np.ndarray]:
    """The curve to forecast, with its name."""
    validation = history.epochs.get("val_loss")
    if validation is not None and len(validation) and np.isfinite(validation).all():
        return "val_loss", validation
    return "loss", history.epochs.get("loss", np.zeros(0))
