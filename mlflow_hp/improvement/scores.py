"""Scores of trainings, and whether one is better than another by more than its noise."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import noise
from mlflow_hp.compare.comparability import LOWER, goal_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history import TrainingHistory

NOISES = 2.0
"""Multiple of the standard deviation of a curve's noise that a real difference exceeds: about 95 % of it is less."""
SHARE_OF_LOSS = 0.01
"""Share of a loss or error that a real difference exceeds: another seed changes it by as much."""
POINTS = 0.005
"""Difference of a score between 0 and 1, such as an accuracy, that a real one exceeds."""
MIN_POINTS = 5
"""Least number of epochs in the second half of a curve for its noise to be measured."""
LOSS_CHANGERS = ("loss", "from_logits", "scale_targets", "targets", "regularizer")
"""Parameters that change what the loss measures, so that the losses before and after cannot be compared."""
UNIT_CHANGERS = ("scale_targets", "targets")
"""Parameters that change the unit of the targets, and so of errors."""
SQUARED = re.compile(r"mse|mean_squared_error|MeanSquaredError")
ABSOLUTE = re.compile(r"mae|rmse|mean_absolute_error|root_mean_squared_error|MeanAbsoluteError|RootMeanSquaredError")
"""Names of errors with the square of the targets' unit, and with that unit itself."""
WITHOUT_UNIT = re.compile(r"acc|auc|precision|recall|f1|f_score|r2|iou|dice|similarity|score")
"""Names of metrics that are better when higher, and mean the same whatever the loss."""

Goal = Literal["min", "max"]


class Scores(NamedTuple):
    """Scores of one training.

    Attributes
    ----------
    values : dict of str to float
        Metrics at the end of the epoch whose model was kept: of the best epoch if ``EarlyStopping`` restored it or
        ``ModelCheckpoint`` saved it, else of the last. And what the function returned, if that was numbers.
    levels : dict of str to (float, float)
        Median of each metric over the second half of the epochs, and its standard error from the noise, where there are
        enough epochs. Defaults to none.
    loss : str
        Name of the loss function; empty if unknown. Defaults to unknown.
    target_std : float or None
        Standard deviation of the targets of a regression, in the unit of its errors. Defaults to None: unknown.

    Examples
    --------
    >>> from mlflow_hp.improvement import Scores
    >>> Scores({"val_loss": 0.5, "val_accuracy": 0.8}, {"val_loss": (0.52, 0.01)}, "mse").values["val_loss"]
    0.5
    """

    values: dict[str, float]
    levels: dict[str, tuple[float, float]] = {}  # noqa: RUF012
    loss: str = ""
    target_std: float | None = None


class ScoreDifference(NamedTuple):
    """Difference of two trainings.

    Attributes
    ----------
    metric : str
        What they were compared by; empty if they have nothing in common.
    gain : float
        How much better the new one is; negative if it is worse, infinite if the other has no finite value.
    is_real : bool
        Whether the difference is larger than the noise.
    """

    metric: str
    gain: float
    is_real: bool


def scores_of(history: TrainingHistory, epoch: int | None = None) -> Scores:
    """Read the scores of a recorded training.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    epoch : int, optional
        Number of the epoch whose model was kept. Defaults to the last.

    Returns
    -------
    Scores
        Without any values if no epoch was finished.
    """
    epochs = history.epochs
    if not history.n_epochs:
        return Scores({})
    numbers = list(epochs["epoch"]) if "epoch" in epochs else []
    index = numbers.index(epoch) if epoch in numbers else -1
    names = [name for name in history.epoch_metrics if name != "learning_rate"]
    levels = {}
    for name in names:
        late = epochs[name][history.n_epochs // 2 :]
        if len(late) >= MIN_POINTS and np.isfinite(late).all():
            levels[name] = float(np.median(late)), noise(late) / math.sqrt(len(late))
    values = {name: float(epochs[name][index]) for name in names}
    return Scores(values, levels, str(history.meta.get("params", {}).get("loss") or ""), _target_std(history))


def compare(
    new: Scores, old: Scores, changed: set[str], metric: str | None = None, goal: Goal | None = None
) -> ScoreDifference:
    """Compare two trainings by the held-out loss, else the loss; by another metric if their losses differ in kind.

    If the losses make no real difference, an accuracy or another score decides that does. If the targets are scaled
    differently, errors are compared in units of the targets' spread.

    Parameters
    ----------
    new, old : Scores
        Scores of the two.
    changed : set of str
        Parameters, as `Change` names them, that differ between the two.
    metric : str, optional
        What to compare by. Defaults to the held-out loss.
    goal : {"min", "max"}, optional
        Whether lower or higher values of `metric` are better. Defaults to what its name says.

    Returns
    -------
    ScoreDifference
        The difference.
    """
    new, old, is_converted = _in_one_unit(new, old)
    changed = changed - set(UNIT_CHANGERS) if is_converted else changed
    name = metric or _common_metric(new, old, changed)
    if not name or (name not in new.values and name not in old.values):
        return ScoreDifference("", 0.0, False)
    difference = _difference(new, old, name, goal or metric_goal(name))
    if difference.is_real or metric is not None:
        return difference
    scores = (each for each in _common_metrics(new, old) if WITHOUT_UNIT.search(each))
    others = (_difference(new, old, each, "max") for each in scores)
    return next((other for other in others if other.is_real), difference)


def _difference(new: Scores, old: Scores, name: str, goal: Goal) -> ScoreDifference:
    """Compare two trainings by one metric."""
    sign = 1 if goal == "max" else -1
    new_value, old_value = (_ranked(scores, name, sign) for scores in (new, old))
    if not (math.isfinite(new_value) and math.isfinite(old_value)):
        gain = 0.0 if new_value == old_value else new_value - old_value
        return ScoreDifference(name, gain, gain != 0.0)
    gain, largest = new_value - old_value, max(abs(new_value), abs(old_value))
    is_real = abs(gain) > (POINTS if goal == "max" and largest <= 1 else SHARE_OF_LOSS * largest)
    if is_real and name in new.levels and name in old.levels:
        (new_level, new_error), (old_level, old_error) = new.levels[name], old.levels[name]
        level_gain = sign * (new_level - old_level) * math.copysign(1, gain)
        is_real = level_gain > NOISES * math.hypot(new_error, old_error)
    return ScoreDifference(name, gain, is_real)


def metric_goal(name: str) -> Goal:
    """Guess from the name of a metric whether lower or higher is better; lower if the name says nothing.

    Parameters
    ----------
    name : str
        Name of a metric.

    Returns
    -------
    {"min", "max"}
        The goal.
    """
    return goal_of(name) if LOWER.search(name) or WITHOUT_UNIT.search(name) else "min"


def main_metric(values: Mapping[str, float]) -> str:
    """Choose the metric to show of a training: its held-out loss, else its loss; empty if it has none.

    Parameters
    ----------
    values : mapping of str to float
        Its scores.

    Returns
    -------
    str
        Name of the metric.
    """
    return next((name for name in ("val_loss", "loss", *values) if name in values), "")


def _common_metric(new: Scores, old: Scores, changed: set[str]) -> str:
    """Choose what two trainings can be compared by; empty if there is nothing."""
    is_other_loss = bool(changed & set(LOSS_CHANGERS)) or (new.loss and old.loss and new.loss != old.loss)
    if not is_other_loss:
        for name in ("val_loss", "loss"):
            has = [name in scores.values for scores in (new, old)]
            if any(has) and all(there or is_broken(scores) for there, scores in zip(has, (new, old), strict=True)):
                return name
    in_units = changed & set(UNIT_CHANGERS)
    for name in _common_metrics(new, old):
        if WITHOUT_UNIT.search(name) or (LOWER.search(name) and not in_units):
            return name
    return ""


def _common_metrics(new: Scores, old: Scores) -> list[str]:
    """Metrics that both trainings have, but for losses: those of held-out data, and without a unit, first."""
    common = [name for name in new.values if name in old.values and not name.removeprefix("val_").endswith("loss")]
    return sorted(common, key=lambda name: (not name.startswith("val_"), not WITHOUT_UNIT.search(name), name))


def _in_one_unit(new: Scores, old: Scores) -> tuple[Scores, Scores, bool]:
    """Divide errors by the spread of the targets if that differs; the last value tells whether that was done."""
    if new.target_std is None or old.target_std is None or math.isclose(new.target_std, old.target_std, rel_tol=0.01):
        return new, old, False
    return _relative(new, new.target_std), _relative(old, old.target_std), True


def _relative(scores: Scores, unit: float) -> Scores:
    """Scores without a unit: errors in units of the targets' spread, without those whose unit is unknown."""
    factors = {}
    for name in scores.values:
        plain = scores.loss if name in ("loss", "val_loss") else name.removeprefix("val_")
        if WITHOUT_UNIT.search(name):
            factors[name] = 1.0
        elif SQUARED.fullmatch(plain):
            factors[name] = 1 / unit**2
        elif ABSOLUTE.fullmatch(plain):
            factors[name] = 1 / unit
    levels = {k: (level * factors[k], e * factors[k]) for k, (level, e) in scores.levels.items() if k in factors}
    return scores._replace(values={k: scores.values[k] * factor for k, factor in factors.items()}, levels=levels)


def _target_std(history: TrainingHistory) -> float | None:
    """Standard deviation of the targets of a network with one output, where it is known, and not 0."""
    statistics = history.program.training
    if statistics is None or len(statistics.targets) != 1:
        return None
    std = float(np.mean(statistics.targets[0].std)) if statistics.targets[0].std else math.nan
    return std if math.isfinite(std) and std > 0 else None


def is_broken(scores: Scores) -> bool:
    """Return whether a training has no finite loss: it was ended before it had a result, or it diverged.

    Parameters
    ----------
    scores : Scores
        Its scores.

    Returns
    -------
    bool
        True if neither the loss nor the held-out loss is finite.
    """
    return not any(math.isfinite(scores.values.get(name, math.nan)) for name in ("loss", "val_loss"))


def _ranked(scores: Scores, name: str, sign: int) -> float:
    """Value of a metric, higher for better; minus infinity for one that is missing or not finite."""
    value = scores.values.get(name, math.nan)
    return sign * value if math.isfinite(value) else -math.inf
