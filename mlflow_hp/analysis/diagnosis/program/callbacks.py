"""Rules on callbacks that watch a metric."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import accuracies

if TYPE_CHECKING:
    from mlflow_hp.history.program import Callback, Program

GOES_UP = re.compile(
    r"acc(uracy)?$|auc|precision|recall|f1|fbeta|r2|iou|dice|top_?k|similarity|sensitivity|specificity"
)
GOES_DOWN = re.compile(r"loss$|error|mse$|mae$|mape$|msle$|rmse$|divergence|crossentropy|perplexity")
"""Names of metrics that are better when they are larger, and smaller."""


def metric_the_other_way(program: Program) -> Finding | None:
    """Detect a callback that takes a metric's improvement for its decline.

    EarlyStopping then stops a training that improves, ModelCheckpoint stores the worst weights, ReduceLROnPlateau
    lowers the rate. Source: Keras' documentation of each (``mode``). Threshold: ``mode="min"`` for a metric that is
    better when larger, or ``"max"`` for an error or loss, by its name.
    """
    for callback in _watching(program):
        name, mode = str(callback.config.get("monitor")), callback.config.get("mode")
        is_up, is_down = GOES_UP.search(name), GOES_DOWN.search(name)
        if bool(is_up) == bool(is_down) or mode != ("min" if is_up else "max"):
            continue
        right = "max" if is_up else "min"
        effects = {
            "EarlyStopping": "it stops a training that improves",
            "ModelCheckpoint": "it takes the worst epoch for the best",
            "ReduceLROnPlateau": "it lowers the learning rate of a training that improves",
        }
        return Finding(
            "metric_the_other_way",
            "wrong direction",
            f"{callback.kind} watches {name} with mode={mode!r}, but {name} is better when it is "
            f"{'larger' if is_up else 'smaller'}: {effects[callback.kind]}.",
            {},
            f'{callback.kind}(monitor="{name}", mode="{right}")',
            "problem",
            "a callback that watches in the wrong direction",
            {"callback": callback.kind},
            (Change("mode", mode, right),),
        )
    return None


def metric_that_is_missing(program: Program) -> Finding | None:
    """Detect a callback that watches a metric which this training does not have: it never acts.

    Source: Keras' warning "conditioned on metric ... which is not available". Threshold: a metric of validation, by its
    name, without validation data; or an accuracy where none is among the metrics. With callbacks of the user's own,
    which may add metrics, names other than the loss are left alone.
    """
    for callback in _watching(program):
        name = str(callback.config.get("monitor"))
        known = {"EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau", "TerminateOnNaN", "CSVLogger", "TensorBoard",
                 "LearningRateScheduler", "BackupAndRestore", "ProgbarLogger", "History"}  # fmt: skip
        may_be_added = any(each.kind not in known for each in program.callbacks) or program.is_own_step
        is_without_data = name.startswith("val_") and program.fit.get("has_validation") is False
        is_accuracy = re.search(r"(^|_)acc(uracy)?$", name) is not None
        has_none = is_accuracy and bool(program.outputs) and not any(accuracies(each) for each in program.outputs)
        if not (is_without_data or has_none) or (may_be_added and name != "val_loss"):
            continue
        reason = "there is no validation data" if is_without_data else "no accuracy is among the metrics"
        right = name.removeprefix("val_") if is_without_data and not has_none else "val_loss"
        if is_without_data:
            suggestion = "model.fit(..., validation_split=0.2)"
        else:
            suggestion = f'model.compile(..., metrics=["accuracy"]), or {callback.kind}(monitor="val_loss")'
        return Finding(
            "metric_that_is_missing",
            "missing metric",
            f"{callback.kind} watches {name}, but {reason}: it never acts.",
            {},
            suggestion,
            "problem",
            "a callback that watches a missing metric",
            {"callback": callback.kind},
            (Change("monitor", name, right),),
        )
    return None


def _watching(program: Program) -> list[Callback]:
    """Callbacks of Keras' that watch a metric; ModelCheckpoint if it chooses by it."""
    return [
        each
        for each in program.callbacks
        if each.kind in ("EarlyStopping", "ReduceLROnPlateau")
        or (each.kind == "ModelCheckpoint" and each.config.get("save_best_only"))
    ]
