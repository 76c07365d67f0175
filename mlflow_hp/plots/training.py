"""Plots of one training: loss by batch and by epoch, weights and learning rate by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.smoothing import centred_mean, window_width
from mlflow_hp.history.step_record import batch_values, learning_rates
from mlflow_hp.plots.curves import Curve as Curve  # noqa: PLC0414 - public here, as are the others
from mlflow_hp.plots.curves import CurvesInfo as CurvesInfo  # noqa: PLC0414
from mlflow_hp.plots.curves import curves_info as curves_info  # noqa: PLC0414
from mlflow_hp.plots.curves import draw_curves as draw_curves  # noqa: PLC0414
from mlflow_hp.plots.curves import on_one_scale as on_one_scale  # noqa: PLC0414
from mlflow_hp.plots.figure import MAX_DRAWN
from mlflow_hp.plots.wording import metric_in_words as metric_in_words  # noqa: PLC0414

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history import TrainingHistory


def loss_by_batch(history: TrainingHistory, width: int | None = None) -> CurvesInfo:
    """Compute curves by step: the loss of each batch, its centred moving average, and the validation loss.

    Keras' running loss begins again at each epoch, and can rise while the loss falls: it is drawn only where the losses
    of the batches are unknown. The validation loss stands at the last step of its epoch. A training without a
    ``loss``, such as one of several networks, has the curves of all its values of batches.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    width : int, optional
        Number of batches, odd, that the moving average is over. Defaults to a twentieth of all, from 5 to 501.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    steps = history.steps
    curves = []
    if "batch_loss" in steps:
        loss = np.asarray(steps["batch_loss"], np.float64)
        width = window_width(len(loss)) if width is None else width
        curves = [Curve(steps["step"], loss, "each batch", "points")]
        if len(loss) >= width:
            mean = centred_mean(np.where(np.abs(loss) <= MAX_DRAWN, loss, np.nan), width)
            curves.append(Curve(steps["step"], mean, f"mean of the {width} batches around"))
    elif "running_loss" in steps:
        curves = [Curve(steps["step"], steps["running_loss"], "mean since the beginning of the epoch", "points")]
    if not curves:
        curves = [Curve(steps["step"], values, name, "points") for name, values in batch_values(steps).items()]
    elif "epoch" in steps and "val_loss" in history.epochs:
        last = {int(epoch): step for epoch, step in zip(steps["epoch"], steps["step"], strict=True)}
        epochs = history.epochs["epoch"]
        known = np.array([int(epoch) in last for epoch in epochs], bool)
        at = np.array([last[int(epoch)] for epoch in epochs[known]])
        if known.any():
            curves.append(Curve(at, history.epochs["val_loss"][known], "validation, after each epoch", "marked"))
    return curves_info(curves, "step", _with_loss_name("loss", history), title="loss of each batch")


def metric_by_epoch(history: TrainingHistory, metric: str = "loss") -> CurvesInfo:
    """Compute curves of a metric of training and validation by epoch.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    metric : str
        Name of the metric. Defaults to ``"loss"``.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    names = {"training": metric, "validation": f"val_{metric}"}
    curves = [
        Curve(history.epochs["epoch"], history.epochs[name], label)
        for label, name in names.items()
        if name in history.epochs
    ]
    words = metric_in_words(metric)
    return curves_info(curves, "epoch", _with_loss_name(words, history), title=f"{words} by epoch")


def learning_rate_by_step(history: TrainingHistory) -> CurvesInfo:
    """Compute the curve of the learning rate by step.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    rates = learning_rates(history.steps)
    curves = [Curve(history.steps["step"], rate, name, "steps") for name, rate in rates.items()]
    return curves_info(curves, "step", "learning rate")


def weights_by_step(values: np.ndarray, name: str, references: Mapping[str, float] | None = None) -> CurvesInfo:
    """Compute the curve of a weight: `values` (n_steps + 1,), of which the first, before step 0, is drawn at -1.

    Parameters
    ----------
    values : ndarray of shape (n_steps + 1,)
        The weight.
    name : str
        Label of the axis.
    references : mapping of str to float, optional
        Label -> height of a dashed line. Defaults to None.

    Returns
    -------
    CurvesInfo
        Numbers for `draw_curves`.
    """
    curve = Curve(np.arange(-1, len(values) - 1), np.asarray(values, np.float64), name)
    return curves_info([curve], "step (-1: before the first)", name, references)


def _with_loss_name(label: str, history: TrainingHistory) -> str:
    """Name the loss function behind the label ``loss``, if a single one was recorded."""
    name = (history.meta.get("params") or {}).get("loss")
    return f"{label} ({metric_in_words(name)})" if label == "loss" and isinstance(name, str) and name else label
